"""One call's deadline, cancellation, seed and budget, handed to every hook that asks for it."""

from __future__ import annotations

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
        self._cancelled = False
        self._lock = threading.Lock()
        self._interrupts: dict[int, Callable[[], None]] = {}

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    @property
    def expired(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    @property
    def over(self) -> bool:
        """Nobody waits for the answer any more."""
        return self._cancelled or self.expired

    def remaining(self) -> float | None:
        """Seconds until the deadline, never negative; None without one."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def check(self) -> None:
        """Raise `Cancelled` or `DeadlineExceeded` when the call is over."""
        if self._cancelled:
            raise Cancelled("the call was cancelled")
        if self.expired:
            raise DeadlineExceeded("the deadline passed before the work was done")

    def cancel(self) -> None:
        """Mark the call as given up and interrupt what runs for it.  Safe from any thread, more than once."""
        with self._lock:
            self._cancelled = True
            interrupts = list(self._interrupts.values())
        for interrupt in interrupts:
            interrupt()

    @contextmanager
    def interruptible(self, interrupt: Callable[[], None]) -> Iterator[None]:
        """Run `interrupt` (from another thread) if the call is cancelled or expires inside the block."""
        self.check()
        timer = None
        if (left := self.remaining()) is not None:
            timer = threading.Timer(left, interrupt)
            timer.daemon = True
            timer.start()
        key = id(interrupt)
        with self._lock:
            self._interrupts[key] = interrupt
            late = self._cancelled
        try:
            if late:
                interrupt()
            yield
        finally:
            with self._lock:
                self._interrupts.pop(key, None)
            if timer is not None:
                timer.cancel()
