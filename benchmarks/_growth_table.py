"""Rows of `benchmarks.growth` as Markdown and as a page: exponents of the last decade beside what the cards say."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._growth_kinds import Growth
from pickaxe.report import Axis, Figure, Page, Series, Table, number

Row = dict[str, Any]
Rows = Mapping[tuple[str, int], Row]
BEGIN, END = "<!-- growth: begin -->", "<!-- growth: end -->"
SLACK = 0.15
"""What an exponent may be above the card's: caches fill up, and a point is one run."""
LEAST = {"processor": 0.05, "memory": 8.0}
"""Seconds and MiB at the larger size from which an exponent is worth judging."""
SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def log_growth(small: float, large: float) -> float:
    return math.log(math.log(large) / math.log(small)) / math.log(large / small)


GROWTH = {
    "constant": lambda small, large: 0.0,
    "log n": log_growth,
    "linear": lambda small, large: 1.0,
    "n log n": lambda small, large: 1 + log_growth(small, large),
}
"""Growths that a card may state: the slope in log-log between two sizes."""


@dataclass(frozen=True)
class Trend:
    """A quantity of one method over the sizes, what the card says of it, and what came out."""

    method: str
    stage: str
    card: str
    shown: Mapping[int, float]
    """By size: wall seconds, or MiB."""
    judged: Mapping[int, float]
    """By size: processor seconds, or MiB."""
    least: float

    @property
    def exponent(self) -> float | None:
        """The slope in log-log between the two largest sizes; None where there is too little to tell one."""
        if len(self.judged) < 2:
            return None
        small, large = sorted(self.judged)[-2:]
        low, high = self.judged[small], self.judged[large]
        if high < self.least or low <= 0:
            return None
        return math.log(high / low) / math.log(large / small)

    @property
    def holds(self) -> str:
        """Whether it grows as the card says or slower."""
        if self.exponent is None:
            return "" if len(self.judged) < 2 else "too little to tell"
        return "yes" if self.exponent <= GROWTH[self.card](*sorted(self.judged)[-2:]) + SLACK else "FASTER"


def times(methods: Mapping[str, Growth], rows: Rows) -> Iterator[Trend]:
    for name, growth in methods.items():
        found = measured(rows, name)
        for stage, card in growth.card.items():
            wall, processor = ({size: row["stages"][stage][key] for size, row in found.items()} for key in
                               ("wall", "processor"))  # fmt: skip
            yield Trend(name, stage, card, wall, processor, LEAST["processor"])


def memories(methods: Mapping[str, Growth], rows: Rows) -> Iterator[Trend]:
    """The highest of all stages."""
    for name, growth in methods.items():
        peaks = {
            size: max(stage["memory"] for stage in row["stages"].values()) for size, row in measured(rows, name).items()
        }
        yield Trend(name, "", growth.memory, peaks, peaks, LEAST["memory"])


def measured(rows: Rows, name: str) -> dict[int, Row]:
    return {size: row for (method, size), row in sorted(rows.items()) if method == name and "stages" in row}


# ---------------------------------------------------------------- Markdown


def markdown(methods: Mapping[str, Growth], rows: Rows) -> str:
    """Three tables: time, memory, and what was given to each method."""
    sizes = sorted({size for (name, size), row in rows.items() if name in methods and "stages" in row})
    heads = [f"10{str(round(math.log10(size))).translate(SUPERSCRIPTS)}" if math.log10(size).is_integer()
             else f"{size:,}" for size in sizes]  # fmt: skip
    cores = sorted({row["cores"] for row in rows.values() if "cores" in row})
    end = ["exponent", "card", "holds"]
    time_rows = [[each.method, each.stage, *cells(each, sizes), *verdict(each)] for each in times(methods, rows)]
    memory_rows = [[each.method, *cells(each, sizes), *verdict(each)] for each in memories(methods, rows)]
    given = [[name, growth.inputs, last(name, growth, rows)] for name, growth in methods.items()]
    return "\n\n".join([
        f"**Seconds**, wall clock, {' or '.join(map(str, cores)) or 'no'} cores; exponents are of processor time.",
        lines(["method", "stage", *heads, *end], time_rows),
        "**Peak memory, MiB**, above the interpreter, its libraries and the inputs.",
        lines(["method", *heads, *end], memory_rows),
        "**What was measured**, and why a row ends before a million.",
        lines(["method", "inputs", "largest size"], given),
    ])  # fmt: skip


