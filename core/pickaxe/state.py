"""Small files that a method keeps for one tenant: capped in size, atomic to append to and to delete."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from pickaxe.errors import DoesNotFit

CAP = 64 * 2**20


def _drop_torn_line(stream: BinaryIO) -> None:
    """Cut off what a crash left of a record, lest the next one be glued to it."""
    size = stream.seek(0, os.SEEK_END)
    if size == 0:
        return
    stream.seek(size - 1)
    if stream.read(1) != b"\n":
        stream.seek(0)
        stream.truncate(stream.read().rfind(b"\n") + 1)


class State:
    """One method's records for one tenant: append, read and clear JSON records by log name."""

    def __init__(self, root: Path, method: str, tenant: str, cap: int = CAP) -> None:
        name = hashlib.sha256(tenant.encode()).hexdigest()[:16] if tenant else "default"
        self.path = root / method / name
        self.cap = cap

    def append(self, log: str, record: Any) -> None:
        """Add a record durably, whole or not at all; raises `DoesNotFit` above the cap."""
        line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
        with self._locked():
            used = sum(file.stat().st_size for file in self.path.glob("*.jsonl"))
            if used + len(line) > self.cap:
                raise DoesNotFit(
                    f"state of this method is full: {used} of {self.cap} bytes are used; clear it",
                    metadata={"used": used, "cap": self.cap},
                )
            with self._file(log).open("a+b") as stream:
                _drop_torn_line(stream)
                stream.write(line)
                stream.flush()
                os.fsync(stream.fileno())

    def read(self, log: str) -> list[Any]:
        """All whole records, oldest first."""
        with self._locked():
            file = self._file(log)
            lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
        return [json.loads(line) for line in lines]

    def clear(self, log: str | None = None) -> None:
        """Delete one log, or all of this tenant's."""
        with self._locked():
            for file in self.path.glob("*.jsonl") if log is None else [self._file(log)]:
                file.unlink(missing_ok=True)

    def _file(self, log: str) -> Path:
        if not log.replace("-", "").replace("_", "").isalnum():
            raise ValueError(f"log names are letters, digits, - and _, not {log!r}")
        return self.path / f"{log}.jsonl"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
