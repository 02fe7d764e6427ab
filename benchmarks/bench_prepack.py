"""prepack: reading prompts of log-normal lengths in shared rows, against padding, sorting, one by one, full rows."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from pickaxe import Host
from pickaxe.lm import LM
from pickaxe.lm.packing import prefill_packed
from pickaxe.randomness import generator

BUCKET = 8
"""Prompts of one length-sorted batch."""


def run() -> Iterator[dict[str, Any]]:
    yield from compared("median 24, at most 256", lengths(64, 24, 2, 256), padding=True)
    yield from compared("10 to 500", lengths(64, 60, 10, 500), padding=True)
    for count in (8, 32):
        yield from compared("median 24, at most 256", lengths(count, 24, 2, 256), padding=False)
    yield memory()


def lengths(count: int, median: float, low: int, high: int) -> list[int]:
    """Log-normal with sigma 1."""
    drawn = np.exp(generator(0, "lengths", count).normal(np.log(median), 1, count))
    return [int(each) for each in np.clip(drawn, low, high)]


def prompts(lm: LM, sizes: Sequence[int]) -> list[np.ndarray]:
    random = generator(0, "prompts")
    return [random.integers(100, lm.vocab_size, size) for size in sizes]


def compared(name: str, sizes: list[int], padding: bool, runs: int = 3) -> Iterator[dict[str, Any]]:
    """Seconds to read all prompts; each way once in every round, so that all see the same machine."""
    lm = Host().lm()
    given = prompts(lm, sizes)
    ways: dict[str, Callable[[], object]] = {
        "packed": lambda: prefill_packed(lm, given, emit="packed"),
        "packed, last tokens apart": lambda: prefill_packed(lm, given, emit="last_token"),
        "sorted by length, 8 at a time": lambda: batches(lm, sorted(given, key=len), BUCKET),
        "one by one": lambda: [lm.prefill(each) for each in given],
        "as many tokens in full rows": lambda: full_rows(lm, given),
    }
    for read in ways.values():
        read()
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(runs):
        for way, read in ways.items():
            seconds[way].append(timed(read))
    if padding:
        seconds["padded to the longest"] = [timed(lambda: batches(lm, given, BUCKET, max(sizes)))]
    ours = statistics.median(seconds.pop("packed"))
    for way, values in seconds.items():
        peer = statistics.median(values)
        yield {
            "name": f"{len(sizes)} prompts, {name}: packed against {way}",
            "ours": ours,
            "peer": peer,
            "ratio": peer / ours,
            "unit": "s",
            "n": runs,
            "note": f"{sum(sizes)} tokens, {sum(sizes) / ours:.0f} tokens/s packed",
        }


def timed(read: Callable[[], object]) -> float:
    begin = time.perf_counter()
    read()
    return time.perf_counter() - begin


def batches(lm: LM, given: Sequence[np.ndarray], size: int, width: int = 0) -> None:
    """So many prompts at a time, padded to the longest of them, or to a width."""
    for begin in range(0, len(given), size):
        group = given[begin : begin + size]
        ids = np.zeros((len(group), width or max(map(len, group))), np.int64)
        for row, each in enumerate(group):
            ids[row, : len(each)] = each
        lm.forward(ids, lengths=[len(each) for each in group])


def full_rows(lm: LM, given: Sequence[np.ndarray]) -> None:
    """All tokens one after the other in rows as long as the longest prompt, read without any mask."""
    every, width = np.concatenate(given), max(map(len, given))
    whole = len(every) // width * width
    lm.forward(every[:whole].reshape(-1, width))
    if whole < len(every):
        lm.forward(every[None, whole:])


# ---------------------------------------------------------------- memory


def memory() -> dict[str, Any]:
    """Peak memory of a process that reads 16 prompts."""
    ours, peer = (peak(way) for way in ("packed", "padded"))
    return {
        "name": "16 prompts, 10 to 500: peak memory",
        "ours": ours,
        "peer": peer,
        "ratio": peer / ours,
        "unit": "MiB",
        "n": 1,
        "note": "of a fresh process with the model, 8 bit or as stored; peer: padded to the longest, in one run",
    }


def peak(way: str) -> float:
    code = f"from benchmarks.bench_prepack import reading; print(reading({way!r}))"
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def reading(way: str) -> float:
    """MiB at the peak of this process."""
    import resource

    lm = Host().lm()
    sizes = lengths(16, 60, 10, 500)
    given = prompts(lm, sizes)
    if way == "packed":
        prefill_packed(lm, given)
    else:
        batches(lm, given, len(given))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