def cells(trend: Trend, sizes: Sequence[int]) -> list[str]:
    return [short(trend.shown[size]) if size in trend.shown else "" for size in sizes]


def short(value: float) -> str:
    """Two or three digits, none of them in vain."""
    return f"{value:.3f}" if value < 0.095 else f"{value:.2f}" if value < 9.95 else f"{value:,.0f}"


def verdict(trend: Trend) -> list[str]:
    return ["" if trend.exponent is None else f"{trend.exponent:.2f}", trend.card, trend.holds]


def last(name: str, growth: Growth, rows: Rows) -> str:
    """The largest size that was measured, and why no larger one."""
    found = measured(rows, name)
    if not found:
        return "not measured yet"
    stopped = [row["stopped"] for (method, size), row in sorted(rows.items()) if method == name and "stopped" in row
               and size > max(found)]  # fmt: skip
    why = stopped[0] if stopped else growth.why if max(found) == growth.sizes[-1] else ""
    return f"{max(found):,}{': ' if why else ''}{why}"


def lines(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *body])


def write(path: Path, text: str) -> None:
    """Put the text between the two markers of the page; raises `ValueError` where they are not."""
    page = path.read_text(encoding="utf-8")
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{path} has no {BEGIN} and {END}")
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


# ---------------------------------------------------------------- page


def page(methods: Mapping[str, Growth], rows: Rows) -> Page:
    """Time of every stage and memory over the sizes, a figure for each family and quantity, and the tables."""
    time_trends, memory_trends = list(times(methods, rows)), list(memories(methods, rows))
    figures = []
    for family in dict.fromkeys(growth.family for growth in methods.values()):
        own = [each for each in time_trends if methods[each.method].family == family]
        for stage in sorted({each.stage for each in own}):
            figures += drawn(
                f"{family}: seconds to {stage}", "time", "s", [each for each in own if each.stage == stage]
            )
        figures += drawn(f"{family}: peak memory", "memory", "MiB",
                         [each for each in memory_trends if methods[each.method].family == family])  # fmt: skip
    faster = [f"{each.method} {each.stage or 'memory'}" for each in [*time_trends, *memory_trends]
              if each.holds == "FASTER"]  # fmt: skip
    judged = sum(each.holds == "yes" for each in [*time_trends, *memory_trends]) + len(faster)
    answer = f"{judged - len(faster)} of {judged} trends grow no faster than their cards say."
    return Page(
        "How cost grows",
        "Time and memory of every method that reads a corpus, against the size of the corpus.",
        (answer, *([f"Faster: {', '.join(faster)}."] if faster else [])),
        tuple(figures),
        (summary("Time", time_trends, "s"), summary("Memory", memory_trends, "MiB")),
    )


def drawn(title: str, label: str, unit: str, trends: Sequence[Trend]) -> list[Figure]:
    series = [Series(each.method, "line", list(each.shown), list(each.shown.values())) for each in trends if each.shown]
    if not series:
        return []
    points = [(size, value) for each in trends for size, value in each.shown.items() if value > 0]
    if points:
        least, most = min(points), max(points)[0]
        series.append(Series("linear", "line", [least[0], most], [least[1], least[1] * most / least[0]]))
    return [Figure(title, Axis("items", scale="log"), Axis(label, unit, "log"), series)]


def summary(caption: str, trends: Sequence[Trend], unit: str) -> Table:
    """The largest size of each trend, its exponent and the card's word."""
    return Table(
        caption,
        ("method", "stage", "largest size", unit, "exponent", "card", "holds"),
        tuple(
            (each.method, each.stage, max(each.shown), number(each.shown[max(each.shown)], 3),
             "" if each.exponent is None else f"{each.exponent:.2f}", each.card, each.holds)
            for each in trends if each.shown
        ),
    )  # fmt: skip
