"""Tables that people already have, as items: wide ones, long ones, and data frames.

A wide table has one column per seed, step or domain: `Wide` joins them into one field.  A long table has one row per
seed or step: `Gather` joins rows into one item.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pickaxe.data import FieldValue, Item
from pickaxe.errors import InvalidItems, InvalidParams

_FORMS = "of the form FIELD=COL*, FIELD@FIELD=COL* or FIELD={COL*}, with one star"
_COMMA = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Wide:
    """Several columns as one field: those whose names fit `pattern`, in which one `*` stands for anything.

    An array of numbers in the order of the columns; with `at`, a second field holds what the star stood for, as
    numbers.  Or, with `keyed`, an object from what the star stood for to the cell, in which empty cells are absent.
    """

    field: str
    pattern: str
    at: str = ""
    keyed: bool = False

    def __post_init__(self) -> None:
        if not self.field or self.pattern.count("*") != 1 or (self.keyed and self.at):
            raise InvalidParams("wide", f"{str(self)!r} is not {_FORMS}")

    def __str__(self) -> str:
        name = f"{self.field}@{self.at}" if self.at else self.field
        return f"{name}={{{self.pattern}}}" if self.keyed else f"{name}={self.pattern}"

    @classmethod
    def parse(cls, text: str) -> Wide:
        """From `scores=seed_*`, `y@x=acc_*` or `mixture={share_*}`."""
        name, equals, pattern = text.partition("=")
        name, _, at = name.partition("@")
        keyed = pattern.startswith("{") and pattern.endswith("}")
        if not equals:
            raise InvalidParams("wide", f"{text!r} is not {_FORMS}")
        return cls(name, pattern[1:-1] if keyed else pattern, at, keyed)

    def star(self, column: str) -> str | None:
        """What the star stands for in the name; None when the name does not fit."""
        before, after = self.pattern.split("*")
        fits = column.startswith(before) and column.endswith(after) and len(column) > len(before) + len(after)
        return column[len(before) : len(column) - len(after)] if fits else None

    def join(self, record: Mapping[str, Any], where: str) -> dict[str, Any]:
        """The record with its fitting columns joined.

        Raises `InvalidItems` naming the row and the column that is missing, empty or no number.
        """
        stars = {name: star for name in record if (star := self.star(name)) is not None}
        if not stars:
            raise InvalidItems(where, f"has no column like {self.pattern!r}; there are {', '.join(record)}")
        joined = {name: value for name, value in record.items() if name not in stars}
        if self.keyed:
            joined[self.field] = {star: record[name] for name, star in stars.items() if record[name] is not None}
            return joined
        joined[self.field] = [_number(record[name], name, where) for name in stars]
        if self.at:
            joined[self.at] = [self._place(name, star, where) for name, star in stars.items()]
        return joined

    def _place(self, column: str, star: str, where: str) -> float | int:
        try:
            return int(star) if star.lstrip("-").isdigit() else float(star)
        except ValueError:
            raise InvalidItems(
                where,
                f"has the column {column!r}, whose {star!r} is no number for {self.at!r}: rename it, or leave out "
                f"@{self.at}",
            ) from None


def _number(value: Any, column: str, where: str) -> float | int:
    if isinstance(value, (int, float)):
        return value
    if value is None:
        raise InvalidItems(
            where, f"column {column!r} is empty: fill it, or give a long table, which lacks the row, to gather"
        )
    remedy = comma_hint(value) or "write a number, true or false"
    raise InvalidItems(where, f"column {column!r} holds {value!r}: {remedy}")


def comma_hint(value: Any) -> str:
    """What to do about a text like `0,25` where a number is wanted; "" for other values."""
    if isinstance(value, str) and _COMMA.fullmatch(value.strip()):
        return f"if the comma of {value!r} is a decimal mark, give --decimal ,"
    return ""


@dataclass(frozen=True)
class Gather:
    """Rows of a long table as one item: rows with the same value under `keys[0]` belong together.

    Each of `fields` becomes an array (texts: a list) in the order of the rows.  A second key makes it two-dimensional:
    one row of the array per value of it.  All other fields must be the same in all rows of an item.  The item's id is
    the value under the first key.  Names are those after renaming.
    """

    keys: tuple[str, ...]
    fields: tuple[str, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.keys) <= 2 or not self.fields or not all((*self.keys, *self.fields)):
            raise InvalidParams("gather", f"{self} is not of the form KEY=FIELD,FIELD or KEY,KEY=FIELD,FIELD")

    def __str__(self) -> str:
        return f"{','.join(self.keys)}={','.join(self.fields)}"

    @classmethod
    def parse(cls, text: str) -> Gather:
        """From `run=x,y` or `benchmark,seed=score`."""
        keys, equals, fields = text.partition("=")
        return cls(tuple(keys.split(",")), tuple(fields.split(",")) if equals else ())

    def groups(self, rows: Iterable[tuple[str, Item]]) -> Iterator[tuple[str, list[tuple[str, Item]]]]:
        """(id, its rows) in order of first appearance; a row is (where, item).

        Raises `InvalidItems` for a row without the key.
        """
        found: dict[str, list[tuple[str, Item]]] = {}
        for where, item in rows:
            found.setdefault(self._key(item, self.keys[0], where), []).append((where, item))
        yield from found.items()

    def item(self, name: str, rows: Sequence[tuple[str, Item]]) -> Item:
        """The item of one group; raises `InvalidItems` naming row and field of what does not fit together."""
        text, fields = self._shared(name, rows)
        for field in self.fields:
            if len(self.keys) == 1:
                fields[field] = _stacked(field, rows)
                continue
            parts: dict[str, list[tuple[str, Item]]] = {}
            for where, item in rows:
                parts.setdefault(self._key(item, self.keys[1], where), []).append((where, item))
            fields[field] = self._matrix(name, field, parts)
        return Item(name, text, fields)

    def _key(self, item: Item, key: str, where: str) -> str:
        value = item.id if key == "id" else item.get(key)
        if value == "" or not isinstance(value, (str, int, float)):
            raise InvalidItems(where, f"has no text or number under {key!r}, by which rows are gathered")
        return str(value)

    def _matrix(self, name: str, field: str, parts: Mapping[str, Sequence[tuple[str, Item]]]) -> np.ndarray:
        lines = {key: _stacked(field, rows) for key, rows in parts.items()}
        first, *others = lines
        for key in others:
            if len(lines[key]) != len(lines[first]):
                raise InvalidItems(
                    parts[key][0][0],
                    f"{self.keys[1]} {key!r} of {name!r} has {len(lines[key])} rows of {field!r}, {first!r} has "
                    f"{len(lines[first])}: add the missing rows, or leave that {self.keys[1]} out",
                )
        return np.stack([np.asarray(line) for line in lines.values()])

    def _shared(self, name: str, rows: Sequence[tuple[str, Item]]) -> tuple[str | None, dict[str, FieldValue]]:
        """The text and fields that all rows agree on."""
        shared: dict[str, tuple[str, Any]] = {}
        for where, item in rows:
            for field in ("text", *item.fields):
                value = item.get(field)
                if value is None or field in self.fields or field in self.keys[1:]:
                    continue
                first, known = shared.setdefault(field, (where, value))
                if not _same(known, value):
                    raise InvalidItems(
                        where,
                        f"{field!r} of {name!r} is {value!r}, at {first} it is {known!r}: gather it too "
                        f"({self},{field}), or leave it out by naming the --fields to keep",
                    )
        values = {field: value for field, (_, value) in shared.items()}
        return values.pop("text", None), values


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return bool(np.array_equal(a, b))
    return bool(a == b)


def _stacked(field: str, rows: Sequence[tuple[str, Item]]) -> np.ndarray | tuple[str, ...]:
    values: list[Any] = []
    for where, item in rows:
        value = item.get(field)
        if value is None:
            raise InvalidItems(where, f"has no {field!r}, which is gathered: fill the cell, or remove the row")
        values.append(value)
    if all(isinstance(value, str) for value in values):
        return tuple(values)
    shape = np.shape(values[0])
    for (where, _), value in zip(rows, values, strict=True):
        if isinstance(value, str) or not isinstance(value, (int, float, np.ndarray)):
            remedy = comma_hint(value) or "write a number"
            raise InvalidItems(where, f"{field!r} is {value!r}, other rows have numbers: {remedy}")
        if np.shape(value) != shape:
            raise InvalidItems(where, f"{field!r} has shape {np.shape(value)}, the first row of its item has {shape}")
    return np.stack([np.asarray(value) for value in values])
