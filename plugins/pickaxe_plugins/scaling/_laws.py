"""Numerics of fitted laws: lines, curves that level off, resampling, errors on held-out points, extrapolation.

Everything takes many curves at once: a bootstrap, or the prefixes of a curve, are rows of weights or of values.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pickaxe.errors import InvalidItems
from pickaxe.extras import require

B_RANGE = (1e-3, 5.0)
_GRID = 150
"""Exponents tried before the best one is polished."""
_ROWS = 256
"""Curves fitted at once: their tables of (curve, exponent) stay in the processor's cache."""
_POLISH = 12
"""Most steps of the polish, which starts from a bracket 12 % wide."""
_SETTLED = 1e-9
"""Share of the derivative at the bracket's ends that ends it: about where the derivative's rounding begins."""


# ---------------------------------------------------------------- laws


@dataclass(frozen=True)
class Line:
    """y = intercept + slope x, of one curve or an array of them; `r2` is NaN for a constant y."""

    slope: np.ndarray
    intercept: np.ndarray
    r2: np.ndarray

    def at(self, x: np.ndarray | float) -> np.ndarray:
        """Values at x, which is broadcast against the curves."""
        return self.intercept + self.slope * np.asarray(x, np.float64)


def fit_line(x: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> Line:
    """Weighted least squares along the last axis of x and y, (..., n) broadcast against each other.

    Weight 0 leaves a point out.  The slope is NaN where fewer than two different x have weight.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    w = np.ones(()) if weights is None else np.asarray(weights, np.float64)
    x, y, w = np.broadcast_arrays(x, y, w)
    total = w.sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        x_mean, y_mean = _dot(w, x) / total, _dot(w, y) / total
        dx, dy = x - x_mean[..., None], y - y_mean[..., None]
        wdx = w * dx
        xx, xy, yy = _dot(wdx, dx), _dot(wdx, dy), _dot(w * dy, dy)
        slope = np.where(xx > 0, xy, np.nan) / np.where(xx > 0, xx, 1.0)
        r2 = np.where(yy > 0, 1 - np.maximum(yy - slope * xy, 0) / np.where(yy > 0, yy, 1.0), np.nan)
    return Line(slope, y_mean - slope * x_mean, r2)


@dataclass(frozen=True)
class Saturating:
    """y = c - a exp(-b t), of one curve or an array of them: it rises to c where a > 0.

    With t = log x this is c - a x^-b; a loss c + a x^-b is fitted as its negative.  `b` is NaN and `a` is 0 for a
    constant y.  `sse` is the weighted sum of squared errors.
    """

    a: np.ndarray
    b: np.ndarray
    c: np.ndarray
    sse: np.ndarray

    def at(self, t: np.ndarray | float) -> np.ndarray:
        """Values at t, which is broadcast against the curves; c at t = inf."""
        falling = np.exp(-np.where(np.isnan(self.b), 0.0, self.b) * np.asarray(t, np.float64))
        return self.c - self.a * falling

    def __getitem__(self, rows: Any) -> Saturating:
        return Saturating(self.a[rows], self.b[rows], self.c[rows], self.sse[rows])


def fit_saturating(
    t: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None, b_range: tuple[float, float] = B_RANGE
) -> Saturating:
    """The least squares fit of c - a exp(-b t) with b in `b_range`, for each of the rows of y and weights.

    t is (n,), rising, and may end with inf (an observation of the limit itself); y and weights are (n,) or (C, n),
    broadcast against each other, weight 0 leaves a point out.  For a given b the law is linear in (a, c), so b alone
    is searched: on a grid even in log b, then by the zero of the derivative.  There are no starting values to get
    wrong and no local minima.
    """
    t, y = np.asarray(t, np.float64), np.asarray(y, np.float64)
    w = np.ones(t.shape) if weights is None else np.asarray(weights, np.float64)
    single = y.ndim == w.ndim == 1
    y, w = np.broadcast_arrays(np.atleast_2d(y), np.atleast_2d(w))
    since = t - t[0]
    table = _table(since.tobytes(), b_range)
    parts = [
        _fit_rows(since, y[start : start + _ROWS], w[start : start + _ROWS], table) for start in range(0, len(y), _ROWS)
    ]
    slope, b, c, sse = (np.concatenate(column) for column in zip(*parts, strict=True))
    # With v = exp(-b (t - t0)) - 1 the fit was y = c - a exp(-b t0) + slope v, so slope = -a exp(-b t0).
    a = np.where(np.isnan(b), 0.0, -slope * np.exp(np.where(np.isnan(b), 0.0, b) * t[0]))
    found = Saturating(a, b, c, sse)
    return found[0] if single else found


@dataclass(frozen=True)
class _Table:
    """v = exp(-b since) - 1 on a grid of b, (n, G): in [-1, 0], so that sums stay exact where b is small."""

    grid: np.ndarray
    v: np.ndarray
    squares: np.ndarray


@functools.lru_cache(maxsize=4)
def _table(since: bytes, b_range: tuple[float, float]) -> _Table:
    grid = np.geomspace(*b_range, _GRID)
    v = np.expm1(-np.frombuffer(since)[:, None] * grid)
    return _Table(grid, v, v**2)


def _fit_rows(
    since: np.ndarray, y: np.ndarray, w: np.ndarray, table: _Table
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(slope, b, c, sse) of each row; b is NaN where y is constant."""
    total = w.sum(1)
    mean = _dot(w, y) / total
    dy = y - mean[:, None]
    grid = table.grid
    spread = w @ table.squares - (w @ table.v) ** 2 / total[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        explained = np.where(spread > 0, ((w * dy) @ table.v) ** 2 / spread, -np.inf)
    best = explained.argmax(1)
    low, high = np.log(grid[np.maximum(best - 1, 0)]), np.log(grid[np.minimum(best + 1, len(grid) - 1)])
    b = _polished(since, dy, w, low, high, grid[best])
    slope, level, sse, _ = _at_exponent(since, dy, w, b)
    constant = _dot(w * dy, dy) <= (1e-14 * np.abs(y).max(1)) ** 2 * total
    slope, level = np.where(constant, 0.0, slope), np.where(constant, 0.0, level)
    # At t = inf, v = -1: the limit c.
    return slope, np.where(constant, np.nan, b), mean + level - slope, np.where(constant, 0.0, sse)


def _polished(
    since: np.ndarray, dy: np.ndarray, w: np.ndarray, low: np.ndarray, high: np.ndarray, start: np.ndarray
) -> np.ndarray:
    """Where between exp(low) and exp(high) the error is least, by the Illinois rule; `start` at an edge."""
    at_low, at_high = (_at_exponent(since, dy, w, np.exp(end))[3] for end in (low, high))
    bracketed = (at_low < 0) & (at_high > 0)
    scale = np.where(bracketed, np.abs(at_low) + np.abs(at_high), np.inf)
    middle, side = np.log(start), np.zeros(len(start))
    for _ in range(_POLISH):
        with np.errstate(invalid="ignore", divide="ignore"):
            middle = (low * at_high - high * at_low) / (at_high - at_low)
        middle = np.where((middle >= low) & (middle <= high), middle, (low + high) / 2)
        value = _at_exponent(since, dy, w, np.exp(middle))[3]
        right = np.where(value > 0, 1, -1)
        # An end that stays twice running counts half, or it would stay for good.
        at_low = np.where(right < 0, value, np.where(side > 0, at_low / 2, at_low))
        at_high = np.where(right > 0, value, np.where(side < 0, at_high / 2, at_high))
        low, high, side = np.where(right < 0, middle, low), np.where(right > 0, middle, high), right
        if (np.abs(value) <= _SETTLED * scale).all():
            break
    return np.where(bracketed, np.exp(middle), start)


def _at_exponent(
    since: np.ndarray, dy: np.ndarray, w: np.ndarray, b: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The linear fit dy = level + slope v for v = exp(-b since) - 1, its error, and the error's slope over b."""
    v = np.expm1(-b[:, None] * since)
    total = w.sum(1)
    v_mean = _dot(w, v) / total
    dv = v - v_mean[:, None]
    wdv = w * dv
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = _dot(wdv, dv)
        slope = np.where(spread > 0, _dot(wdv, dy) / spread, 0.0)
    rest = dy - slope[:, None] * dv
    wr = w * rest
    finite = np.where(np.isfinite(since), since, 0.0)
    steepness = 2 * slope * _dot(wr, finite * (1 + v))
    return slope, -slope * v_mean, _dot(wr, rest), steepness


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    product: np.ndarray = np.einsum("...n,...n->...", a, b)
    return product


def least_squares(
    residuals: Callable[[np.ndarray], np.ndarray],
    starts: Iterable[np.ndarray],
    bounds: tuple[np.ndarray | float, np.ndarray | float] = (-np.inf, np.inf),
    *,
    loss: str = "linear",
    scale: float = 1.0,
    where: str = "the points",
) -> tuple[np.ndarray, float]:
    """The best of bounded least squares fits from several starts: parameters and cost (half the sum of squares).

    `loss` and `scale` are scipy's (`huber`, `soft_l1` for outliers).  Raises `InvalidItems` naming `where` when the
    residuals are finite at none of the starts.
    """
    optimize = require("scipy.optimize", "scaling")
    best: tuple[np.ndarray, float] | None = None
    for start in starts:
        start = np.clip(np.asarray(start, np.float64), *bounds)
        if not np.isfinite(residuals(start)).all():
            continue
        found = optimize.least_squares(
            residuals, start, bounds=bounds, loss=loss, f_scale=scale, x_scale="jac", ftol=1e-12, xtol=1e-12, gtol=1e-12
        )
        if best is None or found.cost < best[1]:
            best = found.x, float(found.cost)
    if best is None:
        raise InvalidItems(where, "fit no law: its errors are not finite at any start; look for zeros and negatives")
    return best


# ---------------------------------------------------------------- how sure


def resampled_counts(n: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Bootstrap of n points as weights: (draws, n) float64, how often each is drawn; rows sum to n."""
    return rng.multinomial(n, np.full(n, 1 / n), draws).astype(np.float64)


def resampled_residuals(
    fitted: np.ndarray, observed: np.ndarray, parameters: int, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Bootstrap of a curve whose x are fixed: (draws, n) curves of the fit plus residuals drawn anew.

    Residuals are centred, and widened by sqrt(n / (n - parameters)) for what the fit took from them.
    """
    n = len(fitted)
    residuals = np.asarray(observed) - fitted
    residuals = (residuals - residuals.mean()) * np.sqrt(n / max(n - parameters, 1))
    return fitted + residuals[rng.integers(0, n, (draws, n))]


def interval(draws: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval along the first axis.  NaN draws are left out; NaN where more than half of them are."""
    draws = np.asarray(draws, np.float64)
    if not len(draws):
        return np.full(draws.shape[1:], np.nan), np.full(draws.shape[1:], np.nan)
    usable = np.isnan(draws).mean(0) <= 0.5
    tail, held = (1 - confidence) / 2, np.where(usable, draws, 0.0)
    # Ends are order statistics: between an infinite and a finite draw there is nothing to interpolate.
    low = np.nanquantile(held, tail, axis=0, method="lower")
    high = np.nanquantile(held, 1 - tail, axis=0, method="higher")
    return np.where(usable, low, np.nan), np.where(usable, high, np.nan)


@dataclass(frozen=True)
class Error:
    """How far predictions are from what was seen: `relative` is the mean of |error / observed|."""

    points: int
    mean_abs: float
    max_abs: float
    relative: float


def error_of(observed: np.ndarray, predicted: np.ndarray) -> Error:
    """The error on some points; NaN for none."""
    observed = np.asarray(observed, np.float64)
    if not len(observed):
        return Error(0, np.nan, np.nan, np.nan)
    off = np.abs(np.asarray(predicted, np.float64) - observed)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = float(np.mean(off / np.abs(observed)))
    return Error(len(observed), float(off.mean()), float(off.max()), relative)


def r2(observed: np.ndarray, predicted: np.ndarray) -> float:
    """Share of the variance that is explained; NaN for constant observations."""
    observed = np.asarray(observed, np.float64)
    total = float(((observed - observed.mean()) ** 2).sum()) if len(observed) else 0.0
    return 1 - float(((observed - predicted) ** 2).sum()) / total if total > 0 else float("nan")


def before_tail(n: int, least: int, share: float = 0.2) -> int:
    """How many of n points in order to fit on so that the last `share` of them are held out; 0 when n is too few.

    The fit keeps at least `least` points, one more than its law has parameters.
    """
    kept = min(n - 1, round(n * (1 - share)))
    return kept if kept >= least else 0


def folds(n: int, parts: int, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """(rows to fit on, rows held out) of cross-validation in up to `parts` parts of shuffled rows."""
    order = rng.permutation(n)
    held = np.array_split(order, min(parts, n))
    return [(np.setdiff1d(order, part), np.sort(part)) for part in held]


def reach(x: np.ndarray | float, known: np.ndarray) -> np.ndarray:
    """How many times beyond the positive x of the data: 1 within their range, 3 at three times the largest."""
    x, known = np.asarray(x, np.float64), np.asarray(known, np.float64)
    return np.maximum(1.0, np.maximum(x / known.max(), known.min() / x))
