"""Sampling continuations: one prefill per prompt, many rows decoded together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pickaxe.data import Sampling
from pickaxe.errors import DoesNotFit, InvalidParams
from pickaxe.lm.batch import Batch
from pickaxe.lm.cache import KV
from pickaxe.lm.processors import LogitsProcessor, TokenTrie
from pickaxe.lm.sampling import Draw, logsumexp
from pickaxe.lm.transcript import Step, Transcript
from pickaxe.randomness import generator

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
    rows: list[Transcript] = []
    randoms: dict[int, np.random.Generator] = {}
    waiting = iter(range(sampling.n))
    exhausted = False
    while True:
        while not batch.full and not exhausted:
            call.check()
            if (sample := next(waiting, None)) is None:
                exhausted = True
                break
            row = Transcript(
                lm.tokenizer,
                limit,
                sample=sample,
                stop=sampling.stop,
                processors=request.processors,
                allowed=request.allowed,
            )
            randoms[sample] = generator(seed, "sample", sample)
            yield row.draw(first[0], first_total[0], draw, randoms[sample])
            if not row.finished:
                batch.join(prompt)
                rows.append(row)
        if not rows:
            return
        call.check()
        logits = batch.step([row.generated[-1] for row in rows], call)
        totals = logsumexp(logits)
        for row, scores, total in zip(rows, logits, totals, strict=True):
            yield row.draw(scores, total, draw, randoms[row.sample])
        for place in reversed(range(len(rows))):
            if rows[place].finished:
                rows[place] = rows[batch.leave(place)]
                rows.pop()


def _capacity(prompt: KV, limit: int) -> int:
    """Slots to begin with: all that are needed if few, else some, to grow later."""
    return prompt.width + min(limit, 256)
