"""A generator that runs in a thread, as an asynchronous iterator."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, Generic, TypeVar

from pickaxe.call import Call
from pickaxe_services.workers import Worker, within

T = TypeVar("T")
END: Any = object()

log = logging.getLogger("pickaxe.services")


class _Stepper(Generic[T]):
    """The generator, touched by the worker's thread only, so that steps and the end come in order."""

    def __init__(self, start: Callable[[], Iterator[T]]) -> None:
        self._start = start
        self._generator: Iterator[T] | None = None

    def step(self) -> T:
        if self._generator is None:
            self._generator = self._start()
        return next(self._generator, END)

    def close(self) -> None:
        try:
            if self._generator is not None:
                self._generator.close()  # type: ignore[attr-defined]
        except Exception:
            log.exception("a generator failed while it was closed")


async def pull(start: Callable[[], Iterator[T]], worker: Worker, call: Call) -> AsyncGenerator[T, None]:
    """Step the generator that `start` makes, one step per value asked for.

    When the consumer leaves or the deadline passes, the call is cancelled and the generator closed as soon as the
    step in flight ends; nobody waits for that.  The worker ends with the generator.
    """
    stepper = _Stepper(start)
    try:
        while (value := await within(worker.submit(stepper.step), call)) is not END:
            yield value
    finally:
        call.cancel()
        worker.submit(stepper.close)
        worker.stop()
