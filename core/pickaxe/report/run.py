"""The report of one `score`: what the method tells, and what its columns and groups say by themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pickaxe.data import Column, Groups, Scores
from pickaxe.io.rows import group_rows, in_order, score_rows
from pickaxe.method import Card
from pickaxe.report.figure import Axis, Figure, Series, explained
from pickaxe.report.page import Page, Table
from pickaxe.report.tables import tables
from pickaxe.report.tally import BEST, FIRST, Tally, Values
from pickaxe.report.words import number
from pickaxe.version import __version__

_BINS = 40
_MOST_GROUPS = 40


@dataclass(frozen=True)
class Run:
    """How the scores came about."""

    card: Card
    params: Mapping[str, Any]
    """Those that were given; the others have the defaults of the card's schema."""
    inputs: Sequence[str]
    seed: int = 0
    artifact: str = ""
    skipped: int = 0
    """Broken records that were left out."""
    seconds: float | None = None


def scores_page(run: Run, ids: Sequence[str], scores: Scores) -> Page:
    """The page of scores that lie in memory; `ids` are those of their items."""
    tally = Tally(scores.schema)
    tally.add(score_rows(ids, scores))
    return run_page(run, tally, scores)


def run_page(run: Run, tally: Tally, scores: Scores | None = None) -> Page:
    """The page of a run; `scores` where they came in one piece and so may have a summary and groups.

    Raises `MethodFailed` when the summary's answer or figures cannot be used.
    """
    summary = in_order(scores.summary) if scores else {}
    groups = scores.groups if scores else None
    answer, figures = explained(summary)
    return Page(
        title=f"{run.card.name}: {run.card.title}" if run.card.title else run.card.name,
        lead=run.card.summary,
        answer=answer or tuple(_in_words(tally)),
        figures=figures or tuple(_default_figures(tally, groups)),
        tables=(*_group_table(scores), *tables(summary), *_item_tables(tally)),
        made=tuple(_made(run, tally)),
        footer=f"Made by pickaxe {__version__}.",
    )


def _in_words(tally: Tally) -> Iterator[str]:
    primary = tally.columns[0]
    yield f"{tally.rows} items were scored."
    values = tally.values.get(primary.name)
    if values is not None and values.count:
        low, middle, high = (number(each or 0.0) for each in values.quantiles((0.25, 0.5, 0.75)))
        yield (
            f"{_titled(primary)} lies between {number(values.least)} and {number(values.greatest)}; its median is "
            f"{middle}, and the middle half lies between {low} and {high}."
        )
    if tally.flags:
        yield f"{sum(tally.flags.values())} flags were raised: {_counted(tally)}."


def _counted(tally: Tally) -> str:
    return ", ".join(f"{reason} {times}" for reason, times in sorted(tally.flags.items()))


def _titled(column: Column) -> str:
    return f"{column.name} ({column.unit})" if column.unit else column.name


# ---------------------------------------------------------------- figures


def _default_figures(tally: Tally, groups: Groups | None) -> Iterator[Figure]:
    if groups is not None and len(groups.keys) > 1 and (figure := _groups_figure(groups)):
        yield figure
    primary = tally.columns[0]
    values = tally.values.get(primary.name)
    if values is not None and values.kept:
        yield _histogram(primary, values)


def _histogram(column: Column, values: Values) -> Figure:
    kept = np.array(values.kept)
    places, counts = np.unique(kept, return_counts=True)
    if len(places) > _BINS // 2:
        counts, edges = np.histogram(kept, min(_BINS, max(5, round(len(kept) ** 0.5))))
        places = (edges[:-1] + edges[1:]) / 2
    thinned = f"Drawn from every {values.every}th of {values.count} values." if values.every > 1 else ""
    lost = f"{values.missing} items without a value are left out." if values.missing else ""
    beyond = f"{values.infinite} infinite values are left out." if values.infinite else ""
    return Figure(
        f"Distribution of {column.name}",
        Axis(column.name, column.unit),
        Axis("items"),
        (Series("items", "bars", places, counts),),
        " ".join(filter(None, (column.doc, thinned, lost, beyond))),
    )


