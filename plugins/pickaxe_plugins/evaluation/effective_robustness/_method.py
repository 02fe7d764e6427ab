"""Is a model more robust than its accuracy explains, and which training source makes it so?  (arXiv 2208.05516)"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

import pickaxe
from pickaxe import (
    ArtifactWriter,
    Call,
    Column,
    Example,
    Flag,
    Groups,
    InputField,
    Item,
    Items,
    Method,
    Progress,
    Scores,
)
from pickaxe.data import FieldValue
from pickaxe.errors import ArtifactMismatch, InvalidItems, InvalidParams
from pickaxe.hooks import hookimpl
from pickaxe.randomness import generator
from pickaxe_plugins.evaluation.effective_robustness import _lines, _report, _sources
from pickaxe_plugins.evaluation.effective_robustness._lines import Lines
from pickaxe_plugins.evaluation.effective_robustness._mixing import (
    GaussianMix,
    gaussian_mix,
    output_mixing,
    similarity_filter,
)
from pickaxe_plugins.evaluation.effective_robustness._read import Models, models
from pickaxe_plugins.evaluation.effective_robustness._sources import Fit, Source

__all__ = ["EffectiveRobustness", "GaussianMix", "Params", "gaussian_mix", "output_mixing", "similarity_filter"]

_LINES, _DRAWS = "lines.json", "draws.npy"


class Params(pickaxe.Params):
    """Parameters of `effective-robustness`."""

    transform: _lines.Transform = Field(
        "logit", description="Scale on which lines are straight: logit, probit, or identity (losses, other numbers)."
    )
    direction: Literal["higher", "lower"] = Field(
        "higher", description="Whether higher or lower numbers are better; lower (losses) needs transform=identity."
    )
    eps: float = Field(
        1e-6, gt=0, lt=0.5, description="Accuracies stay this far from 0 and 1; 1/(2n) where n is given."
    )
    reference_id: float | None = Field(
        None, description="In-distribution accuracy at which sources are compared; none: the median of the items."
    )
    reference_model: str = Field(
        "", description="Id of the item that relative robustness is measured against; empty: the first."
    )
    min_points: int = Field(3, ge=2, description="Fewest models through which a line is fitted.")
    weighted: bool = Field(False, description="Weigh each model by the size n of its test sets.")
    shifts: tuple[str, ...] = Field((), description="Shifts that matter; empty: all of the baseline.")
    bootstrap: int = Field(1000, ge=0, le=100_000, description="Resamples of the models for intervals; 0: none.")

    @model_validator(mode="after")
    def _fits_together(self) -> Params:
        if self.direction == "lower" and self.transform != "identity":
            raise ValueError("direction=lower is for losses, which are no shares: set transform=identity")
        if self.reference_id is not None and self.transform != "identity" and not 0 <= self.reference_id <= 1:
            raise ValueError("reference_id is an accuracy: 0 to 1 unless transform=identity")
        if len(set(self.shifts)) < len(self.shifts):
            raise ValueError("shifts names one twice")
        return self

    @property
    def sign(self) -> int:
        return 1 if self.direction == "higher" else -1


def _column(name: str, doc: str, direction: Literal["higher", "lower", "none"] = "none") -> Column:
    return Column(name, doc, "float64", "accuracy", direction, nullable=True)


_COLUMNS = (
    _column("effective_robustness", "Accuracy under shift above the baseline's line, mean over shifts.", "higher"),
    _column("low", "Lower end of its 95% interval, from the uncertainty of the line."),
    _column("high", "Upper end of its 95% interval."),
    _column(
        "relative_robustness", "Accuracy under shift above that of the reference model, mean over shifts.", "higher"
    ),
    _column("expected_ood", "Accuracy under shift that the line expects, mean over shifts."),
    Column("extrapolated", "1: more or less accurate than every baseline model.", "int64", "", "lower"),
    Column(
        "lambda", "Mixes: place between the sources' lines, 0 the worse, 1 the better.", "float64", "", "higher", True
    ),
    Column("diluted", "Mixes: 1 when 0 <= lambda <= 1.", "float64", "", "lower", True),
)
_GROUPS = (
    _column("ood_at_reference", "Accuracy under shift of the source's line at the reference.", "higher"),
    _column("ood_at_reference_low", "Lower end of its 95% interval."),
    _column("ood_at_reference_high", "Upper end of its 95% interval."),
    Column("slope", "Slope on the scaled axes.", "float64", nullable=True),
    Column("intercept", "Intercept on the scaled axes.", "float64", nullable=True),
    Column("r2", "Share of the variance that the line explains.", "float64", nullable=True),
    Column("held_out", "Mean error of the line for each model left out.", "float64", "accuracy", "lower", True),
    Column("points", "Models on the line.", "int64"),
    Column("rank", "1: most robust at the reference.", "float64", "", "lower", True),
    Column("extrapolated", "1: the reference lies outside the source's models.", "int64", "", "lower"),
    Column("lambda", "Mixes: place between the sources, 0 the worse, 1 the better.", "float64", "", "higher", True),
    Column("diluted", "Mixes: 1 when 0 <= lambda <= 1.", "float64", "", "lower", True),
    Column("slope_lambda", "Mixes: the same of the slopes.", "float64", nullable=True),
)


@dataclass(frozen=True)
class Baseline:
    """The fitted lines of the shifts asked for, and their resamples (draws, S, 2)."""

    lines: Lines
    drawn: np.ndarray
    sources: dict[str, Lines]


class EffectiveRobustness(Method[Params]):
    """Is a model more robust than its accuracy explains?  Effective robustness, and lines of training sources.

    Models of a baseline lie on a line of accuracy under shift over in-distribution accuracy (scaled); what a model
    scores above it is its effective robustness.  Models of one training source lie on a line too: sources are
    compared at one accuracy, and mixes of sources placed between them.
    """

    title = "Quality Not Quantity: On the Interaction between Dataset Design and Robustness of CLIP"
    paper = "arXiv:2208.05516"
    version = 1
    Params = Params
    scope = "pool"
    reads = (
        InputField("id_accuracy", "float64", "In-distribution accuracy, 0 to 1 (any number with transform=identity)."),
        InputField("ood", "struct", "Accuracy under each shift: an object, shift to number."),
        InputField("n", "int64", "Size of the test sets.", False),
        InputField("source", "text", "Training source; models of one source make a line.", False),
        InputField("mix_of", "texts", "The two sources that this model's training data mixes.", False),
        InputField("share", "float64", "Share of the first of them.", False),
    )
    fit_reads = reads[:4]
    columns = _COLUMNS
    fitted = "optional"
    stages = ("lines",)
    cost = "Milliseconds; 1,000 resamples in closed form, no model is run."
    reproduced = (
        "Golden cases; in a simulation with averaging classifiers the slope of a mix lies strictly between those of "
        "its two sources, as in the paper."
    )

    @classmethod
    def example(cls) -> Example:
        """Eight baseline models; nine to score, of two sources and their mix."""
        grid = np.linspace(0.2, 0.8, 8)
        line = _lines.backward(0.9 * _lines.forward(grid, "logit", 1e-6) - 0.7, "logit")
        base = tuple(
            Item(f"baseline {row}", fields={"id_accuracy": float(x), "ood": {"v2": float(y), "sketch": float(y) * 0.8}})
            for row, (x, y) in enumerate(zip(grid, line, strict=True))
        )
        told: list[tuple[str, float, dict[str, FieldValue]]] = [
            ("web", 0.9, {"source": "web"}),
            ("mix", 0.75, {"source": "mix", "mix_of": ("web", "photos"), "share": 0.5}),
            ("photos", 0.6, {"source": "photos"}),
        ]
        items = [
            Item(f"{name} {row}", fields={"id_accuracy": x, "ood": {"v2": gain * x, "sketch": gain * x - 0.05}, **more})
            for name, gain, more in told
            for row, x in enumerate((0.5, 0.4, 0.3))
        ]
        return Example({"bootstrap": 50}, tuple(items), False, base)

    def _shifts(self) -> tuple[str, ...]:
        """The shifts asked for, or all of the baseline; () without both."""
        if self.params.shifts or self.artifact is None:
            return self.params.shifts
        return tuple(self.artifact.read_json(_LINES)["shifts"])

    def declared_columns(self) -> tuple[Column, ...]:
        doc = "Accuracy under the shift {} above the baseline's line."
        return (
            *_COLUMNS,
            *(_column(f"effective_robustness_{name}", doc.format(name), "higher") for name in self._shifts()),
        )

    # ------------------------------------------------------------ score

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        if not len(items):
            return Scores({each.name: np.zeros(0, each.dtype) for each in self.declared_columns()})
        read = self._read(items, self._shifts())
        baseline = self._baseline(read.shifts)
        columns, flags = self._models(read, baseline, call)
        reference = self._reference(read)
        how = Fit(self.params.transform, self.params.min_points, self.params.bootstrap)
        sources = _sources.compare(read, baseline.sources, self._scaled(reference), how, call)
        columns |= self._mixes(read, sources, flags)
        rows = _group_rows(sources, read.shifts, self.params.sign)
        groups = None
        if rows:
            arrays = {each.name: np.array([row[each.name] for row in rows.values()], each.dtype) for each in _GROUPS}
            groups = Groups(tuple(rows), arrays, _GROUPS)
        flags.sort(key=lambda flag: flag.index)
        told = _report.Told(read, baseline.lines, columns, sources, rows, reference, self.params.transform)
        kept = {each.name: columns[each.name] for each in self.declared_columns()}
        return Scores(kept, groups, _report.tell(told, baseline.drawn, flags, self.params.sign), tuple(flags))

    def _read(self, items: Iterable[Item], shifts: Sequence[str] = (), where: str = "items") -> Models:
        params = self.params
        bounded = params.transform != "identity"
        return models(items, bounded=bounded, eps=params.eps, weighted=params.weighted, shifts=shifts, where=where)

    def _scaled(self, accuracy: float) -> float:
        return float(_lines.forward(np.array([accuracy]), self.params.transform, self.params.eps)[0])

    def _reference(self, read: Models) -> float:
        return float(np.median(read.x)) if self.params.reference_id is None else self.params.reference_id

    def _baseline(self, shifts: tuple[str, ...]) -> Baseline:
        """The artifact's lines in the order of `shifts`, NaN for those it does not know."""
        if self.artifact is None:
            return Baseline(Lines.of_rows([None] * len(shifts)), np.zeros((0, len(shifts), 2)), {})
        held = self.artifact.read_json(_LINES)
        if held["transform"] != self.params.transform:
            raise ArtifactMismatch(
                f"the baseline was fitted with transform={held['transform']}, not {self.params.transform}: fit it "
                "again or set the same",
                metadata={"fitted": held["transform"], "wanted": self.params.transform},
            )
        drawn = np.full((self.artifact.notes["draws"], len(shifts), 2), np.nan)
        stored = self.artifact.read_array(_DRAWS)
        for at, name in enumerate(shifts):
            if name in held["shifts"]:
                drawn[:, at] = stored[:, held["shifts"].index(name)]
        lines = {source: Lines.of_rows([rows.get(name) for name in shifts]) for source, rows in held["lines"].items()}
        return Baseline(lines.pop(""), drawn, lines)

    def _models(self, read: Models, baseline: Baseline, call: Call) -> tuple[dict[str, np.ndarray], list[Flag]]:
        call.check()
        transform, sign = self.params.transform, self.params.sign
        x = _lines.forward(read.x, transform, read.least)
        expected = baseline.lines.at(x, transform)
        gap = sign * (read.y - expected)
        there = np.isfinite(gap)
        robust, mean_expected = _mean(gap, there), _mean(expected, there)
        least, most = _lines.mean_ends(x, there, baseline.drawn, transform)
        observed = _mean(read.y, there)
        ends = np.sort(np.stack([sign * (observed - most), sign * (observed - least)]), axis=0)
        outside = (baseline.lines.outside(x) & there).any(axis=1)
        first = 0
        if self.params.reference_model:
            if self.params.reference_model not in read.ids:
                raise InvalidParams("reference_model", f"no item has the id {self.params.reference_model!r}")
            first = read.ids.index(self.params.reference_model)
        beyond = sign * (read.y - read.y[first])
        columns = {
            "effective_robustness": robust,
            "low": ends[0],
            "high": ends[1],
            "relative_robustness": _mean(beyond, np.isfinite(beyond)),
            "expected_ood": mean_expected,
            "extrapolated": outside.astype(np.int64),
            **{f"effective_robustness_{name}": gap[:, at] for at, name in enumerate(read.shifts)},
        }
        return columns, list(self._flags(read, baseline.lines, there, outside))

    def _flags(self, read: Models, lines: Lines, there: np.ndarray, outside: np.ndarray) -> Iterator[Flag]:
        if self.artifact is None:
            yield Flag(0, "no-baseline", "without a fitted baseline only sources are compared: fit(baseline models)")
            return
        lost = {name: reason for name, reason in zip(read.shifts, lines.reasons, strict=True) if reason}
        for name, reason in lost.items():
            yield Flag(0, "no-line", f"shift {name}: {reason}")
        for name in (name for name, r2 in zip(read.shifts, lines.r2, strict=True) if np.isnan(r2) and name not in lost):
            yield Flag(0, "constant", f"all baseline models score the same under {name}: is it the right column?")
        usable = np.array([not reason for reason in lines.reasons], bool)
        for row in np.flatnonzero((~there & usable).any(axis=1)):
            names = [name for name, gone in zip(read.shifts, ~there[row] & usable, strict=True) if gone]
            rest = "its mean is over the others" if there[row].any() else "name yours as the baseline does"
            yield Flag(int(row), "missing-shift", f"not measured under {', '.join(names)}: {rest}")
        for row in np.flatnonzero(outside):
            yield Flag(int(row), "extrapolated", "the line is extended beyond the accuracies of the baseline")

    def _mixes(self, read: Models, sources: Sequence[Source], flags: list[Flag]) -> dict[str, np.ndarray]:
        """Each mix among its sources' lines at its own accuracy."""
        place, transform = np.full(len(read), np.nan), self.params.transform
        lines = {each.name: each.lines for each in sources}
        for row, pair in enumerate(read.mixes):
            if pair is None:
                continue
            if missing := [name for name in pair if name not in lines]:
                flags.append(Flag(row, "no-source", f"no model of the source {missing[0]!r} is given"))
                continue
            x = _lines.forward(read.x[row : row + 1], transform, read.least[row])
            a, b = (lines[name].at(x, transform)[0] for name in pair)
            there = np.isfinite(a + b + read.y[row])
            if there.any():
                own, first, second = (np.asarray(each[there].mean()) for each in (read.y[row], a, b))
                place[row] = _sources.position(own, first, second, self.params.sign)
            else:
                flags.append(Flag(row, "no-source", "no shift has a line of both of its sources"))
        return {"lambda": place, "diluted": _diluted(place)}

    # ------------------------------------------------------------ fit

    @hookimpl
    def fit(self, examples: Iterable[Item], out: ArtifactWriter, call: Call) -> Iterator[Progress]:
        """Fit the line of each shift through all baseline models, and through those of each source."""
        given = list(examples)
        if not given:
            raise InvalidItems("examples", f"is empty: give {self.params.min_points} baseline models or more")
        read = self._read(given, where="examples")
        params = self.params
        x = _lines.forward(read.x, params.transform, read.least)
        y = _lines.forward(read.y, params.transform, read.least[:, None])
        names = ["", *dict.fromkeys(filter(None, read.sources))]
        held: dict[str, dict[str, Any]] = {}
        for step, name in enumerate(names, 1):
            call.check()
            rows = np.array([not name or each == name for each in read.sources])
            lines = _lines.fit(x[rows], y[rows], read.weights[rows], params.transform, params.min_points)
            held[name] = {shift: lines.row(at) for at, shift in enumerate(read.shifts)}
            yield Progress("lines", step, len(names), {"points": float(rows.sum())})
        rng = generator(call.seed, "baseline")
        drawn = _lines.resampled(x, y, read.weights, params.bootstrap, rng)
        for shift, (slope, intercept) in zip(read.shifts, _interval_rows(drawn), strict=True):
            held[""][shift] |= {"slope_interval": slope, "intercept_interval": intercept}
        out.write_json(_LINES, {"transform": params.transform, "shifts": read.shifts, "lines": held})
        out.write_array(_DRAWS, drawn)
        out.notes |= {"models": len(read), "draws": params.bootstrap}


