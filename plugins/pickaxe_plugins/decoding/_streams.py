"""What a language model generates, as the chunks of a decoder."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from pickaxe import Call, Chunk

if TYPE_CHECKING:
    from pickaxe.lm import KV, LM, Request


def streamed(
    lm: LM,
    asked: Sequence[Request],
    call: Call,
    *,
    pasts: Sequence[KV | None] = (),
    usage: Sequence[Mapping[str, float]] = (),
    begun: float | None = None,
) -> Iterator[Chunk]:
    """One chunk per token, of all requests together.

    `pasts` hold the first tokens of each prompt where they were read already.  The last chunk of a choice has in its
    usage `prompt_tokens`, `completion_tokens`, `ttft_ms` (from `begun` on `time.monotonic()`'s clock, or from now,
    to the choice's first token) and what `usage` has for its request.
    """
    from pickaxe.lm import Generation, TokenTrie

    start = time.monotonic() if begun is None else begun
    requests = [
        Generation(
            request.ids[past.width if past else 0 :],
            request.sampling,
            allowed=TokenTrie.of_texts(request.prompt.allowed, lm.tokenizer) if request.prompt.allowed else None,
            past=past,
        )
        for request, past in zip(asked, pasts or [None] * len(asked), strict=True)
    ]
    counts: Counter[tuple[int, int]] = Counter()
    waited: dict[tuple[int, int], float] = {}
    with closing(lm.generate_all(requests, call)) as steps:
        for place, step in steps:
            choice = place, step.sample
            counts[choice] += 1
            waited.setdefault(choice, 1e3 * (time.monotonic() - start))
            told: dict[str, float] = {}
            if step.finish_reason:
                told = {
                    "prompt_tokens": len(asked[place].ids),
                    "completion_tokens": counts[choice],
                    "ttft_ms": waited[choice],
                    **(usage[place] if usage else {}),
                }
            yield Chunk(
                asked[place].row,
                step.sample,
                step.text,
                (step.token_id,),
                (min(step.logprob, 0.0),),
                finish_reason=step.finish_reason,
                usage=told,
            )
