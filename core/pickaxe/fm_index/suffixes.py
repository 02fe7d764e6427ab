"""The suffix array of a text, its Burrows-Wheeler transform, and the samples an index keeps of the array."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pickaxe.errors import InvalidItems
from pickaxe.extras import require

LARGEST = 2**31 - 2
"""Most symbols of a text: positions are held in 32 bits."""


def dense(text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct symbols (s,) int64, rising, and the text (n,) in numbers 1 to s of the narrowest kind; 0 is free.

    Raises `InvalidItems` for what is no row of integers of at least 0.
    """
    if text.ndim != 1 or not np.issubdtype(text.dtype, np.integer):
        raise InvalidItems("text", f"is {text.dtype} of shape {text.shape}; must be integers in one row")
    if len(text) > LARGEST:
        raise InvalidItems("text", f"has {len(text)} symbols; an index holds at most {LARGEST}: cut it into parts")
    if not len(text):
        return np.empty(0, np.int64), np.empty(0, np.uint8)
    low, high = int(text.min()), int(text.max())
    if low < 0:
        raise InvalidItems("text", f"holds the symbol {low}; symbols are at least 0")
    if high > max(2**22, 4 * len(text)):  # a table over all ids would outgrow the text
        symbols, numbers = np.unique(text, return_inverse=True)
        return symbols.astype(np.int64), (numbers + 1).astype(_narrowest(len(symbols)))
    symbols = np.flatnonzero(np.bincount(text, minlength=1))
    table = np.zeros(high + 1, _narrowest(len(symbols)))
    table[symbols] = np.arange(1, len(symbols) + 1)
    return symbols, table[text]


def _narrowest(largest: int) -> np.dtype:
    return np.min_scalar_type(largest)


def suffix_array(numbers: np.ndarray) -> np.ndarray:
    """int32 (n + 1,): where the suffixes start, in their order; the empty suffix, n, is the first."""
    library = require("pydivsufsort", extra="retrieval")
    array = np.empty(len(numbers) + 1, np.int32)
    array[0] = len(numbers)
    if len(numbers):
        array[1:] = library.divsufsort(np.ascontiguousarray(numbers))
    return array


@dataclass(frozen=True)
class Sorted:
    """What an index is made from: the transform and the samples, of a text of n symbols."""

    transform: np.ndarray
    """(n + 1,): the number before each suffix, in the order of the suffixes; 0 before the whole text."""
    marked: np.ndarray
    """bool (n + 1,): suffixes that start at a multiple of `step`."""
    starts: np.ndarray
    """uint32: where the marked suffixes start, divided by `step`, in the order of the suffixes."""
    rows: np.ndarray
    """uint32: the places, in the order of suffixes, of those that start at multiples of `stride`, and of the empty."""


def transformed(numbers: np.ndarray, step: int, stride: int) -> Sorted:
    """Sort the suffixes and keep what an index needs; 13 bytes per symbol at the peak for an alphabet of bytes."""
    array = suffix_array(numbers)
    transform = np.empty(len(array), numbers.dtype)
    np.take(numbers, array - 1, out=transform, mode="wrap") if len(numbers) else None
    transform[array == 0] = 0
    marked = array % step == 0
    starts = (array[marked] // step).astype(np.uint32)
    chosen = np.flatnonzero(array % stride == 0)
    rows = np.zeros(len(numbers) // stride + 1, np.uint32)
    rows[array[chosen] // stride] = chosen
    return Sorted(transform, marked, starts, rows)
