"""What `effective-robustness` tells: the answer in words, figures and tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pickaxe import Flag
from pickaxe.report import Axis, Figure, Series, explain, number
from pickaxe_plugins.evaluation.effective_robustness import _lines
from pickaxe_plugins.evaluation.effective_robustness._lines import Lines, Transform
from pickaxe_plugins.evaluation.effective_robustness._read import Models
from pickaxe_plugins.evaluation.effective_robustness._sources import Source

_MOST = 40
_POINTS = 200
_SHIFTS = 4
_SOURCES = 5


@dataclass(frozen=True)
class Told:
    """Everything there is to tell."""

    models: Models
    baseline: Lines
    columns: Mapping[str, np.ndarray]
    sources: Sequence[Source]
    rows: Mapping[str, Mapping[str, float]]
    reference: float
    """In-distribution accuracy at which sources are compared."""
    transform: Transform


def _n(value: float) -> str:
    return number(value, 3)


def tell(told: Told, drawn: np.ndarray, flags: Sequence[Flag], sign: int) -> dict[str, Any]:
    """The summary."""
    summary = explain(list(_words(told, flags, sign))[:6], _figures(told, drawn))
    if np.isfinite(told.baseline.slope).any():
        summary["Baseline lines"] = {shift: told.baseline.row(at) for at, shift in enumerate(told.models.shifts)}
    if mixes := {
        model: {"mix of": ", ".join(pair), "share of the first": told.models.shares[row], "lambda": place}
        for row, (model, pair, place) in enumerate(
            zip(told.models.ids, told.models.mixes, told.columns["lambda"], strict=True)
        )
        if pair is not None
    }:
        summary["Mixes"] = mixes
    return summary


def _words(told: Told, flags: Sequence[Flag], sign: int) -> Iterator[str]:
    robust, models = told.columns["effective_robustness"], told.models
    if np.isfinite(robust).any():
        best = int(np.nanargmax(robust))
        low, high = told.columns["low"][best], told.columns["high"][best]
        ends = "" if math.isnan(low) else f" (95% interval {_n(low)} to {_n(high)})"
        yield (
            f"{models.ids[best]} has the highest effective robustness: {_n(robust[best])}{ends} better under shift "
            f"than baseline models of its in-distribution accuracy {_n(models.x[best])}."
        )
        above = int((told.columns["low"] > 0).sum())
        yield f"{above} of {len(models)} models lie above the baseline's line by more than its uncertainty."
        if out := int(told.columns["extrapolated"].sum()):
            yield f"Warning: {out} of {len(models)} models lie outside the baseline's accuracies: extrapolated."
    else:
        yield f"No effective robustness can be given: {flags[0].message if flags else 'no shift has a line'}."
    yield from _source_words(told, sign)


def _source_words(told: Told, sign: int) -> Iterator[str]:
    pure = [each for each in told.sources if each.mix_of is None and np.isfinite(each.value).any()]
    shared = [at for at in range(len(told.models.shifts)) if pure and all(np.isfinite(each.value[at]) for each in pure)]
    if len(pure) > 1 and shared:
        means = np.array([each.value[shared].mean() for each in pure])
        first = int(np.argmax(sign * means))
        wins = sum(int(np.argmax([sign * each.value[at] for each in pure])) == first for at in shared)
        yield (
            f"At an in-distribution accuracy of {_n(told.reference)} models of {pure[first].name} do best under shift "
            f"({_n(means[first])} on average, best on {wins} of {len(shared)} shifts): the source to grow next, if "
            "these are the shifts that matter."
        )
        if any(each.outside[shared].any() for each in pure):
            yield "Warning: the reference lies outside the models of some sources; their lines are extrapolated."
    mixes = {name: row for name, row in told.rows.items() if not math.isnan(row["lambda"])}
    if mixes:
        between = sum(row["diluted"] == 1 for row in mixes.values())
        yield f"{between} of {len(mixes)} lines of mixes lie between those of their sources: the better one is diluted."


def _figures(told: Told, drawn: np.ndarray) -> Iterator[Figure]:
    models = told.models
    robust = told.columns["effective_robustness"]
    if np.isfinite(robust).any():
        order = np.argsort(-np.where(np.isnan(robust), -np.inf, robust), kind="stable")[:_MOST]
        names = [models.ids[row] for row in order]
        low, high = told.columns["low"][order], told.columns["high"][order]
        yield Figure(
            "Effective robustness of the models",
            Axis("accuracy above the line, mean over shifts"),
            Axis("model", categories=names),
            [Series("effective robustness", "points", robust[order], range(len(order)), low, high)],
            "Whiskers: 95% of the baseline's resamples. The model's own test error is not in them.",
        )
    for at, shift in enumerate(models.shifts[:_SHIFTS]):
        if np.isfinite(told.baseline.slope[at]):
            yield _line_figure(told, drawn, at, shift)
    if told.sources:
        yield from _source_figures(told)


def _axis(told: Told, x: np.ndarray) -> np.ndarray:
    return _lines.backward(x, told.transform)


def _line_figure(told: Told, drawn: np.ndarray, at: int, shift: str) -> Figure:
    models, lines = told.models, told.baseline
    own = _lines.forward(models.x, told.transform, models.least)
    grid = np.linspace(min(own.min(), lines.x_low[at]), max(own.max(), lines.x_high[at]), 60)
    shown = np.zeros((len(grid), len(models.shifts)), bool)
    shown[:, at] = True
    low, high = _lines.mean_ends(grid, shown, drawn, told.transform)
    rows = np.linspace(0, len(models) - 1, min(_POINTS, len(models))).astype(int)
    line = _lines.backward(lines.slope[at] * grid + lines.intercept[at], told.transform)
    ends = _axis(told, np.array([lines.x_low[at], lines.x_high[at]]))
    return Figure(
        f"Accuracy under {shift} over in-distribution accuracy",
        Axis("in-distribution accuracy"),
        Axis(f"accuracy under {shift}"),
        [
            Series("baseline", "band", _axis(told, grid), line, low, high),
            Series("models", "points", models.x[rows], models.y[rows, at]),
        ],
        f"The line is straight on a {told.transform} axis; the baseline's models reach from {_n(ends[0])} to "
        f"{_n(ends[1])}, beyond them it is extrapolated. Shaded: 95% of its resamples.",
    )


def _source_figures(told: Told) -> Iterator[Figure]:
    for at, shift in enumerate(told.models.shifts[:_SHIFTS]):
        known = [each for each in told.sources if np.isfinite(each.value[at])][:_SOURCES]
        if not known:
            continue
        series = []
        for each in known:
            grid = np.linspace(each.lines.x_low[at], each.lines.x_high[at], 40)
            line = _lines.backward(each.lines.slope[at] * grid + each.lines.intercept[at], told.transform)
            series.append(Series(each.name, "line", _axis(told, grid), line))
        yield Figure(
            f"Lines of the sources under {shift}",
            Axis("in-distribution accuracy"),
            Axis(f"accuracy under {shift}"),
            series,
            f"Each line ends where the models of its source end; they are compared at {_n(told.reference)}.",
        )
    keys = list(told.rows)[:_MOST]
    yield Figure(
        "Sources at the same in-distribution accuracy",
        Axis("accuracy under shift at the reference"),
        Axis("source and shift", categories=keys),
        [
            Series(
                "source",
                "points",
                [told.rows[key]["ood_at_reference"] for key in keys],
                range(len(keys)),
                [told.rows[key]["ood_at_reference_low"] for key in keys],
                [told.rows[key]["ood_at_reference_high"] for key in keys],
            )
        ],
        "Whiskers: 95% of resamples of the source's models, where there are enough.",
    )
