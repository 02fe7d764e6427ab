"""One call's deadline, cancellation, seed and budget, handed to every hook that asks for it."""

from __future__ import annotations

import copy
import threading
import time
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
        self._lock = threading.RLock()
        self._interrupts: dict[object, Callable[[], None]] = {}

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
        with self._lock:
            self._cancelled.set()
            for key in list(self._interrupts):
                self._interrupt(key)

    def _interrupt(self, key: object) -> None:
        """Interrupt one block, unless it has ended: under the lock, so that it cannot end meanwhile."""
        with self._lock:
            if interrupt := self._interrupts.pop(key, None):
                interrupt()

    @contextmanager
    def interruptible(self, interrupt: Callable[[], None]) -> Iterator[None]:
        """Run `interrupt` (from another thread) if the call is cancelled or expires inside the block.

        It runs at most once and never after the block; it must not wait for the block to end.
        """
        self.check()
        key, timer = object(), None
        with self._lock:
            self._interrupts[key] = interrupt
            late = self.cancelled
        if (left := self.remaining()) is not None:
            timer = threading.Timer(left, self._interrupt, [key])
            timer.daemon = True
            timer.start()
        try:
            if late:
                self._interrupt(key)
            yield
        finally:
            with self._lock:
                self._interrupts.pop(key, None)
            if timer is not None:
                timer.cancel()
