"""MinHash and locality-sensitive hashing: near duplicates among any number of texts.

Shingles are runs of words of the lower-cased text, punctuation runs included.  A word's hash is BLAKE2b, a shingle's a
mix of its words' hashes, so signatures are the same on every machine.
"""

from __future__ import annotations

import hashlib
import re
from functools import cached_property, lru_cache

import numpy as np

from pickaxe_plugins.selection._text_units import WORD

WORDS = re.compile(WORD)
_PRIME = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_BLOCK = 1 << 9
"""Shingles hashed at once, so that the products stay in the processor's cache."""


def words(text: str) -> list[str]:
    return WORDS.findall(text.lower())


@lru_cache(maxsize=1 << 18)
def _word_hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _mixed(values: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64: every bit depends on all bits."""
    values = (values ^ (values >> np.uint64(30))) * _MIX[0]
    values = (values ^ (values >> np.uint64(27))) * _MIX[1]
    return values ^ (values >> np.uint64(31))


def _runs(text: str, size: int) -> np.ndarray:
    """Hashes (uint64) of all runs of `size` words, in order; a shorter text is one run, one without words has none."""
    found = words(text)
    if not found:
        return np.zeros(0, np.uint64)
    hashes = np.fromiter(map(_word_hash, found), np.uint64, len(found))
    size = min(size, len(found))
    total = hashes[: len(found) - size + 1].copy()
    for place in range(1, size):
        total *= _PRIME
        total += hashes[place : place + len(total)]
    return _mixed(total)


def shingles(text: str, size: int = 5) -> np.ndarray:
    """The different hashes of all runs of `size` words, ascending."""
    return np.unique(_runs(text, size))


def jaccard(left: str, right: str, size: int = 5) -> float:
    """Exact similarity of the sets of shingles; 1 when both are empty."""
    one, other = shingles(left, size), shingles(right, size)
    common = len(np.intersect1d(one, other, assume_unique=True))
    union = len(one) + len(other) - common
    return common / union if union else 1.0


def candidate_probability(similarity: float, bands: int, rows: int) -> float:
    """The chance that two texts of this Jaccard similarity meet in a band: 1 - (1 - J ** rows) ** bands."""
    return 1.0 - (1.0 - similarity**rows) ** bands


class MinHash:
    """Signatures of `bands * rows` minima, of which `rows` at a time make the key of a band."""

    def __init__(self, bands: int = 14, rows: int = 8, shingle: int = 5, seed: int = 0) -> None:
        self.bands, self.rows, self.shingle, self.seed = bands, rows, shingle, seed

    @cached_property
    def _factors(self) -> tuple[np.ndarray, np.ndarray]:
        count = self.bands * self.rows
        drawn = _mixed((np.arange(1, 2 * count + 1, dtype=np.uint64) + np.uint64(self.seed << 20)) * _PRIME)
        halves = (drawn >> np.uint64(32)).astype(np.uint32)[:, None]
        return halves[:count] | np.uint32(1), halves[count:]

    def signature(self, text: str) -> np.ndarray:
        """uint32 (bands * rows,): minima of permutations a * x + b of 32-bit hashes; all ones for no words."""
        values = (_runs(text, self.shingle) >> np.uint64(32)).astype(np.uint32)
        multiply, add = self._factors
        least = np.full(len(multiply), np.iinfo(np.uint32).max, np.uint32)
        for start in range(0, len(values), _BLOCK):
            hashed = values[None, start : start + _BLOCK] * multiply
            hashed += add
            np.minimum(least, hashed.min(axis=1), out=least)
        return least

    def band_keys(self, signature: np.ndarray) -> np.ndarray:
        """uint64 (..., bands): equal keys of a band make two texts candidates."""
        parts = signature.astype(np.uint64).reshape(*signature.shape[:-1], self.bands, self.rows)
        keys = np.broadcast_to(np.arange(1, self.bands + 1, dtype=np.uint64), parts.shape[:-1]).copy()
        for place in range(self.rows):
            keys *= _PRIME
            keys += _mixed(parts[..., place] + np.uint64(place))
        return _mixed(keys)


def estimate(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Estimated Jaccard similarity: the share of equal minima along the last axis."""
    return (one == other).mean(axis=-1)


def clusters(keys: np.ndarray, signatures: np.ndarray | None = None, similarity: float = 0.0) -> np.ndarray:
    """int64 (n,): the smallest row that each row is connected with through equal keys (n, bands).

    With signatures, neighbours of a band are connected only at an estimated similarity of at least `similarity`.
    """
    parent = list(range(len(keys)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for band in range(keys.shape[1]):
        order = np.argsort(keys[:, band], kind="stable")
        same = np.flatnonzero(keys[order[1:], band] == keys[order[:-1], band])
        left, right = order[same], order[same + 1]
        if signatures is not None:
            near = estimate(signatures[left], signatures[right]) >= similarity
            left, right = left[near], right[near]
        for one, other in zip(left.tolist(), right.tolist(), strict=True):
            one, other = root(one), root(other)
            if one != other:
                parent[max(one, other)] = min(one, other)
    return np.array([root(row) for row in range(len(keys))], np.int64)


def first_of(groups: np.ndarray, priority: np.ndarray | None = None) -> np.ndarray:
    """Which rows stay, one per group: the one of highest priority, the earliest of equals."""
    order = np.arange(len(groups)) if priority is None else np.argsort(-priority, kind="stable")
    _, first = np.unique(groups[order], return_index=True)
    kept = np.zeros(len(groups), bool)
    kept[order[first]] = True
    return kept


def content_hash(text: str, normalise: str) -> bytes:
    """16 bytes that tell texts apart: `none` as they are, `space` whatever the case and spacing, `words` by words."""
    if normalise == "space":
        text = " ".join(text.casefold().split())
    elif normalise == "words":
        text = " ".join(re.findall(r"\w+", text.casefold()))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
