"""Picking rows by a column of numbers.  Ties go to the lower index, and rows without a number are never picked."""

from __future__ import annotations

import heapq
import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from pickaxe.errors import InvalidParams


@dataclass(frozen=True, slots=True)
class Rule:
    """Which rows to pick.

    `top`: that many; `fraction` in [0, 1]: that share of all rows, rounded; `threshold`: at or beyond this number;
    `quantile` in [0, 1]: at or beyond this quantile (0.9 picks about the best tenth).
    """

    kind: Literal["top", "fraction", "threshold", "quantile"]
    amount: float
    lowest: bool = False
    """Whether low numbers are the ones to pick."""

    def __post_init__(self) -> None:
        if self.kind in ("fraction", "quantile") and not 0 <= self.amount <= 1:
            raise InvalidParams(self.kind, f"must lie between 0 and 1 (got {self.amount})")
        if self.kind == "top" and (self.amount < 0 or self.amount != int(self.amount)):
            raise InvalidParams(self.kind, f"must be a whole number of rows (got {self.amount})")


def pick(values: Iterable[float], rule: Rule) -> list[int]:
    """Indices of the picked rows, ascending.  `top` and `threshold` hold no more than what they pick."""
    sign = -1 if rule.lowest else 1
    signed = (sign * value for value in values)
    if rule.kind == "threshold":
        return [row for row, value in enumerate(signed) if value >= sign * rule.amount]
    if rule.kind == "top":
        return _top(signed, int(rule.amount))
    held = _held(signed)
    if rule.kind == "fraction":
        return _top(held, math.floor(rule.amount * len(held) + 0.5))
    numbers = sorted(value for value in held if not math.isnan(value))
    if not numbers:
        return []
    bound = _quantile(numbers, rule.amount)
    return [row for row, value in enumerate(held) if value >= bound]


def _held(values: Iterable[float]) -> array[float] | array[int]:
    """All values, 8 bytes each; whole numbers stay exact as long as there are no others."""
    held: array[Any] = array("q")
    for value in values:
        if held.typecode == "q" and not isinstance(value, int):
            held = array("d", held)
        held.append(value)
    return held


def _top(values: Iterable[float], n: int) -> list[int]:
    rows = ((value, -row) for row, value in enumerate(values) if not math.isnan(value))
    return sorted(-row for _, row in heapq.nlargest(n, rows))


def _quantile(numbers: list[float], share: float) -> float:
    """Linear between the two nearest order statistics, as NumPy does by default."""
    place = share * (len(numbers) - 1)
    below = math.floor(place)
    above = min(below + 1, len(numbers) - 1)
    if place == below or numbers[below] in (numbers[above], -math.inf):  # infinities have no difference
        return numbers[below]
    return numbers[below] + (place - below) * (numbers[above] - numbers[below])
