"""Learning trends, their limits level by level, and when to believe them (arXiv 2402.02515)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pickaxe_plugins.scaling._laws import Saturating, fit_saturating

PatternName = Literal["power", "exp", "log-power"]
LAST = 1e12
"""Crossings of trends are looked for at sizes from 1 to this."""
_SAME = 1e-9
"""Trends this close everywhere, relative to their limit, are one trend."""


@dataclass(frozen=True)
class Pattern:
    """A family c - a exp(-b t(x)) of concave, rising curves; `size` is the inverse of t.

    power: t = log x, so c - a x^-b.  exp: t = x / first, so c - a e^(-b x / first).  log-power: t = log log x,
    so c - a (log x)^-b.
    """

    t: Callable[[np.ndarray], np.ndarray]
    size: Callable[[np.ndarray], np.ndarray]
    least: float
    """The smallest x (not included) where t is known and rises."""


def pattern(name: PatternName, first: float) -> Pattern:
    """The pattern for curves whose smallest size is `first`."""
    if name == "power":
        return Pattern(np.log, np.exp, 0.0)
    if name == "exp":
        return Pattern(lambda x: np.asarray(x) / first, lambda t: np.asarray(t) * first, 0.0)
    return Pattern(lambda x: np.log(np.log(x)), lambda t: np.exp(np.exp(t)), 1.0)


@dataclass(frozen=True)
class Rules:
    """When a trace is believed; the defaults are for accuracies as fractions and sizes in words."""

    nu: float = 2e-6
    slowdown: int = 1
    lookahead: int = 3
    upper: float = 1.0
    tau: float = 0.005
    anchors: bool = True
    first_level: int = 3
    layer: Literal["intersection", "observation"] = "intersection"
    b_range: tuple[float, float] = (1e-3, 5.0)


@dataclass(frozen=True)
class Trace:
    """Trends of C curves over the same n sizes, by level: column i of an array is the trend of the first i + 1 points.

    All arrays are (C, n), NaN before the first level.  Levels are (C,) int64 counts of points, 0 for none.
    """

    trends: Saturating
    plain: Saturating
    """The trends without anchors."""
    epsilon: np.ndarray
    wlevel: np.ndarray
    plevel: np.ndarray
    clevel: np.ndarray


def trace(x: np.ndarray, y: np.ndarray, shape: Pattern, rules: Rules) -> Trace:
    """All trends of curves y (C, n) over rising sizes x (n,), n >= first_level; higher y is better."""
    curves, n = y.shape
    t = shape.t(x)
    levels = np.arange(rules.first_level, n + 1)
    prefix = np.tril(np.ones((n, n)))[levels - 1]
    fitted = fit_saturating(
        t, np.repeat(y, len(levels), axis=0), np.tile(prefix, (curves, 1)), rules.b_range
    )  # one row per curve and level
    table = np.full((4, curves, n), np.nan)
    for place, part in enumerate((fitted.a, fitted.b, fitted.c, fitted.sse)):
        table[place, :, levels - 1] = part.reshape(curves, -1).T
    plain = Saturating(*table)
    backbone = plain.c[:, rules.first_level - 1 :]
    sizes = x[rules.first_level - 1 :]
    working = working_level(sizes, backbone, rules.nu, rules.slowdown, rules.lookahead)
    predicting = prediction_level(backbone, working, rules.upper)
    wlevel, plevel = (_level(found, rules.first_level) for found in (working, predicting))
    trends = anchored(t, y, plain, plevel, rules.b_range) if rules.anchors else plain
    epsilon = _layers(t, trends, shape, rules)
    with np.errstate(invalid="ignore"):
        settled = (epsilon <= rules.tau) & (np.arange(1, n + 1) >= np.where(plevel > 0, plevel, n + 1)[:, None])
    clevel = _level(np.where(settled.any(axis=1), settled.argmax(axis=1), -1), 1)
    return Trace(trends, plain, epsilon, wlevel, plevel, clevel)


def _level(index: np.ndarray, first: int) -> np.ndarray:
    return np.where(index >= 0, index + first, 0).astype(np.int64)


def working_level(x: np.ndarray, limits: np.ndarray, nu: float, slowdown: int, lookahead: int) -> np.ndarray:
    """First position from which the limits (C, m) over sizes x (m,) move little for lookahead + 1 steps; -1: none.

    |limit[i+1] - limit[i]| / (x[i+1] - x[i]) <= nu^(1/slowdown), and all of those steps must have been seen.
    """
    steps = np.abs(np.diff(limits, axis=1)) / np.diff(x)
    with np.errstate(invalid="ignore"):
        calm = steps <= nu ** (1 / slowdown)
    if calm.shape[1] <= lookahead:
        return np.full(len(limits), -1)
    windows = np.asarray(np.lib.stride_tricks.sliding_window_view(calm, lookahead + 1, axis=1).all(axis=-1))
    return np.where(windows.any(axis=1), windows.argmax(axis=1), -1)


def prediction_level(limits: np.ndarray, working: np.ndarray, upper: float) -> np.ndarray:
    """First position from `working` on whose limit is at most `upper`; -1: none."""
    with np.errstate(invalid="ignore"):
        able = (
            (limits <= upper + _SAME * abs(upper))
            & (np.arange(limits.shape[1]) >= working[:, None])
            & (working >= 0)[:, None]
        )
    return np.where(able.any(axis=1), able.argmax(axis=1), -1)


def anchored(
    t: np.ndarray, y: np.ndarray, plain: Saturating, plevel: np.ndarray, b_range: tuple[float, float]
) -> Saturating:
    """The trends from `plevel` + 1 on with one more observation, of the limit: the limit of the trend before."""
    n = y.shape[1]
    table = np.stack([plain.a, plain.b, plain.c, plain.sse])
    t = np.append(t, np.inf)
    for level in range(int(plevel[plevel > 0].min(initial=n)) + 1, n + 1):
        rows = np.flatnonzero((plevel > 0) & (plevel < level))
        weights = np.concatenate([np.arange(n) < level, [True]]).astype(np.float64)
        values = np.concatenate([y[rows], table[2, rows, level - 2][:, None]], axis=1)
        found = fit_saturating(t, values, weights[None], b_range)
        table[:, rows, level - 1] = found.a, found.b, found.c, found.sse
    return Saturating(*table)


def _layers(t: np.ndarray, trends: Saturating, shape: Pattern, rules: Rules) -> np.ndarray:
    """epsilon of every level (C, n), NaN where it is not defined."""
    if rules.layer == "observation":
        return np.abs(trends.at(t) - trends.c)
    epsilon = np.full(trends.c.shape, np.nan)
    later, earlier = trends[:, 1:], trends[:, :-1]
    ends = shape.t(np.array([max(1.0, np.nextafter(shape.least, 2.0)), LAST]))
    p = last_crossing(later, earlier, float(ends[0]), float(ends[1]))
    epsilon[:, 1:] = np.abs(later.at(p) - later.c)
    # Trends that are one and the same have nothing left to learn; where they cross is rounding.
    apart = np.maximum(_widest(later, earlier, float(t[0])), np.abs(later.c - earlier.c))
    with np.errstate(invalid="ignore"):
        epsilon[:, 1:][apart <= _SAME * np.maximum(np.abs(later.c), 1e-300)] = 0.0
    return epsilon


def _turn(one: Saturating, other: Saturating) -> np.ndarray:
    """Where the difference of two trends has its only extreme; NaN where it has none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.log(one.a * one.b / (other.a * other.b)) / (one.b - other.b)


