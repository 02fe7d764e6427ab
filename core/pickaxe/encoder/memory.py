"""Vectors of texts seen before: rerankers meet the same passages under many queries."""

from __future__ import annotations

import hashlib
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pickaxe.call import Call
    from pickaxe.encoder import Encoder

CAPACITY = 32 * 2**20
"""Bytes of vectors kept: about 20,000 of width 384."""


class VectorMemory:
    """An encoder's normalised vectors by text, least recently used ones forgotten first.  Thread-safe.

    A remembered vector may differ from a fresh one in its last bits (below 1e-7), since batches differ.
    """

    def __init__(self, encoder: Encoder, capacity: int = CAPACITY) -> None:
        self._encoder = weakref.proxy(encoder)  # which holds this memory, and is freed when its last user leaves
        self._most = max(1, capacity // (4 * encoder.width))
        self._vectors: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def encode(self, texts: Sequence[str], call: Call | None = None) -> np.ndarray:
        """Vectors (n, d) float32 of length 1."""
        keys = [hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in texts]
        with self._lock:
            known = {key: self._vectors[key] for key in keys if key in self._vectors}
        fresh = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        if fresh:
            made = self._encoder.encode(list(fresh.values()), call)
            known.update(zip(fresh, made, strict=True))
        with self._lock:
            for key in keys:
                self._vectors[key] = known[key]
                self._vectors.move_to_end(key)
            while len(self._vectors) > self._most:
                self._vectors.popitem(last=False)
        return np.stack([known[key] for key in keys]) if keys else np.empty((0, self._encoder.width), np.float32)
