"""Rows that are decoded together: they join and leave at any step, each with its own length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pickaxe.lm.cache import KV

if TYPE_CHECKING:
    from pickaxe.call import Call
    from pickaxe.lm.network import Network


class Batch:
    """Memory for the keys and values of up to `rows` sequences; row numbers are dense, `[0, active)`."""

    def __init__(self, network: Network, rows: int, capacity: int) -> None:
        self._network = network
        self._cache = KV.empty(network.architecture, rows, capacity, network.dtype)
        self._lengths = np.zeros(rows, np.int64)
        self.active = 0

    @property
    def full(self) -> bool:
        return self.active == len(self._lengths)

    def join(self, prompt: KV) -> int:
        """Add the one row of `prompt`; returns its number."""
        row, length = self.active, prompt.width
        self._reserve(length)
        for target, source in zip(self._cache.tensors, prompt.tensors, strict=True):
            target[row, :, :length] = source[0, :, :length]
        self._lengths[row] = length
        self.active += 1
        return row

    def leave(self, row: int) -> int:
        """Remove a row: the last one takes its number.  Returns the number which that one had."""
        last = self.active - 1
        if row != last:
            length = int(self._lengths[last])
            for tensor in self._cache.tensors:
                tensor[row, :, :length] = tensor[last, :, :length]
            self._lengths[row] = length
        self.active = last
        return last

    def step(self, tokens: Sequence[int], call: Call | None = None) -> np.ndarray:
        """Append one token to every active row; float32 logits (active, vocab) of what may follow."""
        count = self.active
        self._reserve(int(self._lengths[:count].max()) + 1)
        cache = KV([tensor[:count] for tensor in self._cache.tensors], self._lengths[:count])
        ids = np.asarray(tokens, dtype=np.int64)[:, None]
        hidden, longer = self._network.read(ids, np.ones(count, np.int64), cache, np.arange(count), call=call)
        logits = self._network.logits(hidden, call)
        self._lengths[:count] = longer.lengths
        return logits

    def _reserve(self, length: int) -> None:
        """Room for rows of this length; grows by half at least, so that growing stays rare."""
        capacity = self._cache.capacity
        if length > capacity:
            self._cache = self._cache.resized(max(length, min(capacity * 3 // 2, self._network.architecture.context)))
