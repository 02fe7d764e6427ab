"""Passages of a document: whole sentences packed up to a cap, with their places in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Count = Callable[[str], int]
"""Tokens of a text."""

_WORD = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class Passage:
    """Words joined by single spaces; they stand in characters [start, end) of the document."""

    text: str
    start: int
    end: int
    tokens: int


def count_words(text: str) -> int:
    """Words separated by white space."""
    return len(text.split())


def passages(document: str, cap: int, count: Count = count_words) -> Iterator[Passage]:
    """Cut a document into passages of at most `cap` tokens, in order; their words are the document's.

    A sentence ends at . ! or ? before white space.  One that is longer than the cap is cut at words, and its rest
    begins a new passage.  A word longer than the cap is cut at characters, of which every piece has at least one.
    """
    words = [match.span() for match in _WORD.finditer(document)]
    packer = _Packer(document, words, cap, count)
    first = begin = 0
    for end in range(1, len(words) + 1):
        if end < len(words) and document[words[end - 1][1] - 1] not in ".!?":
            continue
        if first < begin and not packer.fits(first, end):
            yield packer.passage(first, begin)
            first = begin
        while not packer.fits(first, end):
            if middle := packer.longest(first, end):
                yield packer.passage(first, middle)
                first = middle
            else:
                yield from packer.pieces(first)
                first += 1
        begin = end
    if first < len(words):
        yield packer.passage(first, len(words))


@dataclass(frozen=True, slots=True)
class _Packer:
    """Stretches [first, end) of a document's words."""

    document: str
    words: list[tuple[int, int]]
    cap: int
    count: Count

    def text(self, first: int, end: int) -> str:
        return " ".join(self.document[start:stop] for start, stop in self.words[first:end])

    def fits(self, first: int, end: int) -> bool:
        return first == end or self.count(self.text(first, end)) <= self.cap

    def longest(self, first: int, end: int) -> int:
        """Where the longest stretch from `first` on that fits ends; 0 when not even one word does."""
        found = _last(first, end - 1, lambda middle: self.fits(first, middle))
        return 0 if found == first else found

    def passage(self, first: int, end: int) -> Passage:
        text = self.text(first, end)
        return Passage(text, self.words[first][0], self.words[end - 1][1], self.count(text))

    def pieces(self, word: int) -> Iterator[Passage]:
        """One long word, cut at characters."""
        start, end = self.words[word]
        while start < end:
            begin = start
            start = _last(begin + 1, end, lambda stop, begin=begin: self.count(self.document[begin:stop]) <= self.cap)  # type: ignore[misc]
            text = self.document[begin:start]
            yield Passage(text, begin, start, self.count(text))


def _last(low: int, high: int, fits: Callable[[int], bool]) -> int:
    """The last number in [low, high] that fits, where all up to some number do and `low` is taken to."""
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low
