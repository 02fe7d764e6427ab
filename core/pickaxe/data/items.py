"""Items, and the fields they carry."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, overload

import numpy as np

from pickaxe.errors import InvalidItems, Violation

Json: TypeAlias = Any
"""What `json.loads` returns."""


@dataclass(frozen=True, slots=True)
class Handle:
    """Something large that stays where it is: a checkpoint or a database.

    Over gRPC `name` is one that the operator listed; embedded users may give a path.
    """

    kind: Literal["checkpoint", "database"]
    name: str


FieldValue: TypeAlias = "str | tuple[str, ...] | list[str] | bool | int | float | np.ndarray | dict[str, Any] | Handle"
"""Text, texts, bool, int64, float64, tensor, struct (JSON object) or handle."""


def kind_of(value: object) -> str:
    """The name of a field value's kind, as declared in `InputField.kind`; "" when it is none of them."""
    match value:
        case bool() | np.bool_():
            return "bool"
        case int() | np.integer():
            return "int64"
        case float() | np.floating():
            return "float64"
        case str():
            return "text"
        case np.ndarray():
            return "tensor"
        case dict():
            return "struct"
        case Handle():
            return value.kind
        case list() | tuple() if all(isinstance(part, str) for part in value):
            return "texts"
    return ""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to score, index, search for or rerank.

    `fields` holds whatever else a method reads.  By convention `title` (text), `group` (text), `links` (texts)
    and `sections` (struct `{"sections": [[paragraph, …], …]}`) describe documents.
    """

    id: str
    text: str | None = None
    fields: Mapping[str, FieldValue] = field(default_factory=dict)

    def get(self, name: str) -> FieldValue | None:
        """The field, or the text for the name "text"; None when absent."""
        return self.text if name == "text" else self.fields.get(name)


class Items(Sequence[Item]):
    """A sequence of items that can stack one field of them all."""

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[Item] = ()) -> None:
        self._items = items if isinstance(items, tuple) else tuple(items)

    @classmethod
    def from_table(
        cls,
        table: Any,
        *,
        text: str = "text",
        id: str = "id",
        fields: Sequence[str] | None = None,
        map: Mapping[str, str] | None = None,
        wide: Sequence[str] = (),
        gather: str | None = None,
    ) -> Items:
        """Items of a pandas or polars DataFrame, an Arrow table, a mapping of columns or a list of rows.

        The arguments mean what `--text-field`, `--id-field`, `--fields`, `--map` (their name → ours), `--wide` and
        `--gather` mean on the command line.  Raises `InvalidItems` naming row and column, `InvalidParams` for what
        `wide` or `gather` do not understand.
        """
        from pickaxe.io.frames import items_from_table
        from pickaxe.io.layout import Layout
        from pickaxe.io.tables import Gather, Wide

        layout = Layout(
            text,
            id,
            None if fields is None else tuple(fields),
            map or {},
            tuple(Wide.parse(each) for each in wide),
            None if gather is None else Gather.parse(gather),
        )
        return cls(items_from_table(table, layout))

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Items: ...
    def __getitem__(self, index: int | slice) -> Item | Items:
        return Items(self._items[index]) if isinstance(index, slice) else self._items[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Items) and self._items == other._items

    __hash__ = None  # type: ignore[assignment]  # items hold dicts and arrays

    def __repr__(self) -> str:
        return f"Items({len(self._items)})"

    @property
    def ids(self) -> list[str]:
        return [item.id for item in self._items]

    def texts(self) -> list[str]:
        """Every item's text.  Raises `InvalidItems` naming each item without one; empty texts are fine."""
        missing = [
            Violation(f"items[{row}].text", f"is missing (item {item.id!r})")
            for row, item in enumerate(self._items)
            if not isinstance(item.text, str)
        ]
        if missing:
            raise InvalidItems(missing)
        return [item.text for item in self._items if item.text is not None]

    def column(self, name: str) -> np.ndarray:
        """One field of all items, stacked: (n,) for scalars and text, (n, …) for tensors of equal shape.

        Raises `InvalidItems` naming the first item that lacks the field or whose shape differs.
        """
        values = [item.get(name) for item in self._items]
        for row, value in enumerate(values):
            if value is None:
                raise InvalidItems(f"items[{row}].fields.{name}", f"is missing (item {self._items[row].id!r})")
        shapes = [value.shape if isinstance(value, np.ndarray) else () for value in values]
        for row, shape in enumerate(shapes):
            if shape != shapes[0]:
                raise InvalidItems(
                    f"items[{row}].fields.{name}",
                    f"has shape {shape}, the first item has {shapes[0]} (item {self._items[row].id!r})",
                )
        if values and isinstance(values[0], np.ndarray):
            return np.stack(values)  # type: ignore[arg-type]
        if values and not isinstance(values[0], (bool, int, float, np.generic)):
            stacked = np.empty(len(values), object)
            for row, value in enumerate(values):  # one by one: NumPy would spread lists over a second axis
                stacked[row] = value
            return stacked
        return np.asarray(values)