def _groups_figure(groups: Groups) -> Figure | None:
    """The first column of the groups that has an interval beside it, or else the first that says what is better."""
    schema = [each for each in groups.schema if groups.columns[each.name].dtype.kind in "fi"]
    found = _with_interval([each.name for each in schema])
    name, low, high = found or (next((each.name for each in schema if each.direction != "none"), ""), "", "")
    if not name:
        return None
    column = next(each for each in schema if each.name == name)
    keys = groups.keys[:_MOST_GROUPS]
    ends = [groups.columns[end][: len(keys)] for end in (low, high)] if found else [None, None]
    note = f"The first {_MOST_GROUPS} of {len(groups.keys)} groups." if len(groups.keys) > _MOST_GROUPS else ""
    series = Series(
        name,
        "points" if found else "bars",
        groups.columns[name][: len(keys)],
        range(len(keys)),
        *ends,
    )
    return Figure(
        f"{name} of the groups",
        Axis(name, column.unit),
        Axis("group", categories=keys),
        (series,),
        " ".join(filter(None, (column.doc, note))),
    )


def _with_interval(names: Sequence[str]) -> tuple[str, str, str] | None:
    """`x`, `x_low` and `x_high`; or `low` and `high` and the column before them."""
    for name in names:
        if f"{name}_low" in names and f"{name}_high" in names:
            return name, f"{name}_low", f"{name}_high"
    if "low" in names and "high" in names and (place := names.index("low")):
        return names[place - 1], "low", "high"
    return None


# ---------------------------------------------------------------- tables


def _group_table(scores: Scores | None) -> Iterator[Table]:
    if scores is not None and scores.groups is not None:
        rows = group_rows(scores)
        names = [each.name for each in scores.groups.schema]
        yield Table(
            "Every group", ("group", *names), tuple((row["group"], *(row[name] for name in names)) for row in rows)
        )


def _item_tables(tally: Tally) -> Iterator[Table]:
    columns = ("id", *map(_titled, tally.columns), *(["flag"] if tally.flags else []))
    if tally.rows <= FIRST:
        yield Table("Items", columns, tuple(map(tally.cells, tally.first)))
    elif tally.best:
        yield Table(
            f"The {BEST} of {tally.rows} items with the highest {tally.columns[0].name}",
            columns,
            tuple(map(tally.cells, tally.best)),
        )


def _made(run: Run, tally: Tally) -> Iterator[Table]:
    card = run.card
    told = {
        "method": f"{card.name}, version {card.version}",
        "paper": " ".join(filter(None, (card.title, f"({card.paper})" if card.paper else ""))),
        "input": ", ".join(run.inputs),
        "artifact": run.artifact,
        "seed": str(run.seed),
        "items": str(tally.rows),
        "broken records left out": str(run.skipped),
        "flags": _counted(tally) or "none",
        "cost": card.cost,
        "seconds": "" if run.seconds is None else number(run.seconds, 2),
    }
    yield Table("The run", ("what", "value"), tuple((what, value) for what, value in told.items() if value))
    if tally.flags:
        flags = tuple((reason, tally.flags[reason], tally.messages[reason]) for reason in sorted(tally.flags))
        yield Table("Flags: items that the method could not do justice", ("reason", "items", "for instance"), flags)
    yield Table("Columns", ("name", "meaning", "unit", "better"), tuple(map(_meaning, tally.columns)))
    yield Table("Columns in numbers", _STATISTICS, tuple(_statistics(*each) for each in tally.values.items()))
    schema = card.params_schema.get("properties", {})
    params = {name: each.get("default") for name, each in schema.items()} | dict(run.params)
    rows = tuple((name, _value(params[name]), schema.get(name, {}).get("description", "")) for name in sorted(params))
    if rows:
        yield Table("Parameters", ("name", "value", "meaning"), rows)


def _meaning(column: Column) -> tuple[str, ...]:
    return column.name, column.doc, column.unit, column.direction if column.direction != "none" else ""


_STATISTICS = ("name", "no value", "least", "quarter", "median", "three quarters", "greatest", "mean")


def _statistics(name: str, values: Values) -> tuple[Any, ...]:
    if not values.count + values.infinite:
        return name, values.missing, *[None] * 6
    return name, values.missing, values.least, *values.quantiles((0.25, 0.5, 0.75)), values.greatest, values.mean


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
