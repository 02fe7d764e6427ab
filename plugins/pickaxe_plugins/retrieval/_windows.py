"""Tokens of a text and the windows of tokens it is cut into."""

from __future__ import annotations

import re
from collections.abc import Iterable

WORD = re.compile(r"\w+")

_ASCII = bytes(byte if chr(byte).isalnum() or byte == ord("_") else 32 for byte in range(128)).lower() + bytes(128)
"""Lower-cased word characters, and a space for all others."""


def words(text: str) -> list[str]:
    """Lower-cased runs of Unicode word characters; accents stay."""
    if text.isascii():  # most texts of most collections, in a third of the time
        return text.encode("ascii").translate(_ASCII).decode("ascii").split()
    return [run.lower() for run in WORD.findall(text)]


def windows(n: int, size: int, stride: int) -> list[tuple[int, int]]:
    """Windows [start, end) over n tokens: start 0, one every `stride`, until one reaches the end.

    The last may be short; none lies wholly inside the one before it.  `1 <= stride <= size`.
    """
    count = 1 + max(0, -(-(n - size) // stride))
    return [(start * stride, min(start * stride + size, n)) for start in range(count)]


def chunks(text: str, size: int, stride: int, found: int | None = None) -> list[tuple[int, int]]:
    """Character spans [start, end) of the text's windows of `size` words; a text of one window is whole.

    `found` is the number of words, when known.  A chunk reaches from the start of its first word to the start of
    the word after its last, so that with stride = size the chunks put together are the text.
    """
    if found is not None and found <= size:
        return [(0, len(text))]
    starts = [match.start() for match in WORD.finditer(text)]
    if len(starts) <= size:
        return [(0, len(text))]
    starts[0] = 0
    starts.append(len(text))
    return [(starts[first], starts[last]) for first, last in windows(len(starts) - 1, size, stride)]


def stop_words(language: str | None) -> frozenset[str]:
    """The stop words of "pt" or "en"; none for None."""
    if language is None:
        return frozenset()
    from pickaxe.extras import require

    lists = require("bm25s.stopwords", extra="retrieval")
    chosen: Iterable[str] = {"en": lists.STOPWORDS_EN_PLUS, "pt": lists.STOPWORDS_PORTUGUESE}[language]
    return frozenset(chosen)
