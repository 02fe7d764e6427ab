"""Which technique did best, and how well a router picks: pure functions on arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pickaxe.errors import InvalidItems

EPS = 1e-6
"""Added to each difference before its norm, as deep-learning libraries do."""


def rank(passed: Mapping[str, bool | int], tokens: Mapping[str, float]) -> list[tuple[str, float]]:
    """(technique, ln(most tokens) * passed - ln(tokens)), best first; ties keep their order.

    At least 0 means passed; among passed ones fewer tokens win, and among failed ones.
    """
    if list(passed) != list(tokens) and set(passed) != set(tokens):
        raise InvalidItems("tokens", f"are of {sorted(tokens)}, passed of {sorted(passed)}: name the same techniques")
    bad = sorted(name for name, count in tokens.items() if not count > 0 or math.isinf(count))
    if bad:
        raise InvalidItems("tokens", f"of {', '.join(bad)} are not above 0")
    most = math.log(max(tokens.values(), default=1))
    scores = [(name, most * bool(passed[name]) - math.log(tokens[name])) for name in passed]
    return sorted(scores, key=lambda each: -each[1])


@dataclass(frozen=True)
class Routed:
    """How tasks fare when the k likeliest techniques are tried."""

    accuracy: float
    """Share of tasks that one of them passes."""
    tokens: float
    """Mean tokens of a task."""


def route(
    scores: np.ndarray,
    passed: np.ndarray,
    tokens: np.ndarray,
    k: int = 1,
    cost: Literal["cheapest", "sum", "until"] = "cheapest",
) -> Routed:
    """Try the k highest scores of each task: scores, passed and tokens (n, T).

    `cost` cheapest: the cheapest technique that passes, else the cheapest tried, which is optimistic [code]; sum:
    all k; until: in order, up to the first that passes.
    """
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    hit = np.take_along_axis(np.asarray(passed, bool), order, 1)
    paid = np.take_along_axis(np.asarray(tokens, float), order, 1)
    solved = hit.any(1)
    if cost == "sum":
        spent = paid.sum(1)
    elif cost == "until":
        tried = np.cumsum(hit, 1) - hit == 0
        spent = (paid * tried).sum(1)
    else:
        counted = hit | np.logical_not(solved)[:, None]
        spent = np.where(counted, paid, np.inf).min(1)
    return Routed(float(solved.mean()), float(spent.mean()))


def quality(scores: np.ndarray, passed: np.ndarray) -> tuple[float, float]:
    """nDCG of binary gains over one task's techniques, and the mean reciprocal rank of all that pass, or 0."""
    gains = np.asarray(passed, float)[np.argsort(-np.asarray(scores), kind="stable")]
    places = np.arange(1, len(gains) + 1)
    discount = 1 / np.log2(places + 1)
    ideal = float((np.sort(gains)[::-1] * discount).sum())
    ndcg = float((gains * discount).sum()) / ideal if ideal else 0.0
    return ndcg, float((gains / places).sum() / max(1.0, gains.sum()))


def triplet_loss(anchor: np.ndarray, positive: np.ndarray, negative: np.ndarray, margin: float = 5.0) -> float:
    """Mean of max(0, |a - p| - |a - n| + margin) over rows (n, d), Euclidean."""
    near, far = (
        np.linalg.norm(np.asarray(anchor, np.float64) - np.asarray(other, np.float64) + EPS, axis=1)
        for other in (positive, negative)
    )
    return float(np.maximum(0, near - far + margin).mean())
