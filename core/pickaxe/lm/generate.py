"""What to generate, and what the engine notes about it on its way."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pickaxe.data import Sampling
from pickaxe.errors import DoesNotFit, InvalidItems, InvalidParams
from pickaxe.lm.cache import KV
from pickaxe.lm.outcome import Outcome
from pickaxe.lm.processors import LogitsProcessor, TokenTrie
from pickaxe.lm.sampling import Draw
from pickaxe.lm.transcript import Step, Transcript
from pickaxe.randomness import generator

if TYPE_CHECKING:
    from pickaxe.call import Call
    from pickaxe.lm.grammar import Grammar
    from pickaxe.tokenizers import Tokenizer


@dataclass(frozen=True)
class Generation:
    """What to generate.  `sampling.n` continuations of one prompt, at most `batch` of them decoded together.

    `past` (one row) holds what comes before `prompt_ids` and was read already, e.g. an instruction that many
    prompts share.  With `allowed`, every continuation is exactly one of these; with `grammar`, it follows
    that.  `sampling.max_tokens` None: until the context is full; `seed` None: the call's.  A prompt
    that was read to its end comes as `past` with `first`, the logits (vocab,) after it, and no `prompt_ids`.
    """

    prompt_ids: Sequence[int]
    sampling: Sampling = field(default_factory=Sampling)
    processors: tuple[LogitsProcessor, ...] = ()
    allowed: TokenTrie | None = None
    batch: int = 16
    past: KV | None = None
    first: np.ndarray | None = None
    grammar: Grammar | None = None


class Ticket:
    """One request on its way through the engine.

    The thread that leads a step writes it; the thread that asked reads `unread`, then `finished` and `error`.
    """

    def __init__(self, request: Generation, draw: Draw, limit: int, tokenizer: Tokenizer, call: Call) -> None:
        self.request = request
        self.call = call
        self.unread: deque[Step] = deque()
        """Steps that nobody has taken yet."""
        self.finished = False
        self.error: Exception | None = None
        self.gone = False
        """Whoever asked does not want the rest."""
        self.rest = np.asarray(request.prompt_ids, dtype=np.int64)
        """Tokens of the prompt that are still to be read."""
        self.read: KV | None = request.past
        """Keys and values of what was read of the prompt; None too when no sample is left that begins with it."""
        self.first: Outcome | None = None if request.first is None else Outcome.of(request.first[None])
        """What may follow the prompt, once it was read."""
        self.rows = 0
        """Samples that are being decoded."""
        self.begun = 0
        self.draw = draw
        self.limit = limit
        self._tokenizer = tokenizer
        self._seed = call.seed if request.sampling.seed is None else request.sampling.seed

    @property
    def length(self) -> int:
        """Most tokens that one row of this request can come to hold."""
        past = 0 if self.request.past is None else self.request.past.width
        return past + len(self.request.prompt_ids) + self.limit

    @property
    def exhausted(self) -> bool:
        """No sample is left to begin."""
        return self.begun == self.request.sampling.n

    def begin(self) -> Row:
        """The next sample, with nothing said yet."""
        sample, request = self.begun, self.request
        self.begun += 1
        transcript = Transcript(
            self._tokenizer,
            self.limit,
            sample=sample,
            stop=request.sampling.stop,
            processors=request.processors,
            allowed=request.allowed,
            grammar=request.grammar,
        )
        return Row(self, transcript, generator(self._seed, "sample", sample))


@dataclass
class Row:
    """One sample that is being decoded."""

    ticket: Ticket
    transcript: Transcript
    random: np.random.Generator

    def advance(self, outcome: Outcome, place: int) -> None:
        """Draw the next token, from this place of what a step says; an error (a processor's, say) ends this request
        and no other."""
        try:
            self.ticket.unread.append(self._drawn(outcome, place))
        except Exception as error:  # noqa: BLE001 - whoever waits for the token raises it
            self.ticket.error = error

    def _drawn(self, outcome: Outcome, place: int) -> Step:
        total = outcome.total[place]
        if self.ticket.draw.temperature == 0 and self.transcript.free:
            return self.transcript.take(int(outcome.best[place]), float(outcome.peak[place] - total))
        return self.transcript.draw(outcome.logits[place], total, self.ticket.draw, self.random)

    @property
    def over(self) -> bool:
        return self.transcript.finished or self.ticket.gone or self.ticket.error is not None


def check(request: Generation, context: int, vocab: int, model: str) -> int:
    """Most tokens of a sample; raises `InvalidParams`, `InvalidItems` or `DoesNotFit`."""
    sampling, ids = request.sampling, np.asarray(request.prompt_ids, dtype=np.int64)
    if sampling.n < 1 or request.batch < 1:
        raise InvalidParams("n", f"is {sampling.n} with batch {request.batch}; both must be at least 1")
    if bool(len(ids)) != (request.first is None) or (request.first is not None and request.past is None):
        raise InvalidParams("prompt_ids", "are empty: give at least a start token, or `past` and `first` instead")
    if len(ids) and (ids.min() < 0 or ids.max() >= vocab):
        raise InvalidItems("prompt_ids", f"must lie in [0, {vocab}), the vocabulary of {model!r}")
    wanted = sampling.max_tokens
    if wanted is not None and wanted < 1:
        raise InvalidParams("max_tokens", f"is {wanted}; must be at least 1")
    prompt = len(ids) + (0 if request.past is None else request.past.width)
    if prompt + (wanted or 1) > context:
        raise DoesNotFit(
            f"{prompt} prompt tokens and {wanted or 1} new ones exceed the {context} tokens of model {model!r}: "
            "shorten the prompt or lower max_tokens",
            metadata={"prompt_tokens": prompt, "max_tokens": wanted or "", "context": context},
        )
    return wanted or context - prompt
