"""Figures as SVG, drawn by matplotlib: equal figures give equal bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from pickaxe.extras import require
from pickaxe.report.figure import Axis, Figure, Numbers, Series
from pickaxe.report.words import describe, tick

COLOURS = ("#1f5fa8", "#b3500a", "#00735c", "#8b3f8f", "#5a5a5a", "#a61c2e", "#6b5900", "#00687d")
"""Each at least 4.5 to 1 against white."""
MARKERS = "os^Dv*PX"
DASHES = ("-", "--", "-.", ":")
_WIDTH = 7.2
_STYLE = {
    "svg.fonttype": "none",  # text stays text
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": "#1c1c1c",
    "axes.labelcolor": "#1c1c1c",
    "axes.edgecolor": "#5a5a5a",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e2e2e2",
    "xtick.color": "#3c3c3c",
    "ytick.color": "#3c3c3c",
    "legend.frameon": False,
}


def svg(figure: Figure, key: str) -> str:
    """The figure as an `<svg>` element with title and description; all its ids begin with `key`.

    Raises `RuntimeMissing` without matplotlib (extra `plot`).
    """
    mpl = require("matplotlib", extra="plot")
    canvas = require("matplotlib.backends.backend_svg", extra="plot").FigureCanvasSVG
    with mpl.rc_context():
        mpl.rcdefaults()  # whatever the user's own style is
        mpl.rcParams.update(_STYLE | {"svg.hashsalt": key})
        drawing = require("matplotlib.figure", extra="plot").Figure(
            figsize=(_WIDTH, _height(figure)), layout="constrained"
        )
        _draw(drawing, figure)
        stream = io.StringIO()
        canvas(drawing).print_svg(stream, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _inline(stream.getvalue(), figure, key)


def _height(figure: Figure) -> float:
    rows = len(figure.y.categories)
    bars = max(1, sum(each.kind == "bars" for each in figure.series))
    return 3.4 if not rows else 1.1 + rows * (0.3 if bars == 1 else 0.18 * bars + 0.1)


def _inline(text: str, figure: Figure, key: str) -> str:
    """The `<svg>` element alone, with ids of its own and a text alternative."""
    text = text[text.index("<svg") :].strip()
    text = re.sub(r'\bid="', f'id="{key}-', text)
    text = re.sub(r"url\(#", f"url(#{key}-", text)
    text = re.sub(r'xlink:href="#', f'href="#{key}-', text)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)  # of no use inside HTML
    start = text.index(">") + 1
    opening = f'<svg role="img" aria-labelledby="{key}-title {key}-desc"' + text[len("<svg") : start]
    title = f'<title id="{key}-title">{escape(figure.title)}</title>'
    return f'{opening}{title}<desc id="{key}-desc">{escape(describe(figure))}</desc>{text[start:]}'


# ---------------------------------------------------------------- drawing


def _draw(drawing: Any, figure: Figure) -> None:
    axes = drawing.add_subplot()
    if figure.x.scale == "log":
        axes.set_xscale("log")
    if figure.y.scale == "log":
        axes.set_yscale("log")
    bars = [each for each in figure.series if each.kind == "bars"]
    for place, series in enumerate(figure.series):
        look = {"color": COLOURS[place % len(COLOURS)], "label": series.name, "zorder": 3}
        if series.kind == "bars":
            _bars(axes, figure, series, bars.index(series), len(bars), look)
        else:
            _points(axes, figure, series, place, look)
    _dress(axes.xaxis, axes, figure.x, _values(figure, "x"))
    _dress(axes.yaxis, axes, figure.y, _values(figure, "y"))
    if figure.y.categories:
        axes.invert_yaxis()  # the first on top
        axes.grid(False, axis="y")
    elif figure.x.categories:
        axes.grid(False, axis="x")
    if len(figure.series) > 1:
        drawing.legend(loc="outside upper left", ncols=min(3, len(figure.series)))


def _points(axes: Any, figure: Figure, series: Series, place: int, look: dict[str, Any]) -> None:
    x, y = _array(series.x, figure.x), _array(series.y, figure.y)
    marker = MARKERS[place % len(MARKERS)]
    whole = {"marker": marker, "markersize": 5}
    if series.kind == "band":
        low, high = _interval(figure, series)
        label = {"label": series.name} if not len(y) else {}
        axes.fill_between(x, low, high, color=look["color"], alpha=0.2, linewidth=0, **label)
        if not len(y):
            return
    elif series.low is not None:
        low, high = _interval(figure, series)
        lying = bool(figure.y.categories)
        middle = x if lying else y
        reach = np.abs(np.stack([middle - np.fmin(low, middle), np.fmax(high, middle) - middle]))
        axes.errorbar(
            x, y, **{"xerr" if lying else "yerr": reach}, fmt="none", ecolor=look["color"], capsize=3, zorder=2
        )
    if series.kind == "points":
        axes.plot(x, y, linestyle="", **whole, **look)
    else:
        few = whole if 2 < len(x) <= 40 and series.kind == "line" else {}
        axes.plot(x, y, linestyle=DASHES[place % len(DASHES)], linewidth=1.8, **few, **look)


def _bars(axes: Any, figure: Figure, series: Series, turn: int, of: int, look: dict[str, Any]) -> None:
    """Bars side by side over categories; over numbers each reaches half way to its neighbours."""
    lying = bool(figure.y.categories)
    place_axis, value_axis = (figure.y, figure.x) if lying else (figure.x, figure.y)
    places, values = (series.y, series.x) if lying else (series.x, series.y)
    at, value = _array(places, place_axis), _array(values, value_axis)
    if place_axis.categories:
        width: Any = 0.8 / of
        at = at + (turn - (of - 1) / 2) * width
    else:
        at, width = _between(at, place_axis)
    solid = look | ({"alpha": 0.6} if of > 1 and not place_axis.categories else {})
    (axes.barh if lying else axes.bar)(at, value, width, edgecolor="white", linewidth=0.6, **solid)
    if series.low is not None:
        low, high = _interval(figure, series)
        reach = np.stack([value - np.fmin(low, value), np.fmax(high, value) - value])
        ends = {"xerr": reach} if lying else {"yerr": reach}
        axes.errorbar(
            *((value, at) if lying else (at, value)), **ends, fmt="none", ecolor="#1c1c1c", capsize=3, zorder=4
        )


def _between(at: np.ndarray, axis: Axis) -> tuple[np.ndarray, np.ndarray]:
    """Middles and widths of bars that touch; on a log axis they touch there."""
    if len(at) < 2:
        return at, np.full(len(at), 0.8)
    order = np.argsort(at)
    spread = np.log(at[order]) if axis.scale == "log" else at[order]
    halves = np.diff(spread) / 2
    low, high = spread - np.append(halves[:1], halves), spread + np.append(halves, halves[-1:])
    if axis.scale == "log":
        low, high = np.exp(low), np.exp(high)
    middles, widths = np.empty(len(at)), np.empty(len(at))
    middles[order], widths[order] = (low + high) / 2, high - low
    return middles, widths


def _interval(figure: Figure, series: Series) -> tuple[np.ndarray, np.ndarray]:
    """The ends of the interval; one that reaches zero on a log axis ends at the least positive value drawn."""
    axis, name = (figure.x, "x") if figure.y.categories else (figure.y, "y")
    low, high = _array(series.low or (), axis), _array(series.high or (), axis)
    if axis.scale == "log":
        floor = min((value for value in _values(figure, name) if value > 0), default=1.0)
        low = np.where(np.isnan(low) & ~np.isnan(high), floor, low)
    return low, high


def _values(figure: Figure, axis: str) -> list[float]:
    """Every number drawn along that axis."""
    names = (axis, "low", "high") if axis == ("x" if figure.y.categories else "y") else (axis,)
    parts = [getattr(each, name) or () for each in figure.series for name in names]
    return [value for part in parts for value in part if value is not None]


def _array(values: Numbers, axis: Axis) -> np.ndarray:
    array = np.array([np.nan if value is None else value for value in values], np.float64)
    if axis.scale == "log":
        array[array <= 0] = np.nan
    return array


def left_out(figure: Figure) -> int:
    """How many points a log axis cannot show."""
    return sum(
        any(v is not None and v <= 0 and axis.scale == "log" for axis, v in ((figure.x, x), (figure.y, y)))
        for each in figure.series
        for x, y in zip(each.x, each.y or each.x, strict=True)
    )


# ---------------------------------------------------------------- axes


def _dress(ticks: Any, axes: Any, axis: Axis, values: Sequence[float]) -> None:
    ticker = require("matplotlib.ticker", extra="plot")
    across = ticks is axes.xaxis
    (axes.set_xlabel if across else axes.set_ylabel)(axis.title)
    if axis.categories:
        ticks.set_ticks(range(len(axis.categories)), [_short(name) for name in axis.categories])
        (axes.set_xlim if across else axes.set_ylim)(-0.6, len(axis.categories) - 0.4)
        if across and sum(map(len, map(_short, axis.categories))) > 60:
            axes.tick_params(axis="x", rotation=40)
            for label in axes.get_xticklabels():
                label.set_horizontalalignment("right")
        return
    if axis.scale == "log":
        positive = [value for value in values if value > 0] or [1.0]
        narrow = max(positive) / min(positive) < 300
        ticks.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if narrow else (1,)))
        ticks.set_minor_formatter(ticker.NullFormatter())
    ticks.set_major_formatter(ticker.FuncFormatter(lambda value, place: tick(value)))


def _short(name: str) -> str:
    return name if len(name) <= 32 else f"{name[:31]}…"
