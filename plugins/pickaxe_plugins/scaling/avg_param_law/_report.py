"""What `avg-param-law` tells: the answer in words, figures and tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pickaxe.report import Axis, Figure, Series, explain, number
from pickaxe_plugins.scaling._words import amount
from pickaxe_plugins.scaling.avg_param_law._runs import FAR, Choice, Fitted, Run

_MOST = 40
_TOLD = ("E", "alpha", "beta")


def summary(
    runs: Sequence[Run],
    predicted: np.ndarray,
    fitted: Fitted,
    confidence: float,
    options: Sequence[Choice],
    flops: float,
) -> dict[str, Any]:
    """Answer, figures and tables of runs, their predicted losses (NaN where refused) and the planner's options."""
    answer = [_law(fitted, confidence)]
    known = [run for run in runs if not np.isnan(run.loss) and not np.isnan(predicted[run.row])]
    if known:
        answer.append(_residuals(known, predicted))
    if able := [run for run in runs if not np.isnan(predicted[run.row])]:
        answer.append(_best(able, predicted, fitted, confidence))
    if refused := len(runs) - len(able):
        answer.append(
            f"{refused} of {len(runs)} runs lie more than {number(FAR)} times beyond the fitted ones and get no "
            "prediction; set extrapolate to have it all the same."
        )
    if options:
        answer.append(_plan(options, flops, fitted))
    report = explain(answer, _figures(runs, known, able, predicted, fitted, confidence, options))
    report["law"] = _constants(fitted)
    if options:
        report["planner"] = [
            {
                "final sparsity": each.sparsity,
                "dense parameters": each.dense,
                "average parameters": each.average,
                "tokens": each.tokens,
                "predicted loss": each.loss,
            }
            for each in options
        ]
    return report


def _constants(fitted: Fitted) -> list[dict[str, Any]]:
    ends = fitted.report.get("intervals", {})
    return [
        {"constant": name, "value": value, "low": ends.get(name, [None] * 2)[0], "high": ends.get(name, [None] * 2)[1]}
        for name, value in fitted.law.as_dict().items()
    ]


# ---------------------------------------------------------------- words


def _law(fitted: Fitted, confidence: float) -> str:
    law = fitted.law
    form = (
        f"{number(law.E, 3)} + {number(law.A, 3)} / N^{number(law.alpha, 3)} + {number(law.B, 3)} / "
        f"D^{number(law.beta, 3)}"
    )
    if fitted.is_published:
        return f"The law is {form}, with published constants of dense models: fit it to your own runs to plan with it."
    ends = fitted.report["intervals"]
    ranges = ", ".join(f"{name} {number(ends[name][0], 3)} to {number(ends[name][1], 3)}" for name in _TOLD if ends)
    sure = f" ({number(100 * confidence)}% intervals: {ranges})" if ends else ""
    return (
        f"The law is {form}, fitted to {fitted.report['runs']} runs{sure}; "
        f"on held-out runs it is off by {number(100 * fitted.report['held_out_error'], 3)}% on average."
    )


def _residuals(known: Sequence[Run], predicted: np.ndarray) -> str:
    off = np.array([run.loss - predicted[run.row] for run in known])
    worst = known[int(np.abs(off).argmax())]
    return (
        f"The measured losses differ from it by {number(float(np.abs(off).mean()), 3)} on average, most for "
        f"{worst.name} ({number(float(off[np.abs(off).argmax()]), 3)})."
    )


def _best(able: Sequence[Run], predicted: np.ndarray, fitted: Fitted, confidence: float) -> str:
    run = min(able, key=lambda each: predicted[each.row])
    low, high = fitted.band(np.array([run.average]), np.array([run.tokens]), confidence)
    sure = f" (interval {number(float(low[0]))} to {number(float(high[0]))})" if not np.isnan(low[0]) else ""
    far = _far(fitted.beyond(run.average, run.tokens))
    return (
        f"{run.name} is predicted best: loss {number(float(predicted[run.row]))}{sure} with {amount(run.average)} "
        f"parameters on average, {amount(run.final)} at the end{far}."
    )


def _far(beyond: float) -> str:
    return f"; this extrapolates {number(beyond, 3)} times beyond the fitted runs" if beyond > 1 else ""


def _plan(options: Sequence[Choice], flops: float, fitted: Fitted) -> str:
    best, dense = min(options, key=lambda each: each.loss), options[0]
    final = best.dense * (1 - best.sparsity)
    edge = " (the most that was considered)" if best is options[-1] else ""
    return (
        f"For {amount(final)} parameters at the end and {number(flops, 3)} FLOPs: start from {amount(best.dense)} and "
        f"prune {number(100 * best.sparsity, 3)}%{edge} over {amount(best.tokens)} tokens, for a loss of "
        f"{number(best.loss)}; dense training of that size reaches {number(dense.loss)}"
        f"{_far(fitted.beyond(best.average, best.tokens))}."
    )


# ---------------------------------------------------------------- figures


def _figures(
    runs: Sequence[Run],
    known: Sequence[Run],
    able: Sequence[Run],
    predicted: np.ndarray,
    fitted: Fitted,
    confidence: float,
    options: Sequence[Choice],
) -> Iterator[Figure]:
    if known:
        foreseen, seen = predicted[[run.row for run in known]], np.array([run.loss for run in known])
        ends = [float(min(foreseen.min(), seen.min())), float(max(foreseen.max(), seen.max()))]
        yield Figure(
            "Measured against predicted loss",
            Axis("predicted loss", "nats"),
            Axis("measured loss", "nats"),
            [Series("runs", "points", foreseen[:200], seen[:200]), Series("equal", "line", ends, ends)],
        )
    if able:
        shown = able[:_MOST]
        sizes = np.array([[run.average, run.tokens] for run in shown])
        low, high = fitted.band(sizes[:, 0], sizes[:, 1], confidence)
        yield Figure(
            "Predicted loss of each run",
            Axis("loss", "nats"),
            Axis("run", categories=[run.name for run in shown]),
            [Series("prediction", "points", predicted[[run.row for run in shown]], range(len(shown)), low, high)],
            "" if fitted.is_published else f"Whiskers: {number(100 * confidence)}% interval of bootstrap fits.",
        )
    if options:
        average, tokens = (np.array([getattr(each, name) for each in options]) for name in ("average", "tokens"))
        low, high = fitted.band(average, tokens, confidence)
        sparsity, loss = [each.sparsity for each in options], [each.loss for each in options]
        curve = (
            Series("law", "line", sparsity, loss)
            if np.isnan(low).any()
            else Series("law", "band", sparsity, loss, low, high)
        )
        yield Figure("Loss of one final size and budget", Axis("final sparsity"), Axis("loss", "nats"), [curve])
