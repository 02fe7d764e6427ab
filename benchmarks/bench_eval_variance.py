"""eval-variance against loops over scipy: rank correlations, bootstrap over items; peak memory; fit of the 2PL."""

from __future__ import annotations

import contextlib
import importlib
import sys
import tracemalloc
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np

import pickaxe
from benchmarks._rows import median
from pickaxe import Call, Item
from pickaxe.extras import require
from pickaxe_plugins.evaluation.eval_variance import _item_response, _seed_stats
from pickaxe_plugins.evaluation.eval_variance._benchmarks import rank_correlations
from pickaxe_plugins.evaluation.eval_variance._read import benchmark, places


def run() -> Iterator[dict[str, Any]]:
    yield correlations(benchmarks=1_000, seeds=10, checkpoints=200)
    yield correlations(benchmarks=1, seeds=1, checkpoints=100_000)
    yield bootstrap(seeds=20, items=1_000)
    yield bootstrap(seeds=10, items=14_000)
    yield harness(items=14_000)
    yield scorer(seeds=20, items=1_000)
    yield fit(models=200, items=500)


def correlations(benchmarks: int, seeds: int, checkpoints: int) -> dict[str, Any]:
    """The peer runs a sample of the trajectories."""
    rng = np.random.default_rng(0)
    scores = np.round(rng.normal(0, 1, (benchmarks * seeds, checkpoints)).cumsum(axis=1), 1)
    kendall = require("scipy.stats", "scaling").kendalltau
    sample, steps = scores[:200], np.arange(checkpoints)
    parts = scores.reshape(benchmarks, seeds, checkpoints)
    read = [benchmark(each) for each in places([Item(str(n), fields={"scores": part}) for n, part in enumerate(parts)])]
    ours = median(lambda: rank_correlations(read, Call()), 3)
    theirs = median(lambda: [kendall(steps, row) for row in sample], 3) * len(scores) / len(sample)
    worst = np.abs(_seed_stats.tau_b(sample) - [kendall(steps, row).statistic for row in sample]).max()
    name = f"tau-b of {benchmarks:,} benchmarks x {seeds} seeds x {checkpoints:,} checkpoints"
    return row(name, ours, theirs, len(scores), f"peer: scipy.stats.kendalltau; largest difference {worst:.1g}")


def bootstrap(seeds: int, items: int, draws: int = 1_000) -> dict[str, Any]:
    scores = (np.random.default_rng(0).random((seeds, items)) < 0.4).astype(np.float64)
    resample = require("scipy.stats", "scaling").bootstrap
    ours = median(lambda: _seed_stats.bootstrap_ends(scores, draws, Call()), 3)

    def peer() -> None:
        for line in scores[:2]:
            resample((line,), np.mean, n_resamples=draws, method="percentile", batch=100, rng=0)

    tracemalloc.start()
    _seed_stats.bootstrap_ends(scores, draws, Call())
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    name = f"{draws:,} resamples of {items:,} items, {seeds} seeds"
    return row(name, ours, median(peer, 3) * seeds / 2, draws, f"peer: scipy.stats.bootstrap; peak {peak:.0f} MB")


def harness(items: int, draws: int = 1_000) -> dict[str, Any]:
    """One seed beside `bootstrap_stderr` of lm-evaluation-harness, which draws in Python, one process."""
    scores = (np.random.default_rng(0).random(items) < 0.4).astype(np.float64)
    ours = median(lambda: _seed_stats.bootstrap_ends(scores[None], draws, Call()), 3)
    name = f"{draws:,} resamples of {items:,} items, beside lm-evaluation-harness"
    try:
        bootstrap_stderr = importlib.import_module("lm_eval.api.metrics").bootstrap_stderr
    except ImportError:
        return row(name, ours, None, draws, "the package lm-eval is not installed")
    low, high = _seed_stats.bootstrap_ends(scores[None], draws, Call())
    found: list[float] = []
    with contextlib.redirect_stdout(sys.stderr), mock.patch.dict("os.environ", DISABLE_MULTIPROC="1"):
        theirs = median(lambda: found.append(bootstrap_stderr(np.mean, scores.tolist(), draws)), 1)
    note = f"half widths: ours {(high[0] - low[0]) / 2:.4f}, 1.96 of its standard errors {1.96 * found[0]:.4f}"
    return row(name, ours, theirs, draws, note)


def scorer(seeds: int, items: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    answers = (rng.random((seeds, items)) < 0.4).astype(np.float64)
    item = Item("one", fields={"scores": answers.mean(axis=1), "item_scores": answers})
    handle = pickaxe.scorer("eval-variance")
    handle.score([item])
    name = f"the whole scorer, 1,000 resamples of {items:,} items, {seeds} seeds"
    return row(name, median(lambda: handle.score([item]), 3), None, 1, "with its report; aim: 5 s")


def fit(models: int, items: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    a, b, theta = np.exp(rng.normal(0, 0.5, items)), rng.normal(0, 1, items), rng.normal(0, 1, models)
    answers = (rng.random((models, items)) < _item_response.chance(theta, a, b)).astype(np.float64)
    found: list[_item_response.Fitted] = []

    def ours() -> None:
        found[:] = _item_response.fit_2pl(answers, 200, 1e-4)

    seconds = median(ours, 3)
    last = found[-1]
    fitted = [np.corrcoef(*pair)[0, 1] for pair in ((last.a, a), (last.b, b), (last.theta, theta))]
    told = ", ".join(f"{value:.3f}" for value in fitted)
    note = f"{len(found)} rounds; correlation of a, b, theta with the true ones: {told}"
    return row(f"2PL of {models} models x {items} items", seconds, None, models, note)


def row(name: str, ours: float, peer: float | None, n: int, note: str) -> dict[str, Any]:
    ratio = None if peer is None else peer / ours
    return {"name": name, "ours": ours, "peer": peer, "ratio": ratio, "unit": "s", "n": n, "note": note}
