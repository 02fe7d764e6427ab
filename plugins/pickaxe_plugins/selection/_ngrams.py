"""Hashed n-gram counts of texts, what they say of two samples, and selection by weights (arXiv:2302.03169)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from pickaxe_plugins.selection._numbered_words import Numbers
from pickaxe_plugins.selection._text_units import Remembered, pieces

EPSILON = 1e-8
"""Added to every probability before its logarithm, as in the authors' code."""
REMEMBERED = 1 << 18
"""n-grams whose buckets are remembered, per size of n-gram above 2."""


def bucket(gram: str, buckets: int) -> int:
    """sha256 of the n-gram, its words joined by one blank, modulo the number of buckets."""
    return int.from_bytes(hashlib.sha256(gram.encode("utf-8", "surrogatepass")).digest(), "big") % buckets


def buckets_of(grams: Sequence[str], buckets: int) -> np.ndarray:
    """The same of many n-grams, int64; at most 2^24 buckets."""
    digests = b"".join([hashlib.sha256(gram.encode("utf-8", "surrogatepass")).digest() for gram in grams])
    rest = np.zeros(len(grams), np.uint64)
    for part in np.frombuffer(digests, ">u4").reshape(-1, 8).T:
        rest = ((rest << np.uint64(32)) + part) % np.uint64(buckets)
    return rest.astype(np.int64)


class _Words:
    """Buckets of words and of pairs of neighbouring words, by the numbers of the words.

    Pairs have a direct-mapped table: a pair's place follows from the numbers of its words, and a new pair takes the
    place of whichever was there.  All pairs of a text are looked up at once.
    """

    def __init__(self, pattern: str, buckets: int) -> None:
        self._pattern, self._buckets = pattern, buckets
        self._keys, self._values = np.zeros(_PLACES, np.uint64), np.zeros(_PLACES, np.int64)
        self._begin()

    def _begin(self) -> None:
        self._numbers = Numbers(self._pattern)
        self._single = np.zeros(0, np.int64)
        self._known = 0
        self._keys[:] = 0

    def cut(self, text: str) -> np.ndarray:
        """Numbers of the text's words; a call may change the numbers of all words."""
        if self._numbers.full:
            self._begin()
        return self._numbers.cut(text)[0]

    def number(self, words: Sequence[str]) -> np.ndarray:
        """The numbers of words that were cut by the pattern."""
        return self._numbers.numbers(words)

    def words(self, ids: np.ndarray) -> list[str]:
        """The words of these numbers."""
        return list(map(self._numbers.words.__getitem__, ids.tolist()))

    def singles(self, ids: np.ndarray) -> np.ndarray:
        """The bucket of each word."""
        new = self._numbers.words[self._known :]
        if new:
            if self._known + len(new) > len(self._single):
                self._single = np.resize(self._single, 2 * (self._known + len(new)))
            self._single[self._known : self._known + len(new)] = buckets_of(new, self._buckets)
            self._known += len(new)
        found: np.ndarray = self._single[ids]
        return found

    def pairs(self, ids: np.ndarray) -> np.ndarray:
        """The bucket of each pair of neighbours."""
        numbers = ids.astype(np.uint64) + np.uint64(1)  # no pair has the key 0 of an empty place
        keys = (numbers[:-1] << np.uint64(32)) | numbers[1:]
        places = (keys * _ODD) >> _SHIFT
        found = self._values[places]
        new = np.flatnonzero(self._keys[places] != keys)
        if len(new):
            words = self._numbers.words
            firsts, seconds = ids[new].tolist(), ids[new + 1].tolist()
            found[new] = buckets_of(
                [f"{words[one]} {words[two]}" for one, two in zip(firsts, seconds, strict=True)], self._buckets
            )
            self._keys[places[new]], self._values[places[new]] = keys[new], found[new]
        return found


_PLACES = 1 << 20
_ODD = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(64 - 20)


class Hasher:
    """The buckets of a text's n-grams for n = 1 … `ngrams`; keeps those of frequent n-grams.  Not for two threads."""

    def __init__(self, pattern: str, ngrams: int, buckets: int, remembered: int = REMEMBERED) -> None:
        self._pattern, self._ngrams, self._buckets = pattern, ngrams, buckets
        self._words = _Words(pattern, buckets)
        self._longer: list[Remembered[str, int]] = [
            Remembered(lambda gram: bucket(gram, buckets), remembered) for _ in range(3, ngrams + 1)
        ]

    def parts(self, text: str) -> Iterator[tuple[int, np.ndarray]]:
        """(words, buckets of the n-grams) of consecutive parts: a huge text needs no more memory than a long one."""
        before: list[str] = []
        for piece in pieces(text, self._pattern):
            ids, carried = self._words.cut(piece.lower()), len(before)
            joined = np.concatenate((self._words.number(before), ids)) if carried else ids
            yield len(ids), np.concatenate([self._of_size(n, joined, carried) for n in range(1, self._ngrams + 1)])
            before = self._words.words(joined[max(0, len(joined) - self._ngrams + 1) :]) if self._ngrams > 1 else []

    def _of_size(self, n: int, ids: np.ndarray, carried: int) -> np.ndarray:
        """Buckets of the n-grams that end behind the first `carried` words."""
        start = max(0, carried - n + 1)
        if n == 1:
            return self._words.singles(ids[start:])
        if n == 2:
            return self._words.pairs(ids[start:])
        words = self._words.words(ids[start:])
        grams = map(" ".join, zip(*(words[at:] for at in range(n)), strict=False))
        return np.fromiter(map(self._longer[n - 3].__getitem__, grams), np.int64, max(0, len(words) - n + 1))

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
