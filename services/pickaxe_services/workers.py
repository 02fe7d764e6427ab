"""Threads that run methods for the event loop, and that can be left behind when a method hangs.

A thread cannot be ended from outside.  One that is stuck in a method is therefore replaced, stays behind until the
method returns, and counts towards the limit meanwhile: a method that hangs again and again ends in `Overloaded`,
never in a server without memory.  Threads are daemons, so a stuck one does not keep the process alive.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from pickaxe.call import Call
from pickaxe.errors import DeadlineExceeded, MethodFailed, Overloaded

T = TypeVar("T")


class Workers:
    """Starts workers, at most `limit` alive at once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._alive = 0
        self._lock = threading.Lock()

    @property
    def alive(self) -> int:
        return self._alive

    def start(self, name: str) -> Worker:
        """A new worker; raises `Overloaded` when all threads are busy or stuck."""
        with self._lock:
            if self._alive >= self._limit:
                raise Overloaded(
                    f"all {self._limit} threads of the server are busy",
                    metadata={"limit": self._limit},
                    retry_after=1.0,
                )
            self._alive += 1
        return Worker(name, self._ended)

    def _ended(self) -> None:
        with self._lock:
            self._alive -= 1


class Worker:
    """One thread that runs one function after another."""

    def __init__(self, name: str, ended: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._work: queue.SimpleQueue[tuple[asyncio.Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._ended = ended
        threading.Thread(target=self._serve, name=f"pickaxe-{name}", daemon=True).start()

    def submit(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """Run the function once the ones before it are done.  Cancelling the future only drops the result."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._work.put((future, function))
        return future

    def stop(self) -> None:
        """End the thread after what was submitted so far."""
        self._work.put(None)

    def _serve(self) -> None:
        try:
            while (job := self._work.get()) is not None:
                future, function = job
                outcome, failed = _outcome(function)
                try:
                    self._loop.call_soon_threadsafe(_settle, future, outcome, failed)
                except RuntimeError:
                    return  # the loop is closed: nobody waits any more
        finally:
            self._ended()


def _outcome(function: Callable[[], Any]) -> tuple[Any, bool]:
    try:
        return function(), False
    except Exception as error:  # noqa: BLE001 - carried to the caller, whatever it is
        if not isinstance(error, StopIteration):  # which no future can carry
            return error, True
        cause: BaseException = error
    except BaseException as error:  # noqa: BLE001 - a method that calls sys.exit() must not end the server
        cause = error
    failure = MethodFailed(f"a method ended with {type(cause).__name__}: {cause}")
    failure.__cause__ = cause
    return failure, True


def _settle(future: asyncio.Future[Any], outcome: Any, failed: bool) -> None:
    if future.done():
        return
    if failed:
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


async def within(future: asyncio.Future[T], call: Call) -> T:
    """The future's result, or `DeadlineExceeded` the moment the call's deadline passes."""
    try:
        async with asyncio.timeout(call.remaining()):
            return await future
    except TimeoutError:
        call.cancel()
        raise DeadlineExceeded("the deadline passed before the work was done") from None
    except asyncio.CancelledError:
        call.cancel()
        raise
