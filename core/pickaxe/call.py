"""One call's deadline, cancellation, seed and budget, handed to every hook that asks for it."""

from __future__ import annotations

import copy
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pickaxe.errors import Cancelled, DeadlineExceeded


class Call:
    """What a caller allows one call to take, and whether it still wants the answer.

    `deadline` is on `time.monotonic()`'s clock.  A method that works for more than a moment calls `check()`
    between steps; work that blocks in a library registers how to interrupt it with `interruptible()`.
    """

    def __init__(
        self,
        *,
        deadline: float | None = None,
        timeout: float | None = None,
        seed: int = 0,
        budget: int | None = None,
        tenant: str = "",
    ) -> None:
        if timeout is not None:
            until = time.monotonic() + timeout
            deadline = until if deadline is None else min(deadline, until)
        self.deadline = deadline
        self.seed = seed
        self.budget = budget
        """Most model calls this call may spend; None: no limit."""
        self.tenant = tenant
        self._cancelled = threading.Event()
        self._blocks = _Blocks()

    def with_budget(self, budget: int | None) -> Call:
        """The same call with another budget, for a part of its work: cancelled, and interrupted, together."""
        part = copy.copy(self)
        part.budget = budget
        return part

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    @property
    def expired(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    @property
    def over(self) -> bool:
        """Nobody waits for the answer any more."""
        return self.cancelled or self.expired

    def remaining(self) -> float | None:
        """Seconds until the deadline, never negative; None without one."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def check(self) -> None:
        """Raise `Cancelled` or `DeadlineExceeded` when the call is over."""
        if self.cancelled:
            raise Cancelled("the call was cancelled")
        if self.expired:
            raise DeadlineExceeded("the deadline passed before the work was done")

    def cancel(self) -> None:
        """Mark the call as given up and interrupt what runs for it.  Safe from any thread, more than once."""
        with self._blocks.lock:
            self._cancelled.set()
            self._blocks.interrupt_all()

    @contextmanager
    def interruptible(self, interrupt: Callable[[], None]) -> Iterator[None]:
        """Run `interrupt` (from another thread) if the call is cancelled or expires inside the block.

        It runs at most once and never after the block; it must not wait for the block to end.
        """
        self.check()
        blocks, key = self._blocks, object()
        with blocks.lock:
            blocks.interrupts[key] = interrupt
            late = self.over
            if self.deadline is not None and not late:
                blocks.watch(self.deadline)
        try:
            if late:
                blocks.interrupt(key)
            yield
        finally:
            with blocks.lock:
                blocks.interrupts.pop(key, None)


class _Blocks:
    """What is being done for a call and its parts, and how to interrupt each."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.interrupts: dict[object, Callable[[], None]] = {}
        self._watched = False

    def interrupt(self, key: object) -> None:
        """Interrupt one block, unless it has ended: under the lock, so that it cannot end meanwhile."""
        with self.lock:
            if interrupt := self.interrupts.pop(key, None):
                interrupt()

    def interrupt_all(self) -> None:
        with self.lock:
            for key in list(self.interrupts):
                self.interrupt(key)

    def watch(self, deadline: float) -> None:
        """Interrupt all that is at work then.

        One thread for the whole call, which ends with it: starting one takes longer than many a block does.
        """
        if self._watched:
            return
        self._watched = True
        left = min(deadline - time.monotonic(), threading.TIMEOUT_MAX)
        timer = threading.Timer(left, _interrupt_all, [weakref.ref(self), deadline])
        timer.daemon = True
        timer.start()
        weakref.finalize(self, timer.cancel).atexit = False


def _interrupt_all(blocks: weakref.ref[_Blocks], deadline: float) -> None:
    time.sleep(max(0.0, deadline - time.monotonic()))  # a timer may fire a hair early, and nobody looks again
    if (alive := blocks()) is not None:
        alive.interrupt_all()
