"""What `domain-specificity` tells: mean and standard error by task, in words, a figure and a table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from pickaxe import Column, Groups, Items
from pickaxe.report import Axis, Figure, Series, explain, number
from pickaxe_plugins.selection.domain_specificity._losses import mean_and_error

ALL = "all texts"
_Z95 = 1.96
_MOST = 30
_COLUMNS = (
    Column("ds", "Mean over the group's texts.", "float64", "nats", nullable=True),
    Column("standard_error", "Of that mean (ddof 1).", "float64", "nats", "none", True),
    Column("share_above_0", "Share of the texts with a DS above 0.", "float64", "", "none", True),
    Column("texts", "Texts with a score.", "int64", "", "none"),
)


def groups(items: Items, columns: Mapping[str, np.ndarray]) -> Groups:
    """One row per `group` in order of first use; texts without one belong to "all texts"."""
    rows: dict[str, list[int]] = {}
    for row, item in enumerate(items):
        rows.setdefault(str(item.get("group") or ALL), []).append(row)
    table = [_line(columns["ds"][each]) for each in rows.values()]
    return Groups(
        tuple(rows), {c.name: np.array([line[c.name] for line in table], c.dtype) for c in _COLUMNS}, _COLUMNS
    )


def _line(ds: np.ndarray) -> dict[str, Any]:
    known = ds[~np.isnan(ds)]
    mean, error = mean_and_error(ds)
    above = float((known > 0).mean()) if len(known) else math.nan
    return {"ds": mean, "standard_error": error, "share_above_0": above, "texts": len(known)}


def summary(columns: Mapping[str, np.ndarray], table: Groups, unit: str) -> dict[str, Any]:
    """Answer and figure."""
    lines = [{name: values[row] for name, values in table.columns.items()} for row in range(len(table.keys))]
    known = [(key, line) for key, line in zip(table.keys, lines, strict=True) if line["texts"]]
    per = f"nats per {'token' if unit == 'token' else 'character'}"
    whole, error = mean_and_error(columns["ds"])
    overall = {"domain specificity": whole, "standard error": error, "unit": per}
    if not known:
        return {**explain(["No text has a score: all are empty or too short."]), "overall": overall}
    ordered = sorted(known, key=lambda each: -each[1]["ds"])
    words = [_told(*ordered[0], per)]
    if len(ordered) > 1:
        words.append(_told(*ordered[-1], per))
    if any(line["texts"] == 1 for _, line in known):
        words.append("One text only in a group: no interval can be given, give more texts.")
    return {**explain(words, [_figure(ordered[:_MOST], per)]), "overall": overall}


def _told(name: str, line: Mapping[str, Any], per: str) -> str:
    half = _Z95 * line["standard_error"]
    spread = "" if math.isnan(half) else f" ± {number(half, 2)} (95%)"
    if line["ds"] - half <= 0 <= line["ds"] + half:
        side = "which may be chance"
    elif line["ds"] > 0:
        side = "nearer to the domain: training on it is likely to pay"
    else:
        side = "not nearer to the domain"
    return f"{name}: domain specificity {number(line['ds'], 3)}{spread} {per} over {line['texts']} texts, {side}."


def _figure(ordered: list[tuple[str, dict[str, Any]]], per: str) -> Figure:
    means = np.array([line["ds"] for _, line in ordered])
    halves = _Z95 * np.array([line["standard_error"] for _, line in ordered])
    return Figure(
        "Domain specificity",
        Axis("mean domain specificity", per),
        Axis("texts of", categories=[name for name, _ in ordered]),
        (Series("mean", "points", means, range(len(ordered)), means - halves, means + halves),),
        "Above 0: the domain's model predicts the texts better.  Whiskers: 95% over texts.",
    )
