"""Runs and plans of `avg-param-law`: average active parameters, compute, and the law that was fitted to runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np

from pickaxe import Call
from pickaxe.errors import Unmet
from pickaxe.randomness import generator
from pickaxe_plugins.scaling._curves import Place
from pickaxe_plugins.scaling._laws import Error, error_of, folds, interval, r2, reach, resampled_counts
from pickaxe_plugins.scaling.avg_param_law._law import CHINCHILLA, ParamLaw, fit, refit
from pickaxe_plugins.scaling.avg_param_law._pruning import Schedule, Shape, schedule

LEAST = 5
"""Runs for five constants."""
FAR = 10.0
"""Predictions further than so many times beyond the fitted runs are refused unless asked for."""

SPARSITIES = tuple(place / 40 for place in range(33))
"""What the planner considers: up to 0.8, as far as the paper's runs go."""

Count = Literal["prunable", "non_embedding", "all"]


@dataclass(frozen=True)
class Run:
    """One run or plan; sizes in parameters, loss in nats (NaN where it is not known)."""

    row: int
    name: str
    average: float
    final: float
    tokens: float
    loss: float
    schedule: Schedule | None
    """Of a plan; None where the trajectory or the average is given."""

    @property
    def flops(self) -> float:
        return 6 * self.average * self.tokens


def read_run(place: Place, row: int, name: str, count: Count) -> Run:
    """The run in an item's fields; raises `InvalidItems` naming the field."""
    tokens, loss = place.number("tokens"), place.number("loss")
    if tokens is None:
        raise place.error("tokens", "is missing: give the tokens of the whole run")
    average, final, planned = _sizes(place, count)
    return Run(row, name, average, final, tokens, math.nan if loss is None else loss, planned)


def _sizes(place: Place, count: Count) -> tuple[float, float, Schedule | None]:
    active, weights = place.array("active_params"), place.array("step_tokens")
    if active is not None:
        if not len(active) or (active <= 0).any():
            raise place.error("active_params", "must be numbers above 0, at least one")
        if weights is not None and (len(weights) != len(active) or (weights < 0).any() or not weights.any()):
            raise place.error("step_tokens", f"must be {len(active)} numbers of tokens, one for each step")
        return float(np.average(active, weights=weights)), float(active[-1]), None
    average = place.number("avg_params")
    if average is not None:
        final = place.number("final_params")
        return average, average if final is None else final, None
    dense = place.number("dense_params")
    if dense is None:
        raise place.error("active_params", "is missing: give it, or avg_params, or dense_params and final_sparsity")
    planned, sparsity, share = _schedule(place)
    return dense * _counted(planned.density, share, count), dense * _counted(1 - sparsity, share, count), planned


def _schedule(place: Place) -> tuple[Schedule, float, float]:
    """The plan's schedule, final sparsity and never-pruned share."""
    values = {"final_sparsity": 0.0, "compute_start": 0.25, "compute_end": 0.75, "never_pruned_share": 0.0}
    for name in values:
        value = place.number(name, above=None)
        if value is not None:
            values[name] = value
    shape = str(place.item.get("shape") or "cubic")
    if shape not in ("cubic", "linear"):
        raise place.error("shape", f"is {shape!r}, wanted cubic or linear")
    if not 0 <= values["final_sparsity"] < 1:
        raise place.error("final_sparsity", f"must be at least 0 and below 1 (got {values['final_sparsity']:g})")
    if not 0 <= values["never_pruned_share"] < 1:
        raise place.error(
            "never_pruned_share", f"must be at least 0 and below 1 (got {values['never_pruned_share']:g})"
        )
    start, end = values["compute_start"], values["compute_end"]
    if not 0 <= start <= end <= 1:
        raise place.error("compute_start", f"and compute_end must rise within 0 to 1 (got {start:g} and {end:g})")
    share = values["never_pruned_share"]
    found = schedule(values["final_sparsity"], cast("Shape", shape), start, end, share)
    return found, values["final_sparsity"], share


def _counted(density: float, never_pruned: float, count: Count) -> float:
    """Active share of what is counted: the prunable weights alone, or with those that are never pruned."""
    return density if count == "prunable" else never_pruned + (1 - never_pruned) * density


# ---------------------------------------------------------------- the fitted law


