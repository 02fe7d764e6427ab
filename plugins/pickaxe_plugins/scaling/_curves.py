"""Curves of runs, read from items: one item a run with arrays, or one item a measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pickaxe import Item, Items
from pickaxe.errors import InvalidItems, Violation


@dataclass(frozen=True)
class Form:
    """The fields of a curve: names of the arrays, and of the numbers in tables with a row per measurement.

    The first of each is the one over which the curve runs; `optional` arrays may be missing.
    """

    arrays: tuple[str, ...]
    numbers: tuple[str, ...]
    optional: tuple[str, ...] = ()


@dataclass
class Curve:
    """One run: rows of the items that make it up, its group, and its arrays by the names of `Form.arrays`."""

    name: str
    group: str
    rows: list[int]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    repeats: int = 1
    """Most measurements of one size, which were averaged."""

    def number(self, items: Items, name: str) -> float | None:
        """The first of its items' values of a field; None when no item says."""
        for row in self.rows:
            if (value := items[row].get(name)) is not None:
                return float(value)  # type: ignore[arg-type]
        return None


def read_curves(items: Sequence[Item], form: Form, where: str = "items") -> list[Curve]:
    """The runs of the items, in the order of their first items.

    An item with arrays is a run by itself.  Items with numbers are gathered by their fields `group` and `run`,
    sorted, and repeated measurements of one size averaged.  Items with neither are runs without arrays.  Raises
    `InvalidItems` naming every array that is not finite, of another length, or not over rising sizes.
    """
    runs: dict[tuple[str, str], Curve] = {}
    found: list[Curve] = []
    for row, item in enumerate(items):
        group = str(item.get("group") or "")
        if any(item.get(name) is not None for name in form.arrays):
            found.append(Curve(str(item.get("run") or item.id), group, [row], _arrays(item, row, form, where)))
        elif item.get(form.numbers[0]) is None:
            found.append(Curve(str(item.get("run") or item.id), group, [row]))
        else:
            key = group, str(item.get("run") or "")
            if key not in runs:
                runs[key] = Curve(key[1] or key[0] or "curve", group, [])
                found.append(runs[key])
            runs[key].rows.append(row)
    for curve in runs.values():
        _gather(curve, items, form, where)
    return found


def _arrays(item: Item, row: int, form: Form, where: str) -> dict[str, np.ndarray]:
    arrays, wrong = {}, []
    for name in form.arrays:
        value = item.get(name)
        if value is None:
            if name not in form.optional:
                wrong.append(_violation(item, f"{where}[{row}]", name, f"is missing beside {form.arrays[0]}"))
            continue
        array = np.asarray(value, np.float64)
        if array.ndim != 1 or not np.isfinite(array).all():
            wrong.append(_violation(item, f"{where}[{row}]", name, "must be a list of finite numbers"))
        arrays[name] = array
    if not wrong:
        wrong = [
            _violation(item, f"{where}[{row}]", name, f"has {len(array)} values, {form.arrays[0]} has {length}")
            for name, array in arrays.items()
            if len(array) != (length := len(arrays[form.arrays[0]]))
        ]
    if not wrong and (np.diff(arrays[form.arrays[0]]) <= 0).any():
        wrong = [_violation(item, f"{where}[{row}]", form.arrays[0], "must increase from value to value")]
    if wrong:
        raise InvalidItems(wrong)
    return arrays


def _violation(item: Item, place: str, name: str, what: str) -> Violation:
    return Violation(f"{place}.fields.{name}", f"{what} (item {item.id!r})")


def _gather(curve: Curve, items: Sequence[Item], form: Form, where: str) -> None:
    """The arrays of a run whose measurements are items of their own."""
    columns: dict[str, np.ndarray] = {}
    for array, number in zip(form.arrays, form.numbers, strict=True):
        given = [items[row].get(number) for row in curve.rows]
        if array in form.optional and all(value is None for value in given):
            continue
        for row, value in zip(curve.rows, given, strict=True):
            if value is None or not np.isfinite(float(value)):  # type: ignore[arg-type]
                raise InvalidItems(
                    f"{where}[{row}].fields.{number}",
                    f"is {'missing' if value is None else 'not finite'} (item {items[row].id!r}): every row of a "
                    f"curve needs {', '.join(form.numbers[: len(form.arrays)])}",
                )
        columns[array] = np.array(given, np.float64)
    over, places, counts = np.unique(columns[form.arrays[0]], return_inverse=True, return_counts=True)
    curve.repeats = int(counts.max())
    curve.arrays = {
        name: over if name == form.arrays[0] else np.bincount(places, values) / counts
        for name, values in columns.items()
    }


def by_row(curves: Sequence[Curve], values: Mapping[str, Sequence[float]], rows: int) -> dict[str, np.ndarray]:
    """Values per curve as columns per item: every item of a curve gets the curve's."""
    columns = {name: np.empty(rows, np.asarray(given).dtype) for name, given in values.items()}
    for place, curve in enumerate(curves):
        for name, given in values.items():
            columns[name][curve.rows] = given[place]
    return columns
