"""Languini: language models compared at equal accelerator hours, by perplexity per character (arXiv 2309.11197)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

import pickaxe
from pickaxe import ArtifactWriter, Call, Column, Example, Flag, InputField, Item, Items, Method, Progress, Scores
from pickaxe.errors import InvalidItems, Unmet
from pickaxe.hooks import hookimpl
from pickaxe_plugins.scaling.languini import _report
from pickaxe_plugins.scaling.languini._recipe import STAGES, Kitchen, Recipe
from pickaxe_plugins.scaling.languini._runs import Run, Throughput, Unit, check_devices, read_runs, read_throughputs
from pickaxe_plugins.scaling.languini._stream import Rounding, steps_for
from pickaxe_plugins.scaling.languini._trend import Trend, crossings, fit_trend

TRENDS = "trends.json"


class Params(pickaxe.Params):
    """Parameters of `languini`."""

    mode: Literal["score", "plan"] = Field("score", description="Score runs, or plan them from throughputs.")
    classes: tuple[float, ...] = Field((6, 12, 24, 48, 96), min_length=1, description="Compute classes, in hours.")
    tolerance: float = Field(0.02, ge=0, lt=1, description="Share by which a run's hours may miss their class.")
    length_unit: Unit = Field("chars", description="What the normalised perplexity counts: characters or bytes.")
    last_n: int | None = Field(
        None, ge=1, description="Targets at the end of each window that are scored; none: all of them."
    )
    allow_mixed: bool = Field(False, description="Compare runs whose throughputs are of different devices.")
    reference_device: str = Field("3090", description="Plan for devices whose name holds this; empty: every one.")
    hours: float = Field(6.0, gt=0, description="Accelerator hours of a plan, where the item has none.")
    batch: int = Field(128, ge=1, description="Sequences of a training step, where the item has none.")
    seq_len: int = Field(512, ge=1, description="Tokens of a sequence, where the item has none.")
    round: Rounding = Field("round", description="How a plan's steps become whole; the official tool floors.")
    bootstrap: int = Field(200, ge=0, le=10_000, description="Bootstrap fits for the slope's interval; 0: none.")
    confidence: float = Field(0.95, gt=0, lt=1, description="Share of bootstrap fits that the interval holds.")
    recipe: Recipe | None = Field(
        None, description="What fit trains on documents; its minutes are then the classes. None: fit reads runs."
    )

    @property
    def hours_of_classes(self) -> tuple[float, ...]:
        return self.classes if self.recipe is None else self.recipe.hours


_SCORES = (
    Column("neg_normalised_ppl", "Minus the perplexity per character (or byte).", "float64"),
    Column("normalised_ppl", "exp(normalised_loss).", "float64", "", "lower"),
    Column("normalised_loss", "Nats for each character (or byte).", "float64", "nats", "lower"),
    Column("normalised_ppl_bytes", "Perplexity per byte, whatever length_unit says.", "float64", "", "lower", True),
    Column("token_ppl", "Perplexity per token: not comparable between tokenizers.", "float64", "", "lower", True),
    Column("bytes_per_token", "Bytes of text for each scored token.", "float64", "", "none", True),
    Column("accelerator_hours", "Hours of the training at the measured throughput.", "float64", "h", "lower", True),
    Column("class", "Nearest compute class; 0 when none is near enough.", "float64", "h", "none"),
    Column("rank_in_class", "1: best of its class and split; NaN without a class.", "float64", "", "lower", True),
    Column("frontier", "1 when no run of the split with as few hours is better.", "float64", nullable=True),
    Column("trend_ppl", "What the trend of the model expects at these hours.", "float64", "", "lower", True),
    Column("tokens", "Tokens of the training; 0 when not known.", "int64", "tokens", "none"),
    Column("steps", "Steps of the training; 0 when not known.", "int64", "", "none"),
)  # fmt: skip
_PLAN = (
    Column("tokens", "Tokens to train on; 0 for another device.", "int64", "tokens"),
    Column("steps", "Training steps; 0 for another device.", "int64", "", "none"),
    Column("best_tokens_per_second", "Highest throughput of the configuration on the device.", "float64", "tokens/s",
           nullable=True),
    Column("best_batch_size", "Batch size of that throughput.", "float64", "", "none", True),
    Column("gradient_accumulation", "Parts of a step that fit at that batch size; NaN when not known.", "float64", "",
           "none", True),
)  # fmt: skip


class Languini(Method[Params]):
    """Compare language models at equal compute: perplexity per character over accelerator hours, trends, crossings.

    Items are evaluated runs; `fit` keeps the trends of some, or with a `recipe` trains and evaluates small networks
    first.  `mode=plan` turns measured throughputs and hours into tokens and steps.
    """

    title = "The Languini Kitchen: Enabling Language Modelling Research at Different Scales of Compute"
    paper = "arXiv:2309.11197"
    version = 1
    Params = Params
    scope = "pool"
    reads = (
        InputField("model", "text", "Label of the architecture; runs of one label make a trend.", False),
        InputField("split", "text", "What it (a validation text of a recipe) was evaluated on.", False),
        InputField("total_nll", "float64", "Negative log-likelihood of the text, in nats.", False),
        InputField("token_count", "float64", "Tokens scored, beside total_nll.", False),
        InputField("token_logprobs", "tensor", "Instead: of each target, (n,) or (windows, seq_len).", False),
        InputField("targets", "tensor", "Target ids of that shape; 0 is padding and does not count.", False),
        InputField("text", "text", "Decoded text of the scored targets; a document of a recipe.", False),
        InputField("string_length", "float64", "Instead: its characters.", False),
        InputField("string_bytes", "float64", "Its bytes.", False),
        InputField("tokens_per_second", "float64", "Training throughput on the reference device.", False),
        InputField("steps", "float64", "Steps that were trained.", False),
        InputField("batch", "float64", "Sequences of a step.", False),
        InputField("seq_len", "float64", "Tokens of a sequence.", False),
        InputField("device", "text", "Device of the throughput.", False),
        InputField("config", "text", "For a plan: size of the model.", False),
        InputField("batch_size", "float64", "For a plan: batch size of the measurement.", False),
        InputField("hours", "float64", "For a plan: accelerator hours.", False),
    )
    fit_reads = reads[:14]
    columns = _SCORES
    fitted = "optional"
    stages = (*STAGES, "trends")
    cost = "Closed forms: some 10,000 runs a second; a recipe takes its minutes for each model."
    reproduced = (
        "Published step counts from 604 throughputs, book queues, learning rate, normalised perplexity, windows; small "
        "networks of both kinds get better with the minutes on a line in ln-ln (r2 above 0.98)."
    )

    def declared_columns(self) -> tuple[Column, ...]:
        return _PLAN if self.params.mode == "plan" else _SCORES

    @classmethod
    def example(cls) -> Example:
        """Three runs, and six to fit two trends on."""

        def run(model: str, hours: float, ppl: float) -> Item:
            steps = {
                "tokens_per_second": 50_000.0,
                "steps": hours * 3600 * 50_000 / 65_536,
                "batch": 128,
                "seq_len": 512,
            }
            nll = {"total_nll": 1000 * math.log(ppl), "string_length": 1000, "string_bytes": 1010, "token_count": 250}
            return Item(f"{model}-{hours:g}", fields={"model": model, **steps, **nll})

        found = {"gpt": (2.9, 2.72, 2.55), "lstm": (3.6, 3.25, 2.96)}
        runs = tuple(
            run(model, hours, ppl)
            for model, all_ppl in found.items()
            for hours, ppl in zip((6, 12, 24), all_ppl, strict=True)
        )
        return Example({}, (runs[2], runs[0], runs[3]), True, runs)

    # ------------------------------------------------------------ score

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        return self._plan(items) if self.params.mode == "plan" else self._score(items, call)

    def _score(self, items: Items, call: Call) -> Scores:
        unit = self.params.length_unit
        runs = self._runs(items, "items")
        loss = np.array([run.loss(unit) for run in runs])
        ppl, classes = np.exp(loss), self._classes(runs)
        trends = self._known_trends(runs, call)
        of = {(trend.model, trend.split): trend for trend in trends}
        columns = {
            "neg_normalised_ppl": -ppl,
            "normalised_ppl": ppl,
            "normalised_loss": loss,
            "normalised_ppl_bytes": np.exp([run.loss("bytes") for run in runs]),
            "token_ppl": np.array([run.token_ppl for run in runs]),
            "bytes_per_token": np.array([run.bytes / run.tokens for run in runs]),
            "accelerator_hours": np.array([run.hours for run in runs]),
            "class": classes,
            "rank_in_class": _ranks(runs, classes, ppl),
            "frontier": _frontier(runs, ppl),
            "trend_ppl": np.array([_expected(of.get((run.model, run.split)), run.hours) for run in runs]),
            "tokens": np.array([_count(run.trained) for run in runs], np.int64),
            "steps": np.array([_count(run.steps) for run in runs], np.int64),
        }
        flags = [flag for run, hours in zip(runs, classes, strict=True) for flag in self._flags(run, hours, of)]
        summary = _report.summary(runs, classes.tolist(), ppl.tolist(), trends, unit)
        return Scores(columns, summary=summary, flags=tuple(flags))

    def _runs(self, items: Iterable[Item], where: str) -> list[Run]:
        runs = read_runs(items, where, self.params.length_unit, self.params.last_n)
        if not self.params.allow_mixed:
            check_devices(runs, where)
        return runs

    def _classes(self, runs: Sequence[Run]) -> np.ndarray:
        return np.array([run.nearest(self.params.hours_of_classes, self.params.tolerance) for run in runs], np.float64)

    def _known_trends(self, runs: Sequence[Run], call: Call) -> list[Trend]:
        """Those of fit, or of the runs themselves."""
        if self.artifact is not None:
            return [Trend.from_json(each) for each in self.artifact.read_json(TRENDS)["trends"]]
        return self._trends(runs, call)

    def _trends(self, runs: Sequence[Run], call: Call) -> list[Trend]:
        best: dict[tuple[str, str], dict[float, float]] = {}
        for run, hours in zip(runs, self._classes(runs).tolist(), strict=True):
            if hours:
                held = best.setdefault((run.model, run.split), {})
                held[hours] = min(held.get(hours, math.inf), math.exp(run.loss(self.params.length_unit)))
        params = self.params
        found = [
            fit_trend(model, split, by_class, params.bootstrap, params.confidence, call.seed)
            for (model, split), by_class in best.items()
        ]
        return [trend for trend in found if trend is not None]

    def _flags(self, run: Run, hours: float, trends: dict[tuple[str, str], Trend]) -> Iterator[Flag]:
        if math.isnan(run.hours):
            yield Flag(run.row, "no-hours", "tokens_per_second, steps, batch and seq_len make accelerator hours")
        elif not hours:
            near = f"{self.params.tolerance:.3g} of a class"
            yield Flag(run.row, "off-class", f"{run.hours:.4g} accelerator hours are not within {near}")
        trend = trends.get((run.model, run.split))
        if trend is not None and not math.isnan(run.hours) and trend.reaches(run.hours) > 1 + self.params.tolerance:
            yield Flag(run.row, "extrapolated", f"the trend is {trend.reaches(run.hours):.3g} times beyond its classes")

    # ------------------------------------------------------------ plan

    def _plan(self, items: Items) -> Scores:
        params = self.params
        given = read_throughputs(items, params.hours, params.batch, params.seq_len)
        best: dict[tuple[str, str], Throughput] = {}
        for each in given:
            if params.reference_device not in each.device or not each.tokens_per_second:
                continue
            held = best.setdefault((each.model, each.config), each)
            if each.device != held.device and not params.allow_mixed:
                raise InvalidItems(
                    f"items[{each.row}].fields.device",
                    f"mixes {held.device!r} and {each.device!r} in one plan: name one in reference_device, or set "
                    "allow_mixed",
                )
            if each.tokens_per_second > held.tokens_per_second:
                best[each.model, each.config] = each
        columns = {column.name: np.zeros(len(items), np.float64) for column in _PLAN}
        table: dict[tuple[Any, ...], dict[str, Any]] = {}
        for each in given:
            found = best.get((each.model, each.config)) if params.reference_device in each.device else None
            for name, value in self._planned(each, found, table).items():
                columns[name][each.row] = value
        skipped = sum(params.reference_device not in each.device for each in given)
        summary = _report.plan_summary(list(table.values()), params.reference_device, skipped)
        typed = {column.name: columns[column.name].astype(column.dtype) for column in _PLAN}
        flags = tuple(
            self._unplanned(each) for each in given if math.isnan(columns["best_tokens_per_second"][each.row])
        )
        return Scores(typed, summary=summary if given else {}, flags=flags)

    def _unplanned(self, each: Throughput) -> Flag:
        if self.params.reference_device not in each.device:
            return Flag(each.row, "other-device", f"{each.device!r} is not the reference device")
        return Flag(each.row, "does-not-fit", f"{each.configuration} exceeded the memory of the device every time")

    def _planned(
        self, each: Throughput, best: Throughput | None, table: dict[tuple[Any, ...], dict[str, Any]]
    ) -> dict[str, float]:
        if best is None:
            rest = ("best_tokens_per_second", "best_batch_size", "gradient_accumulation")
            return dict.fromkeys(rest, math.nan)
        speed = int(best.tokens_per_second)
        tokens, steps = steps_for(speed, each.hours, int(each.batch), int(each.seq_len), self.params.round)
        key = (each.model, each.config, each.hours, each.batch, each.seq_len)
        table.setdefault(
            key,
            {"configuration": each.configuration, "device": best.device or "its device", "tokens per second": speed,
             "hours": each.hours, "batch": each.batch, "length": each.seq_len, "tokens": tokens, "steps": steps},
        )  # fmt: skip
        parts = math.nan if math.isnan(best.batch_size) else math.ceil(each.batch / best.batch_size)
        return {
            "tokens": tokens,
            "steps": steps,
            "best_tokens_per_second": speed,
            "best_batch_size": best.batch_size,
            "gradient_accumulation": parts,
        }

    # ------------------------------------------------------------ fit

    @hookimpl
    def fit(
        self, examples: Iterable[Item], validation: Iterable[Item] | None, out: ArtifactWriter, call: Call
    ) -> Iterator[Progress]:
        """Keep the trends of the runs and where they cross; the runs are given, or made by the recipe."""
        if self.params.recipe is not None:
            examples = yield from Kitchen.of(self.params.recipe, examples, validation, out, call).run()
        runs = self._runs(examples, "examples")
        trends = self._trends(runs, call)
        if not trends and self.params.recipe is None:
            raise Unmet(
                f"a trend needs runs of one model in two compute classes or more; {len(runs)} runs have none: give "
                "tokens_per_second, steps, batch and seq_len, or set classes and tolerance"
            )
        out.write_json(TRENDS, {"trends": [trend.as_json() for trend in trends], "crossings": crossings(trends)})
        out.notes |= {"runs": len(runs), "length_unit": self.params.length_unit}
        yield Progress("trends", 1, 1, {"trends": len(trends)})


def _expected(trend: Trend | None, hours: float) -> float:
    return math.nan if trend is None or math.isnan(hours) else float(trend.at(hours))


def _count(value: float) -> int:
    return 0 if math.isnan(value) else round(value)


def _ranks(runs: Sequence[Run], classes: np.ndarray, ppl: np.ndarray) -> np.ndarray:
    """Rank within class and split, 1 the best, equal ones alike; NaN without a class."""
    found = np.full(len(runs), np.nan)
    splits = np.array([run.split for run in runs])
    for split in set(splits):
        for hours in set(classes[classes > 0]):
            here = np.flatnonzero((splits == split) & (classes == hours))
            found[here] = np.searchsorted(np.sort(ppl[here]), ppl[here]) + 1
    return found


def _frontier(runs: Sequence[Run], ppl: np.ndarray) -> np.ndarray:
    """1 where no run of the split with as few hours has a lower perplexity; NaN without hours."""
    found = np.full(len(runs), np.nan)
    splits, hours = np.array([run.split for run in runs]), np.array([run.hours for run in runs])
    for split in set(splits):
        here = np.flatnonzero((splits == split) & ~np.isnan(hours))
        order = here[np.lexsort((ppl[here], hours[here]))]
        lowest = np.minimum.accumulate(ppl[order]) if len(order) else np.empty(0)
        found[order] = ppl[order] <= lowest
    return found
