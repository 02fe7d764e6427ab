"""One scaling law for sparse and dense pre-training, in average active parameters (arXiv 2501.12486)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, Self

import numpy as np
import pydantic
from pydantic import Field

import pickaxe
from pickaxe import ArtifactWriter, Call, Column, Example, Flag, InputField, Item, Items, Method, Progress, Scores
from pickaxe.errors import InvalidItems
from pickaxe.hooks import hookimpl
from pickaxe_plugins.scaling._curves import names, places
from pickaxe_plugins.scaling.avg_param_law import _report
from pickaxe_plugins.scaling.avg_param_law._law import CHINCHILLA, ParamLaw
from pickaxe_plugins.scaling.avg_param_law._runs import FAR, Fitted, Run, choices, fit_runs, read_run
from pickaxe_plugins.scaling.avg_param_law._sparse_fit import Pruned, Training, train_sparse

_LAW, _DRAWS = "law.json", "draws.npy"


class Constants(pickaxe.Params):
    """Constants of E + A / N^alpha + B / D^beta."""

    E: float = Field(default=CHINCHILLA.E, ge=0, description="Loss that nothing lowers.")
    A: float = Field(default=CHINCHILLA.A, gt=0, description="Weight of the parameters' term.")
    B: float = Field(default=CHINCHILLA.B, gt=0, description="Weight of the tokens' term.")
    alpha: float = Field(default=CHINCHILLA.alpha, gt=0, description="Exponent of the parameters.")
    beta: float = Field(default=CHINCHILLA.beta, gt=0, description="Exponent of the tokens.")


class Params(pickaxe.Params):
    """Parameters of `avg-param-law`."""

    law: Constants = Field(Constants(), description="The law without an artifact: published ones of dense models.")
    extrapolate: bool = Field(False, description="Predict also more than 10 times beyond the fitted runs.")
    final_size: float | None = Field(None, gt=0, description="Parameters to deploy: plan for them (with budget_flops).")
    budget_flops: float | None = Field(None, gt=0, description="Training compute to plan with, in FLOPs.")
    count: Literal["prunable", "non_embedding", "all"] = Field(
        "prunable", description="What dense_params counts: only weights that can be pruned, or others with them."
    )
    bootstrap: int = Field(200, ge=0, le=10_000, description="Bootstrap fits for the intervals; 0: none.")
    confidence: float = Field(0.95, gt=0, lt=1, description="Share of bootstrap fits that an interval holds.")
    huber: float = Field(1e-3, gt=0, description="Error of log loss from which runs count as outliers.")
    recipe: Literal["law", "sparse-pretrain"] = Field(
        "law", description="What fit does: fit the law to runs, or train a sparse model on documents."
    )
    sparsity: float = Field(0.5, ge=0, lt=1, description="Final sparsity of the model that is trained.")
    shape: Literal["cubic", "linear"] = Field("cubic", description="How sparsity grows, there and in the planner.")
    compute_start: float = Field(0.25, ge=0, le=1, description="Share of the compute after which pruning begins.")
    compute_end: float = Field(0.75, ge=0, le=1, description="Share of the compute after which it ends.")
    mask_scope: Literal["layer", "global"] = Field(
        "layer", description="Remove the smallest weights of each matrix, or of all together."
    )
    interval: int = Field(0, ge=0, description="Steps between updates of the mask; 0: a hundredth of the run.")
    training: Training = Field(Training(), description="The run of sparse-pretrain: network, steps, batch.")

    @pydantic.model_validator(mode="after")
    def _agree(self) -> Self:
        if self.compute_start > self.compute_end:
            raise ValueError(f"compute_start {self.compute_start:g} must not exceed compute_end {self.compute_end:g}")
        if (self.final_size is None) != (self.budget_flops is None):
            raise ValueError("final_size and budget_flops go together: give both or none")
        return self


class AvgParamLaw(Method[Params]):
    """Predict the loss of sparse and dense pre-training by one law, in average active parameters and tokens.

    Items are runs or plans.  `fit` learns the law from runs with a loss, or trains a small sparse model.
    """

    title = "The Journey Matters: Average Parameter Count over Pre-training Unifies Sparse and Dense Scaling Laws"
    paper = "arXiv:2501.12486"
    version = 1
    Params = Params
    scope = "pool"
    reads = (
        InputField("tokens", "float64", "Tokens of the whole run."),
        InputField("active_params", "tensor", "Active parameters at each logged step, (n,).", False),
        InputField("step_tokens", "tensor", "Tokens of each of these steps, (n,), where they are not equal.", False),
        InputField("avg_params", "float64", "Instead: average active parameters.", False),
        InputField("final_params", "float64", "Parameters at the end, beside avg_params.", False),
        InputField("dense_params", "float64", "Instead: parameters before pruning, of a plan.", False),
        InputField("final_sparsity", "float64", "Share of weights pruned at its end.", False),
        InputField("compute_start", "float64", "Share of its compute after which pruning begins.", False),
        InputField("compute_end", "float64", "Share of its compute after which it ends.", False),
        InputField("shape", "text", "cubic or linear.", False),
        InputField("never_pruned_share", "float64", "Share of a dense step's cost that is never pruned.", False),
        InputField("loss", "float64", "Measured loss, in nats.", False),
    )
    fit_reads = (
        InputField("text", "text", "A document, for sparse-pretrain.", False),
        *(InputField(each.name, each.kind, each.doc, False) for each in reads),
    )
    columns = (
        Column("neg_predicted_loss", "Minus the predicted loss; none too far from the runs.", "float64", "nats",
               nullable=True),
        Column("predicted_loss", "Loss that the law predicts.", "float64", "nats", "lower", True),
        Column("predicted_low", "Lower end of its interval.", "float64", "nats", "none", True),
        Column("predicted_high", "Upper end of its interval.", "float64", "nats", "none", True),
        Column("avg_params", "Average active parameters over the run.", "float64", "", "none"),
        Column("final_params", "Active parameters at the end.", "float64", "", "lower"),
        Column("train_flops", "Training compute, 6 times average parameters times tokens.", "float64", "FLOP", "lower"),
        Column("size_saving", "Average over final parameters.", "float64"),
        Column("residual", "Measured minus predicted loss.", "float64", "nats", "none", True),
        Column("inference_flops_per_token", "Twice the final parameters.", "float64", "FLOP", "lower"),
        Column("step_start", "Share of the steps after which a plan's pruning begins.", "float64", "", "none", True),
        Column("step_end", "Share of the steps after which it ends.", "float64", "", "none", True),
    )  # fmt: skip
    fitted = "optional"
    stages = ("fit", "vocabulary", "train")
    cost = "Scoring: closed forms.  The law of 200 runs: 4,500 starts in about a second, 200 bootstrap fits in another."
    reproduced = (
        "Golden cases, and a noise-free law to 12 digits; on a tiny network the sparse run lies nearer to the dense "
        "one of its average size than to the dense one of its final size."
    )

    @classmethod
    def example(cls) -> Example:
        """A dense and two sparse plans; twelve runs for fit."""
        plans = (
            Item("large", fields={"dense_params": 4e8, "tokens": 2e10}),
            Item("pruned", fields={"dense_params": 4e8, "final_sparsity": 0.5, "tokens": 2e10}),
            Item("small", fields={"dense_params": 2e8, "tokens": 2e10, "loss": 2.8}),
        )
        runs = tuple(
            Item(
                f"{n}-{d}",
                fields={"avg_params": n * 1e8, "tokens": d * 1e9, "loss": float(CHINCHILLA.loss(n * 1e8, d * 1e9))},
            )
            for n in (0.5, 1, 2, 4)
            for d in (2, 8, 32)
        )
        return Example({"bootstrap": 20}, plans, True, runs)

    # ------------------------------------------------------------ score

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        if not len(items):
            return Scores({column.name: np.empty(0) for column in self.columns})
        call.check()
        runs, fitted = self._runs(items, "items"), self._fitted()
        average, tokens, final, loss = (
            np.array([getattr(run, name) for run in runs]) for name in ("average", "tokens", "final", "loss")
        )
        beyond = np.array([fitted.beyond(run.average, run.tokens) for run in runs])
        able = (beyond <= FAR) | self.params.extrapolate
        predicted = np.where(able, fitted.law.loss(average, tokens), np.nan)
        low, high = (np.where(able, end, np.nan) for end in fitted.band(average, tokens, self.params.confidence))
        flags = [flag for run in runs for flag in _flags(run.row, beyond[run.row], bool(able[run.row]), fitted)]
        p, options = self.params, []
        if p.final_size is not None and p.budget_flops is not None:
            options = choices(fitted.law, p.final_size, p.budget_flops, p.shape)
        columns = {
            "neg_predicted_loss": -predicted,
            "predicted_loss": predicted,
            "predicted_low": low,
            "predicted_high": high,
            "avg_params": average,
            "final_params": final,
            "train_flops": 6 * average * tokens,
            "size_saving": average / final,
            "residual": loss - predicted,
            "inference_flops_per_token": 2 * final,
            "step_start": np.array([np.nan if run.schedule is None else run.schedule.start for run in runs]),
            "step_end": np.array([np.nan if run.schedule is None else run.schedule.end for run in runs]),
        }
        summary = _report.summary(runs, predicted, fitted, p.confidence, options, p.budget_flops or 0.0)
        return Scores(columns, summary=summary, flags=tuple(flags))

    def _runs(self, items: Items, where: str) -> list[Run]:
        return [
            read_run(place, row, name, self.params.count)
            for row, (place, name) in enumerate(zip(places(items, where), names(items), strict=True))
        ]

    def _fitted(self) -> Fitted:
        if self.artifact is None or not self.artifact.has(_LAW):
            return Fitted.published(ParamLaw(**self.params.law.model_dump()))
        kept = self.artifact.read_json(_LAW)
        return Fitted(
            ParamLaw(**kept["law"]),
            np.array(self.artifact.read_array(_DRAWS)),
            tuple(kept["params"]),
            tuple(kept["tokens"]),
            kept["report"],
        )

    # ------------------------------------------------------------ fit

    @hookimpl
    def fit(
        self, examples: Iterable[Item], validation: Iterable[Item] | None, out: ArtifactWriter, call: Call
    ) -> Iterator[Progress]:
        """The law of runs, or with recipe sparse-pretrain a model."""
        p = self.params
        if p.recipe == "sparse-pretrain":
            plan = Pruned(p.sparsity, p.shape, p.compute_start, p.compute_end, p.interval, p.mask_scope)
            yield from train_sparse(p.training, plan, examples, validation, out, call)
            return
        given = Items(examples)
        runs = self._runs(given, "examples")
        for run in runs:
            if np.isnan(run.loss):
                raise InvalidItems(
                    f"examples[{run.row}].fields.loss", f"is missing (item {given[run.row].id!r}): give the final loss"
                )
        found = fit_runs(runs, p.huber, p.bootstrap, p.confidence, call)
        law = found.law.as_dict()
        kept = {"law": law, "params": found.params, "tokens": found.tokens, "report": found.report}
        out.write_json(_LAW, kept)
        out.write_array(_DRAWS, found.draws)
        out.notes |= {"law": law, **found.report}
        yield Progress("fit", 1, 1, {"r2": found.report["r2"], "held_out_error": found.report["held_out_error"]})


def _flags(row: int, beyond: float, able: bool, fitted: Fitted) -> list[Flag]:
    if fitted.is_published:
        return [Flag(row, "published-law", "the law was not fitted to your runs")]
    if not able:
        return [Flag(row, "too-far", f"{beyond:.3g} times beyond the fitted runs: set extrapolate to predict it")]
    if beyond > 1:
        return [Flag(row, "extrapolated", f"{beyond:.3g} times beyond the fitted runs")]
    return []
