"""Models with their accuracies, read from the items of `effective-robustness` and checked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pickaxe import Item
from pickaxe.errors import InvalidItems, Violation


@dataclass(frozen=True)
class Models:
    """Accuracies x (n,) and y (n, S), NaN where a shift was not measured; labels of the models."""

    ids: list[str]
    x: np.ndarray
    y: np.ndarray
    least: np.ndarray
    """(n,) how near 0 and 1 accuracies may come before they are scaled."""
    weights: np.ndarray
    shifts: tuple[str, ...]
    sources: list[str]
    mixes: list[tuple[str, str] | None]
    shares: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


def models(
    items: Iterable[Item],
    *,
    bounded: bool,
    eps: float,
    weighted: bool,
    shifts: Sequence[str] = (),
    where: str = "items",
) -> Models:
    """Raises `InvalidItems` naming every item that cannot be used; `shifts`: which to take, empty for all."""
    given = list(items)
    wrong: list[Violation] = []
    tables = [_table(item, f"{where}[{row}]", wrong) for row, item in enumerate(given)]
    names = tuple(shifts) or tuple(sorted({name for table in tables for name in table}))
    x, y = np.full(len(given), np.nan), np.full((len(given), len(names)), np.nan)
    sizes, shares = np.full(len(given), np.nan), np.full(len(given), np.nan)
    mixes: list[tuple[str, str] | None] = []
    for row, (item, table) in enumerate(zip(given, tables, strict=True)):
        place = f"{where}[{row}].fields"
        x[row] = _number(item.get("id_accuracy"), f"{place}.id_accuracy", item.id, bounded, wrong)
        for name, value in table.items():
            if value is not None:
                found = _number(value, f"{place}.ood.{name}", item.id, bounded, wrong)
                if name in names:
                    y[row, names.index(name)] = found
        sizes[row] = _size(item, place, weighted, wrong)
        mixes.append(_mix(item, place, wrong))
        if (share := item.get("share")) is not None:
            shares[row] = _number(share, f"{place}.share", item.id, True, wrong)
    if wrong:
        raise InvalidItems(wrong)
    known = np.isfinite(sizes)
    least = np.where(known, 1 / (2 * np.where(known, sizes, 1)), eps)
    sources = [str(item.get("source") or "") for item in given]
    weights = sizes if weighted else np.ones(len(given))
    return Models([item.id for item in given], x, y, least, weights, names, sources, mixes, shares)


def _table(item: Item, place: str, wrong: list[Violation]) -> dict[str, object]:
    table = item.get("ood")
    if isinstance(table, dict) and table:
        return table
    what = "is missing" if table is None else "must be an object of accuracies, one per shift"
    wrong.append(
        Violation(f"{place}.fields.ood", f"{what} (item {item.id!r}); from a wide table: --wide 'ood={{ood_*}}'")
    )
    return {}


def _number(value: object, place: str, name: str, bounded: bool, wrong: list[Violation]) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        what = "is missing" if value is None else f"is {value!r}, no number: mind decimal commas"
        wrong.append(Violation(place, f"{what} (item {name!r})"))
        return np.nan
    if not np.isfinite(value):
        wrong.append(Violation(place, f"is {value}: leave the cell out when it was not measured (item {name!r})"))
    elif bounded and not 0 <= value <= 1:
        hint = "percents? divide by 100" if 1 < value <= 100 else "for losses set transform=identity"
        wrong.append(Violation(place, f"is {value:g}, wanted a share from 0 to 1: {hint} (item {name!r})"))
    return float(value)


def _size(item: Item, place: str, needed: bool, wrong: list[Violation]) -> float:
    size = item.get("n")
    if size is None and not needed:
        return np.nan
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
        what = "is missing: weighted=true needs the size of each test set" if size is None else "must be 1 or more"
        wrong.append(Violation(f"{place}.n", f"{what} (item {item.id!r})"))
        return np.nan
    return float(size)


def _mix(item: Item, place: str, wrong: list[Violation]) -> tuple[str, str] | None:
    parts = item.get("mix_of")
    if parts is None:
        return None
    if not isinstance(parts, (list, tuple)) or len(parts) != 2 or parts[0] == parts[1]:
        wrong.append(Violation(f"{place}.mix_of", f"must name two different sources (item {item.id!r})"))
        return None
    return str(parts[0]), str(parts[1])
