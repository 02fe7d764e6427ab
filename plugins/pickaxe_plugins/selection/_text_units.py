"""Words and sentences as every rule and n-gram method of this family counts them, cut once a text."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Annotated

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


def _cut(text: str, pattern: str) -> Words:
    find = re.compile(pattern).findall
    ids: dict[str, int] = {}
    parts = []
    for piece in pieces(text, pattern):
        found = find(piece)
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


_recent = _Recent(4 << 20)


def sentences(text: str, end: str = SENTENCE_END) -> int:
    """How many sentences the text holds."""
    number, last = 0, 0
    for match in re.finditer(end, text):
        number, last = number + 1, match.end()
    return number + bool(text[last:].strip())
