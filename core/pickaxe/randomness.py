"""Keyed randomness: a draw depends on what it is for, never on batch size, thread or order."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, *key: str | int) -> np.random.Generator:
    """The stream of random numbers that belongs to (seed, key), e.g. `generator(call.seed, item.id)`.

    A counter-based generator (Philox) keyed by a hash: equal keys give equal streams on every machine, and
    different keys give independent ones.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in (int(seed), *key))
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def uniform(seed: int, *key: str | int) -> float:
    """One number in [0, 1) that belongs to (seed, key)."""
    return float(generator(seed, *key).random())
