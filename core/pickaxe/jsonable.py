"""Plain JSON values out of what methods return."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

MAX_EXACT = 2**53
"""The greatest integer up to which a double, and so every JSON reader, holds every integer."""


def jsonable(value: Any) -> Any:
    """The value with NumPy numbers and arrays as Python ones; numbers that are not finite become None.

    Raises TypeError for what JSON cannot hold.
    """
    match value:
        case None | bool() | str():
            return value
        case int():
            if abs(value) > MAX_EXACT:
                raise TypeError(f"{value} is beyond 2^53, which not every reader of JSON can hold: write it as text")
            return value
        case float():
            return value if math.isfinite(value) else None
        case np.generic():
            return jsonable(value.item())
        case np.ndarray():
            return jsonable(value.tolist())
        case Mapping():
            return {str(key): jsonable(part) for key, part in value.items()}
        case list() | tuple():
            return [jsonable(part) for part in value]
    raise TypeError(f"{type(value).__name__} is not a JSON value")
