"""What `pretrainers-guide` tells: filters and their overlap, domains, samples; slopes; sources."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from pickaxe import Column, Groups, Items
from pickaxe.report import Axis, Figure, Series, explain, number
from pickaxe_plugins.selection.pretrainers_guide._studies import Degradation
from pickaxe_plugins.selection.pretrainers_guide._text import FEATURES

_SHOWN = 30
_SAMPLES = 5
_HEAD = 80
_DOMAIN = (
    Column("share_documents", "Share of the domain's documents that is kept.", "float64"),
    Column("share_tokens", "Share of its tokens.", "float64", nullable=True),
    Column("documents", "Documents of the domain.", "int64", "", "none"),
)


def share(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else math.nan


def domains(items: Items, kept: np.ndarray, tokens: np.ndarray) -> Groups | None:
    """Keep rates of each `group`; None when no item has one."""
    rows: dict[str, list[int]] = {}
    for row, item in enumerate(items):
        rows.setdefault(str(item.get("group") or "(none)"), []).append(row)
    if not rows or set(rows) == {"(none)"}:
        return None
    table = {
        "share_documents": [float(kept[each].mean()) for each in rows.values()],
        "share_tokens": [share((tokens[each] * kept[each]).sum(), tokens[each].sum()) for each in rows.values()],
        "documents": [len(each) for each in rows.values()],
    }
    return Groups(tuple(rows), {c.name: np.array(table[c.name], c.dtype) for c in _DOMAIN}, _DOMAIN)


def filtered(
    items: Items,
    columns: Mapping[str, np.ndarray],
    dropped_by: Mapping[str, np.ndarray],
    kept: np.ndarray,
    tokens: np.ndarray,
    groups: Groups | None,
) -> dict[str, Any]:
    """Shares kept by each filter and by all, overlaps of what they drop, features and samples of both sides."""
    if not len(items):
        return explain(["There are no documents."])
    sets = {**{name: ~dropped for name, dropped in dropped_by.items()}, "all filters": kept}
    table: list[dict[str, Any]] = [
        {
            "filter": name,
            "documents kept": int(each.sum()),
            "share of documents": float(each.mean()),
            "share of tokens": share((tokens * each).sum(), tokens.sum()),
        }
        for name, each in sets.items()
    ]
    total = table[-1]
    words = [
        f"{number(100 * total['share of documents'], 3)}% of {len(items)} documents and "
        f"{number(100 * total['share of tokens'], 3)}% of {int(tokens.sum())} tokens are kept."
    ]
    if not dropped_by:
        words.append("No filter is active.")
    if groups is not None:
        least = int(np.argmin(groups.columns["share_documents"]))
        rate = 100 * groups.columns["share_documents"][least]
        words.append(f"Fewest are kept of {groups.keys[least]}: {number(rate, 3)}%. See that no domain is lost unseen.")
    figure = Figure(
        "Share of tokens kept",
        Axis("share of tokens"),
        Axis("filter", categories=list(sets)),
        (Series("kept", "bars", [each["share of tokens"] for each in table], range(len(sets))),),
    )
    found: dict[str, Any] = {**explain(words, [figure]), "filters": table, "overlap": _overlaps(dropped_by)}
    present = [name for name in FEATURES if name in columns]
    if present:
        found["mean features"] = [
            {"feature": name, "kept": _mean(columns[name][kept]), "dropped": _mean(columns[name][~kept])}
            for name in present
        ]
    return {**found, "samples kept": _samples(items, kept), "samples dropped": _samples(items, ~kept)}


def _overlaps(dropped_by: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """For each two filters: documents that both drop, by those that either does."""
    return [
        {
            "filters": f"{one} and {other}",
            "both drop": int((first & second).sum()),
            "of those that either drops": share((first & second).sum(), (first | second).sum()),
        }
        for (one, first), (other, second) in combinations(dropped_by.items(), 2)
    ]


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def _samples(items: Items, chosen: np.ndarray) -> list[dict[str, str]]:
    """Evenly spread over the input."""
    rows = np.flatnonzero(chosen)
    picked = rows[np.linspace(0, len(rows) - 1, min(_SAMPLES, len(rows))).astype(int)].tolist()
    return [{"id": items[row].id, "begins": (items[row].text or "")[:_HEAD]} for row in picked]


def aged(items: Items, found: Sequence[Degradation]) -> dict[str, Any]:
    """Slopes of all items, and degradation against the gap."""
    known = [(item.id, each) for item, each in zip(items, found, strict=True) if not math.isnan(each.slope_pooled)]
    if not known:
        return explain(["No slope: give scores of two training years or more with gaps that differ."])
    worst, steepest = max(known, key=lambda pair: pair[1].slope_pooled)
    words = [
        f"{worst} loses most: {number(steepest.slope_pooled, 3)} points for each year between training and evaluation "
        f"data (mean of the slopes of evaluation years {number(steepest.slope_mean, 3)}, r of gap and degradation "
        f"{number(steepest.pearson_r, 3)})."
    ]
    if steepest.slope_pooled <= 0:
        words = [f"No item loses by misalignment: the largest slope is {number(steepest.slope_pooled, 3)} ({worst})."]
    if min(len(each.gaps) for _, each in known) < 6:
        words.append("Fewer than six points behind a slope: a single score may decide it.")
    named = list(dict.fromkeys(name for name, _ in known))[:6]
    by_name = dict(reversed(known))
    figure = Figure(
        "Degradation over the gap",
        Axis("training year less evaluation year", "years"),
        Axis("degradation", "points"),
        tuple(Series(name, "points", by_name[name].gaps[:200], by_name[name].degradations[:200]) for name in named),
        "Points of one sign with the gap are losses; the reference of each evaluation year is left out.",
    )
    years = [
        {"item": name, "reference": float(year), "slope": float(slope)}
        for name, each in known[:_SHOWN]
        for year, slope in zip(each.reference, each.slopes, strict=True)
    ]
    return {**explain(words, [figure]), "slopes by evaluation year": years}


def ablated(items: Items, columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The ranking of sources."""
    harms = columns["harm_percent"]
    order = [row for row in np.argsort(-harms, kind="stable").tolist() if not math.isnan(harms[row])]
    if not order:
        return explain(["No source has a value: give scores above 0 with and without it."])
    first, last = order[0], order[-1]
    words = [f"Leaving out {items[first].id} harms most: {number(harms[first], 3)}% over the tasks."]
    if first != last:
        words.append(f"Leaving out {items[last].id} harms least: {number(harms[last], 3)}%.")
    shown = order[:_SHOWN]
    figure = Figure(
        "Harm of leaving a source out",
        Axis("mean loss over tasks", "%"),
        Axis("source", categories=[items[row].id for row in shown]),
        (Series("harm", "bars", harms[shown], range(len(shown))),),
    )
    return explain(words, [figure])
