"""How well predictions order what was measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pickaxe.extras import require

_RESAMPLES = 1000
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Quality:
    """Spearman's rank correlation with a 95 % interval over resampled mixtures, and the mean squared error.

    The correlation is None where one side is constant, its ends where fewer than four mixtures were measured.
    """

    n: int
    spearman: float | None
    low: float | None
    high: float | None
    mse: float

    def words(self) -> str:
        """E.g. "0.962 (95 % interval 0.93 to 0.98)"."""
        if self.spearman is None:
            return "undefined (all values are the same, or there is one only)"
        if self.low is None or self.high is None:
            return f"{self.spearman:.3f} (too few mixtures for an interval)"
        return f"{self.spearman:.3f} (95 % interval {self.low:.3f} to {self.high:.3f})"


def quality(predicted: np.ndarray, measured: np.ndarray, rng: np.random.Generator) -> Quality:
    """Of predictions (n,) against measurements (n,)."""
    n = len(measured)
    mse = float(np.mean((predicted - measured) ** 2))
    whole = spearman(predicted, measured) if n > 1 else np.nan
    if not np.isfinite(whole):
        return Quality(n, None, None, None, mse)
    if n < 4:
        return Quality(n, float(whole), None, None, mse)
    rows = rng.integers(n, size=(_RESAMPLES, n))
    drawn = spearman(predicted[rows], measured[rows])
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.nanquantile(drawn, [tail, 1 - tail])
    return Quality(n, float(whole), float(low), float(high), mse)


def spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlation of ranks along the last axis, ties at their mean rank; NaN where one side is constant."""
    stats = require("scipy.stats", extra="regmix")
    ranks = [stats.rankdata(each, axis=-1) for each in (a, b)]
    x, y = (each - each.mean(-1, keepdims=True) for each in ranks)
    spread = np.sqrt((x * x).sum(-1) * (y * y).sum(-1))
    return np.divide((x * y).sum(-1), spread, out=np.full(spread.shape, np.nan), where=spread > 0)
