"""Hashed n-gram counts of texts, what they say of two samples, and selection by weights (arXiv:2302.03169)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from pickaxe_plugins.selection._text_units import Remembered, pieces, split

EPSILON = 1e-8
"""Added to every probability before its logarithm, as in the authors' code."""
REMEMBERED = 1 << 18
"""n-grams whose buckets are remembered, per size of n-gram; pairs have a table of their own."""


def bucket(gram: str, buckets: int) -> int:
    """sha256 of the n-gram, its words joined by one blank, modulo the number of buckets."""
    return int.from_bytes(hashlib.sha256(gram.encode("utf-8", "surrogatepass")).digest(), "big") % buckets


class _Pairs:
    """Buckets of pairs of neighbouring words.

    A direct-mapped table: a pair's place follows from the numbers of its words, and a new pair takes the place of
    whichever was there.  All pairs of a text are looked up at once.
    """

    def __init__(self, buckets: int) -> None:
        self._buckets = buckets
        self._numbers: dict[str, int] = {}
        self._keys = np.zeros(_PLACES, np.uint64)
        self._values = np.zeros(_PLACES, np.int64)

    def buckets(self, words: Sequence[str]) -> np.ndarray:
        if len(words) < 2:
            return np.zeros(0, np.int64)
        ids = self._ids(words)
        keys = (ids[:-1] << np.uint64(32)) | ids[1:]
        places = (keys * _ODD) >> _SHIFT
        found = self._values[places]
        for at in np.flatnonzero(self._keys[places] != keys).tolist():
            found[at] = bucket(f"{words[at]} {words[at + 1]}", self._buckets)
        self._keys[places], self._values[places] = keys, found
        return found

    def _ids(self, words: Sequence[str]) -> np.ndarray:
        """Numbers of the words, from 1; when too many have one, all numbers and pairs are forgotten."""
        numbers = self._numbers
        if len(numbers) > REMEMBERED:
            numbers.clear()
            self._keys[:] = 0
        for word in dict.fromkeys(words):
            if word not in numbers:
                numbers[word] = len(numbers) + 1
        return np.fromiter(map(numbers.__getitem__, words), np.uint64, len(words))


_PLACES = 1 << 20
_ODD = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(64 - 20)


class Hasher:
    """The buckets of a text's n-grams for n = 1 … `ngrams`; keeps those of frequent n-grams.  Not for two threads."""

    def __init__(self, pattern: str, ngrams: int, buckets: int, remembered: int = REMEMBERED) -> None:
        self._pattern, self._ngrams, self._buckets = pattern, ngrams, buckets
        self._pairs = _Pairs(buckets)
        self._known: list[Remembered[str, int]] = [
            Remembered(lambda gram: bucket(gram, buckets), remembered) for _ in range(ngrams)
        ]

    def parts(self, text: str) -> Iterator[tuple[int, np.ndarray]]:
        """(words, buckets of the n-grams) of consecutive parts: a huge text needs no more memory than a long one."""
        before: list[str] = []
        for piece in pieces(text, self._pattern):
            words = split(piece.lower(), self._pattern)
            joined, carried = before + words, len(before)
            yield len(words), np.concatenate([self._of_size(n, joined, carried) for n in range(1, self._ngrams + 1)])
            before = joined[len(joined) - self._ngrams + 1 :] if self._ngrams > 1 else []

    def _of_size(self, n: int, words: Sequence[str], carried: int) -> np.ndarray:
        """Buckets of the n-grams that end behind the first `carried` words."""
        start = max(0, carried - n + 1)
        if n == 2:
            return self._pairs.buckets(words[start:])
        number = max(0, len(words) - n + 1 - start)
        grams = words[start:] if n == 1 else map(" ".join, zip(*(words[start + at :] for at in range(n)), strict=False))
        return np.fromiter(map(self._known[n - 1].__getitem__, grams), np.int64, number)

    def count(self, text: str, into: np.ndarray) -> int:
        """Add the text's n-grams to the counts per bucket; the number of its words."""
        total = 0
        for words, found in self.parts(text):
            into += np.bincount(found, minlength=self._buckets)
            total += words
        return total


def log_ratio(target: np.ndarray, raw: np.ndarray, pseudo_count: float = 0.0) -> np.ndarray:
    """ln(p_target + 1e-8) - ln(p_raw + 1e-8) per bucket, of counts (…, buckets); the target's may be smoothed."""
    return np.log(_shares(target + pseudo_count) + EPSILON) - np.log(_shares(raw) + EPSILON)


def divergence(target: np.ndarray, other: np.ndarray) -> float:
    """KL(target || other) in nats between counts per bucket, 1e-8 added to both probabilities in the logarithms."""
    return float(_shares(target) @ log_ratio(target, other))


def _shares(counts: np.ndarray) -> np.ndarray:
    return counts / counts.sum(-1, keepdims=True)


def choose(weights: np.ndarray, k: int) -> np.ndarray:
    """Rows of the k largest weights, ascending; of equal weights the earlier row.  Rows of -inf are never chosen."""
    order = np.argsort(-weights, kind="stable")[:k]
    return np.sort(order[np.isfinite(weights[order])])


def choose_for_targets(weights: np.ndarray, k: int, proportions: Iterable[float]) -> list[np.ndarray]:
    """For each target (row of `weights`, (targets, n)) its share of k rows, none chosen twice, targets in turn.

    `proportions` are relative, e.g. the targets' words.  Shares are rounded so that they add up to k.
    """
    parts = np.asarray(tuple(proportions), float)
    bounds = np.rint(k * np.cumsum(parts) / parts.sum()).astype(int)
    free = np.array(weights, float)
    chosen = []
    for row, number in zip(free, np.diff(bounds, prepend=0), strict=True):
        chosen.append(choose(row, int(number)))
        free[:, chosen[-1]] = -np.inf
    return chosen
