"""Output files that survive the death of their writer: durable chunks, a journal, one rename at the end.

While `OUT` is made, its bytes are in `OUT.partial` and `OUT.journal` says what was asked for, how many rows are
safe and where they end.  A killed run leaves both; the next run of the same request cuts the partial file back to
the last safe row and goes on, and the finished file is the same, byte for byte.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from pickaxe.data import DType
from pickaxe.durable import is_full_disk, sync_directory, write_durably
from pickaxe.errors import AlreadyExists, PickaxeError, Unmet
from pickaxe.io.rows import Row
from pickaxe.io.writers import Encoding, to_parquet

SYNC_SECONDS = 0.5
"""How much work a killed run may have to do again."""


class Output:
    """A file in the making: `begin` it, append rows, and leave the `with` block of `output` to finish it."""

    def __init__(self, path: Path, stream: IO[bytes], encode: Encoding, journal: Journal | None) -> None:
        self.path = path
        self.done = journal.done if journal else 0
        """How much of the input the file covers, earlier runs included: go on after that."""
        self.resumed = self.done
        self.columns: Mapping[str, DType] = {}
        self._stream, self._encode, self._journal = stream, encode, journal
        self._offset, self._synced = journal.offset if journal else 0, time.monotonic()
        self._full = False

    def begin(self, columns: Mapping[str, DType]) -> None:
        """Say which columns the rows of a table have; JSON Lines need no columns."""
        self.columns = columns
        self._encode = replace(self._encode, columns=tuple(columns))
        if not self._offset:
            self._write(self._encode.header(), 0)

    def append(self, rows: Sequence[Row], done: int | None = None) -> None:
        """Add rows as one chunk; `done` inputs are covered by them (as many as rows, unless said).

        Equal chunks make equal files.
        """
        self._write(self._encode.chunk(rows), len(rows) if done is None else done)
        if self._journal is not None and time.monotonic() - self._synced >= SYNC_SECONDS:
            self.sync()

    def append_raw(self, data: bytes, done: int = 1) -> None:
        """Add bytes as they are, compressed as the file's name says; `done` inputs are covered by them."""
        self._write(self._encode.pack(data), done)

    def sync(self) -> None:
        """Make everything so far survive a crash."""
        if self._full:
            return
        with self._disk():
            self._stream.flush()
            os.fsync(self._stream.fileno())
            if self._journal is not None:
                self._journal.write(self.done, self._offset)
        self._synced = time.monotonic()

    def _write(self, data: bytes, done: int) -> None:
        with self._disk():
            self._stream.write(data)
            self._stream.flush()
        self._offset += len(data)
        self.done += done

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            self._full = True
            safe = (
                f"; {self._journal.done} inputs are done, the same command goes on after them" if self._journal else ""
            )
            remedy = f"free some space{safe}" if is_full_disk(error) else f"see to it{safe}"
            raise Unmet(
                f"{str(self.path)!r} cannot be written ({error.strerror}): {remedy}", metadata={"path": self.path}
            ) from error


class Journal:
    """What the unfinished file beside it holds."""

    def __init__(self, path: Path, request: Mapping[str, Any]) -> None:
        self.path = path
        self.done = 0
        self.offset = 0
        self._request = json.loads(json.dumps(request))

    def read(self) -> None:
        """Take over an earlier run of the same request; raises `AlreadyExists` when it was another one."""
        try:
            found = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            return
        if changed := sorted(
            key for key in {*found["request"], *self._request} if found["request"].get(key) != self._request.get(key)
        ):
            raise AlreadyExists(
                f"{str(self.path)!r} belongs to an unfinished run with another {', '.join(changed)}: "
                "run that again, give --restart to drop it, or name another output",
                metadata={"path": self.path, "changed": ",".join(changed)},
            )
        self.done, self.offset = found["done"], found["offset"]

    def write(self, done: int, offset: int) -> None:
        data = json.dumps({"request": self._request, "done": done, "offset": offset}).encode()
        write_durably(self.path, data)
        self.done, self.offset = done, offset


@contextmanager
def output(
    path: str | os.PathLike[str],
    encode: Encoding,
    *,
    request: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    restart: bool = False,
) -> Iterator[Output]:
    """Make the file at `path` ("-": standard output); it appears when the block ends, and not when it raises.

    With `request`, a JSON-able description of all that decides about the bytes, an unfinished run of the same
    request is taken up (`Output.done` says where).  Raises `AlreadyExists` for a finished file (unless
    `overwrite`), for an unfinished run of another request (unless `restart`), and while another process writes it;
    `Unmet` when the disk is full.
    """
    if os.fspath(path) == "-":
        yield Output(Path("standard output"), sys.stdout.buffer, encode, None)
        return
    target = Path(path)
    if target.exists() and not overwrite:
        raise AlreadyExists(
            f"{str(target)!r} exists: give --overwrite, or name another output", metadata={"path": target}
        )
    partial, note = beside(target, ".partial"), beside(target, ".journal")
    # Parquet cannot be cut and continued: its rows are kept as lines and turned at the end.
    lines = Encoding() if encode.format == "parquet" else encode
    if restart or not partial.exists():
        note.unlink(missing_ok=True)
    with _locked(partial, target) as stream:
        journal = None if request is None else Journal(note, request)
        if journal is not None:
            journal.read()
        offset = journal.offset if journal else 0
        if stream.seek(0, os.SEEK_END) < offset:
            raise AlreadyExists(
                f"{str(partial)!r} is shorter than its journal says: give --restart to begin anew",
                metadata={"path": partial},
            )
        stream.truncate(offset)
        stream.seek(offset)
        made = Output(target, stream, lines, journal)
        try:
            yield made
        except BaseException:
            if journal is None:
                partial.unlink(missing_ok=True)
            else:
                with suppress(PickaxeError):  # the first error is the one to tell
                    made.sync()
            raise
        made.sync()
        _finish(made, target, partial, encode.format == "parquet")
        note.unlink(missing_ok=True)


def _finish(made: Output, target: Path, partial: Path, parquet: bool) -> None:
    with made._disk():
        if parquet:
            turned = beside(target, ".turning")
            to_parquet(partial, turned, made.columns)
            os.replace(turned, target)
            partial.unlink()
        else:
            os.replace(partial, target)
        sync_directory(target.parent)


@contextmanager
def _locked(partial: Path, target: Path) -> Iterator[IO[bytes]]:
    try:
        stream = partial.open("r+b" if partial.exists() else "x+b")
    except OSError as error:
        raise Unmet(f"{str(target)!r} cannot be written: {error.strerror}", metadata={"path": target}) from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyExists(f"another process is writing {str(target)!r}", metadata={"path": target}) from None
        yield stream


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
