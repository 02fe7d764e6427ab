"""Large amounts in words."""

from __future__ import annotations

from pickaxe.report import number

_SCALES = ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"))


def amount(value: float) -> str:
    """Three significant digits, from a million on in words: "158 million"."""
    for scale, name in _SCALES:
        if 0.9995 * scale <= abs(value) < 1e15:
            return f"{number(round(value / scale, 3), 3)} {name}"
    return number(value, 3) if abs(value) >= 1e15 or value != round(value) else number(value)
