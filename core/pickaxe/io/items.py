"""Items as JSON objects, and back without loss.

`{"id": …, "text": …, "fields": {…}}`, where a field value is

* text, a number, true or false as they are, and a list of texts as a list;
* a struct as an object; inside it, and for numbers, what JSON lacks is written `{"$number": "NaN"}`;
* a tensor as `{"$tensor": {"dtype": "float32", "shape": [2, 3], "data": base64, little-endian}}`;
* a handle as `{"$handle": {"kind": "checkpoint", "name": …}}`.

Reading is more generous, so that data sets made elsewhere can be used as they are: every other key of the object
is a field too, a list of numbers (nested or not) is a tensor, and any other list under the key `k` is the struct
`{"k": list}`.  null means absent.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pickaxe.data import FieldValue, Handle, Item
from pickaxe.errors import InvalidItems

_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_KINDS = "biufc"
"""NumPy kinds that a tensor may have: bool, integers, floats, complex."""


def item_to_json(item: Item) -> dict[str, Any]:
    """The item as a JSON object; raises `InvalidItems` for a field value that no kind holds."""
    obj: dict[str, Any] = {"id": item.id}
    if item.text is not None:
        obj["text"] = item.text
    if item.fields:
        obj["fields"] = {
            name: _encoded(value, f"item {item.id!r} fields.{name}") for name, value in item.fields.items()
        }
    return obj


def item_from_json(obj: Any, where: str = "item", default_id: str | None = None) -> Item:
    """The item that an object describes; `where` names it in errors.

    Raises `InvalidItems` when the object, its id or one of its fields cannot be used.
    """
    if not isinstance(obj, Mapping):
        raise InvalidItems(where, f"is {_name(obj)}, wanted an object")
    return Item(
        _id(obj.get("id"), where, default_id),
        text_from_json(obj.get("text"), f"{where}.text"),
        dict(_fields(obj, where)),
    )


def fields_from_json(obj: Mapping[str, Any], where: str) -> dict[str, FieldValue]:
    """Field values as `item_from_json` reads them; absent (null) ones are left out."""
    return {
        name: field_from_json(name, value, f"{where}.fields.{name}") for name, value in obj.items() if value is not None
    }


def text_from_json(value: Any, where: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise InvalidItems(where, f"is {_name(value)}, wanted text")
    return value


def field_from_json(name: str, value: Any, where: str) -> FieldValue:
    """One field value: the reverse of what `item_to_json` writes, and plain JSON of any shape."""
    match value:
        case str() | bool() | float():
            return value
        case int():
            return _int64(value, where)
        case Mapping():
            return _from_object(value, where)
        case list():
            return _from_list(name, value, where)
    raise InvalidItems(where, f"is {_name(value)}, which no field holds: name the columns to keep (--fields)")


# ---------------------------------------------------------------- writing


def _encoded(value: object, where: str) -> Any:
    if isinstance(value, np.ndarray):
        return _tensor(value, where)
    if isinstance(value, Handle):
        return {"$handle": {"kind": value.kind, "name": value.name}}
    if isinstance(value, (list, tuple)) and not all(isinstance(part, str) for part in value):
        raise InvalidItems(where, "is a list of other things than text; use a tensor or a struct")
    return _plain(value, where)


def _plain(value: object, where: str) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else {"$number": _spelled(value)}
        case np.generic():
            return _plain(value.item(), where)
        case Mapping():
            record = {str(key): _plain(part, f"{where}.{key}") for key, part in value.items()}
            return {"$struct": record} if _marker(record) else record
        case list() | tuple():
            return [_plain(part, where) for part in value]
    raise InvalidItems(where, f"is of type {type(value).__name__}, which no field holds")


def _spelled(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _tensor(array: np.ndarray, where: str) -> dict[str, Any]:
    if array.dtype.kind not in _KINDS:
        raise InvalidItems(where, f"is an array of {array.dtype}; supported are numbers and bool")
    data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    return {
        "$tensor": {
            "dtype": array.dtype.name,
            "shape": list(array.shape),
            "data": base64.b64encode(data).decode("ascii"),
        }
    }


# ---------------------------------------------------------------- reading


def _id(value: Any, where: str, default: str | None) -> str:
    if value is None:
        if default is None:
            raise InvalidItems(f"{where}.id", "is missing")
        return default
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise InvalidItems(f"{where}.id", f"is {_name(value)}, wanted text or a whole number")


def _fields(obj: Mapping[str, Any], where: str) -> Iterator[tuple[str, FieldValue]]:
    for key, value in obj.items():
        if key == "id" or key == "text" or value is None:
            continue
        if key == "fields" and isinstance(value, Mapping):
            yield from fields_from_json(value, where).items()
        else:
            yield key, field_from_json(key, value, f"{where}.fields.{key}")


def _from_object(value: Mapping[str, Any], where: str) -> FieldValue:
    match _marker(value):
        case "$tensor":
            return _array(value["$tensor"], where)
        case "$handle":
            return _handle(value["$handle"], where)
    decoded: FieldValue = _decoded(value, where)
    return decoded


def _decoded(value: Any, where: str) -> Any:
    """A struct's part with the marks taken off again."""
    if isinstance(value, Mapping):
        match _marker(value):
            case "$number":
                return _number(value["$number"], where)
            case "$struct" if isinstance(value["$struct"], Mapping):
                value = value["$struct"]
        return {key: _decoded(part, where) for key, part in value.items()}
    if isinstance(value, list):
        return [_decoded(part, where) for part in value]
    return value


