"""What a benchmark yields: a row whose ratio is above 1 where ours is better, and medians of times."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any


def row(
    name: str, ours: float, peer: float | None, unit: str, n: int, note: str = "", *, less: bool = False
) -> dict[str, Any]:
    """A row; its ratio is above 1 when ours is better: higher than the peer's, or lower where `less` is better."""
    ratio = None if peer is None else peer / ours if less else ours / peer
    return {"name": name, "ours": ours, "peer": peer, "ratio": ratio, "unit": unit, "n": n, "note": note}


def median(work: Callable[[], object], runs: int = 5) -> float:
    """Median seconds of the work, each time in full."""
    taken = []
    for _ in range(runs):
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)
