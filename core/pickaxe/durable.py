"""Files that survive a crash: the old contents or the new ones, never half of either."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pickaxe.errors import Unmet

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def room_for(what: str) -> Iterator[None]:
    """A block that may fill the disk: then it raises `Unmet`, which says so, and that `what` cannot go on."""
    try:
        yield
    except OSError as error:
        if not is_full_disk(error):
            raise
        place = f" for {error.filename!r}" if error.filename else ""
        raise Unmet(
            f"{what} cannot go on (no space left on the disk{place}): free some and do it again",
            metadata={"path": error.filename or ""},
        ) from error


def is_full_disk(error: BaseException) -> bool:
    """Whether the error says that a disk or a quota is full; NumPy's `tofile` and `save` raise one without a number."""
    if not isinstance(error, OSError):
        return False
    return error.errno in _DISK_FULL or (error.errno is None and " requested and " in str(error))


def write_durably(path: Path, data: bytes) -> None:
    """Replace a small file so that after a crash either the old or the new contents are there."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


def sync_directory(path: Path) -> None:
    """Make renames and deletions in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
