"""Methods compared: how far their results agree, how good they are, and which differences are real.

Agreement: Spearman's and Kendall's (tau-b) rank correlation, overlap at k, and rank-biased overlap (Webber, Moffat and
Zobel 2010, doi:10.1145/1852102.1852106).  Quality: statistics of weighted items, so that one bootstrap serves means,
areas under the ROC curve and correlations alike.  All methods see the same resampled items (a paired bootstrap), and
p-values of several differences are corrected by Holm's step-down rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

import numpy as np

from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe.randomness import generator

Statistic: TypeAlias = Callable[[np.ndarray], float]
"""Weights of the items (how often each counts, [n]) → a value, higher is better; NaN where it is undefined."""


# ---------------------------------------------------------------- agreement


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of mid-ranks, in [-1, 1]; NaN when one side is constant or has fewer than two values."""
    return spearman_statistic(a, b)(np.ones(len(a)))


def kendall(a: np.ndarray, b: np.ndarray) -> float:
    """Kendall's tau-b, in [-1, 1]: pairs in the same order less pairs in the opposite one, corrected for ties.

    O(n log n).  NaN when one side is constant or has fewer than two values.
    """
    first, second = _paired(a, b)
    order = np.lexsort((second, first))
    first, second = first[order], second[order]
    every = _pairs(np.array([len(first)]))
    tied_first, tied_second = (_pairs(np.bincount(each)) for each in (first, second))
    tied_both = _pairs(np.unique(np.stack([first, second]), axis=1, return_counts=True)[1])
    room = math.sqrt((every - tied_first) * (every - tied_second))
    # Where `first` is tied, `second` rises, so every inversion is a pair in the opposite order.
    same_less_opposite = every - tied_first - tied_second + tied_both - 2 * _inversions(second)
    return same_less_opposite / room if room else math.nan


def overlap(a: Sequence[Hashable], b: Sequence[Hashable], k: int) -> float:
    """Share of the first k that both lists, best first, have in common; of fewer than k when both are shorter.

    NaN when both are empty.  Raises `InvalidParams` for k < 1.
    """
    if k < 1:
        raise InvalidParams("k", f"must be at least 1 (got {k})")
    first, second = set(a[:k]), set(b[:k])
    longer = max(len(first), len(second))
    return len(first & second) / longer if longer else math.nan


def best(scores: np.ndarray, k: int) -> list[int]:
    """Positions of the k highest scores, best first; equal scores in their order."""
    return [int(row) for row in np.argsort(-np.asarray(scores, np.float64), kind="stable")[:k]]


def rank_biased_overlap(a: Sequence[Hashable], b: Sequence[Hashable], p: float = 0.9) -> float:
    """Extrapolated rank-biased overlap (equation 32 of the paper) of two lists, best first, maybe of unequal length.

    In [0, 1]: 1 for equal lists, 0 for lists without a common member.  A reader goes on to the next rank with
    probability `p`, so the first 1 / (1 - p) ranks matter most.  NaN when both lists are empty, 0 when one is.
    Raises `InvalidParams` unless 0 < p < 1, `InvalidItems` when a list holds a member twice.
    """
    if not 0 < p < 1:
        raise InvalidParams("p", f"must lie between 0 and 1 (got {p:g})")
    for each in (a, b):
        if len(set(each)) < len(each):
            raise InvalidItems("ranking", "holds a member more than once")
    short, long = sorted((a, b), key=len)
    if not short:
        return 0.0 if long else math.nan
    common = _common(short, long)
    s, d = len(short), np.arange(1, len(long) + 1)
    weights = p**d
    agreed = float(np.sum(common / d * weights))
    beyond = d[s:]
    agreed += float(np.sum(common[s - 1] * (beyond - s) / (s * beyond) * weights[s:]))
    last = (common[-1] - common[s - 1]) / len(long) + common[s - 1] / s
    return float((1 - p) / p * agreed + last * weights[-1])


def _common(short: Sequence[Hashable], long: Sequence[Hashable]) -> np.ndarray:
    """How many members the first d of both have in common, for d = 1 … len(long)."""
    place = {member: rank for rank, member in enumerate(short)}
    met = np.zeros(len(long), np.int64)
    for rank, member in enumerate(long):
        if member in place:
            met[max(rank, place[member])] += 1
    return np.cumsum(met)


