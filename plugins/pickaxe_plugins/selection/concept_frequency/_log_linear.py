"""Accuracy against the logarithm of frequency: bins, their correlation and line (arXiv:2404.04125)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pickaxe.extras import require


@dataclass(frozen=True)
class LogLinear:
    """Bins over ln(count), right-closed, and the line through the means of the inner ones.

    All arrays are (num_bins,); means and standard deviations are NaN for empty bins.
    """

    edges: np.ndarray
    """Right edges, as counts."""
    members: np.ndarray
    means: np.ndarray
    stds: np.ndarray
    """Population standard deviations."""
    used: np.ndarray
    """bool: the bins that the line goes through."""
    r: float
    p_value: float
    slope: float
    """Accuracy per unit of the natural logarithm of the count."""
    intercept: float
    reason: str = ""
    """Why there is no line; r, p value, slope and intercept are NaN then."""

    @property
    def slope_per_decade(self) -> float:
        return float(self.slope * np.log(10))

    def predict(self, counts: np.ndarray) -> np.ndarray:
        """Accuracy by the line, clipped to [0, 100]; NaN without a line."""
        return np.clip(self.intercept + self.slope * np.log(np.maximum(counts, 1.0)), 0.0, 100.0)


def log_linear(
    counts: np.ndarray, accuracy: np.ndarray, num_bins: int = 12, drop_first: int = 1, drop_last: int = 1
) -> LogLinear:
    """Bin accuracies, (n,) with n at least 1, by the logarithm of their counts, (n,); counts of 0 count as 1."""
    x = np.log(np.where(counts == 0, 1.0, counts))
    edges = np.linspace(x.min(), x.max(), num_bins)
    # Rounding may leave the largest count above the last edge.
    place = np.minimum(np.digitize(x, edges, right=True), num_bins - 1)
    members = np.bincount(place, minlength=num_bins)
    with np.errstate(invalid="ignore"):
        means = np.bincount(place, accuracy, num_bins) / members
    spread = np.bincount(place, (accuracy - means[place]) ** 2, num_bins)
    with np.errstate(invalid="ignore"):
        stds = np.sqrt(spread / members)
    inner = np.zeros(num_bins, bool)
    inner[drop_first : num_bins - drop_last] = True
    used = inner & (members > 0)
    fitted = _line(edges[used], means[used])
    return LogLinear(np.exp(edges), members, means, stds, used, *fitted)


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float, float, str]:
    """(r, two-sided p, slope, intercept, reason why not)."""
    nan = float("nan")
    if len(x) < 3:
        return nan, nan, nan, nan, f"{len(x)} inner bins hold concepts, three or more are needed"
    dx, dy = x - x.mean(), y - y.mean()
    if not dx.any():
        return nan, nan, nan, nan, "all counts are equal"
    slope = float(dx @ dy / (dx @ dx))
    intercept = float(y.mean() - slope * x.mean())
    if np.ptp(y) <= 1e-12 * max(1.0, float(np.abs(y).max())):
        return nan, nan, 0.0, intercept, "the accuracies of all bins are equal: no correlation"
    r = float(np.clip(dx @ dy / np.sqrt((dx @ dx) * (dy @ dy)), -1.0, 1.0))
    return r, _p_value(r, len(x)), slope, intercept, ""


def _p_value(r: float, n: int) -> float:
    if abs(r) == 1.0:
        return 0.0
    special = require("scipy.special", extra="scaling")
    t = abs(r) * np.sqrt((n - 2) / (1 - r * r))
    return float(2 * special.stdtr(n - 2, -t))


def frequency_correlation(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Spearman's correlation of the counts of those concepts that two training sets share; NaN for fewer than two."""
    shared = sorted(one.keys() & other.keys())
    if len(shared) < 2:
        return float("nan")
    first, second = (_ranks(np.array([table[name] for name in shared], np.float64)) for table in (one, other))
    if not np.ptp(first) or not np.ptp(second):
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, means among equals."""
    _, inverse, sizes = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(sizes)
    ranks: np.ndarray = (last - (sizes - 1) / 2)[inverse]
    return ranks
