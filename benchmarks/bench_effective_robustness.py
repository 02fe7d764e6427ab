"""effective-robustness against a call of scipy.stats.linregress per shift, as notebooks do it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import pickaxe
from benchmarks._rows import median
from pickaxe import Item
from pickaxe.extras import require
from pickaxe_plugins.evaluation.effective_robustness import _lines as lines

SHIFTS = 10


def run() -> Iterator[dict[str, Any]]:
    yield expected(models=100_000)
    yield resampled(models=200, draws=1_000)
    yield scorer(models=1_000)


def expected(models: int) -> dict[str, Any]:
    """Fit of the lines and effective robustness of every model under every shift."""
    accuracy, shifted = simulated(models)
    linregress = require("scipy.stats", "scaling").linregress

    def ours() -> np.ndarray:
        x, y = (lines.forward(each, "logit", 1e-6) for each in (accuracy, shifted))
        line = lines.fit(x[:200], y[:200], np.ones(200), "logit", 3)
        return shifted - line.at(x, "logit")

    def peer() -> np.ndarray:
        x, gaps = np.log(accuracy / (1 - accuracy)), []
        for column in shifted.T:
            line = linregress(x[:200], np.log(column[:200] / (1 - column[:200])))
            gaps.append(column - 1 / (1 + np.exp(-(line.slope * x + line.intercept))))
        return np.stack(gaps, axis=1)

    apart = np.abs(ours() - peer()).max()
    note = f"peer: scipy.stats.linregress per shift; largest difference {apart:.1g}; aim: 0.05 s"
    return row(f"{models:,} models x {SHIFTS} shifts", median(ours), median(peer), models, note)


def resampled(models: int, draws: int) -> dict[str, Any]:
    """The peer fits a twentieth of the lines."""
    accuracy, shifted = simulated(models)
    x, y = (lines.forward(each, "logit", 1e-6) for each in (accuracy, shifted))
    linregress = require("scipy.stats", "scaling").linregress
    rng = np.random.default_rng(0)

    def peer() -> None:
        for _ in range(draws // 20):
            drawn = rng.integers(0, models, models)
            for column in y.T:
                linregress(x[drawn], column[drawn])

    seconds = median(lambda: lines.resampled(x, y, np.ones(models), draws, rng))
    name = f"{draws:,} resampled lines x {SHIFTS} shifts, {models} models"
    return row(name, seconds, median(peer) * 20, draws, "peer: scipy.stats.linregress per line; aim: 0.1 s")


def scorer(models: int) -> dict[str, Any]:
    accuracy, shifted = simulated(models)
    items = [
        Item(
            str(at),
            fields={"id_accuracy": float(x), "ood": {str(shift): float(value) for shift, value in enumerate(y)}},
        )
        for at, (x, y) in enumerate(zip(accuracy, shifted, strict=True))
    ]
    handle = pickaxe.scorer("effective-robustness").fit(items[:200])
    name = f"the whole scorer, {models:,} models x {SHIFTS} shifts"
    return row(name, median(lambda: handle.score(items)), None, models, "with intervals and report")


def simulated(models: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.uniform(-1.5, 1.5, models)
    y = 0.9 * x[:, None] - 0.6 + rng.normal(0, 0.1, (models, SHIFTS))
    return lines.backward(x, "logit"), lines.backward(y, "logit")


def row(name: str, ours: float, peer: float | None, n: int, note: str) -> dict[str, Any]:
    ratio = None if peer is None else peer / ours
    return {"name": name, "ours": ours, "peer": peer, "ratio": ratio, "unit": "s", "n": n, "note": note}
