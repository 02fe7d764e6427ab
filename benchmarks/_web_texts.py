"""Texts of 3 kB for the rule and n-gram benches: the standard library's own documentation and code."""

from __future__ import annotations

import os
import pydoc_data.topics
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

LENGTH = 3000


@cache
def _sources() -> tuple[str, str]:
    code = "".join(path.read_text("utf-8") for path in sorted(Path(os.__file__).parent.glob("*.py"))[:80])
    return "\n".join(pydoc_data.topics.topics.values()), code


def texts(count: int, seed: int, code_share: float = 0.0) -> list[str]:
    """Stretches of documentation, a share of them of code."""
    draw = random.Random(seed)
    chosen = [_sources()[draw.random() < code_share] for _ in range(count)]
    starts = [draw.randrange(len(source) - LENGTH) for source in chosen]
    return [source[start : start + LENGTH] for source, start in zip(chosen, starts, strict=True)]


def rates(sizes: tuple[int, int | None], works: tuple[Callable[[], None], Callable[[], None] | None]) -> list[Any]:
    """Texts a second of ours and of the peer (None without one), medians of five runs in turns."""
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(5):
        for work, times in zip(works, taken, strict=True):
            if work is not None:
                start = perf_counter()
                work()
                times.append(perf_counter() - start)
    return [size / median(times) if times and size else None for size, times in zip(sizes, taken, strict=True)]


def row(name: str, ours: float, peer: float | None, unit: str, n: int, missing: str) -> dict[str, Any]:
    ratio = None if peer is None else ours / peer
    found = {"name": name, "ours": ours, "peer": peer, "ratio": ratio, "unit": unit, "n": n}
    return found if peer is not None else {**found, "note": missing}
