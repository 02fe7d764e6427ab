"""Statistics of repeated runs: rank correlation with time, bootstrap over items, differences between runs.

Rows are runs (seeds).  What varies is told apart: other seeds, or other items.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from pickaxe import Call
from pickaxe.extras import require
from pickaxe.randomness import generator

Z95 = 1.96
"""Standard errors on each side of a 95 % interval, as the paper rounds it."""
EXACT_RUNS = 12
"""Most runs of a comparison whose permutations are all looked at."""
_BLOCK = 256
"""Places that a byte can name: pairs within such a block are compared directly."""
_DRAWS = 1 << 20
"""Most numbers of a block of bootstrap draws that are held at once."""


# ---------------------------------------------------------------- trajectories


def tau_b(scores: np.ndarray) -> np.ndarray:
    """Kendall's tau-b of each row of (R, T) with its place 0 … T-1; NaN for a constant row or T < 2."""
    rows, steps = scores.shape
    if steps < 2:
        return np.full(rows, np.nan)
    order = np.argsort(scores, axis=1, kind="stable")
    # Equal scores stay in order of time, so the inversions of the order are exactly the discordant pairs.
    discordant = _inversions(order)
    pairs = steps * (steps - 1) // 2
    untied = pairs - _tied(np.take_along_axis(scores, order, axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        found: np.ndarray = (untied - 2 * discordant) / np.sqrt(float(pairs) * untied)
    return found


def rank_agreement(x: np.ndarray, y: np.ndarray) -> float:
    """Kendall's tau-b of two scores of the same models; NaN where one of them is constant."""
    over_x, over_y = (np.sign(np.subtract.outer(each, each)).astype(np.int8) for each in (x, y))
    untied = float(np.count_nonzero(over_x)) * float(np.count_nonzero(over_y))
    return float(np.einsum("ij,ij->", over_x, over_y, dtype=np.int64)) / math.sqrt(untied) if untied else math.nan


def _tied(ordered: np.ndarray) -> np.ndarray:
    """Pairs of equal values in each row of sorted values."""
    rows, steps = ordered.shape
    same = ordered[:, 1:] == ordered[:, :-1]
    if not same.any():
        return np.zeros(rows, np.int64)
    # Each value adds the number of equal ones before it: how long its run of equals is by then.
    places = np.arange(1, steps)
    starts = np.maximum.accumulate(np.where(same, 0, places), axis=1)
    found: np.ndarray = (places - starts).sum(axis=1)
    return found


def _inversions(order: np.ndarray) -> np.ndarray:
    """Pairs in the wrong order in each row of permutations, (R, T), in O(T log T) per row.

    From the highest bit down, numbers with the bit move behind those without it; a number without it passes as many as
    stood before it.  What then lies within a block of `_BLOCK` places is counted pair by pair.
    """
    rows, steps = order.shape
    width = steps if steps <= _BLOCK else 1 << (steps - 1).bit_length()
    found = np.zeros(rows, np.int64)
    left = np.empty((rows, width), np.int32)
    left[:, :steps] = order
    left[:, steps:] = np.arange(steps, width)
    half = width // 2
    while 2 * half > _BLOCK:
        blocks = width // (2 * half)
        low = (left & half) == 0
        found += low @ np.tile(np.arange(2 * half), blocks) - blocks * (half * (half - 1) // 2)
        parted = np.empty((rows, blocks, 2, half), np.int32)
        parted[:, :, 0] = left[low].reshape(rows, blocks, half)
        parted[:, :, 1] = left[~low].reshape(rows, blocks, half)
        left, half = parted.reshape(rows, width), half // 2
    size = min(width, _BLOCK)
    columns = np.ascontiguousarray((left & 255).astype(np.uint8).reshape(-1, size).T)
    passed = np.zeros_like(columns)
    for lag in range(1, size):
        passed[lag:] += (columns[lag:] < columns[:-lag]).view(np.uint8)
    return found + passed.sum(axis=0, dtype=np.int64).reshape(rows, -1).sum(axis=1)


# ---------------------------------------------------------------- intervals over items


def percentile_ends(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Percentiles 2.5 and 97.5 along the first axis, with linear interpolation."""
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    return low, high


def bootstrap_means(values: np.ndarray, picks: np.ndarray) -> np.ndarray:
    """(B, S): means of the rows of values (S, n) over the resampled places `picks` (B, n)."""
    draws, n = len(picks), values.shape[1]
    places = picks.reshape(draws, -1) + n * np.arange(draws)[:, None]
    counts = np.bincount(places.ravel(), minlength=draws * n).reshape(draws, n).astype(np.float64)
    return np.stack([(counts * row).sum(axis=1) for row in values], axis=1) / places.shape[1]


def bootstrap_ends(scores: np.ndarray, draws: int, call: Call, block: int = _DRAWS) -> tuple[np.ndarray, np.ndarray]:
    """(low, high), each (S,): 95 % percentile intervals of the mean of each row of (S, n) or (S, n, R).

    Items are resampled, and then the R samples of each drawn item.  The same draws serve every row, whose items are
    sorted first: neither their order, nor the order of rows, nor the size of blocks changes a bit of the result.  They
    are keyed by nothing of the benchmark: equal scores have equal intervals, whatever they are called.
    """
    of_items, of_repeats = (generator(call.seed, "bootstrap", level) for level in ("items", "repeats"))
    runs, n = scores.shape[:2]
    repeats = scores.shape[2] if scores.ndim == 3 else 1
    values = np.sort(scores.reshape(runs, n, repeats), axis=2)
    values = np.stack([row[np.lexsort(row.T[::-1])] for row in values]).reshape(runs, n * repeats)
    means = np.empty((draws, runs))
    at_once = max(1, block // (n * repeats))
    for start in range(0, draws, at_once):
        count = min(at_once, draws - start)
        call.check()
        picks = of_items.integers(0, n, (count, n, 1), np.uint32).astype(np.int64)
        if repeats > 1:
            picks = picks * repeats + of_repeats.integers(0, repeats, (count, n, repeats), np.uint32)
        means[start : start + count] = bootstrap_means(values, picks)
    return percentile_ends(means)


def analytic_half_widths(scores: np.ndarray) -> np.ndarray:
    """1.96 standard errors of the mean over items of each row; for 0/1 scores 1.96 sqrt(p (1 - p) / n).

    Of repeated samples (S, n, R) the item means are taken: they hold both levels of variance.
    """
    values = scores.mean(axis=2) if scores.ndim == 3 else scores
    found: np.ndarray = Z95 * np.sqrt(values.var(axis=1) / values.shape[1])
    return found


def wilson_ends(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95 % interval for rows of 0/1 scores (S, n), which has a width at 0 % and 100 % too; else NaN."""
    if scores.ndim == 3 or not np.isin(scores, (0.0, 1.0)).all():
        nothing = np.full(len(scores), np.nan)
        return nothing, nothing
    n, p = scores.shape[1], scores.mean(axis=1)
    middle = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * np.sqrt(p * (1 - p) / n + Z95**2 / (4 * n**2))
    # At the ends rounding would leave the interval just short of the observed share.
    return np.minimum(middle - half, p), np.maximum(middle + half, p)


# ---------------------------------------------------------------- spread over seeds


def spread(values: np.ndarray, ddof: int) -> float:
    """Standard deviation of (S,), exactly 0 for equal values; NaN for fewer than two."""
    if len(values) < 2:
        return math.nan
    return float(values.std(ddof=ddof)) if np.ptp(values) > 0 else 0.0


def spread_ends(std: float, runs: int, ddof: int) -> tuple[float, float]:
    """95 % interval of a standard deviation from that many runs, if scores are normal over seeds (chi-square)."""
    if runs < 2:
        return math.nan, math.nan
    inverse = require("scipy.special", "scaling").chdtri
    squares = std**2 * (runs - ddof)
    return math.sqrt(squares / inverse(runs - 1, 0.025)), math.sqrt(squares / inverse(runs - 1, 0.975))


def detectable_difference(std: float) -> float:
    """The difference of two single runs that other seeds exceed in 5 % of cases."""
    return Z95 * math.sqrt(2) * std


# ---------------------------------------------------------------- comparison


@dataclass(frozen=True)
class Difference:
    """Runs of A against runs of B: difference of means, its size in seed noise, and how likely chance does as much."""

    diff: float
    std: float
    """Standard deviation over seeds, pooled or given."""
    p: float

    @property
    def least(self) -> float:
        return detectable_difference(self.std)

    @property
    def z(self) -> float:
        """The difference in standard deviations of the difference of two single runs."""
        if self.std > 0:
            return self.diff / (math.sqrt(2) * self.std)
        return math.nan if math.isnan(self.std) or self.diff == 0 else math.copysign(math.inf, self.diff)

    @property
    def detectable(self) -> float:
        """1 or 0; NaN where the spread is not known."""
        return math.nan if math.isnan(self.std) else float(self.diff != 0 and abs(self.diff) >= self.least)


def compare(a: np.ndarray, b: np.ndarray, ddof: int, std: float | None = None) -> Difference:
    """Two sets of runs; `std` is the spread over seeds where it is known from elsewhere."""
    free = len(a) + len(b) - 2 * ddof
    if std is None:
        squares = sum(float(((each - each.mean()) ** 2).sum()) if np.ptp(each) > 0 else 0.0 for each in (a, b))
        std = math.sqrt(squares / free) if len(a) + len(b) > 2 and free > 0 else math.nan
    p = permutation_p(a, b) if len(a) + len(b) <= EXACT_RUNS else welch_p(a, b)
    return Difference(float(a.mean() - b.mean()), std, p)


def permutation_p(a: np.ndarray, b: np.ndarray) -> float:
    """Share of all ways to part the runs whose difference is at least as large, two-sided; NaN for one run each."""
    if len(a) + len(b) < 3:
        return math.nan
    values = np.concatenate([a, b])
    splits = np.array(list(itertools.combinations(range(len(values)), len(a))))
    sums = values[splits].sum(axis=1)
    differences = np.abs(sums / len(a) - (values.sum() - sums) / len(b))
    return float((differences >= abs(a.mean() - b.mean()) - 1e-12 * np.abs(values).max()).mean())


def welch_p(a: np.ndarray, b: np.ndarray) -> float:
    """Two-sided p of Welch's t; NaN where a side has one run only."""
    if min(len(a), len(b)) < 2:
        return math.nan
    parts = [spread(each, 1) ** 2 / len(each) for each in (a, b)]
    error = sum(parts)
    if error == 0:
        return float(a.mean() == b.mean())
    free = error**2 / sum(part**2 / (len(each) - 1) for part, each in zip(parts, (a, b), strict=True))
    return float(2 * require("scipy.special", "scaling").stdtr(free, -abs(a.mean() - b.mean()) / math.sqrt(error)))
