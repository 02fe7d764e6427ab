"""Uniform numbers that belong to (seed, item, entry): Philox4x32-10 (Salmon et al. 2011) over arrays of keys.

`pickaxe.generator` makes one stream a key, which takes microseconds; a text has a dozen matches and a corpus
millions of texts, so here the numbers of a whole batch are made at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = 0x9E3779B9, 0xBB67AE85
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def key(name: str) -> int:
    """64 bits of a text."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def keys(names: Iterable[str]) -> np.ndarray:
    """(n,) uint64: the `key` of each."""
    return np.array([key(name) for name in names], np.uint64)


def uniforms(seed: int, items: np.ndarray, entries: np.ndarray) -> np.ndarray:
    """(n,) numbers in [0, 1) for the pairs of item and entry keys, both (n,) uint64."""
    counter = (items & _LOW, items >> _HALF, entries & _LOW, entries >> _HALF)
    seeded = key(f"seed {seed}")
    high, low, *_ = philox(counter, (seeded & 0xFFFFFFFF, seeded >> 32))
    bits: np.ndarray = (high << _HALF | low) >> np.uint64(11)
    return bits * 2.0**-53


def philox(
    counter: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], seed: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The four 32-bit words of each counter of four 32-bit words, all in uint64 arrays."""
    a, b, c, d = counter
    for turn in range(10):
        one, two = (np.uint64((part + turn * step) & 0xFFFFFFFF) for part, step in zip(seed, _WEYL, strict=True))
        first, second = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b, c, d = (second >> _HALF) ^ b ^ one, second & _LOW, (first >> _HALF) ^ d ^ two, first & _LOW
    return a, b, c, d
