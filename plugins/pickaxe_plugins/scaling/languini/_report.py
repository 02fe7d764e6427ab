"""What `languini` tells: the answer in words, figures and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pickaxe.report import Axis, Figure, Series, explain, number
from pickaxe_plugins.scaling._words import amount
from pickaxe_plugins.scaling.languini._runs import Run, Unit
from pickaxe_plugins.scaling.languini._trend import Trend, crossings

_MOST = 3


def summary(
    runs: Sequence[Run], classes: Sequence[float], ppl: Sequence[float], trends: Sequence[Trend], unit: Unit
) -> dict[str, Any]:
    """Answer, figures and tables of runs with their classes (0: none) and perplexities."""
    if not runs:
        return {}
    met = crossings(trends)
    answer = [*_winners(runs, classes, ppl, unit), *_trends(trends), *_crossings(met)]
    if not trends:
        answer.append(
            "No trend can be given: it needs runs of one model in two compute classes or more (see the column class)."
        )
    report = explain(answer[:6], _figures(runs, ppl, trends, unit))
    report["runs"] = [
        {"run": run.id, "model": run.model, "split": run.split, "accelerator hours": run.hours, "class": hours,
         f"ppl per {unit[:-1]}": value, "trained tokens": run.trained}
        for run, hours, value in zip(runs, classes, ppl, strict=True)
    ]  # fmt: skip
    if trends:
        report["trends"] = [_trend_row(trend) for trend in trends]
    if met:
        report["crossings"] = met
    return report


def _winners(runs: Sequence[Run], classes: Sequence[float], ppl: Sequence[float], unit: Unit) -> Iterator[str]:
    """The best of the largest class that holds two models or more, or of all runs."""
    splits = list(dict.fromkeys(run.split for run in runs))
    for split in splits[:2]:
        rows = [row for row, run in enumerate(runs) if run.split == split]
        held = {hours: [row for row in rows if classes[row] == hours] for hours in set(classes) if hours}
        several = [hours for hours, some in held.items() if len({runs[row].model for row in some}) > 1]
        among = held[max(several)] if several else rows
        best = min(among, key=lambda row: ppl[row])
        at = f"At {number(max(several))} accelerator hours" if several else f"Of {len(among)} runs"
        on = f" on {split}" if split else ""
        yield f"{at}, {runs[best].model} is best{on}: a normalised perplexity of {number(ppl[best])} per {unit[:-1]}."


def _trends(trends: Sequence[Trend]) -> Iterator[str]:
    for trend in trends[:2]:
        sure = (
            f" (interval {number(100 * (2**trend.slope_low - 1), 3)}% to {number(100 * (2**trend.slope_high - 1), 3)}%)"
            if trend.slope_low is not None and trend.slope_high is not None
            else ", from too few classes for an interval"
        )
        on = f" on {trend.split}" if trend.split else ""
        change = number(100 * (2**trend.slope - 1), 3)
        yield f"{trend.model}{on}: twice the hours change the perplexity by {change}%{sure}."


def _crossings(met: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for each in met[:2]:
        beyond = each["times beyond the data"]
        far = f", {number(beyond, 3)} times beyond the data: an extrapolation" if beyond > 1 else ""
        yield f"The trends of {each['model']} and {each['other']} cross at {amount(each['hours'])} hours{far}."


def _figures(runs: Sequence[Run], ppl: Sequence[float], trends: Sequence[Trend], unit: Unit) -> Iterator[Figure]:
    for split in list(dict.fromkeys(run.split for run in runs))[:2]:
        series = []
        here = [row for row, run in enumerate(runs) if run.split == split and not np.isnan(run.hours)]
        for model in list(dict.fromkeys(runs[row].model for row in here))[:_MOST]:
            mine = [row for row in here if runs[row].model == model][:200]
            series.append(
                Series(f"{model}, runs", "points", [runs[row].hours for row in mine], [ppl[row] for row in mine])
            )
            for trend in trends:
                if (trend.model, trend.split) == (model, split):
                    grid = np.geomspace(min(trend.hours), 2 * max(trend.hours), 30)
                    series.append(Series(f"{model}, trend", "line", grid, trend.at(grid)))
        if series:
            yield Figure(
                f"Perplexity over accelerator hours{f', {split}' if split else ''}",
                Axis("accelerator hours", scale="log"),
                Axis(f"normalised perplexity per {unit[:-1]}", scale="log"),
                series,
                "Lines: fitted on the best run of each class; their last half extrapolates.",
            )


def _trend_row(trend: Trend) -> dict[str, Any]:
    return {
        "model": trend.model,
        "split": trend.split,
        "slope": trend.slope,
        "slope low": trend.slope_low,
        "slope high": trend.slope_high,
        "intercept": trend.intercept,
        "r2": trend.r2,
        "held-out error": trend.held_out_error,
        "classes": len(trend.hours),
    }


def plan_summary(rows: Sequence[Mapping[str, Any]], device: str, skipped: int) -> dict[str, Any]:
    """The answer and table of a plan: a row for each configuration."""
    answer = [
        f"{row['configuration']}: {number(row['hours'])} hours at {row['tokens per second']:,} tokens/s on "
        f"{row['device']} are {amount(row['tokens'])} tokens, {row['steps']:,} steps "
        f"of {row['batch']:g} x {row['length']:g}."
        for row in rows[:5]
    ]
    if skipped:
        answer.append(f"{skipped} measurements are of other devices than {device!r} and were left out.")
    return {**explain(answer), "plan": list(rows)}
