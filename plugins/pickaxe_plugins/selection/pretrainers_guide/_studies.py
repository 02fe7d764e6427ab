"""Temporal degradation (arXiv:2111.07408, as used in arXiv:2305.13169) and the harm of leaving a source out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Degradation:
    """How a score falls as training and evaluation years move apart; slopes in score points a year."""

    reference: np.ndarray
    """The training year nearest to each evaluation year, the earlier of two."""
    gaps: np.ndarray
    """Training year less evaluation year of all points but references, evaluation years outside."""
    degradations: np.ndarray
    """D = -(S - S of the reference) sign(gap) at those points."""
    slopes: np.ndarray
    """Of D on the gap for each evaluation year, references (D = 0) included."""
    slope_pooled: float
    pearson_r: float
    """Of gap and D."""
    pearson_score_gap: float
    """Of the score and the absolute gap, over all points."""

    @property
    def slope_mean(self) -> float:
        known = self.slopes[~np.isnan(self.slopes)]
        return float(known.mean()) if len(known) else math.nan


def degradation(trained: np.ndarray, evaluated: np.ndarray, scores: np.ndarray) -> Degradation:
    """Of scores (training years, evaluation years); NaN for slopes and correlations that two points cannot give."""
    gaps = trained[:, None] - evaluated
    by_year = np.argsort(trained, kind="stable")
    nearest = by_year[np.abs(gaps[by_year]).argmin(0)]
    drops = -(scores - scores[nearest, np.arange(len(evaluated))]) * np.sign(gaps)
    others = (np.arange(len(trained))[:, None] != nearest).T
    pooled, fallen = gaps.T[others], drops.T[others]
    slopes = np.array([slope(gaps[:, column], drops[:, column]) for column in range(len(evaluated))])
    return Degradation(
        trained[nearest],
        pooled,
        fallen,
        slopes,
        slope(pooled, fallen),
        correlation(pooled, fallen),
        correlation(scores.ravel(), np.abs(gaps).ravel()),
    )


def slope(x: np.ndarray, y: np.ndarray) -> float:
    """Of the least-squares line; NaN for fewer than two different x."""
    if len(x) < 2 or not np.ptp(x):
        return math.nan
    centred = x - x.mean()
    return float(centred @ (y - y.mean()) / (centred @ centred))


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's; NaN where one side is constant."""
    if len(x) < 2 or not np.ptp(x) or not np.ptp(y):
        return math.nan
    return float(np.corrcoef(x, y)[0, 1])


def harm(full: np.ndarray, without: np.ndarray) -> float:
    """Minus the mean over tasks of 100 (without - full) / full, in percent; NaN when a full score is 0."""
    if not len(full) or not full.all():
        return math.nan
    return -float((100 * (without - full) / full).mean())


def ranks(harms: np.ndarray) -> np.ndarray:
    """1 for the largest harm, of equal ones the earlier first; 0 where there is none."""
    order = np.argsort(-harms, kind="stable")
    found = np.zeros(len(harms), np.int64)
    found[order] = np.arange(1, len(harms) + 1)
    found[np.isnan(harms)] = 0
    return found
