"""Results as plain JSON values that are equal exactly when the results are, bit for bit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from pickaxe.testing.check import Failed

_TIMES = ("timings",)
_IN_TIME = ("seconds", "_ms")
"""Ends of the names of counters that hold a time."""


def plain(value: Any) -> Any:
    """Dataclasses as objects, arrays with their dtype, floats in hexadecimal; times are left out."""
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value) if each.name not in _TIMES}
    match value:
        case np.ndarray():
            return {"dtype": "str" if value.dtype.kind in "UO" else str(value.dtype), "values": plain(value.tolist())}
        case np.generic():
            return plain(value.item())
        case float():
            return _number(value)
        case Mapping():
            return {str(key): plain(part) for key, part in value.items() if not str(key).endswith(_IN_TIME)}
        case str() | bytes() | None | bool() | int():
            return value
        case Iterable():
            return [plain(part) for part in value]
    raise TypeError(f"{type(value).__name__} cannot be compared")


def _number(value: float) -> int | str:
    """Whole numbers as such, for JSON tells no 4.0 from 4; all others (and -0.0) in hexadecimal."""
    whole = value.is_integer() and abs(value) < 2**53 and (value or math.copysign(1, value) > 0)
    return int(value) if whole else value.hex()


def difference(one: Any, other: Any, place: str = "") -> str:
    """Where two plain values first differ, as `columns.alignment.values[3]: 0x1p+0 and 0x1p+1`; "" when nowhere."""
    if type(one) is not type(other):
        return f"{place or 'result'}: {one!r} and {other!r}"
    if isinstance(one, dict):
        if set(one) != set(other):
            return f"{place or 'result'} has {sorted(one)} and {sorted(other)}"
        parts = ((f"{place}.{key}" if place else key, one[key], other[key]) for key in one)
    elif isinstance(one, list):
        if len(one) != len(other):
            return f"{place or 'result'} has {len(one)} and {len(other)} entries"
        parts = ((f"{place}[{row}]", one[row], other[row]) for row in range(len(one)))
    else:
        return "" if one == other else f"{place or 'result'}: {one!r} and {other!r}"
    return next((found for where, a, b in parts if (found := difference(a, b, where))), "")


def same(one: Any, other: Any, what: str) -> None:
    """Fail unless both results are equal bit for bit."""
    if found := difference(plain(one), plain(other)):
        raise Failed(f"{what}: {found}")
