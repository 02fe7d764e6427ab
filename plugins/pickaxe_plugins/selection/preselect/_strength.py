"""Predictive strength of documents, the extremes that a classifier learns from, and cuts by share of characters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np


def bits_per_character(losses: np.ndarray, characters: np.ndarray) -> np.ndarray:
    """Losses (n, M), in nats for the whole document, over its code points (n,): bits (n, M)."""
    return losses / (characters[:, None] * math.log(2))


def ordered_pairs(benchmark_scores: Sequence[float]) -> list[tuple[int, int]]:
    """(better, worse) of every pair of models whose benchmark scores differ."""
    pairs = combinations(range(len(benchmark_scores)), 2)
    ordered = ((i, j) if benchmark_scores[i] > benchmark_scores[j] else (j, i) for i, j in pairs)
    return [(i, j) for i, j in ordered if benchmark_scores[i] != benchmark_scores[j]]


def matched_pairs(losses: np.ndarray, benchmark_scores: Sequence[float]) -> np.ndarray:
    """How many pairs of models a document's losses (n, M) rank as the benchmark does: int64 (n,).

    An equal loss is no match.  Only the order within a document counts, so total losses and losses per
    character give the same.
    """
    models = np.ascontiguousarray(losses.T)
    matched = np.zeros(len(losses), np.int64)
    for better, worse in ordered_pairs(benchmark_scores):
        matched += models[better] < models[worse]
    return matched


def strength(losses: np.ndarray, benchmark_scores: Sequence[float]) -> np.ndarray:
    """The share of pairs that are matched, float64 (n,) in [0, 1]; NaN where a loss is missing (NaN)."""
    share = matched_pairs(losses, benchmark_scores) / len(ordered_pairs(benchmark_scores))
    share[np.isnan(losses).any(axis=1)] = np.nan
    return share


def extremes(
    strengths: np.ndarray, positive: Literal["all_pairs"] | float, limit: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the positives, in order, and of as many negatives, lowest strength first; ties by row.

    Positives have strength 1, or are the `positive` share of highest strength.  Neither class is larger than
    `limit` nor than what the other leaves; both are empty when one would be.
    """
    if positive == "all_pairs":
        best = np.flatnonzero(strengths == 1)
    else:
        best = np.argsort(-strengths, kind="stable")[: int(positive * len(strengths))]
    count = min(len(best), len(strengths) - len(best), limit)
    lowest = np.argsort(strengths, kind="stable")
    # Of a capped class the first rows are used; what it leaves out is no negative either.
    negatives = lowest[~np.isin(lowest, best)][:count]
    return np.sort(best[:count]), negatives


@dataclass(frozen=True)
class Cut:
    """Where to cut so that a share of a sample's characters is kept.

    `scores` (n,) fall, `characters` (n,) belong to them.
    """

    scores: np.ndarray
    characters: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, characters: np.ndarray) -> Cut:
        order = np.argsort(-scores, kind="stable")
        return cls(scores[order], characters[order])

    def before(self, fraction: float) -> int:
        """How many documents stand before the one at which the sum of characters first exceeds the share."""
        sums = np.cumsum(self.characters)
        return min(int(np.searchsorted(sums, fraction * sums[-1], side="right")), len(sums) - 1)

    def threshold(self, fraction: float) -> float:
        """That document's score: keep what scores as high or higher, ties included."""
        return float(self.scores[self.before(fraction)])
