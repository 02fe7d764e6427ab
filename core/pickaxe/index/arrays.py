"""`.npy` files that are written row by row, when nobody knows yet how many rows there will be."""

from __future__ import annotations

from pathlib import Path

import numpy as np

HEADER = 128
BLOCK = 4096
"""Rows copied at a time."""


class ArrayStream:
    """A two-dimensional `.npy` file (n, width), or a one-dimensional one (n,) for width None."""

    def __init__(self, path: Path, dtype: type, width: int | None = None) -> None:
        self._stream = path.open("wb")
        self._dtype, self._width = np.dtype(dtype), width
        self.rows = 0
        self._header()

    def _header(self) -> None:
        shape = f"({self.rows},)" if self._width is None else f"({self.rows}, {self._width})"
        text = f"{{'descr': '{self._dtype.str}', 'fortran_order': False, 'shape': {shape}, }}"
        length = HEADER - 10
        self._stream.seek(0)
        self._stream.write(
            b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + text.ljust(length - 1).encode() + b"\n"
        )

    def write(self, rows: np.ndarray) -> None:
        self._stream.write(np.ascontiguousarray(rows, self._dtype).data)
        self.rows += len(rows)

    def copy(self, array: np.ndarray, rows: np.ndarray) -> None:
        """These rows of another array, which may be far larger than memory."""
        for start in range(0, len(rows), BLOCK):
            self.write(array[rows[start : start + BLOCK]])

    def close(self) -> None:
        """Write down how many rows there are."""
        if not self._stream.closed:
            self._header()
            self._stream.close()
