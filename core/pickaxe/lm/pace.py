"""Which of several ways to run a graph is the fastest just now."""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pickaxe.session import Runtime, Session

AGAIN = 64
"""Runs after which another way is tried again."""
RECENT = 5
"""Runs of a way that count."""
SMALL = 8
"""Tokens from which on one more hardly matters."""


class Pace:
    """Learns from the runs themselves, size by size; large sizes with as many binary digits count as one.

    A way is as fast as the best of its last runs: a neighbour's burst of work may slow a few of them, and a way that
    was left for it must be taken up again after its first good run.
    """

    def __init__(self, ways: int) -> None:
        self._ways = ways
        self._recent: dict[int, list[deque[float]]] = {}
        self._runs: dict[int, int] = {}

    def choose(self, size: int) -> int:
        """The way to go for a run of this size: the fastest of late, now and then another one."""
        if self._ways == 1:
            return 0
        kind = _kind(size)
        recent = self._recent.setdefault(kind, [deque(maxlen=RECENT) for _ in range(self._ways)])
        for way, times in enumerate(recent):
            if len(times) < 2:  # the first run of a way is slower than the others
                return way
        run = self._runs[kind] = self._runs.get(kind, 0) + 1
        best = min(range(self._ways), key=lambda way: min(recent[way]))
        if run % AGAIN:
            return best
        return (best + 1 + run // AGAIN % (self._ways - 1)) % self._ways

    def took(self, size: int, way: int, seconds: float) -> None:
        """Say how long a run took."""
        if self._ways > 1:
            self._recent[_kind(size)][way].append(seconds)


def _kind(size: int) -> int:
    """Small sizes are apart: runs of two and of three tokens, by turns, would be compared with each other."""
    return size if size < SMALL else SMALL + size.bit_length()


class Graph:
    """A graph with its sessions: threads that sleep while they wait and, on a CPU with several, ones that spin.

    Spinning makes short runs a third faster on an idle machine and all runs much slower beside a busy process,
    and nobody tells a process which of the two it has.
    """

    def __init__(self, runtime: Runtime, path: Path) -> None:
        self._runtime, self._path = runtime, path
        self._pace = Pace(1 if runtime.is_cuda or runtime.threads == 1 else 2)

    @functools.cached_property
    def _sleeping(self) -> Session:
        return self._runtime.open(self._path)

    @functools.cached_property
    def _spinning(self) -> Session:
        spin = {"session.intra_op.allow_spinning": "1", "session.force_spinning_stop": "1"}
        return self._runtime.open(self._path, config=spin)

    @contextmanager
    def fastest(self, size: int) -> Iterator[Session]:
        """The session to use for one run over this many tokens; the block is timed."""
        way = self._pace.choose(size)
        session = self._spinning if way else self._sleeping
        start = time.perf_counter()
        yield session
        self._pace.took(size, way, time.perf_counter() - start)