def _from_list(name: str, values: list[Any], where: str) -> FieldValue:
    if all(isinstance(part, str) for part in values):
        return tuple(values)
    array = _stacked(values)
    return {name: _decoded(values, where)} if array is None else array


def _stacked(values: list[Any]) -> np.ndarray | None:
    """Numbers, or lists of equal shape of them, as one array: int64, float64 or bool; otherwise None."""
    if not _all_numbers(values):
        return None
    try:
        array = np.array(values)
    except ValueError:  # lists of unequal lengths: not a tensor
        return None
    return array if array.dtype.name in ("int64", "float64", "bool") else None


def _all_numbers(values: list[Any]) -> bool:
    return all(_all_numbers(part) if isinstance(part, list) else isinstance(part, (int, float)) for part in values)


def _array(value: Any, where: str) -> np.ndarray:
    try:
        dtype = np.dtype(str(value["dtype"]))
        shape = tuple(int(length) for length in value["shape"])
        data = base64.b64decode(value["data"], validate=True)
        if dtype.kind not in _KINDS:
            raise ValueError(f"dtype {dtype} is no number")
        array = np.frombuffer(data, dtype.newbyteorder("<")).reshape(shape)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise InvalidItems(where, f"is no whole tensor of dtype, shape and base64 data: {error}") from None
    return array.astype(dtype, copy=False)


def _handle(value: Any, where: str) -> Handle:
    kind, name = (value.get("kind"), value.get("name")) if isinstance(value, Mapping) else (None, None)
    if kind not in ("checkpoint", "database") or not isinstance(name, str):
        raise InvalidItems(where, "is no handle: it needs the kind checkpoint or database, and a name")
    return Handle(kind, name)


def _number(value: Any, where: str) -> float:
    if value not in _NUMBERS:
        raise InvalidItems(where, f"holds the number {value!r}; known are {', '.join(_NUMBERS)}")
    return _NUMBERS[value]


def _int64(value: int, where: str) -> int:
    if not -(2**63) <= value < 2**63:
        raise InvalidItems(where, f"is {value}, beyond 64 bits; write it as text")
    return value


def _marker(value: Mapping[str, Any]) -> str:
    """The mark of an object that stands for something else; "" for plain objects."""
    if len(value) == 1:
        key = next(iter(value))
        if key.startswith("$"):
            return str(key)
    return ""


def _name(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a truth value"
        case int() | float():
            return f"the number {value}"
        case str():
            return "text"
        case list():
            return "a list"
        case Mapping():
            return "an object"
    return f"a {type(value).__name__}"
