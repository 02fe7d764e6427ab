"""Fields of runs, read from items and checked: curves over rising sizes, and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pickaxe import Item
from pickaxe.errors import InvalidItems, Violation


@dataclass(frozen=True)
class Place:
    """An item and where it stands, for errors that name both."""

    item: Item
    where: str

    def violation(self, field: str, what: str) -> Violation:
        return Violation(f"{self.where}.fields.{field}", f"{what} (item {self.item.id!r})")

    def error(self, field: str, what: str) -> InvalidItems:
        return InvalidItems([self.violation(field, what)])

    def array(self, field: str) -> np.ndarray | None:
        """A list of finite numbers, (n,) float64; None when absent."""
        value = self.item.get(field)
        if value is None:
            return None
        array = np.asarray(value, np.float64)
        if array.ndim != 1:
            raise self.error(field, f"has shape {array.shape}, wanted a list of numbers")
        if len(wrong := np.flatnonzero(~np.isfinite(array))):
            raise self.error(field, f"is {array[wrong[0]]} at place {wrong[0]}: leave that measurement out")
        return array

    def curve(self, over: str, *values: str) -> tuple[np.ndarray, ...] | None:
        """The arrays of a curve over positive, strictly rising `over`; None when all of them are absent."""
        arrays = {name: self.array(name) for name in (over, *values)}
        if all(array is None for array in arrays.values()):
            return None
        known = {name: array for name, array in arrays.items() if array is not None}
        if missing := [name for name in arrays if name not in known]:
            raise self.error(missing[0], f"is missing, but {next(iter(known))} is there: a curve needs both")
        x = known[over]
        for name, array in known.items():
            if len(array) != len(x):
                raise self.error(name, f"has {len(array)} values, {over} has {len(x)}")
        if (x <= 0).any():
            raise self.error(over, f"must be above 0 (got {x.min():g})")
        if len(falls := np.flatnonzero(np.diff(x) <= 0)):
            at = int(falls[0])
            raise self.error(
                over, f"goes from {x[at]:g} to {x[at + 1]:g}: sort the measurements, and average those of one size"
            )
        return tuple(known.values())

    def number(self, field: str, *, above: float | None = 0.0) -> float | None:
        """A finite number above a bound; None when absent."""
        value = self.item.get(field)
        if value is None:
            return None
        number = float(value)  # type: ignore[arg-type]
        if not np.isfinite(number) or (above is not None and number <= above):
            raise self.error(field, f"must be a number above {above:g} (got {number:g})")
        return number


def places(items: Sequence[Item], where: str) -> list[Place]:
    return [Place(item, f"{where}[{row}]") for row, item in enumerate(items)]


def names(items: Sequence[Item]) -> list[str]:
    """The items' ids, told apart where some are equal: reports need unique names."""
    seen: dict[str, int] = {}
    found = []
    for item in items:
        seen[item.id] = seen.get(item.id, 0) + 1
        found.append(item.id if seen[item.id] == 1 else f"{item.id} ({seen[item.id]})")
    return found
