"""Lines of accuracy under shift over accuracy without it, on a scaled axis; for `effective-robustness`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pickaxe.extras import require

Transform = Literal["logit", "probit", "identity"]


def forward(values: np.ndarray, transform: Transform, least: np.ndarray | float) -> np.ndarray:
    """Accuracies on the scaled axis, kept `least` away from 0 and 1; NaN stays NaN."""
    if transform == "identity":
        return np.asarray(values, np.float64)
    kept = np.clip(values, least, 1 - np.asarray(least))
    if transform == "logit":
        return np.asarray(np.log(kept) - np.log1p(-kept))
    return np.asarray(require("scipy.special", "scaling").ndtri(kept))


def backward(values: np.ndarray, transform: Transform) -> np.ndarray:
    """Accuracies of values on the scaled axis."""
    if transform == "identity":
        return values
    if transform == "logit":
        return np.asarray(0.5 * (1 + np.tanh(values / 2)))
    return np.asarray(require("scipy.special", "scaling").ndtr(values))


@dataclass(frozen=True)
class Lines:
    """One least-squares line per shift: f(y) = slope f(x) + intercept; arrays (S,), NaN where `reasons` says why."""

    slope: np.ndarray
    intercept: np.ndarray
    r2: np.ndarray
    held_out: np.ndarray
    """Mean distance, as accuracies, of each point to the line through all others."""
    points: np.ndarray
    x_low: np.ndarray
    x_high: np.ndarray
    """Range of x on the scaled axis."""
    reasons: tuple[str, ...]

    def at(self, x: np.ndarray, transform: Transform) -> np.ndarray:
        """(n, S) expected accuracies at scaled x (n,)."""
        return backward(x[:, None] * self.slope + self.intercept, transform)

    def outside(self, x: np.ndarray) -> np.ndarray:
        """(n, S) whether x (n,) lies outside the points."""
        slack = 1e-9
        return (x[:, None] < self.x_low - slack) | (x[:, None] > self.x_high + slack)

    def row(self, shift: int) -> dict[str, Any]:
        """One shift as JSON."""
        numbers = {name: float(getattr(self, name)[shift]) for name in _NUMBERS}
        shown = {name: value if np.isfinite(value) else None for name, value in numbers.items()}
        return {**shown, "points": int(self.points[shift]), "reason": self.reasons[shift]}

    @classmethod
    def of_rows(cls, rows: list[dict[str, Any] | None]) -> Lines:
        """What `row` wrote, one per shift; None stands for a shift without a line."""
        held = [_NO_LINE if row is None else row for row in rows]
        arrays = {
            name: np.array([np.nan if row[name] is None else row[name] for row in held], np.float64)
            for name in _NUMBERS
        }
        points = np.array([row["points"] for row in held], np.int64)
        return cls(points=points, reasons=tuple(str(row["reason"]) for row in held), **arrays)


_NUMBERS = ("slope", "intercept", "r2", "held_out", "x_low", "x_high")
_NO_LINE: dict[str, Any] = {**dict.fromkeys(_NUMBERS), "points": 0, "reason": "no point has this shift"}


def fit(x: np.ndarray, y: np.ndarray, weights: np.ndarray, transform: Transform, min_points: int) -> Lines:
    """The lines of scaled y (n, S), NaN where missing, over scaled x (n,)."""
    there = np.isfinite(y)
    count = there.sum(axis=0)
    reasons = tuple(_reason(x[there[:, shift]], min_points) for shift in range(y.shape[1]))
    bad = np.array([bool(reason) for reason in reasons], bool)
    w = weights[:, None] * there
    with np.errstate(invalid="ignore", divide="ignore"):
        total = w.sum(axis=0)
        filled = np.where(there, y, 0)
        x_mean, y_mean = (w * x[:, None]).sum(axis=0) / total, (w * filled).sum(axis=0) / total
        dx, dy = x[:, None] - x_mean, filled - y_mean
        sxx, sxy, syy = (w * dx**2).sum(axis=0), (w * dx * dy).sum(axis=0), (w * dy**2).sum(axis=0)
        slope = np.where(bad, np.nan, sxy / sxx)
        rest = dy - slope * dx
        r2 = 1 - (w * rest**2).sum(axis=0) / syy
        pull = 1 - w / total - w * dx**2 / sxx
        alone = backward(filled - np.where(pull > 1e-12, rest / pull, np.nan), transform)
        missed = np.where(there, np.abs(backward(filled, transform) - alone), 0)
        held_out = missed.sum(axis=0) / count
    at = np.where(there, x[:, None], np.nan)
    low = np.fmin.reduce(at, axis=0, initial=np.nan)
    high = np.fmax.reduce(at, axis=0, initial=np.nan)
    r2 = np.where(syy > 1e-24 * total, r2, np.nan)
    return Lines(slope, y_mean - slope * x_mean, r2, held_out, count, low, high, reasons)


def _reason(x: np.ndarray, min_points: int) -> str:
    if len(x) < min_points:
        return f"{len(x)} of the {min_points} points that a line needs"
    if np.ptp(x) <= 1e-12 * max(1.0, float(np.abs(x).max())):
        return "all points have the same in-distribution accuracy"
    return ""


def resampled(x: np.ndarray, y: np.ndarray, weights: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """(draws, S, 2) slopes and intercepts of lines through resampled points, in closed form from weighted sums.

    NaN where a resample has no two different x.
    """
    n, shifts = y.shape
    if not n or not draws:
        return np.full((draws, shifts, 2), np.nan)
    there = np.isfinite(y)
    w = weights[:, None] * there
    x_mid = x.mean()
    with np.errstate(invalid="ignore", divide="ignore"):
        y_mid = np.where(there, y, 0).sum(axis=0) / there.sum(axis=0)
    dx, dy = (x - x_mid)[:, None], np.where(there, y - y_mid, 0)
    parts = np.concatenate([w, w * dx, w * dx**2, w * dy, w * dx * dy], axis=1)
    block = max(1, 4_000_000 // n)
    sums = np.concatenate([_counts(n, min(block, draws - done), rng) @ parts for done in range(0, draws, block)])
    s, sx, sxx, sy, sxy = np.moveaxis(sums.reshape(draws, 5, shifts), 1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = sxx - sx**2 / s
        spread = np.where(spread > 1e-9 * (w * dx**2).sum(axis=0), spread, np.nan)
        slope = (sxy - sx * sy / s) / spread
        intercept = sy / s - slope * sx / s + y_mid - slope * x_mid
    return np.stack([slope, intercept], axis=2)


def _counts(n: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """(draws, n): how often each point was drawn."""
    drawn = rng.integers(0, n, (draws, n)) + n * np.arange(draws)[:, None]
    return np.bincount(drawn.ravel(), minlength=draws * n).reshape(draws, n).astype(np.float64)


def ends(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95% percentile ends over the first axis, whatever is NaN left out; NaN with fewer than 20 values."""
    known = np.isfinite(values).sum(axis=0)
    shape = values.shape[1:]
    ordered = np.sort(values, axis=0)
    if not len(ordered):
        return np.full(shape, np.nan), np.full(shape, np.nan)

    def at(share: float) -> np.ndarray:
        place = share * np.maximum(known - 1, 0)
        below = np.floor(place).astype(np.int64)
        above = np.minimum(below + 1, np.maximum(known - 1, 0))
        first = np.take_along_axis(ordered, below[None], 0)[0]
        second = np.take_along_axis(ordered, above[None], 0)[0]
        return np.where(known >= 20, first + (place - below) * (second - first), np.nan)

    return at(0.025), at(0.975)


