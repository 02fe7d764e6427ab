"""Learning curves extrapolated: what more data would bring, and when to stop (arXiv 2402.02515)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, Self

import numpy as np
import pydantic
from pydantic import Field

import pickaxe
from pickaxe import (
    ArtifactWriter,
    Call,
    Column,
    Example,
    Flag,
    InputField,
    Item,
    Items,
    Method,
    MethodRef,
    Progress,
    Scores,
)
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe.hooks import hookimpl
from pickaxe.randomness import generator
from pickaxe_plugins.scaling._curves import Place, names, places
from pickaxe_plugins.scaling._laws import folds
from pickaxe_plugins.scaling.learning_curve import _learners, _report
from pickaxe_plugins.scaling.learning_curve._runs import Outcome, Run, Settings, Standing, analyse, standings
from pickaxe_plugins.scaling.learning_curve._trace import Rules, Trace, pattern, trace

_CURVE, _TRACE = "curve.npy", "trace.npy"


class Params(pickaxe.Params):
    """Parameters of `learning-curve`."""

    target_size: float | None = Field(
        None, gt=0, description="Size to predict at, where items do not say; none: twice the largest measured one."
    )
    accuracy_goal: float | None = Field(None, description="Value of y whose size is wanted, in the unit of y.")
    direction: Literal["higher", "lower"] = Field(
        "higher", description="Whether higher y is better (accuracy, F1) or lower (loss)."
    )
    pattern: Literal["power", "exp", "log-power"] = Field("power", description="Family of the fitted curves.")
    tau: float = Field(0.005, gt=0, description="Layer of convergence at which to stop, in the unit of y.")
    nu: float = Field(
        2e-6, gt=0, description="Change of the limit per unit of size that counts as settled, in units of y."
    )
    slowdown: int = Field(1, ge=1, description="Settled means at most nu^(1/slowdown).")
    lookahead: int = Field(3, ge=0, description="Further steps of the limit that must be settled too.")
    upper: float | None = Field(
        None, description="Highest limit to believe, in the unit of y: 1, or 100 for percent; for a loss the lowest, 0."
    )
    anchors: bool = Field(True, description="Hold each limit near the one before, once trends predict.")
    first_level: int = Field(3, ge=3, description="Fewest measurements that a trend is fitted to.")
    layer: Literal["intersection", "observation"] = Field(
        "intersection",
        description="Distance to the limit that must fall below tau: at the last crossing of the last two trends, or "
        "at the last measurement.",
    )
    b_range: tuple[float, float] = Field((1e-3, 5.0), description="Exponents that are looked at.")
    strict: bool = Field(False, description="Refuse curves that are too short, where otherwise they are flagged.")
    bootstrap: int = Field(200, ge=0, le=10_000, description="Bootstrap fits for the intervals; 0: none.")
    confidence: float = Field(0.95, gt=0, lt=1, description="Share of bootstrap fits that an interval holds.")
    learner: Literal["perceptron", "fasttext", "scorer"] = Field(
        "perceptron", description="What fit trains on growing parts of the examples; scorer: learner_scorer."
    )
    learner_scorer: MethodRef | None = Field(
        None, description="A scorer that can be fitted, judged by the mean of its primary column."
    )
    kernel: int = Field(50, ge=2, description="Examples of the first, smallest part.")
    step: int = Field(50, ge=1, description="Examples by which each part is larger.")
    folds: int = Field(10, ge=2, description="Parts of cross-validation, where fit is given no validation set.")
    passes: int = Field(5, ge=1, description="Passes of the learner over its examples.")

    @pydantic.model_validator(mode="after")
    def _agree(self) -> Self:
        low, high = self.b_range
        if not 0 < low < high:
            raise ValueError(f"b_range must rise from above 0 (got {low:g} to {high:g})")
        if (self.learner == "scorer") != (self.learner_scorer is not None):
            raise ValueError("learner scorer and learner_scorer go together: give both or none")
        return self

    @property
    def sign(self) -> int:
        return 1 if self.direction == "higher" else -1

    def rules(self) -> Rules:
        upper = self.upper if self.upper is not None else (1.0 if self.direction == "higher" else 0.0)
        return Rules(
            nu=self.nu,
            slowdown=self.slowdown,
            lookahead=self.lookahead,
            upper=self.sign * upper,
            tau=self.tau,
            anchors=self.anchors,
            first_level=self.first_level,
            layer=self.layer,
            b_range=self.b_range,
        )

    def settings(self) -> Settings:
        goal = None if self.accuracy_goal is None else self.sign * self.accuracy_goal
        return Settings(self.rules(), self.pattern, goal, self.bootstrap, self.confidence)


_NEGATED = "minus the loss when direction is lower"
_COLUMNS = (
    Column("predicted", f"Value of the last trend at the target size; {_NEGATED}.", "float64", nullable=True),
    Column("predicted_low", "Lower end of its interval.", "float64", "", "none", True),
    Column("predicted_high", "Upper end of its interval.", "float64", "", "none", True),
    Column("asymptote", f"Limit of the last trend; {_NEGATED}.", "float64", nullable=True),
    Column("exponent", "Exponent b of the last trend; none for a constant curve.", "float64", "", "none", True),
    Column("wlevel", "Measurements from which the limit is settled; 0: not yet.", "int64", "measurements", "none"),
    Column("plevel", "Measurements from which the trends predict; 0: not yet.", "int64", "measurements", "none"),
    Column("clevel", "Measurements from which the layer is within tau; 0: not yet.", "int64", "measurements", "none"),
    Column("epsilon", "Layer of convergence of the last trend.", "float64", "", "lower", True),
    Column("sse", "Sum of squared errors of the last trend.", "float64", "", "lower", True),
    Column("marginal_gain", "Predicted value minus the last measured one.", "float64", nullable=True),
    Column("size_for", "Size that reaches accuracy_goal; inf: beyond the limit.", "float64", "", "lower", True),
    Column("stop", "1 when clevel is reached: more data brings little.", "int64", "", "none"),
    Column("win_margin", "Prediction minus the best one of the others in its group.", "float64", nullable=True),
    Column("reliable", "1 when that margin exceeds both layers together.", "float64", nullable=True),
    Column(
        "held_out_mape", "Mean absolute error on the last fifth, fitted on the rest.", "float64", "%", "lower", True
    ),
)


class LearningCurve(Method[Params]):
    """Extrapolate learning curves: what more data brings, when to stop collecting, which learner wins in the end.

    Items are runs: scores y of a learner trained on growing parts, of sizes x, of its data.  `fit` measures such a
    curve of texts with labels, and stops when the curve has converged.
    """

    title = "Modeling of learning curves with applications to pos tagging"
    paper = "arXiv:2402.02515"
    version = 1
    Params = Params
    scope = "group"
    reads = (
        InputField(
            "x", "tensor", "Sizes of the training data, (n,), rising.  Without x and y: the curve of fit.", False
        ),
        InputField("y", "tensor", "Score (or loss) at each size, (n,).", False),
        InputField("target_size", "float64", "Size to predict at.", False),
        InputField("group", "text", "Runs of a group are compared with each other.", False),
    )
    fit_reads = (
        InputField("text", "text", "A text of the training data."),
        InputField("label", "text", "Its class; not wanted when learner is scorer.", False),
    )
    columns = _COLUMNS
    fitted = "optional"
    stages = ("curve",)
    cost = "About 1 ms for all trends of a 40-point curve, some more for the intervals."
    reproduced = (
        "Golden traces, levels and layers; on a synthetic 400,000-word tagging task the final accuracy is predicted "
        "within 2 points from 10 % of the data."
    )

    @classmethod
    def example(cls) -> Example:
        """Two learners over ten sizes; 40 labelled texts for fit."""
        x = np.arange(1, 11) * 5000.0
        items = [
            Item(name, fields={"x": x, "y": c - a * x**-b, "target_size": 2e5, "group": group})
            for name, group, a, b, c in (
                ("steep", "tagger", 3.1, 0.42, 0.968),
                ("flat", "tagger", 1.9, 0.35, 0.955),
                ("poor", "parser", 2.0, 0.3, 0.9),
            )
        ]
        words = {"sea": ("fish", "salt", "wave", "boat"), "land": ("tree", "dust", "road", "barn")}
        examples = [
            Item(str(row), f"{own[row % 4]} {own[row * 3 % 4]} and {other[row % 3]}", {"label": label})
            for row in range(20)
            for label, own, other in (("sea", words["sea"], words["land"]), ("land", words["land"], words["sea"]))
        ]
        return Example({"kernel": 6, "step": 6, "folds": 2}, tuple(items), True, tuple(examples))

    # ------------------------------------------------------------ score

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        runs, flags = self._runs(items)
        found = list(analyse(runs, self.params.settings(), call))
        outcomes = {each.run.row: each for each in found}
        groups: dict[str, tuple[list[Outcome], list[Standing]]] = {}
        for row in sorted(outcomes):
            groups.setdefault(outcomes[row].run.group, ([], []))[0].append(outcomes[row])
        columns = {
            each.name: np.full(len(items), 0 if each.dtype == "int64" else np.nan, each.dtype) for each in _COLUMNS
        }
        for members, standing in groups.values():
            standing += standings(members)
            for outcome, stands in zip(members, standing, strict=True):
                flags += _flags(outcome)
                for name, value in _row(outcome, stands).items():
                    columns[name][outcome.run.row] = value
        short = [f"{flag.message[:1].upper()}{flag.message[1:]}." for flag in flags if flag.reason == "too-short"]
        summary = _report.summary(groups, self.params.sign, short) if len(items) else {}
        return Scores(columns, summary=summary, flags=tuple(sorted(flags, key=lambda flag: flag.index)))

    def _runs(self, items: Items) -> tuple[list[Run], list[Flag]]:
        """The runs that are long enough, and flags for the others."""
        runs, flags, least = [], [], self.params.first_level
        for row, (place, name) in enumerate(zip(places(items, "items"), names(items), strict=True)):
            x, y = self._curve(place)
            target = place.number("target_size") or self.params.target_size or (2 * float(x[-1]) if len(x) else 1.0)
            if target <= (bottom := pattern(self.params.pattern, 1.0).least):
                raise place.error("target_size", f"must be above {bottom:g} for this pattern (got {target:g})")
            if len(x) >= least:
                runs.append(Run(row, place.item.id, name, str(place.item.get("group") or ""), x, y, target))
                continue
            what = f"{name} has {len(x)} measurements, a trend needs {least}: measure {least - len(x)} more sizes"
            if self.params.strict:
                raise place.error("x", what)
            flags.append(Flag(row, "too-short", what))
        return runs, flags

    def _curve(self, place: Place) -> tuple[np.ndarray, np.ndarray]:
        """Sizes, and values that rise where they get better."""
        curve = place.curve("x", "y")
        if curve is None:
            if self.artifact is None:
                raise place.error("x", "is missing, and no artifact of fit is there to take a curve from")
            x, y = np.array(self.artifact.read_array(_CURVE))
            return x, self.params.sign * y
        x, y = curve
        if len(x) and x[0] <= (least := pattern(self.params.pattern, 1.0).least):
            raise place.error("x", f"must be above {least:g} for the pattern {self.params.pattern} (got {x[0]:g})")
        upper = self.params.rules().upper
        if len(y) and (beyond := (self.params.sign * y).max()) > upper:
            raise place.error("y", _misfit(self.params.sign * beyond, self.params))
        return x, self.params.sign * y

    # ------------------------------------------------------------ fit

    @hookimpl
    def fit(
        self, examples: Iterable[Item], validation: Iterable[Item] | None, out: ArtifactWriter, call: Call
    ) -> Iterator[Progress]:
        """Train the learner on nested, growing parts of the examples until the curve has converged."""
        if self.params.direction == "lower":
            raise InvalidParams("direction", "must be higher for fit: its learners are judged by accuracy")
        p, train = self.params, list(examples)
        test = None if validation is None else list(validation)
        self._check_labels(train, "examples")
        self._check_labels(test or [], "validation")
        order = generator(call.seed, "order").permutation(len(train))
        sizes = range(p.kernel, len(train) + 1, p.step)
        if len(sizes) < p.first_level:
            raise InvalidItems(
                "examples",
                f"are {len(train)}, too few for {p.first_level} parts from {p.kernel} in steps of {p.step}: give "
                f"{p.kernel + (p.first_level - 1) * p.step} or more, or set kernel and step lower",
            )
        learn, values, found = self._learner(call), [], None
        for place, size in enumerate(sizes, 1):
            values.append(self._measured(learn, [train[row] for row in order[:size]], test, call))
            x, y = np.array(sizes[:place], np.float64), np.array(values)
            if place >= p.first_level:
                found = trace(x, y[None], pattern(p.pattern, float(x[0])), p.rules())
            yield Progress("curve", place, len(sizes), {"size": float(size), "score": values[-1]})
            if found is not None and found.clevel[0]:
                break
        assert found is not None
        out.write_array(_CURVE, np.stack([x, y]))
        out.write_array(_TRACE, _table(x, found))
        stopped = bool(found.clevel[0])
        out.notes |= {"measurements": len(x), "examples": len(train), "largest_size": int(x[-1]), "stopped": stopped}

    def _learner(self, call: Call) -> _learners.Learner:
        if self.params.learner_scorer is not None:
            return _learners.scorer(self.params.learner_scorer, self.host, call)
        make = _learners.fasttext if self.params.learner == "fasttext" else _learners.perceptron
        return make(self.params.passes, call)

    def _measured(
        self, learn: _learners.Learner, part: Sequence[Item], test: Sequence[Item] | None, call: Call
    ) -> float:
        if test:
            return learn(part, test, call.seed)
        parts = folds(len(part), self.params.folds, generator(call.seed, "folds", len(part)))
        return float(
            np.mean(
                [learn([part[row] for row in kept], [part[row] for row in held], call.seed) for kept, held in parts]
            )
        )

    def _check_labels(self, items: Sequence[Item], where: str) -> None:
        if self.params.learner == "scorer":
            return
        for row, item in enumerate(items):
            if not item.get("label"):
                raise InvalidItems(f"{where}[{row}].fields.label", f"is missing (item {item.id!r})")


def _misfit(value: float, params: Params) -> str:
    if params.direction == "lower":
        return f"is {value:g}, below the lowest loss there is: a loss is not negative; set upper if yours may be"
    return (
        f"is {value:g}, above 1: for percent set upper=100 and multiply nu and tau by 100, for a loss direction=lower"
        if params.upper in (None, 1.0)
        else f"is {value:g}, above upper = {params.upper:g}"
    )


def _row(outcome: Outcome, standing: Standing) -> dict[str, float]:
    wlevel, plevel, clevel = outcome.levels
    low, high = outcome.band(np.array([outcome.run.target]))
    trend = outcome.trend
    return {
        "predicted": outcome.predicted,
        "predicted_low": float(low[0]),
        "predicted_high": float(high[0]),
        "asymptote": float(trend.c),
        "exponent": float(trend.b),
        "wlevel": wlevel,
        "plevel": plevel,
        "clevel": clevel,
        "epsilon": outcome.epsilon,
        "sse": float(trend.sse),
        "marginal_gain": outcome.predicted - float(outcome.run.y[-1]),
        "size_for": outcome.size_for,
        "stop": int(clevel > 0),
        "win_margin": standing.margin,
        "reliable": standing.reliable,
        "held_out_mape": 100 * outcome.held_out.relative,
    }


def _flags(outcome: Outcome) -> list[Flag]:
    """What to beware of in a run."""
    row, found = outcome.run.row, []
    if outcome.constant:
        found.append(Flag(row, "constant", "all measurements are equal: there is no curve to extrapolate"))
    elif not outcome.rises:
        found.append(Flag(row, "not-rising", "the curve gets worse with size: the pattern does not describe it"))
    elif outcome.at_bound:
        found.append(Flag(row, "exponent-at-bound", "the exponent is at an end of b_range: the limit is a guess"))
    if not outcome.levels[1]:
        found.append(Flag(row, "no-prediction-level", "the limit has not settled: it is no ceiling to plan with"))
    if outcome.beyond > 1:
        found.append(Flag(row, "extrapolated", f"the target is {outcome.beyond:.3g} times the largest measured size"))
    return found


def _table(x: np.ndarray, found: Trace) -> np.ndarray:
    """One row per level: size, a, b, c, sse, epsilon, and the three levels."""
    trends = found.trends[0]
    levels = [np.full(len(x), level[0], np.float64) for level in (found.wlevel, found.plevel, found.clevel)]
    return np.stack([x, trends.a, trends.b, trends.c, trends.sse, found.epsilon[0], *levels], axis=1)
