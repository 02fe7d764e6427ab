"""Data frames as items.  None of their libraries is imported: a frame is known by what it can do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pickaxe.data import Item
from pickaxe.errors import InvalidItems
from pickaxe.io.formats import plain_value
from pickaxe.io.layout import Layout


def items_from_table(table: Any, layout: Layout) -> Iterator[Item]:
    """Items of a pandas or polars DataFrame, an Arrow table, a mapping of columns or a list of rows.

    Rows are named `row 0`, `row 1` … in errors, and by their number where no column holds an id.  Raises
    `InvalidItems` like a reader of files.
    """
    rows = (
        (f"row {number}", layout.item(record, f"row {number}", str(number)))
        for number, record in enumerate(_records(table))
    )
    if layout.gather is None:
        yield from (item for _, item in rows)
        return
    for name, group in layout.gather.groups(rows):
        yield layout.gather.item(name, group)


def _records(table: Any) -> Iterator[dict[str, Any]]:
    """Rows as JSON-like objects; what a data frame calls missing is None."""
    rows: Iterable[Mapping[Any, Any]]
    if hasattr(table, "to_pylist"):  # Arrow
        rows = table.to_pylist()
    elif hasattr(table, "to_dicts"):  # polars
        rows = table.to_dicts()
    elif hasattr(table, "notna"):  # pandas
        rows = table.astype(object).where(table.notna(), None).to_dict("records")
    elif isinstance(table, Mapping):
        rows = _transposed(table)
    elif isinstance(table, Iterable) and not isinstance(table, (str, bytes)):
        rows = table
    else:
        raise InvalidItems("table", f"is of type {type(table).__name__}, wanted a data frame, an Arrow table or rows")
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise InvalidItems(f"row {number}", f"is of type {type(row).__name__}, wanted an object of columns")
        yield {str(name): plain_value(value) for name, value in row.items()}


def _transposed(columns: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InvalidItems("table", f"has columns of different lengths: {lengths}")
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))
