"""What `learning-curve` tells: the answer in words, figures and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pickaxe.report import Axis, Figure, Series, explain, number
from pickaxe_plugins.scaling._words import amount
from pickaxe_plugins.scaling.learning_curve._runs import Outcome, Standing, pairs

_MOST = 3
"""Runs drawn in the first figures: two series each."""
_POINTS = 80


def summary(
    groups: Mapping[str, tuple[Sequence[Outcome], Sequence[Standing]]], sign: int, flags: Sequence[str]
) -> dict[str, Any]:
    """Answer, figures and tables; `sign` is -1 where values are negated losses."""
    told = Told(sign)
    outcomes = [each for members, _ in groups.values() for each in members]
    answer = [sentence for members, standing in groups.values() for sentence in told.answer(members, standing)]
    best = sorted(outcomes, key=lambda each: -each.predicted)[:_MOST]
    report = explain([*answer, *flags][:6], told.figures(best, outcomes))
    report["runs"] = [told.row(each) for each in outcomes]
    if compared := [row for members, _ in groups.values() for row in pairs(members)]:
        report["pairs"] = compared
    return report


class Told:
    """Words and figures in the user's own sense of better: `sign` 1 for accuracies, -1 for losses."""

    def __init__(self, sign: int) -> None:
        self.sign = sign
        self.value = "score" if sign > 0 else "loss"

    def _n(self, value: float) -> str:
        return number(self.sign * value)

    def _between(self, low: float, high: float) -> str:
        low, high = sorted((self.sign * low, self.sign * high))
        return f"{number(low)} to {number(high)}"

    # ------------------------------------------------------------ words

    def answer(self, members: Sequence[Outcome], standing: Sequence[Standing]) -> Iterator[str]:
        order = sorted(range(len(members)), key=lambda place: -members[place].predicted)
        if not order:
            return
        best = members[order[0]]
        yield self._prediction(best)
        if len(order) > 1:
            yield self._comparison(best, members[order[1]], standing[order[0]])
        yield self._stop(best)
        if best.settings.goal is not None:
            yield self._goal(best)

    def _prediction(self, each: Outcome) -> str:
        low, high = each.band(np.array([each.run.target]))
        percent = f"{number(100 * each.settings.confidence)}%"
        sure = (
            f" ({percent} interval {self._between(float(low[0]), float(high[0]))})"
            if not np.isnan(low[0])
            else f" ({len(each.run.x)} measurements are too few for an interval)"
            if each.settings.bootstrap
            else ""
        )
        gain = each.predicted - float(each.run.y[-1])
        text = (
            f"{each.run.name}: at size {number(each.run.target)} the {self.value} is predicted to be "
            f"{self._n(each.predicted)}{sure}, {number(abs(gain), 3)} {'better' if gain >= 0 else 'worse'} than the "
            "last measurement"
        )
        if each.beyond > 1:
            text += f"; this extrapolates to {number(each.beyond, 3)} times the largest measured size"
        return text + "."

    def _comparison(self, best: Outcome, second: Outcome, standing: Standing) -> str:
        sure = (
            "which is more than the two layers of convergence together"
            if standing.reliable
            else "which is within the layers of convergence: do not rely on this order"
        )
        return f"{best.run.name} is predicted to be ahead of {second.run.name} by {number(standing.margin, 3)}, {sure}."

    def _stop(self, each: Outcome) -> str:
        _, plevel, clevel = each.levels
        if clevel:
            return (
                f"{each.run.name}: stop collecting; from size {number(float(each.run.x[clevel - 1]))} on later trends "
                f"are expected to stay within {number(each.settings.rules.tau)} of the limit."
            )
        if plevel:
            return (
                f"{each.run.name}: no stop signal yet; the trends predict from size "
                f"{number(float(each.run.x[plevel - 1]))} on, but have not come within "
                f"{number(each.settings.rules.tau)} of their limit."
            )
        return (
            f"{each.run.name}: the fitted limit has not settled below {self._n(each.settings.rules.upper)}, so it is "
            "no ceiling to plan with; predictions at nearby sizes can be good all the same."
        )

    def _goal(self, each: Outcome) -> str:
        goal = each.settings.goal or 0.0
        size, (low, high) = each.size_for, each.size_band()
        if np.isnan(size):
            return f"{each.run.name}: {self._n(goal)} cannot be aimed at, as the curve does not get better."
        if np.isinf(size):
            return f"{each.run.name}: {self._n(goal)} is beyond the fitted limit of {self._n(float(each.trend.c))}."
        sure = "" if np.isnan(low) else f" (interval {amount(low)} to {amount(high)})"
        return f"{each.run.name}: {self._n(goal)} is reached at about size {amount(size)}{sure}."

    # ------------------------------------------------------------ figures and tables

    def figures(self, drawn: Sequence[Outcome], outcomes: Sequence[Outcome]) -> Iterator[Figure]:
        if not drawn:
            return
        size, value = Axis("size of the training data", scale="log"), Axis(self.value)
        confidence = drawn[0].settings.confidence
        yield Figure(
            f"The {self.value} over size, and the trend",
            size,
            value,
            [series for each in drawn for series in self._curve(each)],
            f"Shaded: {number(100 * confidence)}% interval of bootstrap fits. Right of the last point the trend "
            "extrapolates.",
        )
        yield Figure(
            "The fitted limit as data came in",
            Axis("size of the training data"),
            Axis(f"limit of the {self.value}"),
            [Series(each.run.name, "line", each.run.x, self.sign * each.trace.trends.c[each.place]) for each in drawn],
            "A limit that still moves is no ceiling yet.",
        )
        if len(outcomes) > 1:
            yield self._forest(outcomes[:40])

    def _curve(self, each: Outcome) -> Iterator[Series]:
        yield Series(f"{each.run.name}, measured", "points", each.run.x, self.sign * each.run.y)
        ends = float(each.run.x[0]), max(each.run.target, float(each.run.x[-1]))
        grid = np.geomspace(*ends, _POINTS)
        trend, (low, high) = self.sign * each.at(grid), each.band(grid)
        if np.isnan(low).any():
            yield Series(f"{each.run.name}, trend", "line", grid, trend)
            return
        low, high = np.minimum(self.sign * low, self.sign * high), np.maximum(self.sign * low, self.sign * high)
        yield Series(f"{each.run.name}, trend", "band", grid, trend, low, high)

    def _forest(self, outcomes: Sequence[Outcome]) -> Figure:
        bands = [each.band(np.array([each.run.target])) for each in outcomes]
        ends = np.sort(self.sign * np.array([[low[0], high[0]] for low, high in bands]), axis=1)
        return Figure(
            f"Predicted {self.value} of each run",
            Axis(f"{self.value} at its target size"),
            Axis("run", categories=[each.run.name for each in outcomes]),
            [
                Series(
                    "prediction",
                    "points",
                    [self.sign * each.predicted for each in outcomes],
                    range(len(outcomes)),
                    ends[:, 0],
                    ends[:, 1],
                )
            ],
        )

    def row(self, each: Outcome) -> dict[str, Any]:
        low, high = sorted(self.sign * float(end[0]) for end in each.band(np.array([each.run.target])))
        limit_low, limit_high = sorted(self.sign * end for end in each.limit_band())
        wlevel, plevel, clevel = each.levels
        found: dict[str, Any] = {
            "run": each.run.name,
            "measurements": len(each.run.x),
            "target size": each.run.target,
            "predicted": self.sign * each.predicted,
            "low": low,
            "high": high,
            "limit": self.sign * float(each.trend.c),
            "limit low": limit_low,
            "limit high": limit_high,
            "a": self.sign * float(each.trend.a),
            "exponent b": float(each.trend.b),
            "held-out points": each.held_out.points,
            "held-out error (%)": 100 * each.held_out.relative,
            "working level": wlevel,
            "prediction level": plevel,
            "convergence level": clevel,
            "layer of convergence": each.epsilon,
        }
        if each.settings.goal is not None:
            size_low, size_high = each.size_band()
            found |= {"size for the goal": each.size_for, "size low": size_low, "size high": size_high}
        return found
