"""The language-model engine against llama.cpp and onnxruntime-genai; see `_lm_engines` for how to get these."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from benchmarks._lm_engines import Contest

RUNS = 5
TASKS = (
    ("plain decode, one request, greedy", "plain", (64,)),
    ("eight requests, 64-128 tokens each", "eight", ()),
    ("prefill of 512", "prefill", (512,)),
    ("prefill of 1900", "prefill", (1900,)),
)


def run() -> Iterator[dict[str, Any]]:
    contest = Contest()
    try:
        for name, what, arguments in TASKS:
            yield against_the_best(contest, name, what, arguments)
        yield scoring(contest)
        yield memory(contest)
    finally:
        contest.close()


def against_the_best(contest: Contest, name: str, what: str, arguments: tuple[Any, ...]) -> dict[str, Any]:
    """Tokens a second; medians of interleaved runs, after one that does not count."""
    found: dict[str, list[float]] = {engine: [] for engine in contest.pools}
    for number in range(RUNS + 1):
        for engine in contest.pools:
            rate = contest.measure(engine, what, *arguments)
            if number:
                found[engine].append(rate)
    medians = {engine: statistics.median(rates) for engine, rates in found.items()}
    ours = medians.pop("ours")
    note = ", ".join(f"{engine} {rate:.4g}" for engine, rate in medians.items())
    peer = max(medians.values(), default=None)
    ratio = None if peer is None else ours / peer
    return row(name, ours, peer, ratio, "tokens/s", RUNS, note or "no peer is installed")


def scoring(contest: Contest) -> dict[str, Any]:
    pairs = [contest.measure("ours", "texts", 500) for _ in range(3)]
    ours, padded = (statistics.median(column) for column in zip(*pairs, strict=True))
    return row("log-probabilities of 500 texts", ours, padded, padded / ours, "s", 3, "peer: padded batches of 16")


def memory(contest: Contest) -> dict[str, Any]:
    peak, floor = contest.measure("ours", "memory")
    note = "peer: weights, keys and values alone; aim: 300 MiB more"
    return row("peak memory, 8 requests of 1024", peak, floor, floor / peak, "MiB", 1, note)


def row(
    name: str, ours: float, peer: float | None, ratio: float | None, unit: str, n: int, note: str
) -> dict[str, Any]:
    return {"name": name, "ours": ours, "peer": peer, "ratio": ratio, "unit": unit, "n": n, "note": note}
