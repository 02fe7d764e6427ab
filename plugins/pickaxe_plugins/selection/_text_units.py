"""Words and sentences as every rule and n-gram method of this family counts them."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator
from itertools import chain
from typing import Annotated, TypeVar

from pydantic import AfterValidator

WORD = r"\w+|[^\w\s]+"
"""A run of word characters, or of anything else that is neither that nor blank."""
SENTENCE_END = r"[.!?]+[\"')\]]*(?=\s|$)"
"""What ends a sentence; a text that goes on after the last end holds one sentence more."""
PIECE = 1 << 20
"""Characters of a text that are cut into words at once."""


def _pattern(value: str) -> str:
    try:
        compiled = re.compile(value)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from None
    if compiled.groups:
        raise ValueError("may not hold capturing groups: write (?:…)")
    if compiled.match(""):
        raise ValueError("may not match the empty text")
    return value


Pattern = Annotated[str, AfterValidator(_pattern)]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Remembered(dict[K, V]):
    """What `make` gave for the keys that were looked up last, at most `limit` of them.

    Two generations: when the young one is full it becomes the old one and the old one is forgotten, so that keys in
    use stay, and a look-up that succeeds costs no more than a dictionary's.
    """

    def __init__(self, make: Callable[[K], V], limit: int) -> None:
        super().__init__()
        self._make, self._half = make, max(1, limit // 2)
        self._old: dict[K, V] = {}

    def __missing__(self, key: K) -> V:
        if len(self) >= self._half:
            self._old = dict(self)
            self.clear()
        found = self._old.get(key)
        if found is None:
            found = self._make(key)
        self[key] = found
        return found


_CHUNKS = 1 << 17
_LONG_CHUNK = 64


def split(text: str, pattern: str = WORD) -> list[str]:
    """All words of the text in order.

    No word of `WORD` holds a blank: what stands between blanks is cut by itself, and most of it was met before.
    """
    if pattern != WORD:
        return re.findall(pattern, text)
    return list(chain.from_iterable(map(_chunks.__getitem__, text.split())))


class _Chunks(Remembered[str, list[str]]):
    """What stands between two blanks → its words; long ones are not kept."""

    def __missing__(self, chunk: str) -> list[str]:
        return super().__missing__(chunk) if len(chunk) <= _LONG_CHUNK else _words_of(chunk)


_words_of = re.compile(WORD).findall
_chunks = _Chunks(_words_of, _CHUNKS)


def pieces(text: str, pattern: str = WORD) -> Iterator[str]:
    """The text in parts of about `PIECE` characters, cut at blanks, so that no word is cut.

    Only for the pattern above: others may match blanks, and their texts stay whole.
    """
    start = 0
    while pattern == WORD and len(text) - start > PIECE:
        blank = _BLANK.search(text, start + PIECE)
        if blank is None:
            break
        yield text[start : blank.start()]
        start = blank.start()
    yield text[start:] if start else text


_BLANK = re.compile(r"\s")


def sentences(text: str, end: str = SENTENCE_END) -> int:
    """How many sentences the text holds."""
    number, last = 0, 0
    for match in re.finditer(end, text):
        number, last = number + 1, match.end()
    return number + bool(text[last:].strip())
