"""Rows that are decoded together: they join and leave at any step, each with its own length."""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pickaxe.lm.cache import KV
from pickaxe.lm.outcome import Outcome

if TYPE_CHECKING:
    from pickaxe.lm.network import Network


class Batch:
    """Memory for the keys and values of up to `rows` sequences; row numbers are dense, `[0, active)`.

    Memory of rows and slots that were never written is not taken from the system.
    """

    def __init__(self, network: Network, rows: int, capacity: int) -> None:
        self._network = network
        self._rows = rows
        arch = network.architecture
        shape = (rows, arch.kv_heads, capacity, arch.head_size)
        self._memory = [_untouched(shape, network.dtype) for _ in range(2 * arch.layers)]
        self._cache = self._view([])

    @property
    def active(self) -> int:
        return self._cache.rows

    @property
    def full(self) -> bool:
        return self.active == self._rows

    def join(self, prompt: KV, row: int = 0) -> int:
        """Add this row of `prompt`; returns its number here."""
        place, length = self.active, int(prompt.lengths[row])
        self._reserve(length)
        for target, source in zip(self._fetched(), prompt.tensors, strict=True):
            target[place, :, :length] = source[row, :, :length]
        self._cache = self._view([*self._cache.lengths, length])
        return place

    def leave(self, row: int) -> int:
        """Remove a row: the last one takes its number.  Returns the number which that one had."""
        last = self.active - 1
        lengths, memory = self._cache.lengths.copy(), self._fetched()
        if row != last:
            for tensor in memory:
                tensor[row, :, : lengths[last]] = tensor[last, :, : lengths[last]]
            lengths[row] = lengths[last]
        self._cache = self._view(lengths[:last])
        return last

    def step(self, tokens: Sequence[int], going: Sequence[bool] | None = None) -> Outcome:
        """Append one token to every active row, or only to those `going` on; what may follow those that moved."""
        count = self.active
        moving = np.ones(count, np.int64) if going is None else np.asarray(going, np.int64)
        self._reserve(self._cache.width + 1)
        ids = np.asarray(tokens, dtype=np.int64)[:, None]
        hidden, self._cache = self._network.read(ids, moving, self._cache, np.flatnonzero(moving))
        return Outcome.of(self._network.logits(hidden))

    def _fetched(self) -> list[np.ndarray]:
        """The memory with all that the active rows wrote."""
        _ = self._cache.tensors  # views of the memory, which this brings up to date
        return self._memory

    def _view(self, lengths: Sequence[int] | np.ndarray) -> KV:
        return KV([tensor[: len(lengths)] for tensor in self._memory], lengths)

    def _reserve(self, length: int) -> None:
        """Room for rows of this length; grows by half at least, so that growing stays rare."""
        capacity = self._memory[0].shape[2]
        if length <= capacity:
            return
        wanted = max(length, min(capacity * 3 // 2, self._network.architecture.context))
        memory, lengths = self._fetched(), self._cache.lengths
        del self._cache  # its views would keep every old tensor until the last one is copied
        for place, tensor in enumerate(memory):
            wider = _untouched((*tensor.shape[:2], wanted, tensor.shape[3]), tensor.dtype)
            for row, used in enumerate(lengths):
                wider[row, :, :used] = tensor[row, :, :used]
            memory[place] = wider
        self._cache = self._view(lengths)


def _untouched(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Zeros that take memory only where they are written to; an allocator may hand out used memory, zeroed."""
    kind = np.dtype(dtype)
    pages = mmap.mmap(-1, math.prod(shape) * kind.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(pages, kind).reshape(shape)
