"""Sampling continuations: one prefill per prompt, many rows decoded together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pickaxe.data import FinishReason, Sampling
from pickaxe.errors import DoesNotFit, InvalidParams
from pickaxe.lm.batch import Batch
from pickaxe.lm.cache import KV
from pickaxe.lm.processors import FollowTrie, LogitsProcessor, TokenTrie
from pickaxe.lm.sampling import Draw, StopText, logsumexp
from pickaxe.randomness import generator
from pickaxe.tokenizers import StreamDecoder, Tokenizer

if TYPE_CHECKING:
    from pickaxe.call import Call
    from pickaxe.lm.lm import LM


@dataclass(frozen=True)
class Generation:
    """What to generate.  `sampling.n` continuations of one prompt, at most `batch` of them decoded together.

    `past` (one row) holds what comes before `prompt_ids` and was read already, e.g. an instruction that many
    prompts share.  With `allowed`, every continuation is exactly one of these.  `sampling.max_tokens` None:
    until the context is full; `seed` None: the call's.
    """

    prompt_ids: Sequence[int]
    sampling: Sampling = field(default_factory=Sampling)
    processors: tuple[LogitsProcessor, ...] = ()
    allowed: TokenTrie | None = None
    batch: int = 16
    past: KV | None = None


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


def generate(lm: LM, request: Generation, call: Call) -> Iterator[Step]:
    """Steps of all samples as they are drawn; those of one sample in order.

    Sample i depends on the seed and i only.  Closing the iterator, or ending the call, stops within a step.
    """
    limit = _limit(lm, request)
    draw = Draw.of(request.sampling)
    if request.sampling.n < 1 or request.batch < 1:
        raise InvalidParams("n", f"is {request.sampling.n} with batch {request.batch}; both must be at least 1")
    return _generate(lm, request, draw, limit, call)


def _limit(lm: LM, request: Generation) -> int:
    """Most tokens of a sample; raises `DoesNotFit`."""
    prompt, context = len(request.prompt_ids), lm.context_length
    if request.past is not None:
        prompt += request.past.width
    if not len(request.prompt_ids):
        raise InvalidParams("prompt_ids", "are empty: give at least a start token")
    wanted = request.sampling.max_tokens
    if wanted is not None and wanted < 1:
        raise InvalidParams("max_tokens", f"is {wanted}; must be at least 1")
    if prompt + (wanted or 1) > context:
        raise DoesNotFit(
            f"{prompt} prompt tokens and {wanted or 1} new ones exceed the {context} tokens of model {lm.name!r}: "
            "shorten the prompt or lower max_tokens",
            metadata={"prompt_tokens": prompt, "max_tokens": wanted or "", "context": context},
        )
    return wanted or context - prompt


def _generate(lm: LM, request: Generation, draw: Draw, limit: int, call: Call) -> Iterator[Step]:
    sampling = request.sampling
    seed = call.seed if sampling.seed is None else sampling.seed
    first, prompt = lm.prefill(request.prompt_ids, call, request.past)
    first = first[None]
    first_total = logsumexp(first)
    batch = Batch(lm.network, min(request.batch, sampling.n), _capacity(prompt, limit))
    rows: list[_Row] = []
    waiting = iter(range(sampling.n))
    exhausted = False
    while True:
        while not batch.full and not exhausted:
            call.check()
            if (sample := next(waiting, None)) is None:
                exhausted = True
                break
            row = _Row(sample, request, draw, limit, lm.tokenizer, generator(seed, "sample", sample))
            yield row.advance(first[0], first_total[0])
            if not row.finished:
                batch.join(prompt)
                rows.append(row)
        if not rows:
            return
        call.check()
        logits = batch.step([row.generated[-1] for row in rows], call)
        totals = logsumexp(logits)
        for row, scores, total in zip(rows, logits, totals, strict=True):
            yield row.advance(scores, total)
        for place in reversed(range(len(rows))):
            if rows[place].finished:
                rows[place] = rows[batch.leave(place)]
                rows.pop()


def _capacity(prompt: KV, limit: int) -> int:
    """Slots to begin with: all that are needed if few, else some, to grow later."""
    return prompt.width + min(limit, 256)


class _Row:
    """One sample on its way."""

    def __init__(
        self,
        sample: int,
        request: Generation,
        draw: Draw,
        limit: int,
        tokenizer: Tokenizer,
        random: np.random.Generator,
    ) -> None:
        self.sample = sample
        self.generated: list[int] = []
        self.finished = False
        self._draw = draw
        self._limit = limit
        self._random = random
        self._ends = frozenset(tokenizer.eos_ids)
        self._decoder = StreamDecoder(tokenizer)
        self._stop = StopText(request.sampling.stop)
        self._trie = FollowTrie(request.allowed, tokenizer.eos_ids) if request.allowed else None
        self._processors = (*request.processors, self._trie) if self._trie else request.processors

    def advance(self, logits: np.ndarray, total: np.floating) -> Step:
        """Draw the next token from these logits, whose log-sum-exp is `total`."""
        changed = logits
        for processor in self._processors:
            changed = processor(self.generated, changed)
        token = self._draw.token(changed, self._random)
        self.generated.append(token)
        text, stopped = self._stop.push(self._decoder.push([token]))
        reason: FinishReason = ""
        if stopped or token in self._ends or (self._trie and self._trie.finished(self.generated)):
            reason = "stop"
        elif len(self.generated) == self._limit:
            reason = "length"
        if reason and not stopped:
            more, cut = self._stop.push(self._decoder.flush())
            text += more if cut else more + self._stop.flush()
        self.finished = bool(reason)
        return Step(self.sample, token, float(logits[token] - total), text, reason)
