"""prepack: reading prompts of log-normal lengths in shared rows, against padding, sorting, one by one, full rows.

Times are processor seconds of one thread: they say how much work each way is, whatever else the machine does.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pickaxe import Host
from pickaxe.lm import LM
from pickaxe.lm.packing import prefill_packed
from pickaxe.randomness import generator

BUCKET = 8
"""Prompts of one length-sorted batch."""
APART, SORTED = "packed, last tokens apart", "sorted by length, 8 at a time"
FULL, PADDED = "as many tokens in full rows", "padded to the longest (16 of them, scaled)"
WAYS = ("packed", APART, SORTED, "one by one", FULL)


def run() -> Iterator[dict[str, Any]]:
    short = "median 24, at most 256"
    yield from compared(short, lengths(64, 24, 2, 256), (*WAYS, PADDED))
    yield from compared("10 to 500", lengths(64, 60, 10, 500), ("packed", "one by one", FULL, PADDED))
    for count in (8, 32):
        yield from compared(short, lengths(count, 24, 2, 256), WAYS)
    yield memory()


def lengths(count: int, median: float, low: int, high: int) -> list[int]:
    """Log-normal with sigma 1."""
    drawn = np.exp(generator(0, "lengths", count).normal(np.log(median), 1, count))
    return [int(each) for each in np.clip(drawn, low, high)]


def prompts(lm: LM, sizes: Sequence[int]) -> list[np.ndarray]:
    random = generator(0, "prompts")
    return [random.integers(100, lm.vocab_size, size) for size in sizes]


def compared(name: str, sizes: list[int], ways: Sequence[str], rounds: int = 2) -> Iterator[dict[str, Any]]:
    """Seconds to read all prompts, each way once in every round."""
    lm = Host(threads=1).lm()
    given = prompts(lm, sizes)
    for way in ways:
        read(lm, given[:2], way)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            begin = time.process_time()
            part = read(lm, given, way)
            seconds[way].append((time.process_time() - begin) / part)
    best = {way: min(values) for way, values in seconds.items()}
    for way in ways[1:]:
        yield {
            "name": f"{len(sizes)} prompts, {name}: packed against {way}",
            "ours": best["packed"],
            "peer": best[way],
            "ratio": best[way] / best["packed"],
            "unit": "s",
            "n": rounds,
            "note": f"{sum(sizes)} tokens, {sum(sizes) / best['packed']:.0f} tokens/s packed",
        }


def read(lm: LM, given: Sequence[np.ndarray], way: str) -> float:
    """Read the prompts; returns how much of the whole work was done, since padding takes too long."""
    if way == "packed":
        prefill_packed(lm, given, emit="packed")
    elif way == APART:
        prefill_packed(lm, given, emit="last_token")
    elif way == SORTED:
        batches(lm, sorted(given, key=len), BUCKET)
    elif way == "one by one":
        for each in given:
            lm.prefill(each)
    elif way == FULL:
        full_rows(lm, given)
    else:
        part = given[:: max(1, len(given) // 16)]
        batches(lm, part, BUCKET, max(map(len, given)))
        return len(part) / len(given)
    return 1


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
    """What a process takes more at its peak while it reads 16 prompts."""
    ours, peer = (grown(way) for way in ("packed", PADDED))
    return {
        "name": "16 prompts, 10 to 500: memory at the peak beyond the model's",
        "ours": ours,
        "peer": peer,
        "ratio": peer / ours,
        "unit": "MiB",
        "n": 1,
        "note": "a fresh process each; peer: padded to the longest, in one run",
    }


def grown(way: str) -> float:
    code = f"from benchmarks.bench_prepack import reading; print(reading({way!r}))"
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def reading(way: str) -> float:
    """MiB by which this process grows (Linux counts its peak anew after `clear_refs`)."""
    lm = Host(threads=1).lm()
    given = prompts(lm, lengths(16, 60, 10, 500))
    prefill_packed(lm, [each[:4] for each in given[:4]])
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    if way == "packed":
        prefill_packed(lm, given)
    else:
        batches(lm, given, len(given), max(map(len, given)))
    return (status("VmHWM") - before) / 1024


def status(name: str) -> float:
    """KiB, from the kernel's table of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(name))