def _pairs(counts: np.ndarray) -> int:
    return int(np.sum(counts.astype(np.int64) * (counts.astype(np.int64) - 1) // 2))


def _inversions(values: np.ndarray) -> int:
    """Pairs i < j with values[i] > values[j] of small whole numbers: bit by bit, from the highest."""
    total, values = 0, values.astype(np.int64)
    for bit in reversed(range(int(values.max(initial=0)).bit_length())):
        group, high = values >> (bit + 1), (values >> bit & 1).astype(bool)
        ones = np.concatenate([[0], np.cumsum(high)])
        start = np.searchsorted(group, group)  # groups lie together, in rising order
        total += int(np.sum((ones[:-1] - ones[start])[~high]))
        values = values[np.argsort(values >> bit, kind="stable")]
    return total


# ---------------------------------------------------------------- quality


def mean_statistic(values: np.ndarray) -> Statistic:
    """The mean of a value per item [n]."""
    given = _finite(values, "values")
    return lambda weights: float(weights @ given / weights.sum())


def auc_statistic(scores: np.ndarray, labels: np.ndarray) -> Statistic:
    """Chance that an item labelled true scores above one labelled false, ties counted half; NaN with one class only.

    `scores` [n], `labels` [n] of truth values.
    """
    code, right = _codes(scores, "scores"), np.asarray(labels, bool)
    _same_length(code, right)

    def statistic(weights: np.ndarray) -> float:
        yes, no = (np.bincount(code, weights * part) for part in (right, ~right))
        room = yes.sum() * no.sum()
        return float(yes @ (np.cumsum(no) - no / 2) / room) if room else math.nan

    return statistic


def spearman_statistic(a: np.ndarray, b: np.ndarray) -> Statistic:
    """Correlation of mid-ranks of two values per item [n]; NaN when one side is constant."""
    first, second = _paired(a, b)

    def statistic(weights: np.ndarray) -> float:
        if not weights.sum():
            return math.nan
        x, y = (_midranks(code, weights) for code in (first, second))
        x, y = (each - weights @ each / weights.sum() for each in (x, y))
        room = math.sqrt((weights @ x**2) * (weights @ y**2))
        return float(np.clip(weights @ (x * y) / room, -1, 1)) if room else math.nan

    return statistic


def _midranks(code: np.ndarray, weights: np.ndarray) -> np.ndarray:
    counts = np.bincount(code, weights)
    middles: np.ndarray = np.cumsum(counts) - counts / 2
    return middles[code]


def _paired(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first, second = _codes(a, "a"), _codes(b, "b")
    _same_length(first, second)
    return first, second


def _codes(values: np.ndarray, name: str) -> np.ndarray:
    """The values as whole numbers from 0 in the same order; infinities have their place, NaN none."""
    given = np.asarray(values, np.float64)
    if np.isnan(given).any():
        raise InvalidItems(name, "holds NaN: leave those items out on both sides")
    code: np.ndarray = np.unique(given, return_inverse=True)[1]
    return code


def _finite(values: np.ndarray, name: str) -> np.ndarray:
    given = np.asarray(values, np.float64)
    if not np.isfinite(given).all():
        raise InvalidItems(name, "holds NaN or an infinity")
    return given


def _same_length(a: np.ndarray, b: np.ndarray) -> None:
    if len(a) != len(b):
        raise InvalidItems("values", f"are {len(a)} on one side and {len(b)} on the other")


# ---------------------------------------------------------------- what is certain about it


@dataclass(frozen=True)
class Estimate:
    """A method's quality with the ends of its percentile interval (NaN where no draw has a value)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """Quality of `first` less that of `second` with its interval.

    `p` is the two-sided p-value of "no difference": twice the rarer side of zero among the draws (draws at zero count
    on both sides, and one draw is added to each), at least 2 / (draws + 1).  `adjusted` is what Holm's correction
    makes of it.
    """

    measure: str
    first: str
    second: str
    value: float
    low: float
    high: float
    p: float
    adjusted: float


@dataclass(frozen=True)
class Quality:
    """measure → method → estimate, and all differences between two methods, corrected together."""

    estimates: Mapping[str, Mapping[str, Estimate]]
    differences: tuple[Difference, ...]


def quality(
    statistics: Mapping[str, Mapping[str, Statistic]],
    count: int,
    *,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Quality:
    """Paired bootstrap of `statistics` (measure → method → statistic) over `count` items.

    Every draw takes `count` items with replacement, the same for all methods and measures.  `level` is that of the
    percentile intervals.  Raises `InvalidParams` for draws < 1, a level outside (0, 1) or no items.
    """
    for name, fine in (("draws", draws >= 1), ("level", 0 < level < 1), ("count", count >= 1)):
        if not fine:
            raise InvalidParams(name, "must be at least 1" if name != "level" else "must lie between 0 and 1")
    names = [(measure, method) for measure, methods in statistics.items() for method in methods]
    ones = np.ones(count)
    values = {name: statistics[name[0]][name[1]](ones) for name in names}
    drawn = {name: np.empty(draws) for name in names}
    random = generator(seed, "comparison")
    for draw in range(draws):
        weights = np.bincount(random.integers(count, size=count), minlength=count).astype(np.float64)
        for measure, method in names:
            drawn[measure, method][draw] = statistics[measure][method](weights)
    tail = (1 - level) / 2
    found = []
    for measure, methods in statistics.items():
        for first, second in combinations(methods, 2):
            gap = drawn[measure, first] - drawn[measure, second]
            value = values[measure, first] - values[measure, second]
            found.append((measure, first, second, value, *_interval(gap, tail), _two_sided(gap)))
    corrected = holm([each[-1] for each in found])
    return Quality(
        {
            measure: {
                method: Estimate(values[measure, method], *_interval(drawn[measure, method], tail))
                for method in methods
            }
            for measure, methods in statistics.items()
        },
        tuple(Difference(*each, adjusted) for each, adjusted in zip(found, corrected, strict=True)),
    )


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down corrected p-values, in the given order; NaN stays NaN and is not counted."""
    values = np.asarray(p, np.float64)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    corrected = values.copy()
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(values[order] * factors), 1.0)
    return [float(each) for each in corrected]


def _interval(drawn: np.ndarray, tail: float) -> tuple[float, float]:
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return math.nan, math.nan
    low, high = np.quantile(known, (tail, 1 - tail))
    return float(low), float(high)


def _two_sided(gap: np.ndarray) -> float:
    known = gap[~np.isnan(gap)]
    if not len(known):
        return math.nan
    rarer = min(int(np.sum(known <= 0)), int(np.sum(known >= 0)))
    return min(1.0, 2 * (rarer + 1) / (len(known) + 1))
