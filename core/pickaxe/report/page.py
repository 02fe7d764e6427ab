"""One HTML page that needs nothing else: no network, no scripts, the same bytes for the same content."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

from pickaxe.durable import write_durably
from pickaxe.extras import require
from pickaxe.report.draw import left_out, svg
from pickaxe.report.figure import Axis, Figure, Numbers, Series
from pickaxe.report.words import cell, coordinate

MOST_ROWS = 1000
"""Rows of a table that a page shows."""
_OPEN_ROWS = 20
"""Longer tables are folded."""


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row names the row.  Cells are JSON values."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    note: str = ""

    @property
    def shown(self) -> list[list[tuple[str, bool]]]:
        """(text, whether it is a number) of every cell that the page shows."""
        return [[(cell(value), _numeric(value)) for value in row] for row in self.rows[:MOST_ROWS]]

    @property
    def headers(self) -> list[tuple[str, bool]]:
        """(name, whether its cells are numbers) of every column."""
        return [
            (name, bool(self.rows) and all(_numeric(row[place]) for row in self.rows))
            for place, name in enumerate(self.columns)
        ]

    @property
    def folded(self) -> bool:
        return len(self.rows) > _OPEN_ROWS

    @property
    def remark(self) -> str:
        cut = f"The first {MOST_ROWS} of {len(self.rows)} rows." if len(self.rows) > MOST_ROWS else ""
        return " ".join(filter(None, (self.note, cut)))


@dataclass(frozen=True)
class Page:
    """What a report shows, from top to bottom: the answer in words, figures, tables, and how it all was made."""

    title: str
    lead: str = ""
    answer: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    made: tuple[Table, ...] = ()
    footer: str = ""

    def html(self) -> str:
        """The page.  Raises `RuntimeMissing` without matplotlib or Jinja (extra `plot`)."""
        jinja = require("jinja2", extra="plot")
        page = jinja.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja.StrictUndefined)
        template = page.from_string(files("pickaxe.report").joinpath("page.html.j2").read_text(encoding="utf-8"))
        drawn = [_Drawn(figure, f"figure{place}") for place, figure in enumerate(self.figures, 1)]
        text: str = template.render(page=self, figures=drawn)
        return text

    def write(self, path: str | Path) -> None:
        """Write the page; the file appears when it is whole."""
        write_durably(Path(path), self.html().encode(errors="replace"))


class _Drawn:
    """A figure as the page shows it."""

    def __init__(self, figure: Figure, key: str) -> None:
        self.key, self.title = key, figure.title
        self.svg = svg(figure, key)
        hidden = left_out(figure)
        lost = f"{hidden} points at or below zero are not drawn on the log axis." if hidden else ""
        self.note = " ".join(filter(None, (figure.note, lost)))
        self.tables = tuple(_data(figure))


def _data(figure: Figure) -> Iterator[Table]:
    """The figure's numbers: series that share their places are columns of one table."""
    lying = bool(figure.y.categories)
    place, value = (figure.y, figure.x) if lying else (figure.x, figure.y)

    def places(series: Series) -> Numbers:
        return series.y if lying else series.x

    for at, group in groupby(figure.series, key=places):
        series = list(group)
        columns = [column for each in series for column in _columns(each, lying, value, len(figure.series) > 1)]
        yield Table(
            f"Data of “{figure.title}”" + (f": {', '.join(each.name for each in series)}" if len(columns) else ""),
            (place.title, *(name for name, _ in columns)),
            tuple(
                (_coordinate(place, position), *(values[row] for _, values in columns))
                for row, position in enumerate(at)
            ),
        )


def _columns(series: Series, lying: bool, axis: Axis, several: bool) -> Iterator[tuple[str, Sequence[Any]]]:
    name = series.name if several else axis.title
    values = series.x if lying else series.y
    if values:
        yield name, values
    if series.low is not None and series.high is not None:
        yield f"{name}, low", series.low
        yield f"{name}, high", series.high


def _coordinate(axis: Axis, value: float | None) -> Any:
    return coordinate(axis, value) if axis.categories or value is None else value


def _numeric(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