def _widest(one: Saturating, other: Saturating, start: float) -> np.ndarray:
    """The largest distance of two trends at t >= start, apart from their limits."""
    turn = np.nan_to_num(_turn(one, other), nan=start, posinf=start, neginf=start)
    spots = (np.full(turn.shape, start), np.maximum(turn, start))
    return np.maximum(*(np.abs(one.at(spot) - other.at(spot)) for spot in spots))


def last_crossing(one: Saturating, other: Saturating, start: float, end: float) -> np.ndarray:
    """The largest t in [start, end] where one - other changes sign; NaN without one.

    The difference is monotone on both sides of its only extreme, so it changes sign at most once on each.
    """
    turn = np.clip(np.nan_to_num(_turn(one, other), nan=start, posinf=end, neginf=start), start, end)
    edges = np.full(turn.shape, start), turn, np.full(turn.shape, end)
    signs = [np.sign(one.at(edge) - other.at(edge)) for edge in edges]
    on_right, on_left = signs[1] * signs[2] < 0, signs[0] * signs[1] < 0
    low, high = np.where(on_right, edges[1], edges[0]), np.where(on_right, edges[2], edges[1])
    sign = np.where(on_right, signs[2], signs[1])
    for _ in range(100):
        middle = (low + high) / 2
        beyond = np.sign(one.at(middle) - other.at(middle)) == sign
        low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
    return np.where(on_right | on_left, (low + high) / 2, np.nan)


# ---------------------------------------------------------------- errors at control sizes


def percentage_errors(actual: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """100 (y - A) / y per control size; their mean absolute value is the MAPE."""
    actual = np.asarray(actual, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return 100 * (actual - np.asarray(predicted, np.float64)) / actual


def decision_reliability(actual: tuple[np.ndarray, np.ndarray], predicted: tuple[np.ndarray, np.ndarray]) -> float:
    """Share of control sizes where the order of two learners is predicted right."""
    return float(np.mean(np.sign(actual[0] - actual[1]) == np.sign(predicted[0] - predicted[1])))


def robustness_rate(actual: tuple[np.ndarray, np.ndarray], predicted: tuple[np.ndarray, np.ndarray]) -> float:
    """Share of control sizes where both errors stay below half of the true gap."""
    half = np.abs(actual[0] - actual[1]) / 2
    close = [np.abs(a - p) < half for a, p in zip(actual, predicted, strict=True)]
    return float(np.mean(close[0] & close[1]))
