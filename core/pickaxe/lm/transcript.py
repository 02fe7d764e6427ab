"""One continuation on its way: tokens in, text, stop strings and finish reasons out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pickaxe.data import FinishReason
from pickaxe.lm.processors import FollowTrie, LogitsProcessor, TokenTrie
from pickaxe.lm.sampling import Draw, StopText
from pickaxe.tokenizers import StreamDecoder, Tokenizer

if TYPE_CHECKING:
    from pickaxe.lm.grammar import FollowGrammar, Grammar


@dataclass(frozen=True, slots=True)
class Step:
    """One token of one sample.  `text` is what became certain with it, which may be nothing.

    `logprob` is natural, under the model's own distribution: before temperature, cuts and processors.  The
    last step of a sample, and only that, has a finish reason; a stop token is reported like any other.
    """

    sample: int
    token_id: int
    logprob: float
    text: str
    finish_reason: FinishReason = ""


class Transcript:
    """What one sample has said so far.

    A method that draws tokens itself hands them to `take`; `draw` also draws.  Both end at a stop token, at a
    stop string (which is cut off), at `limit` tokens, or where `allowed` or `grammar` leaves nothing to follow.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        limit: int,
        *,
        sample: int = 0,
        stop: Sequence[str] = (),
        processors: Sequence[LogitsProcessor] = (),
        allowed: TokenTrie | None = None,
        grammar: Grammar | None = None,
    ) -> None:
        self.sample = sample
        self.generated: list[int] = []
        self.finished = False
        self._limit = limit
        self._ends = frozenset(tokenizer.eos_ids)
        self._decoder = StreamDecoder(tokenizer)
        self._stop = StopText(stop)
        self._guides: list[FollowTrie | FollowGrammar] = []
        if allowed is not None:
            self._guides.append(FollowTrie(allowed, tokenizer.eos_ids))
        if grammar is not None:
            self._guides.append(grammar.follower())
        self._processors = (*processors, *self._guides)

    @property
    def left(self) -> int:
        """Tokens until the limit."""
        return self._limit - len(self.generated)

    @property
    def free(self) -> bool:
        """Whether no processor looks at its logits."""
        return not self._processors

    def processed(self, logits: np.ndarray) -> np.ndarray:
        """Logits (vocab,) of the next token as the processors leave them."""
        for processor in self._processors:
            logits = processor(self.generated, logits)
        return logits

    def draw(self, logits: np.ndarray, total: float | np.floating, draw: Draw, random: np.random.Generator) -> Step:
        """Draw the next token from these float32 logits (vocab,), whose log-sum-exp is `total`."""
        token = draw.token(self.processed(logits), random)
        return self.take(token, float(logits[token] - total))

    def take(self, token: int, logprob: float) -> Step:
        """The next token is this one."""
        self.generated.append(token)
        text, stopped = self._stop.push(self._decoder.push([token]))
        reason: FinishReason = ""
        if stopped or token in self._ends or any(guide.finished(self.generated) for guide in self._guides):
            reason = "stop"
        elif not self.left:
            reason = "length"
        if reason and not stopped:
            more, cut = self._stop.push(self._decoder.flush())
            text += more if cut else more + self._stop.flush()
        self.finished = bool(reason)
        return Step(self.sample, token, logprob, text, reason)
