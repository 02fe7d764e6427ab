"""What a run of `regmix` shows: the best mixture, how far to trust it, and the mixtures that were scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from pickaxe.report import Axis, Figure, Series, explain
from pickaxe_plugins.scaling.regmix._quality import Quality
from pickaxe_plugins.scaling.regmix._regressors import Regressors

_MOST_POINTS = 200
_MOST_NAMES = 40
_SHOWN = 0.005
"""Weights below it are not named in the answer."""


def report(
    fit: Regressors,
    found: Mapping[str, Any],
    ids: Sequence[str],
    target: np.ndarray,
    beyond: np.ndarray,
    checked: tuple[np.ndarray, Mapping[str, Quality]],
) -> dict[str, Any]:
    """The summary: `found` is what the fit wrote down, `target` the predictions (n,) of the scored mixtures."""
    measured, qualities = checked
    figures = [
        *_optimum_figure(found),
        *_measured_figure(fit, target, measured),
        *_curve_figure(found),
    ]
    answer = [
        *_optimum_words(fit, found),
        _quality_words(fit, found),
        *_items_words(fit, ids, target, beyond, qualities),
    ]
    summary: dict[str, Any] = explain([*answer, *found["warnings"]][:6], figures)
    if "optimum" in found:
        optimum = dict(found["optimum"])
        summary["optimal mixture"] = optimum.pop("domains")
        summary["search"] = optimum
    summary["regressor"] = {"runs": found["runs"], "measured_on": found["measured_on"], "kind": fit.kind}
    summary["quality"] = found["quality"]
    summary["learning curve"] = found["curve"]
    if qualities:
        summary["predicted against measured"] = {name: asdict(each) for name, each in qualities.items()}
    return summary


# ---------------------------------------------------------------- words


def _optimum_words(fit: Regressors, found: Mapping[str, Any]) -> list[str]:
    if "optimum" not in found:
        return ["No mixture was searched for: fit with prior, the share of every domain in the tokens there are."]
    optimum = found["optimum"]
    ranked = sorted(optimum["domains"].items(), key=lambda each: -each[1]["weight"])
    shown = [(name, row) for name, row in ranked if row["weight"] >= _SHOWN]
    parts = ", ".join(f"{name} {row['weight']:.3g}{_range(row)}" for name, row in shown)
    rest = 1 - sum(row["weight"] for _, row in shown)
    others = f", the other {len(ranked) - len(shown)} together {rest:.2g}" if len(shown) < len(ranked) else ""
    words = [
        f"Train on: {parts}{others}. Predicted {fit.name}: {optimum['predicted']:.4g}, against "
        f"{optimum['predicted_prior']:.4g} for the mixture of the prior."
    ]
    if optimum["refits"]:
        words[0] += f" In brackets the least and greatest weight of {optimum['refits']} refits on resampled runs."
    if optimum["extrapolation"] > 0:
        words.append(
            f"Warning: that mixture has a weight {optimum['extrapolation']:.3g} outside those of the proxy runs, where "
            "nothing was measured."
        )
    return words


def _range(row: Mapping[str, Any]) -> str:
    return f" ({row['low']:.3g} to {row['high']:.3g})" if "low" in row else ""


def _quality_words(fit: Regressors, found: Mapping[str, Any]) -> str:
    each = Quality(**found["quality"][fit.name])
    where = {
        "held-out": "runs that it had not seen",
        "validation": "the runs that also stopped its fit, so a little too good",
    }[found["measured_on"]]
    return f"Fitted on {found['runs']} runs, it orders {each.n} {where}, with Spearman {each.words()}."


def _items_words(
    fit: Regressors, ids: Sequence[str], target: np.ndarray, beyond: np.ndarray, qualities: Mapping[str, Quality]
) -> list[str]:
    words = []
    if len(ids):
        best = int(np.argmin(fit.sign * target))
        words.append(f"Of the {len(ids)} mixtures given, {ids[best]} is predicted best: {fit.name} {target[best]:.4g}.")
    if fit.name in qualities:
        each = qualities[fit.name]
        words.append(
            f"{each.n} of them were measured: predicted and measured order agree with Spearman {each.words()}."
        )
    if (outside := int((beyond > 1e-9).sum())) > 0:
        words.append(
            f"Warning: {outside} of them have a weight outside those of the proxy runs; trees predict there what they "
            "predict at the border."
        )
    return words


# ---------------------------------------------------------------- figures


def _optimum_figure(found: Mapping[str, Any]) -> list[Figure]:
    if "optimum" not in found:
        return []
    rows = sorted(found["optimum"]["domains"].items(), key=lambda each: -each[1]["weight"])[:_MOST_NAMES][::-1]
    places = range(len(rows))
    low, high = ([row[end] for _, row in rows] if "low" in rows[0][1] else None for end in ("low", "high"))
    series = [
        Series("best mixture", "bars", [row["weight"] for _, row in rows], places, low=low, high=high),
        Series("prior", "points", [row["prior"] for _, row in rows], places),
    ]
    refits = found["optimum"]["refits"]
    note = f"Whiskers: least and greatest of {refits} refits on resampled runs." if refits else ""
    names = Axis("domain", categories=[name for name, _ in rows])
    return [Figure("Weights of the best mixture", Axis("weight"), names, series, note)]


def _measured_figure(fit: Regressors, target: np.ndarray, measured: np.ndarray) -> list[Figure]:
    known = np.flatnonzero(np.isfinite(measured))
    if not len(known):
        return []
    shown = known[:: -(-len(known) // _MOST_POINTS)]
    series = [Series("mixtures", "points", target[shown], measured[shown])]
    title = "Measured over predicted target of the given mixtures"
    return [Figure(title, Axis(f"predicted {fit.name}"), Axis(f"measured {fit.name}"), series)]


def _curve_figure(found: Mapping[str, Any]) -> list[Figure]:
    rows = [row for row in found["curve"] if row["spearman"] is not None]
    if len(rows) < 2:
        return []
    sizes, values = [row["runs"] for row in rows], [row["spearman"] for row in rows]
    series = [Series("Spearman", "line", sizes, values, [row["low"] for row in rows], [row["high"] for row in rows])]
    note = "Whiskers: 95 % interval over resampled mixtures."
    return [
        Figure("Rank correlation over the number of proxy runs", Axis("proxy runs"), Axis("Spearman"), series, note)
    ]
