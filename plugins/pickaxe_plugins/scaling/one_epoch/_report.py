"""What `one-epoch` tells: the answer in words, figures and tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pickaxe.report import Axis, Figure, Series, explain, number
from pickaxe_plugins.scaling._words import amount
from pickaxe_plugins.scaling.one_epoch._runs import Run

_MOST = 3
_POINTS = 80


def summary(runs: Sequence[Run], speedups: Mapping[int, float]) -> dict[str, Any]:
    """Answer, figures and tables of all runs; speed-ups by row."""
    planned = [run for run in runs if not math.isnan(run.plan.ratio)]
    answer = [sentence for run in planned[:2] for sentence in _plan(run)]
    answer += [sentence for run in runs if run.curve is not None for sentence in _curve(run)][:2]
    answer += [_speedup(run, speedups[run.row]) for run in runs if not run.baseline and run.row in speedups][:2]
    report = explain(answer[:6], _figures(runs, planned))
    if planned:
        report["plans"] = [_plan_row(run) for run in planned]
    if curves := [run for run in runs if run.law is not None]:
        report["laws"] = [_law_row(run) for run in curves]
    return report


# ---------------------------------------------------------------- words


def _plan(run: Run) -> Iterator[str]:
    plan, (params, tokens) = run.plan, run.new
    if plan.epochs > 1:
        yield (
            f"{run.name}: each token is used {number(plan.epochs, 3)} times; one epoch of the same length needs "
            f"{amount(plan.needed)} different tokens, and there are {amount(plan.unique)}."
        )
    off = plan.ratio / run.settings.target_ratio
    if abs(math.log(off)) < 0.1:
        yield f"{run.name}: the size fits, with {number(plan.ratio, 3)} tokens for each parameter."
        return
    short = (
        f"; that is {amount(run.missing)} more different tokens than there are, or else take "
        f"{amount(plan.unique / run.settings.target_ratio)} parameters for one epoch of what there is"
        if run.missing > 0
        else ""
    )
    yield (
        f"{run.name}: {number(plan.ratio, 3)} tokens for each parameter are too "
        f"{'many for so small' if off > 1 else 'few for so large'} a model; the same budget makes "
        f"{amount(params)} parameters and {amount(tokens)} tokens{short}."
    )


def _curve(run: Run) -> Iterator[str]:
    if run.law is None:
        yield f"{run.name}: no law, as {run.refused}."
        return
    low, high = run.band(np.array([run.predict_at]))
    sure = (
        f" ({number(100 * run.settings.confidence)}% interval {number(float(low[0]))} to {number(float(high[0]))})"
        if not np.isnan(low[0])
        else ""
    )
    far = f", {number(run.beyond, 3)} times the last measured one: an extrapolation" if run.beyond > 1 else ""
    goal = ""
    if run.settings.goal is not None:
        needs = run.to_goal
        goal = (
            f" The goal of {number(run.settings.goal)} takes about {amount(needs)} iterations."
            if math.isfinite(needs)
            else f" The goal of {number(run.settings.goal)} is never reached by this law."
        )
    over = " Its test loss rises again after its minimum: it overfits." if run.overfits else ""
    yield (
        f"{run.name}: the law expects a test loss of {number(run.predicted)}{sure} at iteration "
        f"{amount(run.predict_at)}{far}.{goal}{over}"
    )


def _speedup(run: Run, speedup: float) -> str:
    if math.isnan(speedup):
        return f"{run.name} never reaches the best loss of the baseline, or has no hours."
    return f"{run.name} reaches the best loss of the baseline {number(speedup, 3)} times as fast."


# ---------------------------------------------------------------- figures and tables


def _figures(runs: Sequence[Run], planned: Sequence[Run]) -> Iterator[Figure]:
    drawn = [run for run in runs if run.curve is not None][:_MOST]
    if drawn:
        yield Figure(
            "Test loss over iterations, and the power law",
            Axis("iterations", scale="log"),
            Axis("test loss", "nats"),
            [series for run in drawn for series in _series(run)],
            "Shaded: interval of bootstrap fits. Right of the last point the law extrapolates.",
        )
    if planned:
        shown = planned[:40]
        places = range(len(shown))
        yield Figure(
            "Tokens for each parameter",
            Axis("tokens processed / parameters", scale="log"),
            Axis("plan", categories=[run.name for run in shown]),
            [
                Series("plan", "points", [run.plan.ratio for run in shown], places),
                Series("target", "line", [run.settings.target_ratio for run in shown], places)
                if len(shown) > 1
                else Series("target", "points", [run.settings.target_ratio for run in shown], places),
            ],
            "Left of the target the model is too large for its budget, right of it too small.",
        )


def _series(run: Run) -> Iterator[Series]:
    assert run.curve is not None
    thin = np.unique(np.linspace(0, len(run.curve.loss) - 1, 2 * _POINTS).round().astype(int))
    iterations, loss = run.curve.iterations[thin], run.curve.loss[thin]
    yield Series(f"{run.name}, measured", "points", iterations, loss)
    if run.law is None:
        return
    grid = np.geomspace(run.curve.iterations[run.used][0], max(run.predict_at, run.curve.iterations[-1]), _POINTS)
    low, high = run.band(grid)
    if np.isnan(low).any():
        yield Series(f"{run.name}, law", "line", grid, run.law.at(grid))
    else:
        yield Series(f"{run.name}, law", "band", grid, run.law.at(grid), low, high)


def _plan_row(run: Run) -> dict[str, Any]:
    params, tokens = run.new
    return {
        "plan": run.name,
        "parameters": run.plan.params,
        "tokens": run.plan.tokens,
        "different tokens": run.plan.unique,
        "epochs": run.plan.epochs,
        "tokens / parameters": run.plan.ratio,
        "new parameters": params,
        "new tokens": tokens,
        "new iterations": run.new_iterations,
        "missing different tokens": run.missing,
    }


def _law_row(run: Run) -> dict[str, Any]:
    assert run.law is not None
    low, high = run.exponent_band()
    loss_low, loss_high = run.band(np.array([run.predict_at]))
    return {
        "run": run.name,
        "coefficient a": float(run.law.coefficient),
        "exponent b": float(run.law.exponent),
        "b low": low,
        "b high": high,
        "offset": float(run.law.offset),
        "r2 (log-log)": float(run.law.r2),
        "points": int(run.used.sum()),
        "held-out points": run.held_out.points,
        "held-out error (%)": 100 * run.held_out.relative,
        "iteration": run.predict_at,
        "predicted loss": run.predicted,
        "loss low": float(loss_low[0]),
        "loss high": float(loss_high[0]),
        "iterations to the goal": run.to_goal,
        "overfits": run.overfits,
    }
