"""star-adore: steps of ADORE, exact search, and MetaTool with negatives of the moment, at random and mined once."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import pickaxe
from benchmarks._metatool import halves, items, mrr10
from pickaxe import Item, Progress
from pickaxe.index import DenseIndex

DOCUMENTS, WIDTH = 10_000, 384
SEEDS = (0, 1)
MANNERS: dict[str, dict[str, Any]] = {
    "ADORE": {"stage": "adore"},
    "random negatives": {"stage": "warmup", "star": {"epochs": 20, "batch": 32}},
    "STAR, batch 32": {"stage": "star", "star": {"epochs": 20, "batch": 32}},
    "static hard negatives alone": {
        "stage": "star", "star": {"epochs": 20, "batch": 1, "optimizer": "adamw", "rate": 3e-3},
    },
}  # fmt: skip


def run() -> Iterator[dict[str, Any]]:
    yield steps()
    yield searching()
    yield from quality()


def steps() -> dict[str, Any]:
    random = np.random.default_rng(0)
    documents = [Item(f"{row}", None, {"embedding": vector})
                 for row, vector in enumerate(random.standard_normal((DOCUMENTS, WIDTH), np.float32))]  # fmt: skip
    queries = [
        Item(f"{row}", None, {"embedding": vector, "relevant": [f"{row}"]})
        for row, vector in enumerate(random.standard_normal((640, WIDTH), np.float32))
    ]
    times: list[float] = []

    def note(progress: Progress) -> None:
        times.append(time.perf_counter())

    adore = {"epochs": 4, "batch": 32}
    pickaxe.retriever("star-adore", base=None, adore=adore).fit(queries, unlabelled=documents, progress=note)
    rate = 1 / statistics.median(np.diff(times[5:]).tolist())
    return row("star-adore: ADORE on a head", rate, None, "steps/s", DOCUMENTS, "batch 32, list 200; goal: 20")


def searching() -> dict[str, Any]:
    random = np.random.default_rng(0)
    index = DenseIndex(random.standard_normal((DOCUMENTS, WIDTH), np.float32))
    queries = random.standard_normal((1000, WIDTH), np.float32)

    def plain() -> None:
        scores = queries @ index.vectors.T
        best = np.argpartition(-scores, 10, axis=1)[:, :10]
        np.take_along_axis(best, np.argsort(-np.take_along_axis(scores, best, 1), axis=1), 1)

    ours, theirs = median(lambda: index.search(queries, 10)), median(plain)
    note = "1,000 queries; against one product and argpartition; faiss-cpu is not installed; goal: under 1 s"
    return row("star-adore: exact search", ours, theirs, "s", DOCUMENTS, note)


def quality() -> Iterator[dict[str, Any]]:
    """MRR@10 of the other half of the questions."""
    tools, questions = items()
    bare = [Item(tool.id, None, tool.fields) for tool in tools]
    reached: dict[str, list[float]] = {"base": []}
    for seed in SEEDS:
        learned, tested = halves(questions, seed)
        reached["base"].append(mrr10(pickaxe.retriever("star-adore", base=None), bare, tested))
        for name, given in MANNERS.items():
            handle = pickaxe.retriever("star-adore", base=None, head_scale=10, hard_topk=30, neg_topk=30,
                                       **{"adore": {"epochs": 20}, **given})  # fmt: skip
            fitted = handle.fit(learned, unlabelled=bare, seed=seed)
            reached.setdefault(name, []).append(mrr10(fitted, bare, tested))
    for name, values in reached.items():
        note = "per half: " + ", ".join(f"{value:.3f}" for value in values)
        peer = statistics.mean(reached["base"])
        yield row(f"star-adore: MetaTool, {name}", statistics.mean(values), peer, "MRR@10", len(questions) // 2, note)


def median(function: Callable[[], object], runs: int = 3) -> float:
    function()
    seconds = []
    for _ in range(runs):
        begun = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def row(name: str, ours: float, peer: float | None, unit: str, n: int, note: str) -> dict[str, Any]:
    ratio = None if peer is None else (peer / ours if unit == "s" else ours / peer)
    return {"name": name, "ours": ours, "peer": peer, "ratio": ratio, "unit": unit, "n": n, "note": note}
