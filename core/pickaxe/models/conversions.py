"""Graphs made from models: each built once, kept, and dropped when nobody can want it any more.

A pulled model keeps its graphs beside its weights.  Those of other models (a path, an artifact, a model shipped with
pickaxe) lie in a cache, a folder per state of the model, where the folder's time of change is that of its last use.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

GRAPHS = "onnx"
"""The folder of a pulled model's graphs."""
SOURCE = "source.txt"
SPARED_SECONDS = 600.0
"""A folder used this lately is kept: its user may not have opened the graphs yet."""


def model_files(path: Path) -> Iterator[Path]:
    """The files of the model, without graphs made from it."""
    if path.is_file():
        yield path
        return
    for folder, subfolders, names in os.walk(path):
        if Path(folder) == path and GRAPHS in subfolders:
            subfolders.remove(GRAPHS)  # another process may be building there
        subfolders.sort()
        yield from (Path(folder, name) for name in sorted(names))


def mark(path: Path) -> str:
    """Changes when a file of the model does; cheap, since it reads no contents."""
    lines = [str(path.resolve())]
    for file in model_files(path):
        status = file.stat()
        lines.append(f"{file.name} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:24]


def build_once(folder: Path, key: str, build: Callable[[Path], None]) -> Path:
    """`folder/key`, filled by `build(directory)` unless it is there; other callers and processes wait meanwhile."""
    target = folder / key
    with locked(folder / f".{key}.lock"):
        if not target.is_dir():
            with tempfile.TemporaryDirectory(dir=folder, prefix=f".{key}-") as scratch:
                fresh = Path(scratch) / key
                fresh.mkdir()
                build(fresh)
                os.replace(fresh, target)
    return target


def mark_source(folder: Path, model: Path) -> None:
    """Note in a cache's folder which model its graphs are made from."""
    if not (folder / SOURCE).is_file():
        (folder / SOURCE).write_text(str(model.resolve()), encoding="utf-8", errors="surrogateescape")
    touch(folder)


def touch(folder: Path) -> None:
    """Mark the folder as used now."""
    with suppress(OSError):  # where nothing can be written nothing is pruned either
        os.utime(folder)


class GraphCache:
    """The graphs of models that cannot keep them beside their weights."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def prune(self, limit: int) -> int:
        """Drop what no model can use any more, then the longest unused until `limit` bytes are left; bytes freed.

        Graphs that a process has open stay, as do those used within the last ten minutes.
        """
        kept: list[tuple[float, int, Path]] = []
        freed = 0
        for folder in self._folders():
            size = _size(folder)
            if _orphaned(folder) and not _open_somewhere(folder):
                freed += _drop(folder, size)
            else:
                kept.append((_last_used(folder), size, folder))
        total = sum(size for _, size, _ in kept)
        spared = time.time() - SPARED_SECONDS
        for used, size, folder in sorted(kept):
            if total <= limit or used > spared:
                break
            if not _open_somewhere(folder):
                freed += _drop(folder, size)
                total -= size
        return freed

    def _folders(self) -> list[Path]:
        if not self.root.is_dir():
            return []
        return [folder for folder in self.root.iterdir() if folder.is_dir()]


class Hold:
    """Keeps the graphs of a folder from being pruned by any process, for as long as the object lives."""

    def __init__(self, folder: Path) -> None:
        # Some folders cannot be listed and some network file systems know no locks: there, being used lately must do.
        with suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY)
            weakref.finalize(self, os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_SH)


_holds: weakref.WeakValueDictionary[Path, Hold] = weakref.WeakValueDictionary()
_holds_lock = threading.Lock()


def hold(graph: Path) -> Hold:
    """The hold on the graph's folder, one for all of this process."""
    with _holds_lock:
        found = _holds.get(graph.parent)
        if found is None:
            found = _holds[graph.parent] = Hold(graph.parent)
        return found


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file: other processes doing the same thing wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _orphaned(folder: Path) -> bool:
    """Whether the model it was made from is gone or has changed."""
    try:
        model = Path((folder / SOURCE).read_text(encoding="utf-8", errors="surrogateescape"))
    except OSError:  # of an older pickaxe, unless somebody is just making it
        return _last_used(folder) < time.time() - SPARED_SECONDS
    try:
        return not model.exists() or mark(model) != folder.name
    except OSError:  # somebody is just changing it: the next one to look will know
        return False


def _open_somewhere(folder: Path) -> bool:
    """Whether somebody builds in the folder or holds graphs in it."""
    for place in [*folder.glob(".*.lock"), *(place for place in folder.rglob("*") if place.is_dir())]:
        try:
            with _opened(place) as descriptor:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            continue
        except OSError:  # held, or not ours to look at
            return True
    return False


@contextmanager
def _opened(place: Path) -> Iterator[int]:
    descriptor = os.open(place, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _last_used(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _size(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # another process prunes or builds
                total += Path(place, name).stat().st_size
    return total


def _drop(folder: Path, size: int) -> int:
    """Remove the folder under another name first, so that nobody finds half of it."""
    away = folder.with_name(f".{folder.name}-{os.getpid()}")
    try:
        os.replace(folder, away)
    except OSError:
        return 0  # another process was faster, or the place is read-only
    shutil.rmtree(away, ignore_errors=True)
    return size