_GRID = 128
"""Places of x at which intervals are computed; between them they are interpolated."""


def mean_ends(
    x: np.ndarray, there: np.ndarray, drawn: np.ndarray, transform: Transform
) -> tuple[np.ndarray, np.ndarray]:
    """(n,) ends of the expected accuracy at x, averaged over each row's shifts `there` (n, S)."""
    low, high = np.full(len(x), np.nan), np.full(len(x), np.nan)
    if not len(x) or not len(drawn):
        return low, high
    weights = 1 << np.arange(there.shape[1], dtype=object)
    patterns = there.dot(weights) if there.shape[1] > 62 else there @ weights.astype(np.int64)
    for pattern in set(patterns.tolist()) - {0}:
        rows = np.flatnonzero(patterns == pattern)
        grid = np.unique(x[rows])
        if len(grid) > _GRID:
            grid = np.linspace(grid[0], grid[-1], _GRID)
        lines = drawn[:, there[rows[0]]]
        expected = np.zeros((len(drawn), len(grid)))
        for shift in range(lines.shape[1]):
            expected += backward(lines[:, shift, :1] * grid + lines[:, shift, 1:], transform)
        least, most = ends(expected / lines.shape[1])
        low[rows], high[rows] = np.interp(x[rows], grid, least), np.interp(x[rows], grid, most)
    return low, high
