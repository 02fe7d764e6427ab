"""Texts as the compressors take them, and the function that tells the sizes of pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np

Sizes: TypeAlias = Callable[[int, int], "Sequence[int] | np.ndarray"]
"""From `start, stop` to the sizes of one source followed by each of these targets; for one thread."""


@dataclass(frozen=True)
class Texts:
    """Texts in UTF-8, also as one array."""

    each: Sequence[bytes]

    @cached_property
    def longest(self) -> int:
        """Bytes of the longest."""
        return max(map(len, self.each))

    @cached_property
    def joined(self) -> np.ndarray:
        return np.frombuffer(b"".join(self.each), np.uint8)

    @cached_property
    def bounds(self) -> np.ndarray:
        """Text i is `joined[bounds[i] : bounds[i + 1]]`."""
        return np.cumsum([0, *map(len, self.each)])
