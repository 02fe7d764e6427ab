"""What a judged run says about resampling: per group and between groups (arXiv 2411.17501)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pydantic
from pydantic import Field

import pickaxe
from pickaxe import ArtifactWriter, Call, Item, Items, Progress
from pickaxe.errors import InvalidItems
from pickaxe.jsonable import jsonable
from pickaxe.randomness import generator
from pickaxe_plugins.decoding._resampling import (
    TOLERANCE,
    Curves,
    Limits,
    Stakes,
    best,
    exact_curves,
    false_positives_by_attempt,
    simulated_curves,
)
from pickaxe_plugins.decoding._runs import MOST_ATTEMPTS, Run, read_runs
from pickaxe_plugins.decoding._two_types import estimated

FITTED = "limits.json"
"""The file of an artifact: for every group its best number of attempts and its limits."""


class LimitParams(pickaxe.Params):
    """What answers are worth, and how runs are read."""

    false_positive_value: float = Field(-1.0, le=0, description="Value of a wrong answer that passed the verifier.")
    value_correct: float = Field(1.0, gt=0, description="Value of a correct answer; abstaining is worth 0.")
    cost_per_attempt: float = Field(0.0, ge=0, description="Cost of each attempt, in the same unit.")
    max_attempts: int = Field(200, ge=1, le=MOST_ATTEMPTS, description="Most attempts considered; never more than n.")
    mode: Literal["exact", "notebook"] = Field(
        "exact", description="Closed forms, or for comparison what the public notebooks compute."
    )
    permutations: int = Field(1000, ge=1, le=100_000, description="Random orders per task, with mode=notebook.")
    drop_false_negative_tasks: bool = Field(
        True, description="Leave out tasks of which the verifier rejects a correct sample, as the paper does."
    )

    @pydantic.model_validator(mode="after")
    def _priced(self) -> LimitParams:
        if self.mode == "notebook" and self.cost_per_attempt:
            raise ValueError("mode=notebook knows no cost_per_attempt; use mode=exact")
        return self

    @property
    def stakes(self) -> Stakes:
        return Stakes(self.value_correct, self.false_positive_value, self.cost_per_attempt)


@dataclass(frozen=True)
class Measured:
    """One group: which of its tasks count, and what they come to."""

    run: Run
    kept: np.ndarray
    """(T,) bool."""
    curves: Curves
    limits: Limits
    completeness: float
    """Share of correct samples, of all tasks, that the verifier passes; NaN without one."""
    k_best: int
    max_reward: float

    @property
    def dropped(self) -> int:
        return int((~self.kept).sum())

    def fitted(self) -> dict[str, Any]:
        """The numbers of this group, without its curves."""
        return {
            "tasks": len(self.kept) - self.dropped,
            "dropped": self.dropped,
            "unsolved": int((self.run.counts.v[self.kept] == 0).sum()),
            "k_best": self.k_best,
            "max_reward": self.max_reward,
            **asdict(self.limits),
            "completeness": self.completeness,
        }


def measure(run: Run, params: LimitParams, seed: int) -> Measured:
    """Raises `InvalidItems` when no task is left."""
    every = run.counts
    kept = (every.g == every.u) if params.drop_false_negative_tasks else np.ones(len(every), np.bool_)
    if not kept.any():
        raise InvalidItems(
            "items",
            f"of group {run.group!r} all have a correct sample that the verifier rejects: set "
            "drop_false_negative_tasks to false",
        )
    counts = every.of(kept)
    top = min(params.max_attempts, int(counts.n.min()))
    if params.mode == "notebook":
        rngs = [generator(seed, "permutations", run.group, name) for name in run.ids[kept]]
        curves = simulated_curves(counts, top, params.permutations, rngs)
    else:
        curves = exact_curves(counts, top)
    reward = curves.reward(params.stakes)
    right = int(every.u.sum())
    completeness = int(every.g.sum()) / right if right else float("nan")
    return Measured(run, kept, curves, Limits.of(counts), completeness, best(reward), float(reward.max()))


def report(measured: Measured, params: LimitParams, values: Sequence[float], curves: bool) -> dict[str, Any]:
    """A group's part of the summary: numbers, curves, false positives by attempt, other values of a false positive."""
    found: dict[str, Any] = measured.fitted()
    if curves:
        of = measured.curves
        found["curves"] = {
            "k": np.arange(1, len(of.passed) + 1),
            "p_pass": of.passed,
            "accuracy": of.accuracy,
            "false_positive": of.false_positive,
            "attempts": of.attempts,
            "reward": of.reward(params.stakes),
        }
    found["false_positive_bins"] = false_positives_by_attempt(measured.curves)
    found["by_false_positive_value"] = [_at(measured, params.stakes, value, curves) for value in values]
    found["two_types"] = _two_types(measured, params)
    return found


