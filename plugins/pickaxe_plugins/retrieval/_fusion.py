"""Choosing the best of many scores, and fusing ranked lists."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, TypeVar

import numpy as np

Key = TypeVar("Key", bound=Hashable)


def best(scores: np.ndarray, k: int, tie_break: np.ndarray, floor: float = -np.inf) -> np.ndarray:
    """Positions of the k highest scores above `floor`, best first; equal scores by rising `tie_break`."""
    rows = np.flatnonzero(scores > floor)
    if len(rows) > k:
        least = np.partition(scores[rows], -k)[-k]
        rows = rows[scores[rows] >= least]
    return rows[np.lexsort((tie_break[rows], -scores[rows]))][:k]


def reciprocal_rank_fusion(lists: Sequence[Sequence[Key]], k: float = 60.0) -> list[tuple[Key, float]]:
    """Entries of all lists by falling sum of 1 / (k + rank), rank from 1; equal sums by rising entry.

    Only ranks count, never the scores behind them; an entry that a list lacks gets nothing from it.
    """
    sums: dict[Any, float] = {}
    for entries in lists:
        for rank, entry in enumerate(entries, 1):
            sums[entry] = sums.get(entry, 0.0) + 1 / (k + rank)
    return sorted(sums.items(), key=lambda pair: (-pair[1], pair[0]))
