"""What `interp-extrap` tells: the answer in words and figures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pickaxe.report import Axis, Figure, Series, explain, number
from pickaxe_plugins.evaluation.interp_extrap._gap import Gap

_MOST = 40


def _n(value: float) -> str:
    return number(value, 3)


def tell(gaps: Sequence[Gap], side: np.ndarray, nearest: np.ndarray, names: tuple[str, str]) -> dict[str, Any]:
    """`names`: what the two sides are called, near one first."""
    summary = explain(list(_words(gaps, names))[:6], _figures(gaps, side, nearest, names))
    summary["Folds"] = [
        {"system": each.system, "fold": fold, names[0]: near, names[1]: far}
        for each in gaps
        for fold, (near, far) in enumerate(each.by_fold.T.tolist())
    ]
    summary["Similarity to the nearest training query"] = {
        name: _spread(nearest[side == which]) for which, name in enumerate(names) if (side == which).any()
    }
    return summary


def _spread(values: np.ndarray) -> dict[str, float]:
    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
    return {"mean": float(values.mean()), "10%": low, "median": middle, "90%": high}


def _words(gaps: Sequence[Gap], names: tuple[str, str]) -> Iterator[str]:
    known = [each for each in gaps if not math.isnan(each.gap)]
    if not known:
        yield f"No gap can be given: one of {names[0]} and {names[1]} has no queries."
        return
    best = max(known, key=lambda each: each.extrapolation)
    if len(known) > 1:
        near = max(known, key=lambda each: each.interpolation)
        also = "also" if near is best else f"while {near.system} does"
        yield (
            f"{best.system} does best in {names[1]} ({_n(best.extrapolation)}), {also} best in {names[0]} "
            f"({_n(near.interpolation)})."
        )
    for each in sorted(known, key=lambda each: -each.extrapolation)[:3]:
        ends = "" if math.isnan(each.low) else f"95% interval {_n(each.low)} to {_n(each.high)}; "
        surely = "" if math.isnan(each.low) or each.low > 0 or each.high < 0 else ": it may be none"
        yield (
            f"{each.system}: {_n(each.interpolation)} in {names[0]}, {_n(each.extrapolation)} in {names[1]}, a gap of "
            f"{_n(each.gap)} ({ends}{_n(100 * each.relative)}% of the former){surely}."
        )
    if names[1] == "far":
        yield "One model was trained on everything: near and far test queries differ, nothing is extrapolated."
    else:
        yield ("Queries differ in difficulty: a system that was not trained shows what part of a gap that explains.")


def _figures(gaps: Sequence[Gap], side: np.ndarray, nearest: np.ndarray, names: tuple[str, str]) -> Iterator[Figure]:
    shown = gaps[:_MOST]
    systems = Axis("system", categories=[each.system for each in shown])
    rows = range(len(shown))
    yield Figure(
        f"{names[0].capitalize()} and {names[1]}",
        Axis("metric"),
        systems,
        [
            Series(names[0], "points", [each.interpolation for each in shown], rows),
            Series(names[1], "points", [each.extrapolation for each in shown], rows),
        ],
        "Means over folds.",
    )
    yield Figure(
        "The gap between them",
        Axis("difference of the metric"),
        systems,
        [Series("gap", "points", [e.gap for e in shown], rows, [e.low for e in shown], [e.high for e in shown])],
        "Whiskers: 95% of resamples of the test queries, the same for every system.",
    )
    shares = np.linspace(0, 1, 41)
    yield Figure(
        "How near the test queries are to training queries",
        Axis("share of test queries"),
        Axis("cosine to the nearest training query"),
        [
            Series(name, "line", shares, np.quantile(nearest[side == which], shares))
            for which, name in enumerate(names)
            if (side == which).any()
        ],
        "Of the trainings in which they are tested.",
    )
