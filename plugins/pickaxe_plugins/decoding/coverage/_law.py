"""The exponentiated power law of coverage, exp(a k^b) with a, b < 0 (arXiv 2407.21787), and shifts between curves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pickaxe.errors import InvalidItems
from pickaxe.extras import require

_EDGE = 1e-9
"""Coverage is kept this far from 0 and 1 where its logarithm is taken."""


@dataclass(frozen=True)
class Law:
    """coverage(k) = exp(a k^b), fitted on k <= k_max with that mean absolute error."""

    a: float
    b: float
    mean_abs_error: float
    k_max: int

    def coverage(self, k: np.ndarray | float) -> np.ndarray:
        """Predicted coverage at k, which may lie beyond `k_max`."""
        if self.a == 0:
            return np.ones_like(np.asarray(k, np.float64))
        return np.exp(self.a * np.power(np.asarray(k, np.float64), self.b))

    def samples_for(self, coverage: float) -> float:
        """The (fractional) k at which the law reaches `coverage` in (0, 1): (log(coverage) / a)^(1/b).

        1 when a single sample is enough; inf when the curve is flat below it.
        """
        if self.a == 0 or self.coverage(1.0) >= coverage:
            return 1.0
        if self.b >= 0:
            return math.inf
        exponent = math.log(math.log(coverage) / self.a) / self.b
        return math.exp(exponent) if exponent < 700 else math.inf


def fit_law(ks: np.ndarray, coverage: np.ndarray, where: str = "coverage") -> Law:
    """Least squares in coverage, unweighted, from the line of log(-log coverage) over log k.

    Coverage 1 at the smallest k gives a = 0 and b = NaN.  Raises `InvalidItems` naming `where` when coverage is
    0 throughout, or fewer than two values of k are given.
    """
    ks, coverage = np.asarray(ks, np.float64), np.asarray(coverage, np.float64)
    k_max = int(ks.max()) if len(ks) else 0
    if not coverage.any():
        raise InvalidItems(where, "is 0 at every k (a would be -inf): take more samples, or easier problems")
    if coverage[np.argmin(ks)] == 1:
        return Law(0.0, math.nan, 0.0, k_max)
    if len(np.unique(ks)) < 2:
        raise InvalidItems(where, "is known at a single k: a law needs at least two")
    a, b = _start(ks, coverage)
    optimize = require("scipy.optimize", "scaling")
    with np.errstate(over="ignore", under="ignore"):
        found = optimize.least_squares(
            lambda law: _curve(ks, *law) - coverage,
            (a, b),
            lambda law: _slopes(ks, *law),
            method="lm",
            ftol=1e-14,
            xtol=1e-14,
            gtol=1e-14,
        )
        a, b = found.x
        error = float(np.abs(_curve(ks, a, b) - coverage).mean())
    return Law(float(a), float(b), error, k_max)


def _curve(k: np.ndarray, a: float, b: float) -> np.ndarray:
    values: np.ndarray = np.exp(a * k**b)
    return values


def _slopes(k: np.ndarray, a: float, b: float) -> np.ndarray:
    power = k**b
    curve = np.exp(a * power)
    return np.stack([curve * power, curve * a * power * np.log(k)], axis=1)


def _start(ks: np.ndarray, coverage: np.ndarray) -> tuple[float, float]:
    clipped = np.clip(coverage, _EDGE, 1 - _EDGE)
    b, log_a = np.polyfit(np.log(ks), np.log(-np.log(clipped)), 1)
    return -math.exp(log_a), float(b)


def shift(ks_a: np.ndarray, a: np.ndarray, ks_b: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """The offset d in log k for which b(log k + d) lies closest to a(log k), and the root mean square distance.

    Positive d: the second curve needs e^d times the samples.  Curves are compared where they overlap, on at
    least half of the shorter one; both need two values of k.
    """
    x, y = np.log(ks_a), np.log(ks_b)
    least = min(x[-1] - x[0], y[-1] - y[0]) / 2
    low, high = y[0] - x[-1] + least, y[-1] - x[0] - least
    best = (0.0, math.inf)
    for _ in range(4):
        offsets = np.linspace(low, high, 201)
        distances = [_distance(d, x, a, y, b) for d in offsets]
        at = int(np.argmin(distances))
        best = float(offsets[at]), float(distances[at])
        step = offsets[1] - offsets[0]
        low, high = max(low, offsets[at] - step), min(high, offsets[at] + step)
    return best


def _distance(d: float, x: np.ndarray, a: np.ndarray, y: np.ndarray, b: np.ndarray) -> float:
    points = np.linspace(max(x[0], y[0] - d), min(x[-1], y[-1] - d), 64)
    gap = np.interp(points, x, a) - np.interp(points + d, y, b)
    return float(np.sqrt(np.mean(gap**2)))
