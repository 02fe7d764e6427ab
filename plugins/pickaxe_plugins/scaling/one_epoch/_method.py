"""One epoch over more data: plans, the power law of the test loss, speed-ups, and a recipe (arXiv 1906.06669)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np
from pydantic import Field

import pickaxe
from pickaxe import ArtifactWriter, Call, Column, Example, Flag, InputField, Item, Items, Method, Progress, Scores
from pickaxe.hooks import hookimpl
from pickaxe_plugins.scaling._curves import Place, names, places
from pickaxe_plugins.scaling._one_epoch_plan import Plan
from pickaxe_plugins.scaling.one_epoch import _report
from pickaxe_plugins.scaling.one_epoch._fit import CURVE, Recipe, train_once
from pickaxe_plugins.scaling.one_epoch._runs import Curve, Run, Settings, speedups


class Params(pickaxe.Params):
    """Parameters of `one-epoch`."""

    rank_by: Literal["plan", "loss"] = Field(
        "plan", description="Primary column: plan_quality, or neg_predicted_loss for runs with a curve."
    )
    target_ratio: float = Field(5.0, gt=0, description="Tokens for each parameter: 5 is the paper's, 20 Chinchilla's.")
    fit_from: int | None = Field(
        None, ge=1, description="Iteration from which the law is fitted; none: a tenth of the last one."
    )
    goal_loss: float | None = Field(None, gt=0, description="Test loss whose iteration is wanted.")
    offset: bool = Field(False, description="Let the law end at a loss above 0: offset + a I^-b.")
    tolerance: float = Field(0.01, ge=0, description="Rise of the test loss after its minimum that is no overfitting.")
    bootstrap: int = Field(200, ge=0, le=10_000, description="Bootstrap fits for the intervals; 0: none.")
    confidence: float = Field(0.95, gt=0, lt=1, description="Share of bootstrap fits that an interval holds.")
    recipe: Recipe = Field(Recipe(), description="What fit trains: budget, batch, context, network and vocabulary.")

    def settings(self) -> Settings:
        return Settings(
            self.target_ratio,
            self.fit_from,
            self.offset,
            self.goal_loss,
            self.tolerance,
            self.bootstrap,
            self.confidence,
        )


_QUALITY = Column(
    "plan_quality", "-|ln(ratio / target_ratio)|: 0 for a plan of the right size.", "float64", nullable=True
)
_LOSS = Column("neg_predicted_loss", "Minus the test loss that the law predicts.", "float64", "nats", nullable=True)
_REST = (
    Column("predicted_loss_low", "Lower end of the loss's interval.", "float64", "nats", "none", True),
    Column("predicted_loss_high", "Upper end of the loss's interval.", "float64", "nats", "none", True),
    Column("ratio", "Tokens processed for each parameter.", "float64", "", "none", True),
    Column("tokens_processed", "Tokens of the plan, in whole iterations; 0: not known.", "int64", "tokens", "none"),
    Column("iterations", "Iterations of the plan; 0: not known.", "int64", "", "none"),
    Column("new_params", "Parameters of the same budget at the target ratio.", "float64", "", "none", True),
    Column("new_tokens", "Tokens of the same budget at the target ratio.", "float64", "tokens", "none", True),
    Column("new_iterations", "Iterations that process new_tokens; 0: not known.", "int64", "", "none"),
    Column(
        "unique_tokens_needed", "Different tokens for the plan in one epoch; 0: not known.", "int64", "tokens", "none"
    ),
    Column("repeat_factor", "How often each token is used, at least 1.", "float64", "", "lower", True),
    Column("exponent", "Exponent b of the law.", "float64", "", "none", True),
    Column("coefficient", "Coefficient a of the law.", "float64", "", "none", True),
    Column("r2", "Explained share of the variance of the log loss.", "float64", nullable=True),
    Column("iterations_to_goal", "Iterations to goal_loss; inf: never.", "float64", "", "lower", True),
    Column("overfits", "1 when the test loss rises again after its minimum.", "int64", "", "lower"),
    Column(
        "speedup", "Hours of the group's baseline to its best loss, over those of this run.", "float64", nullable=True
    ),
    Column(
        "held_out_error", "Mean relative error of the law on its last fifth of points.", "float64", "", "lower", True
    ),
)


class OneEpoch(Method[Params]):
    """Tell whether data are repeated too often for a budget, which model size fits, and what loss to expect.

    Items are training plans (parameters, tokens, epochs) or runs (test loss over iterations), or both.  `fit` is
    the recipe: it trains a small model on every document once.
    """

    title = "One Epoch Is All You Need"
    paper = "arXiv:1906.06669"
    version = 1
    Params = Params
    scope = "group"
    reads = (
        InputField("params", "float64", "Parameters of the model.", False),
        InputField("unique_tokens", "float64", "Different tokens there are.", False),
        InputField("epochs", "float64", "Passes over them.", False),
        InputField("steps", "float64", "Iterations of the plan, where epochs are not given.", False),
        InputField("batch", "float64", "Sequences of an iteration.", False),
        InputField("context", "float64", "Tokens of a sequence.", False),
        InputField("iterations", "tensor", "Iterations at which the test loss was measured, (n,), rising.", False),
        InputField("test_loss", "tensor", "Test loss there, (n,), in nats.", False),
        InputField("hours", "tensor", "Hours until there, (n,).", False),
        InputField("predict_at", "float64", "Iteration to predict the loss at.", False),
        InputField("group", "text", "Runs of a group are compared with its baseline.", False),
        InputField("baseline", "bool", "Whether this run is the baseline of its group.", False),
    )
    fit_reads = (InputField("text", "text", "A document; the same text twice counts once."),)
    columns = (_QUALITY, _LOSS, *_REST)
    fitted = "optional"
    stages = ("vocabulary", "train")
    cost = "Closed forms; 100,000 laws of 50 points in under half a second."
    reproduced = (
        "Golden cases; on a tiny network one pass over fresh data ends with a test loss 0.1 nat and more below 10 "
        "passes over a tenth of them."
    )

    def declared_columns(self) -> tuple[Column, ...]:
        first = (_LOSS, _QUALITY) if self.params.rank_by == "loss" else (_QUALITY, _LOSS)
        return (*first, *_REST)

    @classmethod
    def example(cls) -> Example:
        """Three plans, one with a curve; 24 documents for fit."""
        iterations = np.geomspace(100, 60_000, 20).round()
        loss = 9.2 * iterations**-0.104
        plan = {"batch": 64, "context": 256, "unique_tokens": 1e9, "epochs": 1}
        items = (
            Item("fits", fields={**plan, "params": 2e8, "iterations": iterations, "test_loss": loss, "group": "a"}),
            Item("repeats", fields={**plan, "params": 1e8, "epochs": 10, "group": "b"}),
            Item("tiny", fields={**plan, "params": 1e6, "epochs": 4, "group": "a"}),
        )
        words = ["tide", "came", "in", "and", "took", "the", "boats", "out", "before", "wind", "turned"]
        texts = [" ".join(words[(row * step) % len(words)] for step in range(1, 25)) for row in range(24)]
        recipe = {"budget": 1e9, "batch": 4, "context": 16, "vocab": 260, "measure": 4, "largest_width": 32}
        return Example({"recipe": recipe}, items, True, tuple(Item(str(row), text) for row, text in enumerate(texts)))

    # ------------------------------------------------------------ score

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        runs = self._runs(items, call)
        faster: dict[int, float] = {}
        for group in dict.fromkeys(run.group for run in runs):
            call.check()
            members = [run for run in runs if run.group == group]
            found = speedups(members)
            if any(run.baseline for run in members):
                faster |= {run.row: value for run, value in zip(members, found, strict=True)}
        rows = [_row(run, faster.get(run.row, math.nan)) for run in runs]
        columns = {
            column.name: np.array([row[column.name] for row in rows], column.dtype)
            for column in self.declared_columns()
        }
        flags = tuple(flag for run in runs for flag in _flags(run))
        return Scores(columns, summary=_report.summary(runs, faster) if runs else {}, flags=flags)

    def _runs(self, items: Items, call: Call) -> list[Run]:
        settings, runs = self.params.settings(), []
        for row, (place, name) in enumerate(zip(places(items, "items"), names(items), strict=True)):
            plan, curve = _plan(place), self._curve(place)
            if curve is None and math.isnan(plan.ratio):
                raise place.error(
                    "params", "makes no plan: give params, unique_tokens and epochs, or iterations and test_loss"
                )
            group = str(place.item.get("group") or "")
            at = place.number("predict_at") or _predict_at(plan, curve)
            baseline = bool(place.item.get("baseline"))
            runs.append(Run(row, place.item.id, name, group, plan, curve, at, baseline, settings, call.seed))
        return runs

    def _curve(self, place: Place) -> Curve | None:
        """The item's curve, or that of fit."""
        found = place.curve("iterations", "test_loss")
        if found is None:
            if self.artifact is None:
                return None
            measured = self.artifact.read_array(CURVE)
            return Curve(np.array(measured[0]), np.array(measured[2])) if measured.shape[1] else None
        iterations, loss = found
        if not len(loss):
            raise place.error("test_loss", "is empty: leave it out, or give measurements")
        hours = place.array("hours")
        if hours is not None and (len(hours) != len(loss) or (np.diff(hours) < 0).any()):
            raise place.error("hours", f"must be {len(loss)} numbers that do not fall, one for each loss")
        return Curve(iterations, loss, hours)

    # ------------------------------------------------------------ fit

    @hookimpl
    def fit(
        self, examples: Iterable[Item], validation: Iterable[Item] | None, out: ArtifactWriter, call: Call
    ) -> Iterator[Progress]:
        """Train one pass over the documents, at the size that the budget asks for."""
        yield from train_once(self.params.recipe, self.params.target_ratio, examples, validation, out, call)


