"""What `token-iou` tells: the answer in words, a figure, tables by chunking and corpus."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pickaxe import Column, Groups
from pickaxe.report import Axis, Figure, Series, explain, number

METRICS = ("iou", "recall", "precision", "precision_omega", "f1")
_DRAWN = {"iou": "IoU", "recall": "recall", "precision_omega": "Precision Omega"}
_MOST = 20
_Z95 = 1.959964
_UNITS = {"char": "characters", "word": "words", "token": "tokens"}

SCHEMA = (
    Column("questions", "Questions.", "int64", "", "none"),
    *(Column(f"mean_{name}", f"Mean of {name} over the questions.", "float64", nullable=True) for name in METRICS),
    *(
        Column(f"std_{name}", f"Population standard deviation of {name}.", "float64", "", "none", True)
        for name in METRICS
    ),
)


def statistics(columns: Mapping[str, np.ndarray], rows: Sequence[int]) -> dict[str, Any]:
    """Mean and population standard deviation of each metric over the rows that have a value; NaN without any."""
    found: dict[str, Any] = {"questions": len(rows)}
    for name in METRICS:
        values = columns[name][np.asarray(rows)]
        values = values[~np.isnan(values)]
        found[f"mean_{name}"] = float(values.mean()) if len(values) else math.nan
        found[f"std_{name}"] = float(values.std()) if len(values) else math.nan
    return found


def by_corpus(columns: Mapping[str, np.ndarray], group: Sequence[str], corpus: Sequence[str]) -> Groups:
    """One row per group and corpus."""
    rows: dict[tuple[str, str], list[int]] = {}
    for row, key in enumerate(zip(group, corpus, strict=True)):
        rows.setdefault(key, []).append(row)
    table = [statistics(columns, each) for each in rows.values()]
    keys = tuple(f"{name} / {where}" if name else where for name, where in rows)
    return Groups(keys, {each.name: np.array([line[each.name] for line in table]) for each in SCHEMA}, SCHEMA)


def summary(columns: Mapping[str, np.ndarray], group: Sequence[str], corpora: Groups, unit: str) -> dict[str, Any]:
    """Answer, figure and the table by group."""
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(group):
        rows.setdefault(name or "all questions", []).append(row)
    table = {name: statistics(columns, each) for name, each in rows.items()}
    shown = table
    if len(table) == 1:  # one chunking: its corpora are what can be compared
        shown = {
            key: {each.name: corpora.columns[each.name][row].item() for each in SCHEMA}
            for row, key in enumerate(corpora.keys)
        }
    return {
        **explain(_words(table, shown, unit), [_figure(dict(list(shown.items())[:_MOST]))]),
        "Overall": [{"group": name, **line} for name, line in table.items()],
    }


def _half(line: Mapping[str, Any], name: str) -> float:
    """Half the 95% interval of the mean over questions; 0 cannot be told from one question."""
    n = line["questions"]
    return _Z95 * float(line[f"std_{name}"]) / math.sqrt(n - 1) if n > 1 else math.nan


def _told(line: Mapping[str, Any], name: str) -> str:
    half = _half(line, name)
    return number(line[f"mean_{name}"], 3) + ("" if math.isnan(half) else f" ± {number(half, 2)}")


def _words(table: Mapping[str, Any], shown: Mapping[str, Any], unit: str) -> list[str]:
    known = {name: line for name, line in table.items() if not math.isnan(line["mean_iou"])}
    if not known:
        return ["Nothing was retrieved for any question, so precision and IoU have no value; recall is 0."]
    ordered = sorted(known, key=lambda name: -known[name]["mean_iou"])
    best = known[ordered[0]]
    words = [
        f"{ordered[0]}: mean IoU {_told(best, 'iou')}, recall {_told(best, 'recall')}, precision "
        f"{_told(best, 'precision')} over {best['questions']} questions (95%, lengths in {_UNITS[unit]})."
    ]
    if not math.isnan(best["mean_precision_omega"]):
        words.append(
            f"With every chunk that holds part of an answer, and no other, precision would be "
            f"{_told(best, 'precision_omega')}: that much the cutting itself allows."
        )
    if len(ordered) > 1:
        second = known[ordered[1]]
        apart = best["mean_iou"] - second["mean_iou"]
        half = math.hypot(_half(best, "iou"), _half(second, "iou"))
        words.append(
            f"Next in IoU is {ordered[1]}, {number(apart, 3)} lower; "
            + (
                "one question says nothing of the spread."
                if math.isnan(half)
                else f"as independent samples they differ by that ± {number(half, 2)}, "
                f"{'more than chance' if apart > half else 'which may be chance'}."
            )
        )
        by_recall = max(known, key=lambda name: known[name]["mean_recall"])
        words.append(f"Highest in recall is {by_recall} with {_told(known[by_recall], 'recall')}.")
    elif len(shown) > 1:
        worst = min(shown, key=lambda name: np.nan_to_num(shown[name]["mean_iou"]))
        words.append(f"Lowest IoU of the corpora: {worst} with {_told(shown[worst], 'iou')}.")
    if min(line["questions"] for line in table.values()) == 1:
        words.append("One question only in a group: no interval can be given, give more questions.")
    return words


def _figure(shown: Mapping[str, Any]) -> Figure:
    series = []
    places = np.arange(len(shown))
    for name, label in _DRAWN.items():
        means = np.array([line[f"mean_{name}"] for line in shown.values()])
        if np.isnan(means).all():
            continue
        halves = np.array([_half(line, name) for line in shown.values()])
        series.append(Series(label, "points", means, places, means - halves, means + halves))
    return Figure(
        "IoU, recall and Precision Omega",
        Axis("mean over questions"),
        Axis("questions of", categories=shown),
        series,
        "Whiskers: 95% over questions.",
    )
