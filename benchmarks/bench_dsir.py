"""dsir: fitting and scoring texts of 3 kB, against the authors' package (PyPI data-selection, if installed)."""

from __future__ import annotations

import importlib
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

import pickaxe
from benchmarks._web_texts import LENGTH, rates, row, texts
from pickaxe_plugins.selection._ngrams import choose
from pickaxe_plugins.selection.dsir import kl_reduction

NO_PEER = "data-selection is not installed"


def run(count: int = 2000) -> Iterator[dict[str, Any]]:
    target, pool = texts(count // 20, 1, code_share=1.0), texts(count, 0, code_share=0.25)
    fitted = pickaxe.scorer("dsir").fit(target, unlabelled=pool)
    few = pool[: max(1, count // 10)]

    def score(scorer: Any) -> None:
        for _ in scorer.stream(pool):
            pass

    def fit() -> None:
        pickaxe.scorer("dsir").fit(target[:1], unlabelled=pool)

    works: dict[str, Callable[[], None]] = {
        "score, no n-gram met before": lambda: score(fitted.with_artifact(fitted.artifact)),
        "score": lambda: score(fitted),
        "fit": fit,
    }
    for name, work in works.items():
        ours, peer = rates((count, len(few)), (work, peer_on(few)))
        yield {**row(name, ours, peer, "docs/s", count, NO_PEER), "MB/s": ours * LENGTH / 1e6}
    weights = np.concatenate([part["priority"] for part in fitted.stream(pool)])
    best, drawn = (kl_reduction(fitted, [pool[at] for at in rows]) for rows in (choose(weights, count // 10),
                                                                                  range(count // 10)))  # fmt: skip
    note = f"nearer to the target than the pool; a tenth at random: {drawn:.3f}"
    yield row("KL reduction of the best tenth", best, None, "nats", count, note)
    tracemalloc.start()
    works["score, no n-gram met before"]()
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    yield row("memory of scoring", peak, None, "MiB", count, "Python heap of this process")


def peer_on(given: Sequence[str]) -> Callable[[], None] | None:
    """The authors' features of each text, which is all that their scoring takes time for."""
    try:
        counts = importlib.import_module("data_selection.hashed_ngram_dsir").get_ngram_counts
    except ImportError:
        return None

    def work() -> None:
        for text in given:
            counts(text, n=2, num_buckets=10_000)

    return work