def _plan(place: Place) -> Plan:
    given = {name: place.number(name) for name in ("params", "unique_tokens", "epochs", "steps", "batch", "context")}
    if given["epochs"] is not None and given["steps"] is not None:
        raise place.error("steps", "is given beside epochs: give one of them")
    if given["steps"] is not None and (given["batch"] is None or given["context"] is None):
        raise place.error("batch", "is missing: steps need batch and context")
    return Plan.of(*(math.nan if value is None else value for value in given.values()))


def _predict_at(plan: Plan, curve: Curve | None) -> float:
    """The end of the plan, or twice the last measured iteration."""
    if not math.isnan(plan.iterations):
        return plan.iterations
    return 2 * float(curve.iterations[-1]) if curve is not None else math.nan


def _count(value: float) -> int:
    return 0 if math.isnan(value) else round(value)


def _row(run: Run, speedup: float) -> dict[str, float]:
    law, (params, tokens) = run.law, run.new
    low, high = run.band(np.array([run.predict_at]))
    return {
        "plan_quality": run.quality,
        "neg_predicted_loss": -run.predicted,
        "predicted_loss_low": float(low[0]),
        "predicted_loss_high": float(high[0]),
        "ratio": run.plan.ratio,
        "tokens_processed": _count(run.plan.tokens),
        "iterations": _count(run.plan.iterations),
        "new_params": params,
        "new_tokens": tokens,
        "new_iterations": _count(run.new_iterations),
        "unique_tokens_needed": _count(run.plan.needed),
        "repeat_factor": run.plan.repeat_factor,
        "exponent": math.nan if law is None else float(law.exponent),
        "coefficient": math.nan if law is None else float(law.coefficient),
        "r2": math.nan if law is None else float(law.r2),
        "iterations_to_goal": run.to_goal,
        "overfits": int(run.overfits),
        "speedup": speedup,
        "held_out_error": run.held_out.relative,
    }


def _flags(run: Run) -> list[Flag]:
    found = []
    if run.curve is not None and run.refused:
        found.append(Flag(run.row, "no-law", run.refused))
    if run.beyond > 1:
        found.append(Flag(run.row, "extrapolated", f"{run.beyond:.3g} times the last measured iteration"))
    if run.plan.epochs > 1:
        found.append(Flag(run.row, "repeats", f"each token is used {run.plan.epochs:.3g} times"))
    if run.missing > 0:
        found.append(
            Flag(run.row, "data-exhausted", f"the new plan lacks {run.missing:.4g} different tokens: collect more")
        )
    return found
