"""What items bring to the instruments of "A Pretrainer's Guide": risks, years and scores, checked."""

from __future__ import annotations

import numpy as np

from pickaxe import Item, Items
from pickaxe.errors import InvalidItems


def given(items: Items, field: str) -> np.ndarray:
    """A field of numbers from 0 to 1, float64 (n,); NaN for items without it."""
    found = np.full(len(items), np.nan)
    for row, item in enumerate(items):
        value = item.get(field)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 <= value <= 1:
            raise InvalidItems(f"items[{row}].fields.{field}", f"is {value!r}, wanted 0 to 1 (item {item.id!r})")
        found[row] = value
    return found


def periods(item: Item, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training years (p,), evaluation years (e,) and scores (p, e), float64."""
    trained, evaluated = (_numbers(item, row, name, 1) for name in ("pretraining_years", "evaluation_years"))
    scores = _numbers(item, row, "scores", 2)
    if scores.shape != (len(trained), len(evaluated)):
        raise InvalidItems(
            f"items[{row}].fields.scores",
            f"has shape {scores.shape}, the years ask for {(len(trained), len(evaluated))} (item {item.id!r})",
        )
    for name, years in (("pretraining_years", trained), ("evaluation_years", evaluated)):
        if not len(years) or len(np.unique(years)) < len(years):
            what = "holds a year twice" if len(years) else "is empty"
            raise InvalidItems(f"items[{row}].fields.{name}", f"{what} (item {item.id!r})")
    return trained, evaluated, scores


def ablations(item: Item, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the tasks with all sources and without this one, float64 (tasks,)."""
    full, without = (_numbers(item, row, name, 1) for name in ("full", "without"))
    if len(full) != len(without):
        raise InvalidItems(
            f"items[{row}].fields.without", f"holds {len(without)} tasks, full {len(full)} (item {item.id!r})"
        )
    return full, without


def _numbers(item: Item, row: int, name: str, axes: int) -> np.ndarray:
    value = item.get(name)
    place = f"items[{row}].fields.{name}"
    if value is None:
        raise InvalidItems(place, f"is missing (item {item.id!r})")
    array = np.asarray(value)
    if array.ndim != axes or array.dtype.kind not in "fiu":
        raise InvalidItems(place, f"has shape {array.shape}, wanted numbers of {axes} axes (item {item.id!r})")
    if not np.isfinite(array).all():
        raise InvalidItems(place, f"holds a number that is not finite (item {item.id!r})")
    return array.astype(np.float64)
