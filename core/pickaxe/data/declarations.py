"""What a method declares: columns, input fields, examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pickaxe.data.decoding import Prompt
from pickaxe.data.items import Item

DType = Literal["float32", "float64", "int64", "bool", "str"]


@dataclass(frozen=True, slots=True)
class Column:
    """A declared score column.  `direction` says what a user prefers; the primary column is always "higher"."""

    name: str
    doc: str
    dtype: DType = "float32"
    unit: str = ""
    direction: Literal["higher", "lower", "none"] = "higher"
    nullable: bool = False
    """Whether NaN (or "" in a str column) may say "no value"."""


@dataclass(frozen=True, slots=True)
class InputField:
    """An item field that a method reads; `kind` is one of `kind_of`'s names, "text" for `Item.text` too."""

    name: str
    kind: str
    doc: str
    required: bool = True


@dataclass(frozen=True, slots=True)
class Example:
    """Small inputs on which a method shows what it does; used by docs, the conformance kit and `GetMethod`.

    With `ordered`, `items` come in the order the primary column should put them, best first.
    """

    params: Mapping[str, Any] = field(default_factory=dict)
    items: tuple[Item, ...] = ()
    ordered: bool = False
    examples: tuple[Item, ...] = ()
    validation: tuple[Item, ...] = ()
    documents: tuple[Item, ...] = ()
    queries: tuple[Item, ...] = ()
    query: Item | None = None
    candidates: tuple[Item, ...] = ()
    prompts: tuple[Prompt, ...] = ()
