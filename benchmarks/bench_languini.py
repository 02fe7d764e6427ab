"""languini: queues of books against the arg-min rule, scoring of runs, and the published plans from measured speeds."""

from __future__ import annotations

import csv
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import pickaxe
from pickaxe import Item
from pickaxe_plugins.scaling._languini_stream import distribute

TABLE = Path(__file__).parent.parent / "tests" / "golden" / "files" / "65-languini" / "throughput.csv"
PUBLISHED = {("gpt", "small"): 55_416, ("gpt", "medium"): 16_618, ("lstm", "mini"): 94_781, ("lstm", "tiny"): 36_930,
             ("lstm", "small"): 11_143}  # fmt: skip


def run() -> Iterator[dict[str, Any]]:
    yield queues(books=100_000, batch=128)
    yield runs(count=20_000)
    yield from plans()


def queues(books: int, batch: int) -> dict[str, Any]:
    """The peer looks for the smallest total of all queues for each book."""
    lengths = np.random.default_rng(0).integers(1_000, 200_000, books).tolist()
    seconds = median(lambda: distribute(lengths, batch), 3)

    def peer() -> None:
        totals: list[int] = [0] * batch
        for length in lengths:
            totals[totals.index(min(totals))] += length

    return row(f"{books} books in {batch} queues", seconds, median(peer, 3), "s", books, "aim: 0.3 s")


def runs(count: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    items = [
        Item(str(place), fields={
            "model": f"model {place % 20}", "total_nll": float(nll), "string_length": 1e6, "tokens_per_second": 50_000,
            "steps": hours * 2746, "batch": 128, "seq_len": 512,
        })
        for place, (nll, hours) in enumerate(
            zip(rng.uniform(9e5, 1.1e6, count), rng.choice([6, 12, 24, 48, 96], count).tolist(), strict=True)
        )
    ]  # fmt: skip
    handle = pickaxe.scorer("languini")
    return row("runs scored", median(lambda: handle.score(items), 3), None, "s", count, "with trends and report")


def plans() -> Iterator[dict[str, Any]]:
    """Highest measured throughputs on the RTX 3090 against the published ones."""
    with TABLE.open(encoding="utf-8") as stream:
        measured = list(csv.DictReader(stream))
    items = [
        Item(str(place), fields={
            **{name: each[name] for name in ("model", "config", "device")}, "batch_size": float(each["batch_size"]),
            "tokens_per_second": float(each["tokens_per_second"]),
        })
        for place, each in enumerate(measured)
    ]  # fmt: skip
    found = pickaxe.scorer("languini", mode="plan", reference_device="RTX 3090").score(items)
    for (model, config), published in PUBLISHED.items():
        place = next(
            place for place, each in enumerate(measured)
            if (each["model"], each["config"]) == (model, config) and "RTX 3090" in each["device"]
        )  # fmt: skip
        note = f"{found['steps'][place]} steps of 128 x 512 in 6 hours; peer: as published"
        speed = float(found["best_tokens_per_second"][place])
        yield row(f"{model} {config} on RTX 3090", speed, published, "tokens/s", len(items), note)


def median(work: Callable[[], object], runs: int) -> float:
    taken = []
    for _ in range(runs):
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def row(name: str, ours: float, peer: float | None, unit: str, n: int, note: str) -> dict[str, Any]:
    ratio = None if peer is None else (peer / ours if unit == "s" else ours / peer)
    return {"name": name, "ours": ours, "peer": peer, "ratio": ratio, "unit": unit, "n": n, "note": note}
