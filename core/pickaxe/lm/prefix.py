"""Keys and values of prompts that were read before, for prompts that begin alike."""

from __future__ import annotations

import threading
from collections import OrderedDict
from itertools import count

import numpy as np

from pickaxe.lm.cache import KV

LEAST = 16
"""Tokens below which remembering costs more than reading again."""
UNREAD = 2
"""Tokens at the end of a prompt that are always read: one token alone goes through another kernel, which rounds
differently."""


class PrefixCache:
    """The prompts used last, up to `capacity` bytes of keys and values; safe to use from several threads.

    What `longest` returns is a copy: entries may be dropped at any time without anybody noticing.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.nbytes = 0
        self._entries: OrderedDict[int, tuple[np.ndarray, KV]] = OrderedDict()
        self._names = count()
        self._lock = threading.Lock()

    def longest(self, ids: np.ndarray) -> KV | None:
        """Keys and values (one row, room for all of `ids`) of the longest beginning of `ids` that is known."""
        with self._lock:
            found, best = 0, -1
            for name, (known, _) in self._entries.items():
                if (shared := _common(known, ids)) > found:
                    found, best = shared, name
            length = min(found, len(ids) - UNREAD)
            if length < LEAST:
                return None
            self._entries.move_to_end(best)
            return self._entries[best][1].truncate(length).resized(len(ids))

    def knows(self, ids: np.ndarray) -> bool:
        """Whether a beginning of `ids` that is worth copying is known."""
        with self._lock:
            shared = max((_common(known, ids) for known, _ in self._entries.values()), default=0)
            return min(shared, len(ids) - UNREAD) >= LEAST

    def remember(self, ids: np.ndarray, read: KV) -> None:
        """Keep a copy of the keys and values of this whole prompt, if it is not the beginning of a known one."""
        if len(ids) < LEAST or read.width * read.token_bytes > self.capacity:
            return
        with self._lock:
            shared = {name: _common(known, ids) for name, (known, _) in self._entries.items()}
            for name, length in shared.items():
                if length == len(ids):
                    self._entries.move_to_end(name)
                    return
            for name, length in shared.items():
                if length == len(self._entries[name][0]):
                    self._drop(name)
            kept = read.resized(len(ids))
            self._entries[next(self._names)] = ids.copy(), kept
            self.nbytes += kept.nbytes
            while self.nbytes > self.capacity:
                self._drop(next(iter(self._entries)))

    def _drop(self, name: int) -> None:
        self.nbytes -= self._entries.pop(name)[1].nbytes


def _common(first: np.ndarray, second: np.ndarray) -> int:
    """Length of the beginning that two lists of ids share."""
    size = min(len(first), len(second))
    differ = np.flatnonzero(first[:size] != second[:size])
    return int(differ[0]) if len(differ) else size
