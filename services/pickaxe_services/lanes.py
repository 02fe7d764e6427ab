"""Lanes: one per opened method, with a bounded queue; callers of item-scope scorers share runs.

A batch is what gathered while the previous one ran: no timer, no added latency when idle, full batches under load.
Only item-scope scorers are merged, and only calls with the same seed and tenant and without a budget.  A merged run
that fails is repeated caller by caller, so that a bad item hurts only its own caller.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Generic, TypeVar

from pickaxe.call import Call
from pickaxe.data import Items, Scores, Timings
from pickaxe.errors import Overloaded, TooLarge
from pickaxe.handle import MethodHandle, ScorerHandle
from pickaxe_services.records import Options
from pickaxe_services.workers import Worker, Workers, within

T = TypeVar("T")

log = logging.getLogger("pickaxe.services")

NO_OPTIONS = Options()


@dataclass(eq=False)
class Entry(Generic[T]):
    """One caller's work in a lane."""

    size: int
    call: Call
    run: Callable[[Call], T]
    done: asyncio.Future[tuple[T, Timings]]
    items: Items | None = None
    """Set when the work may be merged with that of other callers."""
    options: Options = NO_OPTIONS
    since: float = field(default_factory=time.monotonic)

    @property
    def gone(self) -> bool:
        return self.done.done() or self.call.over

    def merges_with(self, other: Entry[Any]) -> bool:
        return self.items is not None and other.items is not None and self.options == other.options


