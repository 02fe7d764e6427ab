"""What `one-epoch` finds out about each plan and run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from pickaxe.randomness import generator
from pickaxe_plugins.scaling._laws import Error, before_tail, error_of, interval, resampled_residuals
from pickaxe_plugins.scaling._one_epoch_plan import (
    LossLaw,
    Plan,
    adjusted,
    iterations_for,
    offset_law,
    overfits,
    power_law,
    time_to,
)

LEAST = 3
"""Fewest points of a law."""


@dataclass(frozen=True)
class Settings:
    target_ratio: float
    fit_from: int | None
    offset: bool
    goal: float | None
    tolerance: float
    bootstrap: int
    confidence: float


@dataclass(frozen=True)
class Curve:
    """Test loss over iterations, and hours where they are known; all (n,)."""

    iterations: np.ndarray
    loss: np.ndarray
    hours: np.ndarray | None = None


@dataclass(frozen=True)
class Run:
    """One item: a plan, a curve, or both."""

    row: int
    id: str
    name: str
    group: str
    plan: Plan
    curve: Curve | None
    predict_at: float
    baseline: bool
    settings: Settings = field(repr=False)
    seed: int = 0

    # ------------------------------------------------------------ plan

    @cached_property
    def new(self) -> tuple[float, float]:
        """Parameters and tokens of the plan that keeps the budget and has the target's ratio; NaN without a plan."""
        if math.isnan(self.plan.ratio):
            return math.nan, math.nan
        return adjusted(self.plan.params, self.plan.tokens, self.settings.target_ratio)

    @property
    def new_iterations(self) -> float:
        tokens, per = self.new[1], self.plan.per_iteration
        return math.nan if math.isnan(tokens) or math.isnan(per) else iterations_for(tokens, per)

    @property
    def quality(self) -> float:
        return -abs(math.log(self.plan.ratio / self.settings.target_ratio))

    @property
    def missing(self) -> float:
        """Different tokens that the new plan needs and that are not there; less than an iteration is rounding."""
        lacks = self.new[1] - self.plan.unique
        return lacks if lacks > (0.0 if math.isnan(self.plan.per_iteration) else self.plan.per_iteration) else 0.0

    # ------------------------------------------------------------ curve

    @cached_property
    def used(self) -> np.ndarray:
        """Which points of the curve enter the law, (n,) bool."""
        assert self.curve is not None
        start = self.settings.fit_from
        return self.curve.iterations >= (0.1 * self.curve.iterations[-1] if start is None else start)

    @cached_property
    def refused(self) -> str:
        """Why there is no law; "" when there is one."""
        if self.curve is None:
            return "there is no curve"
        if (self.curve.loss <= 0).any():
            return f"the loss is {self.curve.loss.min():g} at some point: a power law is for losses above 0"
        wanted = LEAST + self.settings.offset
        if (points := int(self.used.sum())) < wanted:
            return f"{points} points after the transient are too few for a law, which needs {wanted}"
        if np.ptp(self.curve.loss[self.used]) == 0:
            return f"the loss is {self.curve.loss[-1]:g} throughout: there is nothing to extrapolate"
        return ""

    @cached_property
    def law(self) -> LossLaw | None:
        if self.refused:
            return None
        assert self.curve is not None
        return self._fit(self.curve.iterations[self.used], self.curve.loss[self.used])

    def _fit(self, iterations: np.ndarray, loss: np.ndarray) -> LossLaw:
        return (offset_law if self.settings.offset else power_law)(iterations, loss)

    @cached_property
    def drawn(self) -> LossLaw | None:
        """Bootstrap of the law over its residuals, in log loss."""
        if self.law is None or not self.settings.bootstrap or self.used.sum() < LEAST + 2:
            return None
        assert self.curve is not None
        iterations, loss = self.curve.iterations[self.used], self.curve.loss[self.used]
        rng = generator(self.seed, "bootstrap", self.id, self.group)
        fitted = np.log(self.law.at(iterations))
        draws = resampled_residuals(fitted, np.log(loss), 2 + self.settings.offset, self.settings.bootstrap, rng)
        return self._fit(iterations, np.exp(draws))

    def band(self, iterations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Interval of the law at some iterations (m,), widened to hold the law; NaN without a bootstrap."""
        if self.law is None or self.drawn is None:
            return np.full(iterations.shape, np.nan), np.full(iterations.shape, np.nan)
        each = LossLaw(*(part[:, None] for part in vars(self.drawn).values()))
        low, high = interval(each.at(iterations[None]), self.settings.confidence)
        middle = self.law.at(iterations)
        return np.minimum(low, middle), np.maximum(high, middle)

    def exponent_band(self) -> tuple[float, float]:
        if self.drawn is None or self.law is None:
            return math.nan, math.nan
        low, high = interval(self.drawn.exponent, self.settings.confidence)
        return min(float(low), float(self.law.exponent)), max(float(high), float(self.law.exponent))

    @property
    def predicted(self) -> float:
        return math.nan if self.law is None else float(self.law.at(self.predict_at))

    @property
    def beyond(self) -> float:
        """How many times the last measured iteration the prediction is at; NaN without a law."""
        return (
            math.nan if self.law is None or self.curve is None else self.predict_at / float(self.curve.iterations[-1])
        )

    @property
    def to_goal(self) -> float:
        if self.law is None or self.settings.goal is None:
            return math.nan
        return float(self.law.iterations_to(self.settings.goal))

    @cached_property
    def held_out(self) -> Error:
        """Error of the law fitted without the last fifth of its points, there."""
        if self.law is None:
            return error_of(np.empty(0), np.empty(0))
        assert self.curve is not None
        iterations, loss = self.curve.iterations[self.used], self.curve.loss[self.used]
        kept = before_tail(len(loss), LEAST + self.settings.offset) or len(loss)
        if kept == len(loss):
            return error_of(np.empty(0), np.empty(0))
        return error_of(loss[kept:], self._fit(iterations[:kept], loss[:kept]).at(iterations[kept:]))

    @property
    def overfits(self) -> bool:
        return self.curve is not None and overfits(self.curve.loss, self.settings.tolerance)


def speedups(runs: Sequence[Run]) -> list[float]:
    """Of runs of one group: hours of the baseline to its best loss over the hours of each to it; NaN for never."""
    timed = [run for run in runs if run.curve is not None and run.curve.hours is not None]
    base = next((run for run in timed if run.baseline), None)
    if base is None or base.curve is None:
        return [math.nan] * len(runs)
    target = float(base.curve.loss.min())

    def hours(run: Run) -> float:
        if run.curve is None or run.curve.hours is None:
            return math.nan
        return time_to(run.curve.hours, run.curve.loss, target)

    took = hours(base)
    found = []
    for run in runs:
        needs = hours(run)
        found.append(math.inf if needs == 0 < took else took / needs if needs else 1.0 if took == 0 else math.nan)
    return found
