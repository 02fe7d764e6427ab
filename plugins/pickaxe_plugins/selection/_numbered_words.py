"""The words of many texts as numbers, so that rules look at a whole batch with a few array operations."""

from __future__ import annotations

import re
import threading
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from pickaxe_plugins.selection._text_units import WORD, pieces, split

BLOCK = 1 << 17
"""Characters of the texts that are looked at together: enough to share the cost of a call, few enough for caches."""


@dataclass(frozen=True)
class Words:
    """The words of consecutive texts: text i has the numbers `ids[bounds[i] : bounds[i + 1]]`."""

    lexicon: Lexicon
    ids: np.ndarray
    """int32 (words,): rows of `lexicon.words`."""
    bounds: np.ndarray
    """int64 (texts + 1,)."""
    joined: str
    """All words without blanks."""
    facts: Mapping[str, np.ndarray]
    """Of each word of the lexicon: its "length" in characters, its "bytes" of UTF-8, whether it has a letter ("alpha")
    and whether more than punctuation, symbols and control characters ("plain")."""

    @cached_property
    def counts(self) -> np.ndarray:
        """Words of each text."""
        return np.diff(self.bounds)

    @cached_property
    def owners(self) -> np.ndarray:
        """The text of each word."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum over the words of each text, of one integer or truth value a word."""
        return np.diff(_running(values)[self.bounds])

    def fact(self, name: str) -> np.ndarray:
        """One fact of `facts` for each word of the texts."""
        found: np.ndarray = self.facts[name][self.ids]
        return found

    def starts(self, unit: str = "length") -> np.ndarray:
        """Where each word begins when all words of all texts are joined without blanks, and the end of the last."""
        return _running(self.fact(unit))


def _running(values: np.ndarray) -> np.ndarray:
    total = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=total[1:])
    return total


class Numbers:
    """Numbers of the words that one pattern found, in order of first use.  Not for two threads."""

    def __init__(self, pattern: str) -> None:
        self.words: list[str] = []
        self._pattern = pattern
        self._numbers: dict[str, int] = {}
        self._chunks = _Chunks(self._number)
        self._characters = 0

    def cut(self, text: str) -> tuple[np.ndarray, list[str]]:
        """The numbers of the text's words, int32 (words,), and parts that make up the text but for what is no word.

        No word of `WORD` holds a blank: what stands between blanks was mostly met before, with its words.
        """
        chunks = text.split() if self._pattern == WORD else split(text, self._pattern)
        return np.frombuffer(b"".join(map(self._chunks.__getitem__, chunks)), np.int32), chunks

    def number(self, word: str) -> int:
        """The word's number, -1 when it was never met."""
        return self._numbers.get(word, -1)

    @property
    def full(self) -> bool:
        """Whether it is time to begin anew, so that memory stays bounded."""
        return len(self.words) > _MOST or self._characters > _MOST_CHARACTERS

    def numbers(self, words: Iterable[str]) -> np.ndarray:
        """The numbers of the words, int32; new ones are taken in."""
        numbers, found = self._numbers, []
        for word in words:
            number = numbers.setdefault(word, len(numbers))
            if number == len(self.words):
                self.words.append(word)
                self._characters += len(word)
            found.append(number)
        return np.array(found, np.int32)

    def _number(self, chunk: str) -> bytes:
        return self.numbers(_words_of(chunk) if self._pattern == WORD else (chunk,)).tobytes()


class _Chunks(dict[str, bytes]):
    """Part of a text → the numbers of its words, int32; long ones are not kept, and too many are forgotten."""

    def __init__(self, make: Callable[[str], bytes]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, chunk: str) -> bytes:
        found = self._make(chunk)
        if len(chunk) <= _LONG_CHUNK:
            if len(self) >= _MOST:
                self.clear()
            self[chunk] = found
        return found


_words_of = re.compile(WORD).findall
_MOST, _MOST_CHARACTERS, _LONG_CHUNK = 1 << 17, 1 << 22, 64


