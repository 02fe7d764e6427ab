"""How a rephrase relates to its source: lengths, copied stretches, repetition, variety."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Sequence

_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """Runs of letters and digits, without case."""
    return _WORD.findall(text.casefold())


def grams(tokens: Sequence[str], n: int) -> Iterator[tuple[str, ...]]:
    """All stretches of n tokens."""
    return (tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1))


def length_ratio(source: str, text: str) -> float:
    """Words of the text per word of the source, both by white space; a source without words counts as one."""
    return len(text.split()) / max(1, len(source.split()))


def overlap(source: str, text: str, n: int = 8) -> float:
    """Share of the text's word n-grams that the source has as well, 0 to 1.

    A text of fewer than n words is one gram.  Without words, 1 when the texts are equal, else 0.
    """
    mine = words(text)
    if not mine:
        return float(source == text)
    size = min(n, len(mine))
    theirs = set(grams(words(source), size))
    found = [gram in theirs for gram in grams(mine, size)]
    return sum(found) / len(found)


def distinct(text: str, n: int = 2) -> float:
    """Share of different ones among the text's word n-grams, 0 to 1; 0 without any."""
    return 1 - _repeated(list(grams(words(text), n))) if len(words(text)) >= n else 0.0


def repetition(text: str) -> float:
    """The larger of two shares: lines, and word 4-grams, that stood in the text before."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return max(_repeated(lines), _repeated(list(grams(words(text), 4))))


def _repeated(parts: Sequence[Hashable]) -> float:
    return 1 - len(set(parts)) / len(parts) if parts else 0.0
