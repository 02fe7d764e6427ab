"""The first pass of a pipeline: every record is looked at once, and what later stages need is kept on disk.

A part of the input becomes a frame in the file `OUT.looked`: counts and examples of what was dropped, and a few
numbers of each item that is left.  Parts are cut by records and characters alone, and frames are written in the order
of the input, so the file is the same with any number of processes.
"""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import signal
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from pickaxe.call import Call
from pickaxe.data import Item
from pickaxe.errors import Unmet
from pickaxe.host import Host
from pickaxe.io.readers import Source
from pickaxe.io.resume import SYNC_SECONDS, Output

RECORDS = 512
CHARACTERS = 1 << 20
"""A part ends with the record that reaches either."""
_HEAD = struct.Struct("<QQ")


class Streaming(Protocol):
    """What a method offers whose selection can run on a stream."""

    edits: bool
    params: Any

    def streams(self) -> None: ...
    def look(self, items: list[Item], call: Call) -> Any: ...
    def settle(self, features: dict[str, np.ndarray], n: int, seed: int) -> Any: ...
    def edited(self, items: list[Item], call: Call) -> list[str]: ...
    def funnel(self) -> Any: ...
    def summary(self, told: Any, warnings: Iterable[str] = ()) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Setup:
    """All that a worker needs to open the method as this process has it."""

    name: str
    params: Mapping[str, Any]
    artifact: str | None
    seed: int
    device: str
    resources: Mapping[str, Path]


