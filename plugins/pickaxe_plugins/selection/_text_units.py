"""Words and sentences as every rule and n-gram method of this family counts them, cut once a text."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, count
from typing import Annotated, TypeVar

import numpy as np
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


@dataclass(frozen=True)
class Words:
    """The words of one text: `vocabulary[ids[i]]` is the i-th; the vocabulary is in order of first use."""

    vocabulary: tuple[str, ...]
    ids: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Characters of each word of the vocabulary."""
        return np.fromiter(map(len, self.vocabulary), np.int64, len(self.vocabulary))

    @cached_property
    def counts(self) -> np.ndarray:
        """How often the text uses each word of the vocabulary."""
        return np.bincount(self.ids, minlength=len(self.vocabulary))


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


def cut(text: str, pattern: str = WORD) -> Words:
    """The words of the text.  Recent texts are remembered: rules that look at the same batch share the work."""
    return _recent.words(text, pattern)


def forget() -> None:
    """Let go of the texts that `cut` remembers, so that the next ones are cut anew."""
    _recent.forget()


def _cut(text: str, pattern: str) -> Words:
    ids: dict[str, int] = {}
    parts = []
    for piece in pieces(text, pattern):
        found = split(piece, pattern)
        ids.update(zip([word for word in dict.fromkeys(found) if word not in ids], count(len(ids))))
        parts.append(np.fromiter(map(ids.__getitem__, found), np.int32, len(found)))
    return Words(tuple(ids), parts[0] if len(parts) == 1 else np.concatenate(parts))


class _Recent:
    """The words of the texts that were asked for last, up to a number of characters."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._words: OrderedDict[tuple[str, str], Words] = OrderedDict()
        self._lock = threading.Lock()

    def words(self, text: str, pattern: str) -> Words:
        key = text, pattern
        found = self._words.get(key)
        if found is not None:
            return found
        found = _cut(text, pattern)
        if len(text) <= self._limit:
            with self._lock:
                self._held += 0 if key in self._words else len(text)
                self._words[key] = found
                while self._held > self._limit:
                    self._held -= len(self._words.popitem(last=False)[0][0])
        return found

    def forget(self) -> None:
        with self._lock:
            self._words.clear()
            self._held = 0


_recent = _Recent(4 << 20)


def sentences(text: str, end: str = SENTENCE_END) -> int:
    """How many sentences the text holds."""
    number, last = 0, 0
    for match in re.finditer(end, text):
        number, last = number + 1, match.end()
    return number + bool(text[last:].strip())
