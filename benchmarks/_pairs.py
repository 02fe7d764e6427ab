"""Timing two things turn by turn, and the row that tells of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any


def alternate(
    ours: Callable[[], object], peer: Callable[[], object] | None, runs: int = 5
) -> tuple[float, float | None]:
    """Median seconds of both, after one run each that does not count; they take turns, so noise meets both."""
    both = [ours] if peer is None else [ours, peer]
    for each in both:
        each()
    taken: list[list[float]] = [[] for _ in both]
    for _ in range(runs):
        for place, each in enumerate(both):
            start = time.perf_counter()
            each()
            taken[place].append(time.perf_counter() - start)
    medians = [statistics.median(each) for each in taken]
    return medians[0], medians[1] if peer is not None else None


def rate(name: str, count: int, seconds: tuple[float, float | None], unit: str, note: str = "") -> dict[str, Any]:
    """A row of how many a second; ratio above 1: ours is faster."""
    ours, peer = seconds
    return {
        "name": name,
        "ours": count / ours,
        "peer": None if peer is None else count / peer,
        "ratio": None if peer is None else peer / ours,
        "unit": unit,
        "n": count,
        "note": note,
    }