class Lane:
    """One opened method: a queue bounded in items, and as many runs at once as `width` says."""

    def __init__(
        self,
        handle: MethodHandle,
        workers: Workers,
        *,
        capacity: int,
        max_batch: int,
        width: int,
        hang_grace: float,
    ) -> None:
        self.handle = handle
        self.users = 0
        """Calls that hold this lane; it is closed only when there are none."""
        self._workers, self._capacity, self._max_batch, self._hang_grace = workers, capacity, max_batch, hang_grace
        self.merges = isinstance(handle, ScorerHandle) and handle.opened.method.scope == "item"
        self._queue: collections.deque[Entry[Any]] = collections.deque()
        self._waiting = 0
        self._filled, self._room = asyncio.Event(), asyncio.Event()
        self._seconds_per_item = 0.01
        self._tasks = [asyncio.create_task(self._serve()) for _ in range(1 if self.merges else width)]

    async def score(
        self, items: Items, options: Options, call: Call, *, patient: bool = False, start: int = 0
    ) -> Scores:
        """The scores of one caller's items, with timings.  `start` is the place of the first one in its stream.

        Raises `InvalidItems` before anything is queued, and `Overloaded` when the queue is full, unless `patient`:
        then it waits for room.
        """
        handle = self.handle
        assert isinstance(handle, ScorerHandle)
        checked = handle.check_items(items, start=start)
        mergeable = self.merges and options.budget is None and 0 < len(checked) <= self._max_batch
        scores, timings = await self.run(
            lambda call: handle.score(checked, call=call),
            len(checked),
            call,
            items=checked if mergeable else None,
            options=options,
            patient=patient,
        )
        return replace(scores, timings=timings)

    async def run(
        self,
        work: Callable[[Call], T],
        size: int,
        call: Call,
        *,
        items: Items | None = None,
        options: Options = NO_OPTIONS,
        patient: bool = False,
    ) -> tuple[T, Timings]:
        """The result of `work(call)` and where its time went.  `size` is what it weighs in the queue."""
        while self._waiting and self._waiting + size > self._capacity:
            if not patient:
                raise self._overloaded()
            self._room.clear()
            await within(asyncio.ensure_future(self._room.wait()), call)
        if size > self._capacity and not patient:
            raise TooLarge(
                f"{size} items are more than may ever wait here ({self._capacity}): split or stream them",
                metadata={"items": size, "limit": self._capacity},
            )
        entry = Entry(size, call, work, asyncio.get_running_loop().create_future(), items, options)
        self._queue.append(entry)
        self._waiting += size
        self._filled.set()
        return await within(entry.done, call)

    def _overloaded(self) -> Overloaded:
        wait = min(30.0, max(0.05, self._waiting * self._seconds_per_item))
        return Overloaded(
            f"{self._waiting} items wait for {self.handle.name!r} already; come back in {wait:.2g} s",
            metadata={"method": self.handle.name, "waiting": self._waiting, "limit": self._capacity},
            retry_after=wait,
        )

    def close(self) -> None:
        """Stop serving; what still runs is cancelled."""
        for task in self._tasks:
            task.cancel()

    # ------------------------------------------------------------ the serving side

    async def _serve(self) -> None:
        worker: Worker | None = None
        try:
            while True:
                await self._filled.wait()
                if not (batch := self._take()):
                    continue
                try:
                    worker = worker or self._workers.start(self.handle.name)
                except Overloaded as error:
                    _fail(batch, error)
                    continue
                worker = await self._run(batch, worker)
        finally:
            if worker is not None:
                worker.stop()

    def _take(self) -> list[Entry[Any]]:
        """The next entries that run together, without those whose callers have left."""
        batch: list[Entry[Any]] = []
        size = 0
        while self._queue:
            entry = self._queue[0]
            joins = not batch or (entry.merges_with(batch[0]) and size + entry.size <= self._max_batch)
            if not entry.gone and not joins:
                break
            self._queue.popleft()
            self._waiting -= entry.size
            if not entry.gone:
                batch.append(entry)
                size += entry.size
        if not self._queue:
            self._filled.clear()
        self._room.set()
        return batch

    async def _run(self, batch: list[Entry[Any]], worker: Worker) -> Worker | None:
        """Run a batch and settle its entries.  Returns the worker, or None when it had to be left behind."""
        begun = time.monotonic()
        work, call = self._work(batch)
        running = worker.submit(work)
        everyone: asyncio.Future[Any] = batch[0].done
        if len(batch) > 1:
            everyone = asyncio.gather(*(entry.done for entry in batch), return_exceptions=True)
        try:
            await asyncio.wait({running, everyone}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():  # all callers have left
                call.cancel()
                await asyncio.wait({running}, timeout=self._hang_grace)
        except asyncio.CancelledError:
            call.cancel()
            running.add_done_callback(_drop)
            worker.stop()
            _fail(batch, Overloaded("the method was closed while it ran; try again", retry_after=0.1))
            raise
        if not running.done():
            log.error(
                "%s runs on %.1f s after its callers left: its thread is replaced", self.handle.name, self._hang_grace
            )
            running.add_done_callback(_drop)
            worker.stop()
            return None
        return await self._settle(batch, running, begun, worker)

    def _work(self, batch: list[Entry[Any]]) -> tuple[Callable[[], Any], Call]:
        if len(batch) == 1:
            return partial(batch[0].run, batch[0].call), batch[0].call
        handle = self.handle
        assert isinstance(handle, ScorerHandle)
        merged = Items(item for entry in batch for item in entry.items or ())
        options = batch[0].options
        deadlines = [entry.call.deadline for entry in batch]
        latest = None if None in deadlines else max(each for each in deadlines if each is not None)
        call = Call(deadline=latest, seed=options.seed, tenant=options.tenant)
        return partial(handle.score, merged, call=call), call

    async def _settle(
        self, batch: list[Entry[Any]], running: asyncio.Future[Any], begun: float, worker: Worker
    ) -> Worker | None:
        ran = time.monotonic() - begun
        size = sum(entry.size for entry in batch)
        self._seconds_per_item += 0.2 * (ran / max(size, 1) - self._seconds_per_item)
        error = running.exception()
        if len(batch) == 1:
            if error is not None:
                _fail(batch, error)
            else:
                self._answer(batch[0], running.result(), begun, ran, 0)
            return worker
        if error is not None:
            return await self._one_by_one(batch, worker)
        start = 0
        for entry in batch:
            part = running.result().rows(start, start + entry.size)
            self._answer(entry, part, begun, ran, size - entry.size)
            start += entry.size
        return worker

    async def _one_by_one(self, batch: list[Entry[Any]], worker: Worker | None) -> Worker | None:
        for entry in batch:
            if entry.gone:
                continue
            try:
                worker = worker or self._workers.start(self.handle.name)
            except Overloaded as error:
                _fail([entry], error)
                continue
            worker = await self._run([entry], worker)
        return worker

    def _answer(self, entry: Entry[Any], result: Any, begun: float, ran: float, others: int) -> None:
        if not entry.done.done():
            entry.done.set_result((result, Timings(begun - entry.since, ran, others)))


def _fail(batch: list[Entry[Any]], error: BaseException) -> None:
    for entry in batch:
        if not entry.done.done():
            entry.done.set_exception(error)


def _drop(future: asyncio.Future[Any]) -> None:
    """Take an outcome that nobody waits for."""
    if not future.cancelled():
        future.exception()
