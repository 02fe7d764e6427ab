"""Compressed sizes: what the methods that compare texts by compression need of each compressor.

A size is the number of bytes of the complete output, headers and trailers included, exactly as the usual
Python call of each library returns it.
"""

from __future__ import annotations

import abc
import platform
import zlib
from collections.abc import Callable
from functools import cached_property
from importlib.util import find_spec
from typing import ClassVar, Literal, Protocol, TypeAlias

from pickaxe.extras import require
from pickaxe_plugins.selection.zip_fit._texts import Sizes, Texts

Name: TypeAlias = Literal["gzip", "zlib", "lz4", "zstd", "brotli", "lzma"]

EXTRA = "compressors"
COPY_FROM = 1024
"""Source bytes from which copying a deflate state is cheaper than compressing the source anew; measured with
`benchmarks/bench_zip_fit.py`."""
WORTH_COMPILING = 500_000
"""Pairs after which a compiled loop is loaded: that takes half a second, at its first use on a machine some seconds."""
MIN_LOOKAHEAD = 262
"""Deflate never matches further back than its window less this many bytes."""

Sizer = Callable[[bytes], int]


class Compressor(abc.ABC):
    """One compressor at one level.  Safe to share between threads."""

    levels: ClassVar[range]
    default: ClassVar[int]

    def __init__(self, level: int) -> None:
        self.level = level

    @property
    def parallel_from(self) -> int:
        """Bytes of a source and target together from which a second thread gains more than taking turns costs."""
        return 0

    @property
    @abc.abstractmethod
    def library(self) -> str:
        """Name and version of the library; sizes are only comparable within one."""

    @abc.abstractmethod
    def sizer(self) -> Sizer:
        """A function from bytes to their compressed size, for use by one thread."""

    def after(self, source: bytes, targets: Texts) -> Sizes:
        """A function from `start, stop` to the sizes of `source + target` of those targets, for one thread."""
        return _one_by_one(self.sizer(), source, targets)


class Loop(Protocol):
    """A compiled loop over many targets, for several threads at once."""

    longest: int
    """Bytes of source and target together that it takes at most."""

    def after(self, source: bytes, targets: Texts) -> Sizes: ...


class Looped(Compressor):
    """A compressor with a loop that is loaded once there was enough to do for it."""

    pairs: ClassVar[int] = 0
    """How many pairs this process has had."""

    def after(self, source: bytes, targets: Texts) -> Sizes:
        Looped.pairs += len(targets.each)
        loop = self.loop
        if loop is None or len(source) + targets.longest > loop.longest:
            return self.one_by_one(source, targets)
        return loop.after(source, targets)

    @property
    def loop(self) -> Loop | None:
        """None before there was enough to do, and where numba or what the loop needs of the library is missing."""
        return self._loop if Looped.pairs > WORTH_COMPILING else None

    @cached_property
    def _loop(self) -> Loop | None:
        return None if find_spec("numba") is None else self.make_loop()

    @abc.abstractmethod
    def make_loop(self) -> Loop | None:
        """Called with numba at hand; None when the library cannot be followed."""

    @abc.abstractmethod
    def one_by_one(self, source: bytes, targets: Texts) -> Sizes:
        """What `after` does without the loop."""


class Deflate(Looped):
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

    def make_loop(self) -> Loop | None:
        from pickaxe_plugins.selection.zip_fit._deflate_loop import LEVELS, DeflateLoop

        if self.level not in LEVELS:
            return None
        loop = DeflateLoop(self.level, self.container)
        return loop if loop.agrees() else None

    def one_by_one(self, source: bytes, targets: Texts) -> Sizes:
        level, window, compress = self.level, -_window_bits(len(source) + targets.longest), zlib.compress
        container = self.container
        # Stored blocks (level 0) are cut where the output buffer ends, so only one call gives their true size.
        if level == 0:
            return _one_by_one(self.sizer(), source, targets)
        if len(source) < COPY_FROM:
            return _one_by_one(lambda text: len(compress(text, level, window)) + container, source, targets)
        state = zlib.compressobj(level, zlib.DEFLATED, window)
        head = len(state.compress(source)) + container

        def size(target: bytes) -> int:
            copy = state.copy()
            return head + len(copy.compress(target)) + len(copy.flush())

        return lambda start, stop: list(map(size, targets.each[start:stop]))


def _one_by_one(size: Sizer, source: bytes, targets: Texts) -> Sizes:
    return lambda start, stop: [size(source + target) for target in targets.each[start:stop]]


def _window_bits(length: int) -> int:
    """The smallest deflate window that still sees all of `length` bytes: the same output, half the state to set up."""
    return min(max((length + MIN_LOOKAHEAD - 1).bit_length(), 9), 15)


class Gzip(Deflate):
    container = 18  # header 10, trailer 8


class Zlib(Deflate):
    container = 6  # header 2, checksum 4


class Lz4(Looped):
    """The frame format with the package's defaults: content size stored, blocks linked."""

    levels, default = range(-65537, 17), 0

    @property
    def library(self) -> str:
        return f"lz4 {require('lz4', EXTRA).library_version_string()}"

    @property
    def parallel_from(self) -> int:
        return 0 if self.loop is not None else 4096

    def sizer(self) -> Sizer:
        compress, level = require("lz4.frame", EXTRA).compress, self.level
        return lambda data: len(compress(data, level))

    def make_loop(self) -> Loop | None:
        from pickaxe_plugins.selection.zip_fit._lz4_loop import Lz4Loop

        try:
            return Lz4Loop(self.level)
        except AttributeError:  # the package hides the library's functions
            return None

    def one_by_one(self, source: bytes, targets: Texts) -> Sizes:
        return _one_by_one(self.sizer(), source, targets)


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
