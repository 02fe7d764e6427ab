"""Preferences between rewrites of a query, by where a frozen retriever ranks its tools (arXiv:2410.03212)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Ranking = Literal["worst", "mean"]
"""(largest rank, sum of ranks), or (mean rank, largest rank); smaller is better."""


def key(ranks: Sequence[int], ranking: Ranking) -> tuple[float, float]:
    """How well all golden tools are ranked, from their ranks (1 = first); smaller is better."""
    if ranking == "worst":
        return float(max(ranks)), float(sum(ranks))
    return sum(ranks) / len(ranks), float(max(ranks))


@dataclass(frozen=True)
class Preference:
    """Places in a list of candidates, the original query first: their order, best first, and what follows from it.

    None where the best and the worst tie: then there is no pair.
    """

    order: tuple[int, ...]
    chosen: int | None
    rejected: int | None
    middle: int | None


def preference(ranks: Sequence[Sequence[int]], ranking: Ranking) -> Preference:
    """From the golden tools' ranks under each candidate; ties stay as they came."""
    keys = [key(each, ranking) for each in ranks]
    order = tuple(sorted(range(len(keys)), key=keys.__getitem__))
    best, worst = order[0], order[-1]
    if keys[best] == keys[worst]:
        return Preference(order, None, None, None)
    return Preference(order, best, worst, order[len(order) // 2])


def margins(
    policy_chosen: np.ndarray, policy_rejected: np.ndarray, ref_chosen: np.ndarray, ref_rejected: np.ndarray,
    beta: float,
) -> np.ndarray:  # fmt: skip
    """beta ((log p(chosen) - log p_ref(chosen)) - (the same of rejected)); sums over response tokens, (n,)."""
    return beta * ((policy_chosen - ref_chosen) - (policy_rejected - ref_rejected))


def dpo_loss(margin: np.ndarray) -> float:
    """Mean of -log sigmoid of the margins (n,): log 2 where policy and reference agree."""
    return float(np.logaddexp(0, -np.asarray(margin)).mean())
