"""Turns on a model: threads that want it run one after the other, in the order in which they came."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pickaxe.call import Call

POLL = 0.1
"""Seconds after which one who waits looks whether its call is over."""


class Turns:
    """A lock that serves in order of arrival.

    Runs of one model that overlap would only take each other's processors away; a plain lock would let a
    thread that runs in a loop overtake all others again and again.  The thread whose turn it is may take
    another one within it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[int] = deque()

    @contextmanager
    def taken(self, call: Call | None = None) -> Iterator[None]:
        """The model for one run.  Raises the error of a `call` that is over before its turn came."""
        if call is not None:
            call.check()
        mine = threading.get_ident()
        with self._changed:
            nested = mine in self._queue
            if not nested:
                self._queue.append(mine)
        try:
            with self._changed:
                while self._queue[0] != mine:
                    if call is not None:
                        call.check()
                    self._changed.wait(POLL)
            yield
        finally:
            if not nested:
                with self._changed:
                    self._queue.remove(mine)
                    self._changed.notify_all()
