"""Lines of training sources, compared at one accuracy, and where mixes lie between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pickaxe import Call
from pickaxe.errors import InvalidItems
from pickaxe.randomness import generator
from pickaxe_plugins.evaluation.effective_robustness import _lines
from pickaxe_plugins.evaluation.effective_robustness._lines import Lines, Transform
from pickaxe_plugins.evaluation.effective_robustness._read import Models


@dataclass(frozen=True)
class Source:
    """One source: its lines, and the accuracies under shift (S,) they give at the reference."""

    name: str
    lines: Lines
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    outside: np.ndarray
    mix_of: tuple[str, str] | None


@dataclass(frozen=True)
class Fit:
    """How lines are fitted."""

    transform: Transform
    min_points: int
    bootstrap: int


def compare(models: Models, learned: Mapping[str, Lines], reference: float, how: Fit, call: Call) -> list[Source]:
    """Every source of the models, and those that fit learned, at the scaled accuracy `reference`."""
    x = _lines.forward(models.x, how.transform, models.least)
    y = _lines.forward(models.y, how.transform, models.least[:, None])
    at = np.array([reference])
    found = []
    for name in dict.fromkeys([*filter(None, models.sources), *learned]):
        call.check()
        rows = np.flatnonzero(np.array(models.sources) == name)
        if len(rows):
            lines = _lines.fit(x[rows], y[rows], models.weights[rows], how.transform, how.min_points)
            rng = generator(call.seed, "source", name)
            drawn = _lines.resampled(x[rows], y[rows], models.weights[rows], how.bootstrap, rng)
            values = _lines.backward(drawn[..., 0] * reference + drawn[..., 1], how.transform)
            low, high = _lines.ends(values)
        else:
            lines = learned[name]
            low = high = np.full(len(models.shifts), np.nan)
        bad = np.isnan(lines.slope)
        found.append(
            Source(
                name,
                lines,
                lines.at(at, how.transform)[0],
                np.where(bad, np.nan, low),
                np.where(bad, np.nan, high),
                lines.outside(at)[0],
                _mix(models, rows),
            )
        )
    return found


def _mix(models: Models, rows: np.ndarray) -> tuple[str, str] | None:
    pairs = {models.mixes[row] for row in rows}
    if len(pairs) > 1:
        other = next(int(row) for row in rows if models.mixes[row] != models.mixes[rows[0]])
        name, first = models.sources[other], models.ids[int(rows[0])]
        raise InvalidItems(
            f"items[{other}].fields.mix_of",
            f"differs from that of item {first!r} of the same source {name!r}: name each mix by itself",
        )
    return pairs.pop() if pairs else None


def position(mix: np.ndarray, a: np.ndarray, b: np.ndarray, sign: int) -> np.ndarray:
    """(y_mix - y_worse) / (y_better - y_worse): 0 where the mix equals the worse source, 1 the better; NaN on a tie."""
    gap = a - b
    swap = sign * gap < 0
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(gap == 0, np.nan, np.where(swap, (mix - a) / -gap, (mix - b) / gap))
