"""Plans of one epoch: budgets, sizes, the power law of the test loss, times to a loss (arXiv 1906.06669)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pickaxe_plugins.scaling._laws import Line, Saturating, fit_line, fit_saturating


@dataclass(frozen=True)
class Plan:
    """What a run would train: NaN where an item does not say."""

    params: float
    unique: float
    """Different tokens there are."""
    epochs: float
    tokens: float
    """Tokens processed, in whole iterations where the batch is known."""
    per_iteration: float
    """Tokens of one iteration: batch times context."""

    @classmethod
    def of(cls, params: float, unique: float, epochs: float, steps: float, batch: float, context: float) -> Plan:
        """From epochs (I = ceil(D E / c)) or from iterations (E = I c / D)."""
        per = batch * context
        if not math.isnan(steps):
            tokens = steps * per
            return cls(params, unique, tokens / unique, tokens, per)
        wanted = unique * epochs
        return cls(params, unique, epochs, iterations_for(wanted, per) * per if per > 0 else wanted, per)

    @property
    def iterations(self) -> float:
        return self.tokens / self.per_iteration

    @property
    def ratio(self) -> float:
        """Tokens processed for each parameter."""
        return self.tokens / self.params

    @property
    def needed(self) -> float:
        """Different tokens for the same run without repetition."""
        return self.tokens if math.isnan(self.unique) else self.unique * max(self.epochs, 1.0)

    @property
    def repeat_factor(self) -> float:
        return max(1.0, self.epochs) if not math.isnan(self.epochs) else math.nan


def iterations_for(tokens: float, per_iteration: float) -> float:
    """Whole iterations that process at least so many tokens."""
    return float(math.ceil(tokens / per_iteration))


def adjusted(params: float, tokens: float, target: float) -> tuple[float, float]:
    """Parameters and tokens of the same product whose ratio tokens / parameters is the target."""
    if tokens / params == target:
        return params, tokens
    budget = params * tokens
    return math.sqrt(budget / target), math.sqrt(budget * target)


# ---------------------------------------------------------------- the law


@dataclass(frozen=True)
class LossLaw:
    """loss(I) = offset + coefficient I^-exponent; arrays are of one shape, a number or one per curve."""

    coefficient: np.ndarray
    exponent: np.ndarray
    offset: np.ndarray
    r2: np.ndarray
    """In log-log."""

    def at(self, iterations: np.ndarray | float) -> np.ndarray:
        return self.offset + self.coefficient * np.asarray(iterations, np.float64) ** -self.exponent

    def iterations_to(self, goal: float) -> np.ndarray:
        """Where the law reaches the goal; inf where it never does."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            found = (self.coefficient / (goal - self.offset)) ** (1 / self.exponent)
        return np.where((goal > self.offset) & (self.exponent > 0), found, np.inf)


def power_law(iterations: np.ndarray, loss: np.ndarray, weights: np.ndarray | None = None) -> LossLaw:
    """Least squares in log-log along the last axis; weight 0 leaves a point out (before the transient's end)."""
    line: Line = fit_line(np.log(iterations), np.log(loss), weights)
    return LossLaw(np.exp(line.intercept), -line.slope, np.zeros_like(line.slope), line.r2)


def offset_law(iterations: np.ndarray, loss: np.ndarray) -> LossLaw:
    """The same with an offset, by least squares in the loss; loss is (n,) or (C, n)."""
    t = np.log(iterations)
    found: Saturating = fit_saturating(t, -loss)
    exponent = np.where(np.isnan(found.b), 0.0, found.b)
    fitted = np.log(np.maximum(found.a[..., None] * np.exp(-exponent[..., None] * t) - found.c[..., None], 1e-300))
    seen = np.log(loss)
    spread = ((seen - seen.mean(-1, keepdims=True)) ** 2).sum(-1)
    r2 = np.where(spread > 0, 1 - ((seen - fitted) ** 2).sum(-1) / np.where(spread > 0, spread, 1.0), np.nan)
    return LossLaw(found.a, exponent, -found.c, r2)


def overfits(loss: np.ndarray, tolerance: float) -> bool:
    """Whether the loss rises by more than the tolerance after its minimum."""
    return bool(len(loss)) and bool(loss[loss.argmin() :].max() > loss.min() + tolerance)


# ---------------------------------------------------------------- time to a loss


def time_to(hours: np.ndarray, loss: np.ndarray, target: float) -> float:
    """The first time at which the loss is at the target or below it, interpolated linearly; NaN for never."""
    reached = np.flatnonzero(loss <= target)
    if not len(reached):
        return math.nan
    at = int(reached[0])
    if at == 0 or loss[at] == target:
        return float(hours[at])
    share = (loss[at - 1] - target) / (loss[at - 1] - loss[at])
    return float(hours[at - 1] + share * (hours[at] - hours[at - 1]))


# ---------------------------------------------------------------- the order of one pass


def pass_order(rows: int, batch: int, order: np.random.Generator) -> np.ndarray:
    """Every row at most once: (rows // batch, batch) of a permutation, the rest of it left out."""
    batches = rows // batch
    return order.permutation(rows)[: batches * batch].reshape(batches, batch)
