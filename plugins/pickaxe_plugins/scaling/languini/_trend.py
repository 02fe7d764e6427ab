"""Trends of the best perplexity over accelerator hours, and where two of them cross."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from pickaxe.randomness import generator
from pickaxe_plugins.scaling._laws import Line, before_tail, error_of, fit_line, interval, resampled_residuals


@dataclass(frozen=True)
class Trend:
    """ln ppl = intercept + slope ln hours of one model on one split, fitted on the best run of each class."""

    model: str
    split: str
    slope: float
    intercept: float
    r2: float | None
    slope_low: float | None
    slope_high: float | None
    held_out_error: float | None
    """Mean relative error of ppl on the last fifth of the classes, for a line without them; None: too few."""
    hours: tuple[float, ...]
    ppl: tuple[float, ...]

    def at(self, hours: np.ndarray | float) -> np.ndarray:
        return np.exp(self.intercept + self.slope * np.log(np.asarray(hours, np.float64)))

    def reaches(self, hours: float) -> float:
        """How many times beyond its classes; 1 within them."""
        return max(1.0, hours / max(self.hours), min(self.hours) / hours)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Trend:
        return cls(**{**value, "hours": tuple(value["hours"]), "ppl": tuple(value["ppl"])})


def fit_trend(
    model: str, split: str, best: Mapping[float, float], bootstrap: int, confidence: float, seed: int
) -> Trend | None:
    """The trend of the best ppl by class hours; None for fewer than two classes."""
    if len(best) < 2:
        return None
    hours = np.array(sorted(best))
    x, y = np.log(hours), np.log([best[each] for each in hours])
    line = fit_line(x, y)
    low, high = _interval(x, y, line, bootstrap, confidence, seed, model, split)
    return Trend(
        model, split, float(line.slope), float(line.intercept), _known(float(line.r2)), low, high,
        _held_out(x, y), tuple(hours.tolist()), tuple(np.exp(y).tolist()),
    )  # fmt: skip


def crossing(one: Trend, other: Trend) -> tuple[float, float] | None:
    """(hours, ppl) where two trends meet; None for parallel ones, or a meeting point beyond all numbers."""
    apart = other.slope - one.slope
    if apart == 0:
        return None
    logarithm = (one.intercept - other.intercept) / apart
    if abs(logarithm) > 300:
        return None
    return math.exp(logarithm), float(one.at(math.exp(logarithm)))


def crossings(trends: Sequence[Trend]) -> list[dict[str, Any]]:
    """Meeting points of all pairs of trends of one split, as rows of a table."""
    found = []
    for one, other in combinations(trends, 2):
        if one.split == other.split and (met := crossing(one, other)) is not None:
            beyond = max(one.reaches(met[0]), other.reaches(met[0]))
            found.append(
                {"model": one.model, "other": other.model, "split": one.split, "hours": met[0], "ppl": met[1],
                 "times beyond the data": beyond}
            )  # fmt: skip
    return found


def _interval(
    x: np.ndarray, y: np.ndarray, line: Line, bootstrap: int, confidence: float, seed: int, *key: str
) -> tuple[float | None, float | None]:
    if not bootstrap or len(x) < 4:
        return None, None
    rng = generator(seed, "trend", *key)
    drawn = fit_line(x, resampled_residuals(line.at(x), y, 2, bootstrap, rng)).slope
    low, high = interval(drawn, confidence)
    return min(float(low), float(line.slope)), max(float(high), float(line.slope))


def _held_out(x: np.ndarray, y: np.ndarray) -> float | None:
    kept = before_tail(len(x), 3)
    if not kept:
        return None
    line = fit_line(x[:kept], y[:kept])
    return error_of(np.exp(y[kept:]), np.exp(line.at(x[kept:]))).relative


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
