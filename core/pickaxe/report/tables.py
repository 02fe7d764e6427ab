"""The summary of a run as tables.

an object of equally long lists   columns
a list of objects                 rows
an object of objects              a row per key, with what each says in single values
single values                     a table of name and value
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from pickaxe.report.page import Table

TOLD = ("answer", "figures")
"""What a report shows otherwise."""
_FEW = 8
"""A list of up to so many single values stands in one cell."""


def tables(summary: Mapping[str, Any]) -> list[Table]:
    """Every value of the summary but answer and figures, in tables whose captions say where it stands."""
    rest = {key: value for key, value in summary.items() if key not in TOLD}
    return list(_object(rest, ()))


def _object(value: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[Table]:
    columns = _columns(value)
    for keys in columns:
        yield Table(_caption(path, keys), keys, tuple(zip(*(value[key] for key in keys), strict=True)))
    single = {key: part for key, part in value.items() if _is_single(key, part, columns)}
    if single:
        yield Table(_caption(path, ("values",)), ("name", "value"), tuple(single.items()))
    shown = {*single, *(key for keys in columns for key in keys)}
    for key, part in value.items():
        if key not in shown:
            yield from _nested(part, (*path, key))


def _nested(value: Any, path: tuple[str, ...]) -> Iterator[Table]:
    if isinstance(value, Mapping):
        rows = {key: part for key, part in value.items() if isinstance(part, Mapping)}
        if len(rows) == len(value) and any(map(_singles, rows.values())):
            yield _rows(path, ["name", *_names(map(_singles, rows.values()))], [
                {"name": key, **_singles(part)} for key, part in rows.items()
            ])  # fmt: skip
            value = {key: rest for key, part in rows.items() if (rest := _without_singles(part))}
        yield from _object(value, path)
    elif value and all(isinstance(part, Mapping) for part in value):
        found = [_singles(part) for part in value]
        if any(found):
            yield _rows(path, ["row", *_names(found)], [{"row": at, **row} for at, row in enumerate(found, 1)])
        for at, part in enumerate(value, 1):
            yield from _object(_without_singles(part), (*path, str(part.get("id", at))))
    elif value:
        longest = max(len(part) if isinstance(part, (list, tuple)) else 1 for part in value)
        cells = [list(part) if isinstance(part, (list, tuple)) else [part] for part in value]
        yield Table(
            _caption(path),
            ("row", *(str(place) for place in range(1, longest + 1))),
            tuple((at, *row, *[""] * (longest - len(row))) for at, row in enumerate(cells, 1)),
        )


def _rows(path: tuple[str, ...], names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Table:
    return Table(_caption(path), tuple(names), tuple(tuple(row.get(name) for name in names) for row in rows))


def _singles(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The single values of an object and of the objects in it, under dotted names."""
    found: dict[str, Any] = {}
    columns = _columns(value)
    for key, part in value.items():
        if isinstance(part, Mapping):
            found |= _singles(part, f"{prefix}{key}.")
        elif _is_single(key, part, columns):
            found[f"{prefix}{key}"] = part
    return found


def _without_singles(value: Mapping[str, Any]) -> dict[str, Any]:
    left: dict[str, Any] = {}
    columns = _columns(value)
    for key, part in value.items():
        if isinstance(part, Mapping):
            if inner := _without_singles(part):
                left[key] = inner
        elif not _is_single(key, part, columns):
            left[key] = part
    return left


def _columns(value: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The keys whose lists make a table together, what numbers the rows first; a short list alone makes none."""
    lists = {key: part for key, part in value.items() if _is_list(part) and len(part) > 2}
    found = []
    for length in dict.fromkeys(map(len, lists.values())):
        keys = [key for key, part in lists.items() if len(part) == length]
        if len(keys) > 1 or length > _FEW:
            found.append(tuple(sorted(keys, key=lambda key: not _numbers_rows(lists[key]))))
    return found


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and not any(isinstance(part, (list, tuple, Mapping)) for part in value)


def _numbers_rows(values: Sequence[Any]) -> bool:
    """Whether the values rise in whole numbers, or are texts."""
    if all(isinstance(value, str) for value in values):
        return True
    whole = all(isinstance(value, (int, float)) and value == int(value) for value in values)
    return whole and all(a < b for a, b in pairwise(values))


def _is_single(key: str, value: Any, columns: Sequence[tuple[str, ...]]) -> bool:
    """Whether a cell holds it: one value, an empty thing, or a short list that is no column."""
    if isinstance(value, Mapping):
        return not value
    if isinstance(value, (list, tuple)):
        return _is_list(value) and len(value) <= _FEW and not any(key in keys for keys in columns)
    return True


def _names(rows: Iterator[Mapping[str, Any]] | Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _caption(path: tuple[str, ...], default: tuple[str, ...] = ()) -> str:
    text = " › ".join(part.replace("_", " ") for part in path or (", ".join(default),))
    return text[:1].upper() + text[1:]
