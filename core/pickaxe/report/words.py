"""Numbers as a reader wants them, and figures in words for those who do not see them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from pickaxe.report.figure import Axis, Figure, Numbers, Series

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_KINDS = {"line": "a line", "points": "points", "bars": "bars", "band": "a band"}


def number(value: float, digits: int = 4) -> str:
    """The number with four significant digits; whole numbers entire, great and small ones with a power of ten."""
    if not math.isfinite(value):
        return "no value" if math.isnan(value) else "∞" if value > 0 else "-∞"
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    text = f"{value:.{digits}g}"
    if "e" not in text:
        return text
    factor, power = text.split("e")
    if 0 < int(power) < 7:
        return f"{value:.0f}"
    return f"{factor}×10{str(int(power)).translate(_RAISED)}"


def tick(value: float) -> str:
    """The number on an axis."""
    power = round(math.log10(value)) if value > 0 else 0
    if abs(power) > 4 and math.isclose(value, 10.0**power):
        return f"10{str(power).translate(_RAISED)}"
    if abs(value) >= 1e7:
        factor, power_text = f"{value:e}".split("e")
        return f"{float(factor):g}×10{str(int(power_text)).translate(_RAISED)}"
    return number(round(value, 12), 6)


def cell(value: Any) -> str:
    """A value as it stands in a table."""
    match value:
        case None:
            return "no value"
        case bool():
            return "yes" if value else "no"
        case int() | float():
            return number(value)
        case list() | tuple():
            return ", ".join(cell(part) for part in value)
        case Mapping():
            return json.dumps(value, ensure_ascii=False, sort_keys=True)
    return str(value)


def describe(figure: Figure) -> str:
    """What the figure shows: axes, and of every series where it begins, ends and has its extremes."""
    kinds = " and ".join(dict.fromkeys(_KINDS[each.kind] for each in figure.series))
    value, place = (figure.x, figure.y) if figure.y.categories else (figure.y, figure.x)
    axes = f"{_axis(value)} over {_axis(place)}, drawn as {kinds}."
    return " ".join([axes, *(_series(figure, each) for each in figure.series)])


def coordinate(axis: Axis, value: float | None) -> str:
    """The value on that axis: its category, or the number."""
    if value is None:
        return "no value"
    return axis.categories[int(value)] if axis.categories else number(value)


def _axis(axis: Axis) -> str:
    return f"{axis.title} on a log scale" if axis.scale == "log" else axis.title


def _series(figure: Figure, series: Series) -> str:
    lying = bool(figure.y.categories)
    place, value = (figure.y, figure.x) if lying else (figure.x, figure.y)
    places, values = (series.y, series.x) if lying else (series.x, series.y)
    if not values:  # a band without a middle
        values = series.low or ()
    found = [(v, p) for v, p in zip(values, places, strict=True) if v is not None]
    if not found:
        return f"{series.name}: no values."
    if len(found) == 1:
        return f"{series.name}: {coordinate(value, found[0][0])} at {coordinate(place, found[0][1])}."
    least, most = min(found, key=lambda each: each[0]), max(found, key=lambda each: each[0])
    said = (
        f"{series.name}: {len(found)} values, lowest {coordinate(value, least[0])} at {coordinate(place, least[1])}, "
        f"highest {coordinate(value, most[0])} at {coordinate(place, most[1])}"
    )
    return f"{said}{_widest(value, series.low, series.high)}."


def _widest(axis: Axis, low: Numbers | None, high: Numbers | None) -> str:
    ends = [(b - a, a, b) for a, b in zip(low or (), high or (), strict=True) if a is not None and b is not None]
    if not ends:
        return ""
    _, a, b = max(ends)
    return f", the widest interval from {coordinate(axis, a)} to {coordinate(axis, b)}"
