"""Figures as data: what a method wants drawn, without saying how.

A figure travels in `Scores.summary["figures"]` as JSON, so it is the same in process, over gRPC and in a report.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

from pickaxe.errors import MethodFailed

Kind = Literal["line", "points", "bars", "band"]
Scale = Literal["linear", "log"]
Numbers = tuple[float | None, ...]
"""None is a gap: no value there."""


@dataclass(frozen=True)
class Axis:
    """One axis.  With `categories`, coordinates are positions in them: 0, 1, 2 …"""

    label: str
    unit: str = ""
    scale: Scale = "linear"
    categories: tuple[str, ...] = ()

    if TYPE_CHECKING:  # any texts are taken, a tuple is kept

        def __init__(
            self, label: str, unit: str = "", scale: Scale = "linear", categories: Iterable[str] = ()
        ) -> None: ...

    def __post_init__(self) -> None:
        _text(self.label, "an axis: label")
        where = f"axis {self.label!r}"
        _text(self.unit, f"{where}: unit", empty=True)
        _one_of(self.scale, Scale, f"{where}: scale")
        object.__setattr__(self, "categories", _texts(self.categories, f"{where}: categories", empty=True))
        if self.categories and self.scale == "log":
            raise MethodFailed(f"{where}: categories have no log scale; leave out one of the two")

    @property
    def title(self) -> str:
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def as_json(self) -> dict[str, Any]:
        return _as_json(self)

    @classmethod
    def from_json(cls, value: Any, where: str = "axis") -> Axis:
        """The axis that `as_json` wrote; raises `MethodFailed` naming what cannot be used."""
        return cls(**_checked(cls, value, where))


@dataclass(frozen=True)
class Series:
    """One row of points; the legend says its name.

    `x`, `y`, `low` and `high` take any sequence or array of numbers, all of one length; NaN, infinities and None are
    gaps.  `low` and `high` are the ends of an interval of y, or of x where the y axis has categories.  `line`,
    `points` and `bars` draw it as whiskers; `band` shades it behind a line, or alone where y is empty.
    """

    name: str
    kind: Kind
    x: Numbers
    y: Numbers
    low: Numbers | None = None
    high: Numbers | None = None

    if TYPE_CHECKING:  # any numbers are taken, tuples are kept

        def __init__(
            self,
            name: str,
            kind: Kind,
            x: Iterable[float | None],
            y: Iterable[float | None],
            low: Iterable[float | None] | None = None,
            high: Iterable[float | None] | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        _text(self.name, "a series: name")
        where = f"series {self.name!r}"
        _one_of(self.kind, Kind, f"{where}: kind")
        for name in ("x", "y", "low", "high"):
            given = getattr(self, name)
            object.__setattr__(self, name, None if given is None else _numbers(given, f"{where}: {name}"))
        if (self.low is None) != (self.high is None):
            raise MethodFailed(f"{where}: has one of low and high; give both or none")
        if self.kind == "band" and self.low is None:
            raise MethodFailed(f"{where}: is a band without low and high")
        for name in ("y", "low", "high"):
            values = getattr(self, name)
            shaded = name == "y" and self.kind == "band" and not values
            if values is not None and len(values) != len(self.x) and not shaded:
                raise MethodFailed(f"{where}: {name} has {len(values)} values, x has {len(self.x)}")
        for place, (low, high) in enumerate(zip(self.low or (), self.high or (), strict=True)):
            if low is not None and high is not None and low > high:
                raise MethodFailed(f"{where}: low[{place}] = {low:g} is above high[{place}] = {high:g}")

    def as_json(self) -> dict[str, Any]:
        return _as_json(self)

    @classmethod
    def from_json(cls, value: Any, where: str = "series") -> Series:
        """The series that `as_json` wrote; raises `MethodFailed` naming what cannot be used."""
        return cls(**_checked(cls, value, where))


@dataclass(frozen=True)
class Figure:
    """One figure.  The title says what is seen; `note` is a sentence under it: what an interval is, what to beware."""

    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    note: str = ""

    if TYPE_CHECKING:  # any series are taken, a tuple is kept

        def __init__(self, title: str, x: Axis, y: Axis, series: Iterable[Series], note: str = "") -> None: ...

    def __post_init__(self) -> None:
        _text(self.title, "a figure: title")
        where = f"figure {self.title!r}"
        _text(self.note, f"{where}: note", empty=True)
        object.__setattr__(self, "series", tuple(self.series))
        if not self.series:
            raise MethodFailed(f"{where}: has no series")
        names = [each.name for each in self.series]
        if twice := [name for name in names if names.count(name) > 1]:
            raise MethodFailed(f"{where}: two series are called {twice[0]!r}")
        if self.x.categories and self.y.categories:
            raise MethodFailed(f"{where}: both axes have categories; one must be numbers")
        for each in self.series:
            for axis, values in ((self.x, each.x), (self.y, each.y)):
                _positions(axis, values, f"{where}, series {each.name!r}")

    def as_json(self) -> dict[str, Any]:
        return _as_json(self)

    @classmethod
    def from_json(cls, value: Any, where: str = "figure") -> Figure:
        """The figure that `as_json` wrote; raises `MethodFailed` naming what cannot be used."""
        given = _checked(cls, value, where)
        series = given["series"]
        if not isinstance(series, (list, tuple)):
            raise MethodFailed(f"{where}.series: is {_name(series)}, wanted a list")
        return cls(
            given["title"],
            Axis.from_json(given["x"], f"{where}.x"),
            Axis.from_json(given["y"], f"{where}.y"),
            tuple(Series.from_json(each, f"{where}.series[{place}]") for place, each in enumerate(series)),
            given.get("note", ""),
        )


def explain(answer: Iterable[str] = (), figures: Iterable[Figure] = ()) -> dict[str, Any]:
    """The entries of `Scores.summary` that a report opens with: the answer in plain sentences, and figures."""
    return {"answer": list(answer), "figures": [each.as_json() for each in figures]}


def explained(summary: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[Figure, ...]]:
    """What `explain` put into a summary; raises `MethodFailed` naming what cannot be used."""
    answer, figures = summary.get("answer", []), summary.get("figures", [])
    if not isinstance(figures, (list, tuple)):
        raise MethodFailed(f"figures: is {_name(figures)}, wanted a list")
    return _texts(answer, "answer"), tuple(
        Figure.from_json(each, f"figures[{place}]") for place, each in enumerate(figures)
    )


# ---------------------------------------------------------------- checks


def _checked(cls: type[Any], value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise MethodFailed(f"{where}: is {_name(value)}, wanted an object")
    known = {each.name: each.default is MISSING for each in fields(cls)}
    if strange := sorted(set(value) - set(known)):
        raise MethodFailed(f"{where}: has {strange[0]!r}, known are {', '.join(known)}")
    if missing := [name for name, needed in known.items() if needed and name not in value]:
        raise MethodFailed(f"{where}: has no {missing[0]!r}")
    return dict(value)


def _numbers(given: Any, where: str) -> Numbers:
    if isinstance(given, (str, Mapping)) or not isinstance(given, Iterable):
        raise MethodFailed(f"{where}: is {_name(given)}, wanted numbers")
    numbers: list[float | None] = []
    for place, value in enumerate(given):
        try:
            number = math.nan if value is None else float(value)
        except (TypeError, ValueError):
            raise MethodFailed(f"{where}[{place}]: is {value!r}, wanted a number") from None
        numbers.append(number if math.isfinite(number) else None)
    return tuple(numbers)


def _positions(axis: Axis, values: Numbers, where: str) -> None:
    for value in values if axis.categories else ():
        if value is None or not 0 <= value < len(axis.categories) or value != int(value):
            raise MethodFailed(f"{where}: {value} is no position in the {len(axis.categories)} of {axis.label!r}")


def _text(value: Any, where: str, empty: bool = False) -> None:
    if not isinstance(value, str) or not (value or empty):
        raise MethodFailed(f"{where} is {_name(value)}, wanted text")


def _texts(value: Any, where: str, empty: bool = False) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise MethodFailed(f"{where}: is {_name(value)}, wanted a list of texts")
    texts = tuple(value)
    for place, each in enumerate(texts):
        _text(each, f"{where}[{place}]", empty)
    return texts


def _one_of(value: Any, kind: Any, where: str) -> None:
    if value not in get_args(kind):
        raise MethodFailed(f"{where}: is {value!r}, wanted {' or '.join(get_args(kind))}")


def _name(value: Any) -> str:
    return "empty" if value == "" else "null" if value is None else f"of type {type(value).__name__}"


def _as_json(value: Any) -> dict[str, Any]:
    """The fields that differ from their defaults, as JSON."""
    return {
        each.name: _json(getattr(value, each.name))
        for each in fields(value)
        if each.default is MISSING or getattr(value, each.name) != each.default
    }


def _json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_json(part) for part in value]
    return value.as_json() if isinstance(value, (Axis, Series)) else value