class Lexicon(Numbers):
    """Numbers of words with what rules ask about them."""

    def __init__(self, pattern: str, remembered: int = 4 << 20) -> None:
        super().__init__(pattern)
        self._limit = remembered
        self._facts = _facts(())
        self._recent: OrderedDict[str, tuple[np.ndarray, str]] = OrderedDict()
        self._held = 0

    def read(self, texts: Sequence[str]) -> Words:
        """The words of the texts.  Recent texts are remembered: rules that look at the same ones share the work."""
        parts, joined = zip(*map(self._text, texts), strict=True) if texts else ((), ())
        new = _facts(self.words[len(self._facts["length"]) :])
        if len(new["length"]):
            self._facts = {name: np.concatenate((known, new[name])) for name, known in self._facts.items()}
        ids = np.concatenate(parts) if parts else np.zeros(0, np.int32)
        bounds = _running(np.fromiter(map(len, parts), np.int64, len(parts)))
        return Words(self, ids, bounds, "".join(joined), self._facts)

    def forget(self) -> None:
        """Let go of the recent texts, not of their words."""
        self._recent.clear()
        self._held = 0

    def _text(self, text: str) -> tuple[np.ndarray, str]:
        """The words of a text, and these without blanks."""
        found = self._recent.get(text)
        if found is not None:
            return found
        parts = [(ids, "".join(chunks)) for ids, chunks in map(self.cut, pieces(text, self._pattern))]
        found = parts[0]
        if len(parts) > 1:
            found = np.concatenate([ids for ids, _ in parts]), "".join(joined for _, joined in parts)
        if len(text) <= self._limit:
            self._recent[text] = found
            self._held += len(text)
            while self._held > self._limit:
                self._held -= len(self._recent.popitem(last=False)[0])
        return found


def _facts(words: Sequence[str]) -> dict[str, np.ndarray]:
    lengths = [len(word) if word.isascii() else len(word.encode("utf-8", "surrogatepass")) for word in words]
    alpha = np.array([word.isalpha() or any(map(str.isalpha, word)) for word in words], bool)
    plain = alpha.copy()
    for row in np.flatnonzero(~alpha).tolist():
        plain[row] = not all(map(_symbol, words[row]))
    characters = np.array(list(map(len, words)), np.int64)
    return {"length": characters, "bytes": np.array(lengths, np.int64), "alpha": alpha, "plain": plain}


@lru_cache(1 << 14)
def _symbol(character: str) -> bool:
    """Whether it is punctuation, a symbol or a control character."""
    category = unicodedata.category(character)
    return category[0] in "PS" or category == "Cc"


class _Lexicons:
    """One lexicon a pattern, of the patterns that were used last."""

    def __init__(self) -> None:
        self._by_pattern: OrderedDict[str, Lexicon] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, texts: Sequence[str], pattern: str) -> Words:
        with self._lock:
            lexicon = self._by_pattern.pop(pattern, None) or Lexicon(pattern)
            words = lexicon.read(texts)
            if not lexicon.full:
                self._by_pattern[pattern] = lexicon
                while len(self._by_pattern) > 4:
                    self._by_pattern.popitem(last=False)
        return words

    def forget(self) -> None:
        with self._lock:
            for lexicon in self._by_pattern.values():
                lexicon.forget()


_lexicons = _Lexicons()


def cut(texts: Sequence[str], pattern: str = WORD) -> Words:
    """The words of the texts."""
    return _lexicons.read(texts, pattern)


def forget() -> None:
    """Let go of the texts that `cut` remembers, so that the next ones are cut anew."""
    _lexicons.forget()


def blocks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Consecutive texts that have `BLOCK` characters together, or one text that has more."""
    start = size = 0
    for row, text in enumerate(texts):
        if row > start and size + len(text) > BLOCK:
            yield texts[start:row]
            start, size = row, 0
        size += len(text)
    if start < len(texts):
        yield texts[start:]
