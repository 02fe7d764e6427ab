"""Which columns of a record are what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pickaxe.data import Item
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe.io.items import item_from_json
from pickaxe.io.tables import Gather, Wide


@dataclass(frozen=True)
class Layout:
    """Which columns of a record are what."""

    text: str = "text"
    """The column that holds the text."""
    id: str = "id"
    """The column that holds the id; records without one get `file name:line`."""
    fields: tuple[str, ...] | None = None
    """Columns that become fields; None: all others."""
    rename: Mapping[str, str] = field(default_factory=dict)
    """Their name → the name that the method reads."""
    wide: tuple[Wide, ...] = ()
    """Columns that are joined into fields, by their names before renaming."""
    gather: Gather | None = None
    """How rows are joined into items; None: each row is an item."""
    decimal: str = "."
    """The decimal mark of CSV and TSV."""

    def __post_init__(self) -> None:
        if self.decimal not in (".", ","):
            raise InvalidParams("decimal", f"must be a point or a comma (got {self.decimal!r})")

    def item(self, record: Mapping[str, Any], where: str, default_id: str) -> Item:
        """The item; raises `InvalidItems` when a named column is missing or a value cannot be used."""
        if self == PLAIN:
            return item_from_json(record, where, default_id)
        for wide in self.wide:
            record = wide.join(record, where)
        if self.rename:
            self._check_names(record, where)
        columns = {self.rename.get(name, name): value for name, value in record.items()}
        chosen = {"id": self._named(columns, "id", where), "text": self._named(columns, "text", where)}
        rest = {name: value for name, value in columns.items() if name not in ("id", "text", self.id, self.text)}
        if self.fields is not None:
            if missing := [name for name in self.fields if name not in rest]:
                raise InvalidItems(where, f"has no column {missing[0]!r}; there are {', '.join(columns)}")
            rest = {name: rest[name] for name in self.fields}
        return item_from_json(chosen | rest, where, default_id)

    def texts(self) -> frozenset[str]:
        """Columns whose cells are texts, whatever they look like, by their names before renaming."""
        theirs = {ours: their for their, ours in self.rename.items()}
        keys = () if self.gather is None else self.gather.keys[:1]
        return frozenset(theirs.get(each, each) for each in (self.text, self.id, *keys))

    def _check_names(self, record: Mapping[str, Any], where: str) -> None:
        for their, ours in self.rename.items():
            if their in record and ours in record and ours not in self.rename:
                raise InvalidItems(where, f"has a column {ours!r}, as which {their!r} is to be read: map that one too")

    def _named(self, columns: Mapping[str, Any], role: Literal["id", "text"], where: str) -> Any:
        name: str = getattr(self, role)
        if name != role and name not in columns:
            raise InvalidItems(where, f"has no column {name!r} for the {role}; there are {', '.join(columns)}")
        return columns.get(name)


PLAIN = Layout()
"""The column `text` is the text, `id` the id, all others are fields."""
