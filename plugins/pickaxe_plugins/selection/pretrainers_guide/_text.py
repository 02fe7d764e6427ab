"""What filters see in a text (arXiv:2305.13169): hashed words and pairs of words, listed entries, features."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pickaxe.extras import require
from pickaxe_plugins.selection._text_units import pieces, sentences

FEATURES = {
    "chars": "Characters.",
    "words": r"Matches of \w+ in the lower-cased text.",
    "mean_word_length": "Characters a word.",
    "type_token_ratio": "Different words by words.",
    "non_ascii_share": "Share of characters above code point 127.",
    "pii_hits": "Strings that look like an e-mail address or a telephone number.",
    "readability": "Automated readability index: 4.71 letters/word + 0.5 words/sentence - 21.43.",
    "year": "Latest year from 1900 to 2099 that is named.",
}
_WORD = re.compile(r"\w+")
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+")
_PHONE = re.compile(r"(?<![\w.])\+?(?:\(\d{2,4}\)[ -]?)?\d{3,4}[ .-]\d{3,4}(?:[ .-]\d{2,4})?(?!\w)")
_DIGITS = re.compile(r"\d+")
_BLANKS = re.compile(r"\s{2,}|[^\S ]")

_BASE = np.uint64(0x100000001B3)
_INVERSE = np.uint64(pow(0x100000001B3, -1, 1 << 64))
_MIX = np.uint64(0x9E3779B97F4A7C15)
_PAIR = np.uint64(0xC2B2AE3D27D4EB4F)
_BATCH = 1 << 20
"""Bytes that are hashed together."""
_IN_WORD = np.array([chr(byte).isalnum() or byte == 0x5F or byte >= 0x80 for byte in range(256)])


def features(text: str) -> dict[str, float]:
    """The values of `FEATURES`; NaN where a word or a character is missing to divide by."""
    count, letters, nan = 0, 0, math.nan
    different: set[str] = set()
    years: list[int] = []
    longest_run = 0
    for piece in pieces(text):
        words = _WORD.findall(piece.lower())
        runs = _DIGITS.findall(piece)
        count, letters = count + len(words), letters + sum(map(len, words))
        different.update(words)
        years.extend(int(run) for run in runs if len(run) == 4 and 1900 <= int(run) < 2100)
        longest_run = max(longest_run, max(map(len, runs), default=0))
    phones = sum(1 for _ in _PHONE.finditer(text)) if longest_run > 2 else 0
    emails = sum(1 for _ in _EMAIL.finditer(text)) if "@" in text else 0
    return {
        "chars": len(text),
        "words": count,
        "mean_word_length": letters / count if count else nan,
        "type_token_ratio": len(different) / count if count else nan,
        "non_ascii_share": _non_ascii(text) / len(text) if text else nan,
        "pii_hits": phones + emails,
        "readability": 4.71 * letters / count + 0.5 * count / sentences(text) - 21.43 if count else nan,
        "year": float(max(years)) if years else nan,
    }


def _non_ascii(text: str) -> int:
    return 0 if text.isascii() else len(text) - len(text.encode("ascii", "ignore"))


def count_words(text: str) -> int:
    return sum(len(_WORD.findall(piece)) for piece in pieces(text))


class Blocklist:
    """Entries found as whole words: any case, any white space between an entry's words."""

    def __init__(self, entries: Sequence[str]) -> None:
        self.entries = tuple(entries)
        self._automaton: Any = None
        if entries:
            library = require("ahocorasick_rs", extra="patterns")
            self._automaton = library.AhoCorasick([_folded(entry) for entry in entries])

    def hits(self, text: str) -> list[str]:
        """The entries that occur, each once, in their order."""
        if self._automaton is None:
            return []
        folded = _folded(text.encode("utf-8", "replace").decode())
        found = set()
        for entry, start, end in self._automaton.find_matches_as_indexes(folded, overlapping=True):
            if not (_in_word(folded[start - 1 : start]) or _in_word(folded[end : end + 1])):
                found.add(entry)
        return [self.entries[entry] for entry in sorted(found)]


def _folded(text: str) -> str:
    """Lower-cased words with one blank between them; a long text is not taken apart for it."""
    return _BLANKS.sub(" ", text.lower()).strip()


def _in_word(character: str) -> bool:
    return bool(character) and (character.isalnum() or character == "_")


def hashed(texts: Sequence[str], bits: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(rows, buckets) of the single words and pairs of words of consecutive texts, batch by batch.

    Words are runs of letters, digits, `_` and bytes above 127 of the lower-cased UTF-8.  Each is hashed as a polynomial
    of its bytes modulo 2^64, all words of a batch at once from one running sum.  A pair of words is lost where
    a text of more than a megabyte is cut.
    """
    held: list[bytes] = []
    rows: list[int] = []
    size = 0
    for row, text in enumerate(texts):
        for piece in pieces(text):
            data = piece.lower().encode("utf-8", "surrogatepass")
            held.append(data)
            rows.append(row)
            size += len(data) + 1
            if size >= _BATCH:
                yield _grams(held, rows, bits)
                held, rows, size = [], [], 0
    if held:
        yield _grams(held, rows, bits)


def _grams(held: Sequence[bytes], rows: Sequence[int], bits: int) -> tuple[np.ndarray, np.ndarray]:
    data = np.frombuffer(b" ".join(held) + b" ", np.uint8)
    inside = _IN_WORD[data]
    edges = np.flatnonzero(np.diff(inside, prepend=False)).reshape(-1, 2)
    lengths = np.fromiter(map(len, held), np.int64, len(held)) + 1
    owners = np.searchsorted(np.cumsum(lengths), edges[:, 0], side="right")
    powers, inverses = _powers(len(data))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(data * powers)])
    words = (sums[edges[:, 1]] - sums[edges[:, 0]]) * inverses[edges[:, 0]] * _MIX
    together = owners[1:] == owners[:-1]
    words ^= words >> np.uint64(32)
    pairs = ((words[:-1] * _PAIR) ^ words[1:])[together]
    shift = np.uint64(64 - bits)
    buckets = (np.concatenate([words, pairs]) * _MIX) >> shift
    places = np.asarray(rows)[np.concatenate([owners, owners[1:][together]])]
    return places, buckets.astype(np.int64)


def _powers(size: int) -> tuple[np.ndarray, np.ndarray]:
    """base^i and base^-i modulo 2^64 for i below `size`; kept for the longest batch so far."""
    global _kept
    if len(_kept[0]) < size:
        _kept = (_running(_BASE, size), _running(_INVERSE, size))
    return _kept[0][:size], _kept[1][:size]


def _running(base: np.uint64, size: int) -> np.ndarray:
    factors = np.full(size, base, np.uint64)
    factors[0] = 1
    powers: np.ndarray = np.cumprod(factors)
    return powers


_kept = (np.zeros(0, np.uint64), np.zeros(0, np.uint64))