def _interval_rows(drawn: np.ndarray) -> list[tuple[list[float | None], list[float | None]]]:
    """Per shift: ends of the slope, ends of the intercept."""
    both = np.stack(_lines.ends(drawn), axis=2)
    shown = [[[value if math.isfinite(value) else None for value in pair] for pair in row] for row in both.tolist()]
    return [(row[0], row[1]) for row in shown]


def _mean(values: np.ndarray, there: np.ndarray) -> np.ndarray:
    """(n,) mean of each row's values that are there; NaN where none is."""
    count = there.sum(axis=1)
    total = np.where(there, values, 0).sum(axis=1)
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)


def _diluted(place: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(place), np.nan, (place >= 0) & (place <= 1))


def _group_rows(sources: Sequence[Source], shifts: Sequence[str], sign: int) -> dict[str, dict[str, float]]:
    """A row per source and shift."""
    rows: dict[str, dict[str, float]] = {}
    by_name = {each.name: each for each in sources}
    nowhere = np.full(len(shifts), np.nan)
    for at, shift in enumerate(shifts):
        values = np.array([sign * each.value[at] for each in sources])
        for each in sources:
            value = sign * each.value[at]
            place = slope = nowhere
            if each.mix_of is not None and all(name in by_name for name in each.mix_of):
                a, b = (by_name[name] for name in each.mix_of)
                place = _sources.position(each.value, a.value, b.value, sign)
                better = np.where(sign * a.value >= sign * b.value, a.lines.slope, b.lines.slope)
                worse = a.lines.slope + b.lines.slope - better
                with np.errstate(invalid="ignore", divide="ignore"):
                    slope = (each.lines.slope - worse) / (better - worse)
            rows[f"{each.name}: {shift}"] = {
                "ood_at_reference": each.value[at],
                "ood_at_reference_low": each.low[at],
                "ood_at_reference_high": each.high[at],
                "slope": each.lines.slope[at],
                "intercept": each.lines.intercept[at],
                "r2": each.lines.r2[at],
                "held_out": each.lines.held_out[at],
                "points": int(each.lines.points[at]),
                "rank": math.nan if math.isnan(value) else 1.0 + int((values > value).sum()),
                "extrapolated": int(each.outside[at]),
                "lambda": place[at],
                "diluted": _diluted(place)[at],
                "slope_lambda": slope[at],
            }
    return rows
