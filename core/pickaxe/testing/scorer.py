"""Checks for scorers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pickaxe.data import Item, Scores
from pickaxe.errors import InvalidItems
from pickaxe.testing.check import Failed, check, require
from pickaxe.testing.plain import same
from pickaxe.testing.subject import LONG_TEXT, ODD_TEXTS, Subject, with_text

RTOL, ATOL = 1e-4, 1e-5
"""How far float columns may move when items are batched differently: other sums, same meaning."""


def _scorer(subject: Subject) -> bool:
    return "scorer" in subject.roles


def _texts(subject: Subject) -> bool:
    return _scorer(subject) and subject.reads("text", "text") and all(item.text is not None for item in _items(subject))


def _parts(subject: Subject) -> bool:
    return _scorer(subject) and subject.kind.scope != "pool"


def _items(subject: Subject) -> tuple[Item, ...]:
    return subject.example.items


@check(_scorer, wire=True)
def columns(subject: Subject) -> None:
    """Columns come as declared: names, order, dtype, one row per item, no NaN unless nullable."""
    handle = subject.handle("scorer")
    declared = handle.columns
    require(declared, "no column is declared")
    require(declared[0].direction == "higher", f"primary column {declared[0].name!r} is not declared higher = better")
    require(declared[0].dtype != "str", f"primary column {declared[0].name!r} is text and has no order")
    require(len({each.name for each in declared}) == len(declared), "two columns have the same name")
    for each in declared:
        require(each.doc, f"column {each.name!r} is not explained")
    result: Scores = handle.score(_items(subject))
    require(len(result) == len(_items(subject)), f"{len(result)} rows for {len(_items(subject))} items")
    require(list(result.columns) == [each.name for each in declared], f"columns are {list(result.columns)}")


@check(_scorer, wire=True)
def no_items(subject: Subject) -> None:
    """No items give no rows."""
    require(len(subject.handle("scorer").score([])) == 0, "rows came back for no items")


@check(_texts, wire=True)
def empty_text(subject: Subject) -> None:
    """An item with an empty text gets a row like any other."""
    items = _items(subject)
    subject.handle("scorer").score([with_text(items[0], ""), *items[1:]])


@check(_texts, wire=True)
def odd_text(subject: Subject) -> None:
    """NUL, right-to-left, combining, astral and blank characters get rows like any other."""
    items = _items(subject)
    handle = subject.handle("scorer")
    odd = [replace(with_text(items[0], text), id=name) for name, text in ODD_TEXTS.items()]
    result = handle.score([*odd, *items[1:]])
    require(len(result) == len(odd) + len(items) - 1, "not every text has a row")


@check(_texts)
def long_text(subject: Subject) -> None:
    """A text of 100 kB gets a row like any other."""
    items = _items(subject)
    subject.handle("scorer").score([with_text(items[0], LONG_TEXT), *items[1:]])


@check(_scorer, wire=True)
def duplicate_ids(subject: Subject) -> None:
    """Items that share an id keep their own rows."""
    items = _items(subject)
    shared = [replace(item, id="same") for item in items]
    handle = subject.handle("scorer")
    result = handle.score(shared)
    require(len(result) == len(items), f"{len(result)} rows for {len(items)} items that share an id")
    if subject.kind.scope == "item":
        alone = [handle.score([item]) for item in shared]
        _agree(result, Scores.concatenate(alone), "items that share an id disturb each other")


@check(_scorer, wire=True)
def reads(subject: Subject) -> None:
    """A missing required field is named, and fields that are not declared make no difference."""
    items, declared = _items(subject), subject.kind.reads
    handle = subject.handle("scorer")
    names = {each.name for each in declared}
    stripped = [
        Item(item.id, item.text if "text" in names else None,
             {name: value for name, value in item.fields.items() if name in names})
        for item in items
    ]  # fmt: skip
    same(subject.outcome("scorer"), handle.score(stripped), "a field that `reads` does not declare is used")
    for each in declared:
        if each.required:
            place = "items[0].text" if each.name == "text" else f"items[0].fields.{each.name}"
            _names(handle, [_without(items[0], each.name), *items[1:]], place)


def _without(item: Item, name: str) -> Item:
    if name == "text":
        return replace(item, text=None)
    return replace(item, fields={key: value for key, value in item.fields.items() if key != name})


def _names(handle: Any, items: Sequence[Item], place: str) -> None:
    try:
        handle.score(items)
    except InvalidItems as error:
        fields = [violation.field for violation in error.violations]
        require(place in fields, f"without {place} the error names {fields}")
    else:
        raise Failed(f"an item without {place} is accepted although the field is required")


@check(lambda subject: _scorer(subject) and subject.example.ordered, wire=True)
def example_order(subject: Subject) -> None:
    """The example's items come out in the order they are declared to have, best first."""
    primary = subject.outcome("scorer").primary
    for row in range(len(primary) - 1):
        require(
            primary[row] >= primary[row + 1], f"item {row} scores {primary[row]}, item {row + 1} {primary[row + 1]}"
        )
    require(len(primary) < 2 or primary[0] > primary[-1], "all items of the ordered example score the same")


@check(_parts, wire=True)
def permutation(subject: Subject) -> None:
    """The order of items, or of groups, changes no row."""
    groups = _groups(subject)
    order = [row for rows in reversed(groups) for row in rows]
    _rearranged(subject, [order], "another order of items changes a row")


@check(_parts, wire=True)
def splitting(subject: Subject) -> None:
    """Scoring in parts, groups kept together, changes no row."""
    _rearranged(subject, _groups(subject), "scoring in parts changes a row")


def _groups(subject: Subject) -> list[list[int]]:
    """Rows that must stay together: each alone for item scope, by `group` for group scope."""
    found: dict[object, list[int]] = {}
    for row, item in enumerate(_items(subject)):
        found.setdefault(row if subject.kind.scope == "item" else item.get("group"), []).append(row)
    require(len(found) > 1, "the example has too few items or groups to show its scope: give two or more")
    return list(found.values())


def _rearranged(subject: Subject, parts: Sequence[Sequence[int]], message: str) -> None:
    items, handle = _items(subject), subject.handle("scorer")
    expected: Scores = subject.outcome("scorer")
    for rows in parts:
        found = handle.score([items[row] for row in rows])
        _agree(_pick(expected, rows), found, message)


def _pick(scores: Scores, rows: Sequence[int]) -> Scores:
    return Scores({name: values[list(rows)] for name, values in scores.columns.items()}, schema=scores.schema)


def _agree(expected: Scores, found: Scores, message: str) -> None:
    close: Callable[..., np.ndarray] = np.isclose
    for name, values in expected.columns.items():
        other = found.columns[name]
        equal = (
            close(values, other, rtol=RTOL, atol=ATOL, equal_nan=True) if values.dtype.kind == "f" else values == other
        )
        if not np.all(equal):
            row = int(np.flatnonzero(~equal)[0])
            raise Failed(f"{message}: column {name!r} was {values[row]!r} and is {other[row]!r}")
