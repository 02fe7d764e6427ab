"""What `learning-curve` finds out about each run: predictions with intervals, levels, held-out error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from pickaxe import Call
from pickaxe.randomness import generator
from pickaxe_plugins.scaling._laws import (
    Error,
    Saturating,
    before_tail,
    error_of,
    fit_saturating,
    interval,
    resampled_residuals,
)
from pickaxe_plugins.scaling.learning_curve._trace import (
    Pattern,
    PatternName,
    Rules,
    Trace,
    decision_reliability,
    pattern,
    robustness_rate,
    trace,
)

LEAST_FOR_BANDS = 5
"""Measurements from which residuals say something about the spread: a trend passes through three of them."""


@dataclass(frozen=True)
class Run:
    """One learner's curve: y rises where it gets better (losses are negated)."""

    row: int
    id: str
    name: str
    """Its id, told apart from others of the same id."""
    group: str
    x: np.ndarray
    y: np.ndarray
    target: float


@dataclass(frozen=True)
class Settings:
    """How runs are looked at."""

    rules: Rules
    pattern: PatternName
    goal: float | None
    bootstrap: int
    confidence: float


@dataclass(frozen=True)
class Outcome:
    """A run's last trend and what follows from it; NaN where nothing can be said."""

    run: Run
    shape: Pattern
    trace: Trace
    place: int
    """The run's row in the trace."""
    drawn: Saturating | None
    """Bootstrap of its last trend without anchors."""
    settings: Settings

    @cached_property
    def trend(self) -> Saturating:
        return self.trace.trends[self.place, len(self.run.x) - 1]

    @property
    def levels(self) -> tuple[int, int, int]:
        """Working, prediction and convergence level."""
        found = self.trace
        return int(found.wlevel[self.place]), int(found.plevel[self.place]), int(found.clevel[self.place])

    @property
    def epsilon(self) -> float:
        return float(self.trace.epsilon[self.place, len(self.run.x) - 1])

    @property
    def rises(self) -> bool:
        return float(self.trend.a) > 0

    @property
    def constant(self) -> bool:
        return bool(np.isnan(self.trend.b))

    @property
    def at_bound(self) -> bool:
        """Whether the exponent ran into an end of its range: the limit is then a guess."""
        low, high = self.settings.rules.b_range
        return bool(self.trend.b <= low * (1 + 1e-9) or self.trend.b >= high * (1 - 1e-9))

    @property
    def beyond(self) -> float:
        """How many times the largest measured size the target is."""
        return self.run.target / float(self.run.x[-1])

    @cached_property
    def predicted(self) -> float:
        return float(self.at(np.array([self.run.target]))[0])

    def at(self, sizes: np.ndarray) -> np.ndarray:
        return self.trend.at(self.shape.t(sizes))

    def band(self, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Interval of the trend at some sizes, widened to hold the trend itself; NaN without a bootstrap."""
        sizes, middle = np.asarray(sizes, np.float64), self.at(sizes)
        if self.drawn is None:
            return np.full(sizes.shape, np.nan), np.full(sizes.shape, np.nan)
        draws = self.drawn[:, None].at(self.shape.t(sizes).reshape(1, -1))
        low, high = interval(draws, self.settings.confidence)
        return np.minimum(low.reshape(sizes.shape), middle), np.maximum(high.reshape(sizes.shape), middle)

    def limit_band(self) -> tuple[float, float]:
        if self.drawn is None:
            return np.nan, np.nan
        low, high = interval(self.drawn.c, self.settings.confidence)
        return min(float(low), float(self.trend.c)), max(float(high), float(self.trend.c))

    @cached_property
    def size_for(self) -> float:
        return float(needed(self.trend, self.shape, self.settings.goal))

    def size_band(self) -> tuple[float, float]:
        """Interval of `size_for`; its upper end is inf where some draws never reach the goal."""
        if self.drawn is None or self.settings.goal is None:
            return np.nan, np.nan
        low, high = interval(needed(self.drawn, self.shape, self.settings.goal), self.settings.confidence)
        return min(float(low), self.size_for), max(float(high), self.size_for)

    @cached_property
    def control(self) -> tuple[np.ndarray, np.ndarray]:
        """Places of the held-out last fifth of sizes, and what the trend of the others predicts there."""
        kept = before_tail(len(self.run.x), self.settings.rules.first_level + 1)
        held = np.arange(kept or len(self.run.x), len(self.run.x))
        if not len(held):
            return held, np.empty(0)
        return held, self.trace.plain[self.place, kept - 1].at(self.shape.t(self.run.x[held]))

    @property
    def held_out(self) -> Error:
        held, predicted = self.control
        return error_of(self.run.y[held], predicted)


def needed(trends: Saturating, shape: Pattern, goal: float | None) -> np.ndarray:
    """The size at which trends reach the goal: inf where their limit is below it, NaN where they do not rise."""
    if goal is None:
        return np.full(np.shape(trends.a), np.nan)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        sizes = shape.size(np.log(trends.a / (trends.c - goal)) / trends.b)
    # A goal as far below the limit as the scale of the curve is passed before the curve begins.
    return np.where(trends.a > 0, np.where(trends.c > goal, sizes, np.inf), np.nan)


def analyse(runs: Sequence[Run], settings: Settings, call: Call) -> Iterator[Outcome]:
    """The outcome of each run; runs over the same sizes are fitted together."""
    together: dict[bytes, list[Run]] = {}
    for run in runs:
        together.setdefault(run.x.tobytes(), []).append(run)
    for same in together.values():
        call.check()
        x, y = same[0].x, np.stack([run.y for run in same])
        shape = pattern(settings.pattern, float(x[0]))
        found = trace(x, y, shape, settings.rules)
        for place, run in enumerate(same):
            call.check()
            drawn = _drawn(run, found.plain[place, len(x) - 1], shape, settings, call.seed)
            yield Outcome(run, shape, found, place, drawn, settings)


def _drawn(run: Run, trend: Saturating, shape: Pattern, settings: Settings, seed: int) -> Saturating | None:
    if not settings.bootstrap or len(run.x) < LEAST_FOR_BANDS:
        return None
    t = shape.t(run.x)
    rng = generator(seed, "bootstrap", run.id, run.group)
    draws = resampled_residuals(trend.at(t), run.y, 3, settings.bootstrap, rng)
    return fit_saturating(t, draws, None, settings.rules.b_range)


# ---------------------------------------------------------------- comparisons


@dataclass(frozen=True)
class Standing:
    """A run among those of its group."""

    margin: float
    """Prediction minus the best prediction of the others; NaN when it is alone."""
    reliable: float
    """1 when the margin to that other one exceeds the sum of both layers, else 0; NaN when it is alone."""


def standings(outcomes: Sequence[Outcome]) -> list[Standing]:
    """How each run of one group stands, in their order."""
    found = []
    for each in outcomes:
        others = [other for other in outcomes if other is not each and not np.isnan(other.predicted)]
        if not others or np.isnan(each.predicted):
            found.append(Standing(np.nan, np.nan))
            continue
        best = max(others, key=lambda other: other.predicted)
        margin = each.predicted - best.predicted
        found.append(Standing(margin, float(abs(margin) > each.epsilon + best.epsilon)))
    return found


def pairs(outcomes: Iterable[Outcome]) -> list[dict[str, Any]]:
    """Runs over the same sizes, two by two: are their order and gap foreseen at the held-out sizes?"""
    rows = []
    for one, other in combinations(outcomes, 2):
        held = one.control[0]
        if not len(held) or not np.array_equal(one.run.x, other.run.x):
            continue
        actual = one.run.y[held], other.run.y[held]
        predicted = one.control[1], other.control[1]
        rows.append(
            {
                "run": one.run.name,
                "other": other.run.name,
                "held-out sizes": len(held),
                "decision reliability": decision_reliability(actual, predicted),
                "robustness rate": robustness_rate(actual, predicted),
            }
        )
    return rows