def _at(measured: Measured, stakes: Stakes, value: float, curves: bool) -> dict[str, Any]:
    reward = measured.curves.reward(Stakes(stakes.correct, value, stakes.attempt))
    found = {"false_positive_value": value, "k_best": best(reward), "max_reward": float(reward.max())}
    return {**found, "reward": reward} if curves else found


def _two_types(measured: Measured, params: LimitParams) -> dict[str, Any] | None:
    """The run as easy and hard tasks, in the fields of a plan, and what that plan comes to; None without a verifier's
    measure: no correct or no wrong sample."""
    if np.isnan(measured.limits.soundness) or np.isnan(measured.completeness):
        return None
    types = estimated(measured.run.counts.of(measured.kept), measured.completeness, measured.limits.soundness)
    return {
        "prior": types.prior,
        "r": types.r,
        "completeness": types.completeness,
        "soundness": types.soundness,
        "k_best": best(types.curves(params.max_attempts).reward(params.stakes)),
        "limit": types.limit,
    }


# ---------------------------------------------------------------- between groups


def compare(groups: Sequence[Measured], reference: str, params: LimitParams) -> dict[str, Any]:
    """Whether each group can reach, by resampling, what the reference's single samples do.

    Named tasks that are left out of one group are left out of all here.  The reference is the group of the highest
    single-sample accuracy where none is named.
    """
    left_out = {name for each in groups for name in each.run.tasks[~each.kept] if name}
    found: dict[str, dict[str, Any]] = {}
    for each in groups:
        kept = each.kept & ~np.isin(each.run.tasks, list(left_out))
        counts = each.run.counts.of(kept)
        if len(counts):
            top = min(params.max_attempts, int(counts.n.min()))
            found[each.run.group] = {**asdict(Limits.of(counts)), "accuracy": exact_curves(counts, top).accuracy}
    if not found or (reference and reference not in found):
        return {"dropped_tasks": len(left_out), "groups": {}}
    reference = reference or max(found, key=lambda name: float(found[name]["single"]))
    aim = found[reference]["single"] - TOLERANCE
    for told in found.values():
        enough = np.flatnonzero(told.pop("accuracy") >= aim)
        told["cannot_match"] = bool(told["limit_best"] < aim)
        told["attempts_to_match"] = int(enough[0]) + 1 if len(enough) else None
    fits = {name: _line(found, name) for name in ("limit_worst", "conditional")}
    return {"reference": reference, "dropped_tasks": len(left_out), "groups": found, "over_single": fits}


def _line(groups: Mapping[str, Mapping[str, float]], name: str) -> dict[str, float] | None:
    """Least squares of a limit over single-sample accuracy, and their correlation; None for too few distinct groups."""
    points = np.array([(each["single"], each[name]) for each in groups.values() if not np.isnan(each[name])])
    if len(points) < 2 or np.ptp(points[:, 0]) <= TOLERANCE:
        return None
    x, y = (points - points.mean(axis=0)).T
    slope = float(x @ y / (x @ x))
    spread = float(np.sqrt((x @ x) * (y @ y)))
    return {
        "slope": slope,
        "intercept": float(points[:, 1].mean() - slope * points[:, 0].mean()),
        "correlation": float(x @ y) / spread if spread > TOLERANCE else float("nan"),
    }


# ---------------------------------------------------------------- fit


def fit_limits(examples: Iterable[Item], params: LimitParams, out: ArtifactWriter, call: Call) -> Iterator[Progress]:
    """Write every group's best number of attempts, limits and verifier rates."""
    runs = read_runs(Items(examples), "examples")
    if not runs:
        raise InvalidItems("examples", "are empty: give at least one task")
    fitted = {}
    for step, run in enumerate(runs, 1):
        call.check()
        fitted[run.group] = jsonable(measure(run, params, call.seed).fitted())
        yield Progress("fit", step, len(runs), {"k_best": fitted[run.group]["k_best"]})
    out.write_json(FITTED, fitted)
    out.notes["limits"] = fitted
