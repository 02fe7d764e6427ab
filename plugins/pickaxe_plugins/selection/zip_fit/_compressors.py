"""Compressed sizes: what the methods that compare texts by compression need of each compressor.

A size is the number of bytes of the complete output, headers and trailers included, exactly as the usual
Python call of each library returns it.
"""

from __future__ import annotations

import abc
import platform
import zlib
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, TypeAlias

from pickaxe.extras import require

Name: TypeAlias = Literal["gzip", "zlib", "lz4", "zstd", "brotli", "lzma"]

EXTRA = "compressors"
COPY_FROM = 1024
"""Source bytes from which copying a deflate state is cheaper than compressing the source anew; measured with
`benchmarks/bench_zip_fit.py`."""
MIN_LOOKAHEAD = 262
"""Deflate never matches further back than its window less this many bytes."""

Sizer = Callable[[bytes], int]
Sizes = Callable[[Sequence[bytes]], list[int]]


class Compressor(abc.ABC):
    """One compressor at one level.  Safe to share between threads."""

    levels: ClassVar[range]
    default: ClassVar[int]
    parallel_from: ClassVar[int] = 0
    """Bytes of a source and target together from which a second thread gains more than taking turns costs."""

    def __init__(self, level: int) -> None:
        self.level = level

    @property
    @abc.abstractmethod
    def library(self) -> str:
        """Name and version of the library; sizes are only comparable within one."""

    @abc.abstractmethod
    def sizer(self) -> Sizer:
        """A function from bytes to their compressed size, for use by one thread."""

    def after(self, source: bytes, longest: int) -> Sizes:
        """A function from targets of at most `longest` bytes to the sizes of `source + target`, for one thread."""
        size = self.sizer()
        return lambda targets: [size(source + target) for target in targets]


class Deflate(Compressor):
    """Raw deflate plus the constant bytes that a container adds around it."""

    levels, default = range(10), 6
    container: ClassVar[int]

    @property
    def library(self) -> str:
        return f"zlib {zlib.ZLIB_RUNTIME_VERSION}"

    def sizer(self) -> Sizer:
        level, container, compress = self.level, self.container, zlib.compress
        if level == 0:
            return lambda data: len(compress(data, 0, -15)) + container
        return lambda data: len(compress(data, level, -_window_bits(len(data)))) + container

    def after(self, source: bytes, longest: int) -> Sizes:
        level, window, compress = self.level, -_window_bits(len(source) + longest), zlib.compress
        # Stored blocks (level 0) are cut where the output buffer ends, so only one call gives their true size.
        if level == 0:
            return super().after(source, longest)
        if len(source) < COPY_FROM:
            container = self.container
            return lambda targets: [len(compress(source + target, level, window)) + container for target in targets]
        state = zlib.compressobj(level, zlib.DEFLATED, window)
        head = len(state.compress(source)) + self.container

        def size(target: bytes) -> int:
            copy = state.copy()
            return head + len(copy.compress(target)) + len(copy.flush())

        return lambda targets: list(map(size, targets))


def _window_bits(length: int) -> int:
    """The smallest deflate window that still sees all of `length` bytes: the same output, half the state to set up."""
    return min(max((length + MIN_LOOKAHEAD - 1).bit_length(), 9), 15)


class Gzip(Deflate):
    container = 18  # header 10, trailer 8


class Zlib(Deflate):
    container = 6  # header 2, checksum 4


class Lz4(Compressor):
    """The frame format with the package's defaults: content size stored, blocks linked."""

    levels, default = range(-65537, 17), 0
    parallel_from = 4096

    @property
    def library(self) -> str:
        return f"lz4 {require('lz4', EXTRA).library_version_string()}"

    def sizer(self) -> Sizer:
        compress, level = require("lz4.frame", EXTRA).compress, self.level
        return lambda data: len(compress(data, level))

    def after(self, source: bytes, longest: int) -> Sizes:
        compress, level = require("lz4.frame", EXTRA).compress, self.level
        return lambda targets: [len(compress(source + target, level)) for target in targets]


class Zstd(Compressor):
    levels, default = range(-131072, 23), 3

    @property
    def library(self) -> str:
        return "zstd " + ".".join(str(part) for part in require("zstandard", EXTRA).ZSTD_VERSION)

    def sizer(self) -> Sizer:
        compress = require("zstandard", EXTRA).ZstdCompressor(level=self.level).compress
        return lambda data: len(compress(data))


class Brotli(Compressor):
    levels, default = range(12), 11

    @property
    def library(self) -> str:
        return f"brotli {require('brotli', EXTRA).__version__}"

    def sizer(self) -> Sizer:
        compress, level = require("brotli", EXTRA).compress, self.level
        return lambda data: len(compress(data, quality=level))


class Lzma(Compressor):
    """The .xz format."""

    levels, default = range(10), 6

    @property
    def library(self) -> str:
        return f"lzma of Python {platform.python_version()}"  # the module does not tell the library's own version

    def sizer(self) -> Sizer:
        import lzma

        compress, level = lzma.compress, self.level
        return lambda data: len(compress(data, preset=level))


COMPRESSORS: dict[str, type[Compressor]] = {
    "gzip": Gzip, "zlib": Zlib, "lz4": Lz4, "zstd": Zstd, "brotli": Brotli, "lzma": Lzma,
}  # fmt: skip
