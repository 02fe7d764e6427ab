"""What a report says about any number of rows, gathered in constant memory."""

from __future__ import annotations

import heapq
import math
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

from pickaxe.data import Column
from pickaxe.io.rows import Row, column_names, flag_reasons, free_names

KEPT = 1 << 16
"""Values of a column that quantiles and histograms are taken from."""
FIRST = 50
"""A run of up to so many items is shown entire."""
BEST = 20


@dataclass
class Values:
    """The numbers of one column: every one of them, or every 2nd, 4th, 8th … of many."""

    count: int = 0
    missing: int = 0
    infinite: int = 0
    total: float = 0.0
    least: float = math.inf
    greatest: float = -math.inf
    every: int = 1
    kept: array[float] = field(default_factory=lambda: array("d"))

    def add(self, value: float | None) -> None:
        if value is None:
            self.missing += 1
            return
        self.least, self.greatest = min(self.least, value), max(self.greatest, value)
        if math.isinf(value):
            self.infinite += 1
            return
        if self.count % self.every == 0:
            self.kept.append(value)
            if len(self.kept) == KEPT:
                self.kept = self.kept[::2]
                self.every *= 2
        self.count += 1
        self.total += value

    @property
    def mean(self) -> float | None:
        return self.total / self.count if self.count else None

    def quantiles(self, shares: Sequence[float]) -> list[float | None]:
        if not self.kept:
            return [None] * len(shares)
        found: list[float | None] = np.quantile(np.array(self.kept), shares).tolist()
        return found


class Tally:
    """Rows of a run, as `score_rows` gives them, seen once."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = tuple(columns)
        self.values = {each.name: Values() for each in columns if each.dtype != "str"}
        self.rows = 0
        self.first: list[Row] = []
        self.flags: Counter[str] = Counter()
        self.messages: dict[str, str] = {}
        """Reason → the first flag of that reason, whole."""
        self._names = dict(
            zip((each.name for each in columns), column_names(each.name for each in columns), strict=True)
        )
        self._flag = free_names(self._names.values())[0]
        self._best: list[tuple[float, int, Row]] = []
        self._order = count(0, -1)

    def add(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self.rows += 1
            if len(self.first) < FIRST:
                self.first.append(row)
            for name, values in self.values.items():
                values.add(_number(row.get(self._names[name])))
            self._rank(row)
            text = row.get(self._flag) or ""
            for reason in flag_reasons(text):
                self.flags[reason] += 1
                self.messages.setdefault(reason, text)

    @property
    def best(self) -> list[Row]:
        """The rows whose first column is the highest, earlier ones first among equals."""
        return [row for _, _, row in sorted(self._best, key=lambda each: each[:2], reverse=True)]

    def cells(self, row: Row) -> tuple[Any, ...]:
        """The row's id and columns, and its flag where any row has one."""
        flag = (row.get(self._flag) or "",) if self.flags else ()
        return (row["id"], *(row.get(name) for name in self._names.values()), *flag)

    def _rank(self, row: Row) -> None:
        value = _number(row.get(self._names[self.columns[0].name])) if self.columns[0].name in self.values else None
        if value is not None:
            heapq.heappush(self._best, (value, next(self._order), row))
            if len(self._best) > BEST:
                heapq.heappop(self._best)


def _number(value: Any) -> float | None:
    return float(value) if value is not None else None
