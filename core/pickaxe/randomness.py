"""Keyed randomness: a draw depends on what it is for, never on batch size, thread or order."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, *key: str | int) -> np.random.Generator:
    """The stream of random numbers that belongs to (seed, key), e.g. `generator(call.seed, item.id)`.

    A counter-based generator (Philox) keyed by a hash: equal keys give equal streams on every machine, and
    different keys give independent ones.
    """
    text = "\x1f".join(map(_named, (int(seed), *key)))
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def _named(part: str | int) -> str:
    """A part of the key with its type; the separator is doubled inside texts, so that no two keys look alike."""
    if isinstance(part, str):
        return "str:" + part.replace("\x1f", "\x1f\x1f")
    return f"int:{int(part)}"


def uniform(seed: int, *key: str | int) -> float:
    """One number in [0, 1) that belongs to (seed, key)."""
    return float(generator(seed, *key).random())
