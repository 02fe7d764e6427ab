"""What a run will cost, before it is started."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pickaxe_plugins.generation.wrap._chunks import Count, count_words, passages
from pickaxe_plugins.generation.wrap._rephrase import output_limit
from pickaxe_plugins.generation.wrap._styles import Style


@dataclass(frozen=True, slots=True)
class Projection:
    """Counts of a run; `output_tokens` if rephrases are as long as their passages, `most_tokens` by their limits."""

    documents: int
    passages: int
    rephrases: float
    output_tokens: float
    most_tokens: float
    hours: float


def projected(
    documents: Iterable[str],
    styles: Sequence[Style],
    tokens_per_second: float,
    *,
    cap: int = 300,
    most: int = 4096,
    draw: bool = False,
    count: Count = count_words,
) -> Projection:
    """Cut the documents and add up, at a rate measured on a few of them.  With `draw` each passage has one style."""
    shares = [style.weight / sum(each.weight for each in styles) if draw else 1.0 for style in styles]
    each = sum(share * style.n for share, style in zip(shares, styles, strict=True))
    texts = found = tokens = limits = 0
    for document in documents:
        texts += 1
        for passage in passages(document, cap, count):
            found += 1
            tokens += passage.tokens
            limits += output_limit(passage.tokens, most)
    hours = each * tokens / tokens_per_second / 3600
    return Projection(texts, found, each * found, each * tokens, each * limits, hours)
