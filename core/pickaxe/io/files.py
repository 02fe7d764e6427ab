"""Input files: which ones an argument names, and their bytes, decompressed and counted."""

from __future__ import annotations

import glob
import io
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

from pickaxe.errors import InvalidItems
from pickaxe.extras import require

STDIN = "-"
FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".txt": "text",
    ".md": "text",
}
"""Suffix → format, once a compression suffix is taken off."""
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_MAGIC = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}
_BLOCK = 1 << 18


class Damaged(Exception):
    """Compressed data that ends early or cannot be decompressed; the reader adds where."""


@dataclass
class Meter:
    """How far reading has come, in bytes as they lie on disk; `total` None: unknown."""

    read: int = 0
    total: int | None = None


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file to read.  `path` None is standard input; `label` names it in ids."""

    path: Path | None
    label: str
    in_directory: bool = False
    """Found by looking through a directory, not named by itself."""

    @property
    def shown(self) -> str:
        return self.label if self.path is None else str(self.path)

    @property
    def compression(self) -> str:
        return "" if self.path is None else COMPRESSIONS.get(self.path.suffix.lower(), "")

    def format(self, wanted: str) -> str:
        """The format to read it in; raises `InvalidItems` when the suffix does not tell."""
        if wanted != "auto":
            return wanted
        if self.path is None:
            return "jsonl"
        found = _format(self.path)
        if not found:
            raise InvalidItems(
                self.shown, f"has no suffix that tells its format ({', '.join(FORMATS)}): name it with --format"
            )
        return "files" if found == "text" and self.in_directory else found


def _format(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return FORMATS.get(suffixes[-1], "") if suffixes else ""


def expand(inputs: Iterable[str | os.PathLike[str]], every_suffix: bool = False) -> list[InputFile]:
    """The files that paths, patterns (`shards/*.jsonl`), directories and "-" name, sorted within each.

    Of a directory, files of known suffix are taken (any suffix with `every_suffix`), its folders too, hidden ones
    not.  Raises `InvalidItems` for what names no file.
    """
    found: list[InputFile] = []
    for given in inputs:
        found += _expanded(os.fspath(given), every_suffix)
    return found


def _expanded(text: str, every_suffix: bool) -> list[InputFile]:
    if text == STDIN:
        return [InputFile(None, "stdin")]
    path = Path(text)
    if path.is_dir():
        files = [
            InputFile(file, file.relative_to(path).as_posix(), True)
            for file in sorted(path.rglob("*"))
            if file.is_file() and not _hidden(file.relative_to(path)) and (every_suffix or _format(file))
        ]
        if not files:
            raise InvalidItems(text, f"is a directory without files of a known suffix ({', '.join(FORMATS)})")
        return files
    if path.exists():
        return [InputFile(path, path.name)]
    if glob.has_magic(text):
        matches = [Path(match) for match in sorted(glob.glob(text, recursive=True)) if Path(match).is_file()]
        if not matches:
            raise InvalidItems(text, "matches no file")
        root = os.path.commonpath([match.parent for match in matches])
        return [InputFile(match, os.path.relpath(match, root)) for match in matches]
    raise InvalidItems(text, "does not exist")


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


class Spool:
    """Standard input, kept in a temporary file while it is read so that it can be read again."""

    def __init__(self, keep: bool) -> None:
        self._keep = keep
        self._copy: IO[bytes] | None = None
        self._begun = False

    def open(self) -> io.RawIOBase:
        """A stream from the beginning; raises `InvalidItems` the second time when it was not kept."""
        source = sys.stdin.buffer
        if not self._begun:
            self._begun = True
            if self._keep:
                self._copy = tempfile.TemporaryFile(prefix="pickaxe-stdin-")  # noqa: SIM115 - lives as long as this
            return _Stream(source, self._kept, close=False)
        if self._copy is None:
            raise InvalidItems("stdin", "can be read only once here: put it into a file")
        self._copy.seek(0, os.SEEK_END)
        shutil.copyfileobj(source, self._copy)
        self._copy.seek(0)
        return _Stream(self._copy, lambda data: None, close=False)

    def _kept(self, data: bytes) -> None:
        if self._copy is not None:
            self._copy.write(data)


def opened(file: InputFile, meter: Meter, spool: Spool) -> BinaryIO:
    """The file's bytes, decompressed; `meter` counts what is read from disk.

    Raises `InvalidItems` when it cannot be opened; reading from it raises `Damaged`.
    """
    try:
        raw: io.RawIOBase = spool.open() if file.path is None else file.path.open("rb", buffering=0)
    except OSError as error:
        raise InvalidItems(file.shown, f"cannot be read: {error.strerror}") from error

    def count(data: bytes) -> None:
        meter.read += len(data)

    stream = io.BufferedReader(_Stream(raw, count, close=True), _BLOCK)
    compression = file.compression
    if file.path is None:
        start = stream.peek(4)
        compression = next((name for name, magic in _MAGIC.items() if start.startswith(magic)), "")
    if not compression:
        return stream
    return io.BufferedReader(_Inflated(stream, _inflaters(compression)), _BLOCK)


class _Stream(io.RawIOBase):
    """Passes reads through and shows every block to `see`."""

    def __init__(self, source: IO[bytes] | io.RawIOBase, see: Callable[[bytes], None], *, close: bool) -> None:
        self._read: Callable[[int], bytes] = getattr(source, "read1", source.read)  # without waiting for more
        self._source, self._see, self._close = source, see, close

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._read(len(buffer))
        self._see(data)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if self._close:
            self._source.close()
        super().close()


def _inflaters(compression: str) -> Callable[[], Any]:
    if compression == "gzip":
        return lambda: zlib.decompressobj(wbits=31)
    zstandard = require("zstandard", extra="data")
    return lambda: zstandard.ZstdDecompressor().decompressobj()


class _Inflated(io.RawIOBase):
    """Decompressed bytes of any number of gzip members or zstd frames; a cut end is an error, not an end."""

    def __init__(self, source: BinaryIO, new: Callable[[], Any]) -> None:
        self._source = source
        self._blocks = self._inflate(source, new)
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._ready = memoryview(block)
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size

    def close(self) -> None:
        self._source.close()
        super().close()

    @staticmethod
    def _inflate(source: BinaryIO, new: Callable[[], Any]) -> Iterator[bytes]:
        current, data = None, b""
        while data := data or source.read(_BLOCK):
            current = current or new()
            try:
                block = current.decompress(data)
            except Exception as error:
                raise Damaged(f"the compressed data cannot be read ({error})") from error
            data = current.unused_data
            if current.eof:
                current = None
            if block:
                yield block
        if current is not None:
            raise Damaged("the compressed data ends before its end mark")
