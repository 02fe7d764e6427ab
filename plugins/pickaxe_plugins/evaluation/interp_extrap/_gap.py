"""Interpolation, extrapolation and the gap between them, with intervals; for `interp-extrap`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pickaxe import Call


@dataclass(frozen=True)
class Gap:
    """What one system reaches."""

    system: str
    by_fold: np.ndarray
    """(2, F) means of interpolation and extrapolation, NaN where a fold has no such query."""
    interpolation: float
    extrapolation: float
    pooled: float
    """Extrapolation averaged over queries instead of folds."""
    low: float
    high: float

    @property
    def gap(self) -> float:
        return self.interpolation - self.extrapolation

    @property
    def relative(self) -> float:
        return self.gap / self.interpolation if self.interpolation else np.nan


def measure(system: str, metric: np.ndarray, side: np.ndarray, draws: int, rng: np.random.Generator, call: Call) -> Gap:
    """From metric (F, n_test), NaN where not measured.  Equal generators resample the same queries: paired."""
    there = np.isfinite(metric)
    masks = np.stack([there & (side == which) for which in (0, 1)])
    sums = np.where(masks, metric, 0.0)
    by_fold = _ratio(sums.sum(axis=2), masks.sum(axis=2))
    means = _over_folds(by_fold)
    pooled = _ratio(sums[1].sum(), masks[1].sum())
    parts = np.concatenate([sums.reshape(-1, metric.shape[1]), masks.reshape(-1, metric.shape[1])]).T.astype(float)
    drawn = []
    n, block = metric.shape[1], max(1, 4_000_000 // max(1, metric.shape[1]))
    for done in range(0, draws, block):
        call.check()
        count = min(block, draws - done)
        places = rng.integers(0, n, (count, n)) + n * np.arange(count)[:, None]
        times = np.bincount(places.ravel(), minlength=count * n).reshape(count, n).astype(float)
        total, number = (times @ parts).reshape(count, 2, 2, -1).swapaxes(0, 1)
        ends = _over_folds(_ratio(total, number))
        drawn.append(ends[:, 0] - ends[:, 1])
    known = np.concatenate(drawn)[np.isfinite(np.concatenate(drawn))] if drawn else np.zeros(0)
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) >= 20 else (np.nan, np.nan)
    return Gap(system, by_fold, float(means[0]), float(means[1]), float(pooled), float(low), float(high))


def _ratio(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)


def _over_folds(by_fold: np.ndarray) -> np.ndarray:
    """Mean over the last axis, leaving folds without queries out."""
    there = np.isfinite(by_fold)
    return _ratio(np.where(there, by_fold, 0.0).sum(axis=-1), there.sum(axis=-1))