@dataclass
class Looked:
    """Everything that the first pass found."""

    sizes: list[int] = field(default_factory=list)
    """Records of each part."""
    rows: list[np.ndarray] = field(default_factory=list)
    """Which records of the whole input are left, part by part."""
    features: dict[str, list[np.ndarray]] = field(default_factory=dict)
    ids: list[np.ndarray] = field(default_factory=list)
    funnel: Any = None

    @property
    def records(self) -> int:
        return sum(self.sizes)

    def joined(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """(rows, features) of all parts; the parts are let go one by one."""
        rows = np.concatenate(self.rows) if self.rows else np.zeros(0, np.int64)
        return rows, {name: np.concatenate(self.features.pop(name)) for name in list(self.features)}

    def repeated(self) -> int:
        """How many records have an id that came before."""
        ids = np.concatenate(self.ids) if self.ids else np.zeros(0, np.uint64)
        return len(ids) - len(np.unique(ids))


def look(
    source: Source, method: Streaming, file: Output, call: Call, setup: Setup, workers: int,
    told: Callable[[int, int], None], start: int,
) -> None:  # fmt: skip
    """Look at all records from number `start` on; `told(bytes read, records)` after every part."""
    count, synced = start, time.monotonic()
    with _looking(method, call, setup, workers) as apply:
        for read, size, frame in _ordered(_parts(source, start), apply, workers, call):
            file.append_raw(frame)
            count += size
            told(read, count)
            if time.monotonic() - synced >= SYNC_SECONDS:
                file.sync()
                synced = time.monotonic()


def _parts(source: Source, start: int) -> Iterator[tuple[int, list[Item]]]:
    """(bytes read so far, items) of each part."""
    part: list[Item] = []
    characters = 0
    for record in source.records(start):
        part.append(record.item)
        characters += len(record.item.text or "")
        if len(part) >= RECORDS or characters >= CHARACTERS:
            yield source.meter.read, part
            part, characters = [], 0
    if part:
        yield source.meter.read, part


Apply = Callable[[list[Item]], "Future[bytes]"]


def _ordered(
    parts: Iterator[tuple[int, list[Item]]], apply: Apply, workers: int, call: Call
) -> Iterator[tuple[int, int, bytes]]:
    """(bytes read, records, frame) in the order of the input, with no more parts under way than keep workers busy."""
    under_way: deque[tuple[int, int, Future[bytes]]] = deque()
    for read, part in parts:
        call.check()
        under_way.append((read, len(part), apply(part)))
        if len(under_way) > 2 * workers or workers == 1:
            yield _finished(*under_way.popleft())
    while under_way:
        call.check()
        yield _finished(*under_way.popleft())


def _finished(read: int, size: int, future: Future[bytes]) -> tuple[int, int, bytes]:
    return read, size, future.result()


@contextmanager
def _looking(method: Streaming, call: Call, setup: Setup, workers: int) -> Iterator[Apply]:
    if workers == 1:
        yield lambda items: _done(frame_of(method, items, call))
        return
    with ExitStack() as stack:
        context = multiprocessing.get_context("spawn")  # threads of this process make a fork unsafe
        pool = ProcessPoolExecutor(workers, context, _open_in_worker, (setup,))
        stack.callback(pool.shutdown, cancel_futures=True)
        try:
            yield lambda items: pool.submit(_look_in_worker, items)
        except BrokenProcessPool as error:  # of a part handed in, or of one handed back
            raise Unmet(
                "a worker process ended before its work was done, most often for lack of memory: give the same "
                "command again with fewer --workers, it goes on where it was"
            ) from error


def _done(frame: bytes) -> Future[bytes]:
    future: Future[bytes] = Future()
    future.set_result(frame)
    return future


_opened: list[tuple[Streaming, Call]] = []


def _open_in_worker(setup: Setup) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the pool
    threading.Thread(target=_end_with_parent, daemon=True).start()
    host = Host(device=setup.device, threads=1, resources=setup.resources)
    method = host.open(setup.name, "scorer", setup.params, setup.artifact).opened.method
    _opened[:] = [(method, Call(seed=setup.seed))]


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # a killed parent closes nothing: without this its workers would wait for ever


def _look_in_worker(items: list[Item]) -> bytes:
    return frame_of(_opened[0][0], items, _opened[0][1])


# ---------------------------------------------------------------- frames


def frame_of(method: Streaming, items: list[Item], call: Call) -> bytes:
    part = method.look(items, call)
    digests = [hashlib.blake2b(item.id.encode("utf-8", "surrogatepass"), digest_size=8).digest() for item in items]
    features = {f"of/{name}": array for name, array in part.features.items()} if len(part.rows) else {}
    arrays = {"ids": np.frombuffer(b"".join(digests), np.uint64), "rows": part.rows, **features}
    return _framed({"size": part.size, "funnel": part.funnel.to_json()}, arrays)


def first_frame(method: Streaming, request: str) -> bytes:
    """Says which run the file belongs to."""
    arrays = {"ids": np.zeros(0, np.uint64), "rows": np.zeros(0, np.int64)}
    return _framed({"size": 0, "funnel": method.funnel().to_json(), "request": request}, arrays)


def _framed(head: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    numbers = io.BytesIO()
    np.savez(numbers, **arrays)  # type: ignore[arg-type]  # its keywords are arrays, and one option of its own
    data = json.dumps(head).encode()
    return _HEAD.pack(len(data), numbers.getbuffer().nbytes) + data + numbers.getvalue()


def request_of(path: Path) -> str:
    """Which run a finished file belongs to."""
    with path.open("rb") as stream:
        return str(next(_frames(stream))[0]["request"])


def _frames(stream: BinaryIO) -> Iterator[tuple[dict[str, Any], BinaryIO]]:
    while start := stream.read(_HEAD.size):
        head, numbers = _HEAD.unpack(start)
        yield json.loads(stream.read(head)), io.BytesIO(stream.read(numbers))


def records_in(path: Path, frames: int) -> int:
    """How many records the first frames of an unfinished file cover."""
    with path.open("rb") as stream:
        return sum(head["size"] for head, _ in islice(_frames(stream), frames))


def read_looked(path: Path, method: Streaming) -> Looked:
    looked = Looked(funnel=method.funnel())
    with path.open("rb") as stream:
        for head, numbers in _frames(stream):
            looked.funnel.merge(type(looked.funnel).from_json(head["funnel"]))
            with np.load(numbers, allow_pickle=False) as arrays:
                looked.ids.append(arrays["ids"])
                looked.rows.append(arrays["rows"] + looked.records)
                for name in arrays.files:
                    if name.startswith("of/"):
                        looked.features.setdefault(name.removeprefix("of/"), []).append(arrays[name])
            looked.sizes.append(head["size"])
    return looked
