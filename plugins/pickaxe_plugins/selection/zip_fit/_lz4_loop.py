"""LZ4 sizes of a source and many targets in one compiled loop, without the interpreter's lock.

For texts of some hundred bytes a call from Python costs as much as the compression, and two threads only wait for each
other.  The loop calls the function that `lz4.frame.compress` calls, in that package's own library: the sizes are the
same by construction.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from pickaxe.errors import MethodFailed
from pickaxe.extras import loop_compiler, require
from pickaxe_plugins.selection.zip_fit._texts import Sizes, Texts


class Preferences(ctypes.Structure):
    """`LZ4F_preferences_t` of lz4frame.h; all zero is what the Python package passes, but for size and level."""

    _fields_ = (
        ("block_size", ctypes.c_int),
        ("block_mode", ctypes.c_int),
        ("content_checksum", ctypes.c_int),
        ("frame_type", ctypes.c_int),
        ("content_size", ctypes.c_uint64),
        ("dictionary", ctypes.c_uint),
        ("block_checksum", ctypes.c_int),
        ("level", ctypes.c_int),
        ("auto_flush", ctypes.c_uint),
        ("favour_decompression", ctypes.c_uint),
        ("reserved", ctypes.c_uint * 3),
    )


CONTENT_SIZE = Preferences.content_size.offset // 8
POINTER, SIZE = ctypes.c_void_p, ctypes.c_size_t


class Lz4Loop:
    """The loop at one level.  Safe to share between threads.  Raises AttributeError where the library hides its API."""

    longest = 2**31

    def __init__(self, level: int) -> None:
        library = ctypes.CDLL(require("lz4.frame._frame", "compressors").__file__)
        self._compress = _declared(library.LZ4F_compressFrame, SIZE, POINTER, SIZE, POINTER, SIZE, POINTER)
        self._bound = _declared(library.LZ4F_compressFrameBound, SIZE, SIZE, POINTER)
        self._level = level

    def after(self, source: bytes, targets: Texts) -> Sizes:
        """The sizes of `source + target`."""
        most = len(source) + targets.longest
        preferences = Preferences(level=self._level)
        settings = np.frombuffer(bytes(preferences), np.uint64).copy()
        text = np.empty(most, np.uint8)
        text[: len(source)] = np.frombuffer(source, np.uint8)
        room = np.empty(self._bound(most, ctypes.byref(preferences)), np.uint8)

        def sizes(start: int, stop: int) -> np.ndarray:
            found = np.empty(stop - start, np.int64)
            _sizes(
                self._compress,
                settings,
                text,
                len(source),
                targets.joined,
                targets.bounds[start : stop + 1],
                room,
                found,
            )
            if (found < 0).any():
                raise MethodFailed(f"lz4 cannot compress {most} bytes: its error {int(-found.min())}")
            return found

        return sizes


def _declared(function: Any, result: Any, *arguments: Any) -> Any:
    function.restype, function.argtypes = result, arguments
    return function


@loop_compiler("compressors")
def _sizes(
    compress: Any,
    settings: np.ndarray,
    text: np.ndarray,
    source: int,
    joined: np.ndarray,
    bounds: np.ndarray,
    room: np.ndarray,
    sizes: np.ndarray,
) -> None:
    """Each target goes behind the source in `text`; errors come as negative sizes, as the library has them."""
    for row in range(len(bounds) - 1):
        length = bounds[row + 1] - bounds[row]
        text[source : source + length] = joined[bounds[row] : bounds[row + 1]]
        settings[CONTENT_SIZE] = source + length
        sizes[row] = compress(room.ctypes.data, len(room), text.ctypes.data, source + length, settings.ctypes.data)