@dataclass(frozen=True)
class Fitted:
    """A law, its bootstrap, and where it comes from."""

    law: ParamLaw
    draws: np.ndarray
    """(C, 5): E, A, B, alpha, beta of each bootstrap fit; none for a published law."""
    params: tuple[float, float]
    """Least and most average parameters of the runs; (0, inf) for a published law."""
    tokens: tuple[float, float]
    report: Mapping[str, Any]

    @classmethod
    def published(cls, law: ParamLaw) -> Fitted:
        return cls(law, np.empty((0, 5)), (0.0, math.inf), (0.0, math.inf), {})

    @property
    def is_published(self) -> bool:
        return not len(self.report)

    def beyond(self, average: float, tokens: float) -> float:
        """How many times beyond the fitted runs that is, in parameters or in tokens."""
        if self.is_published:
            return 1.0
        return float(max(reach(average, np.array(self.params)), reach(tokens, np.array(self.tokens))))

    def band(self, params: np.ndarray, tokens: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
        """Interval of the loss, widened to hold the law itself; NaN for a published law."""
        middle = self.law.loss(params, tokens)
        if not len(self.draws):
            return np.full(middle.shape, np.nan), np.full(middle.shape, np.nan)
        e, a, b, alpha, beta = (self.draws[:, column, None] for column in range(5))
        low, high = interval(e + a * params**-alpha + b * tokens**-beta, confidence)
        return np.minimum(low, middle), np.maximum(high, middle)


def fit_runs(runs: Sequence[Run], delta: float, bootstrap: int, confidence: float, call: Call) -> Fitted:
    """The law of runs with a loss.  Raises `Unmet` saying what is missing where five constants cannot be told."""
    params, tokens, loss = (np.array([getattr(run, name) for run in runs]) for name in ("average", "tokens", "loss"))
    if len(runs) < LEAST:
        raise Unmet(f"{len(runs)} runs cannot tell five constants: give {LEAST} or more, better 20")
    for name, values in (("average parameters (A and alpha)", params), ("tokens (B and beta)", tokens)):
        if np.ptp(values) <= 1e-9 * values.max():
            raise Unmet(f"all runs have the same {name.split(' (')[0]}: vary them, or {name} cannot be told from E")
    if np.ptp(loss) <= 1e-12 * loss.max():
        raise Unmet("all runs have the same loss: there is nothing to explain by size or data")
    law = fit(params, tokens, loss, delta, call.check).law
    rng = generator(call.seed, "bootstrap")
    drawn = refit(law, params, tokens, loss, delta, resampled_counts(len(runs), bootstrap, rng), call.check)
    draws = np.array([list(each.as_dict().values()) for each in drawn]).reshape(-1, 5)
    held = _held_out(law, params, tokens, loss, delta, call)
    predicted = law.loss(params, tokens)
    report = {
        "runs": len(runs),
        "r2": r2(loss, predicted),
        "max_error": float(np.abs(loss - predicted).max()),
        "held_out_points": held.points,
        "held_out_error": held.relative,
        "intervals": {
            name: [float(end) for end in interval(draws[:, column], confidence)]
            for column, name in enumerate(law.as_dict())
            if bootstrap
        },
    }
    ends = [(float(values.min()), float(values.max())) for values in (params, tokens)]
    return Fitted(law, draws, ends[0], ends[1], report)


def _held_out(
    law: ParamLaw, params: np.ndarray, tokens: np.ndarray, loss: np.ndarray, delta: float, call: Call
) -> Error:
    """The error of runs that the law was not fitted to: five-fold cross-validation."""
    parts = folds(len(loss), 5, generator(call.seed, "folds"))
    weights = np.ones((len(parts), len(loss)))
    for row, (_, held) in enumerate(parts):
        weights[row, held] = 0
    predicted = np.empty(len(loss))
    laws = refit(law, params, tokens, loss, delta, weights, call.check)
    for each, (_, held) in zip(laws, parts, strict=True):
        predicted[held] = each.loss(params[held], tokens[held])
    return error_of(loss, predicted)


DEFAULT = Fitted.published(CHINCHILLA)


# ---------------------------------------------------------------- the planner


@dataclass(frozen=True)
class Choice:
    """One way to spend a budget on a final size."""

    sparsity: float
    dense: float
    average: float
    tokens: float
    loss: float


def choices(law: ParamLaw, final: float, flops: float, shape: Shape) -> list[Choice]:
    """For each final sparsity: the dense size to start from, and the tokens that the budget leaves."""
    found = []
    for sparsity in SPARSITIES:
        dense = final / (1 - sparsity)
        average = dense * schedule(sparsity, shape).density
        tokens = flops / (6 * average)
        found.append(Choice(sparsity, dense, average, tokens, float(law.loss(average, tokens))))
    return found
