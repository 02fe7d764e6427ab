"""What resampling until a verifier passes can reach, and when to stop (arXiv 2411.17501)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pydantic
from pydantic import Field

from pickaxe import (
    ArtifactWriter,
    Call,
    Column,
    Example,
    Flag,
    Groups,
    Item,
    Items,
    Method,
    Progress,
    Scores,
)
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe.hooks import hookimpl
from pickaxe_plugins.decoding._limits import FITTED, LimitParams, Measured, compare, fit_limits, measure, report
from pickaxe_plugins.decoding._limits_report import told_plans, told_runs
from pickaxe_plugins.decoding._resampling import Tries, best
from pickaxe_plugins.decoding._runs import PLAN_FIELDS, RUN_FIELDS, read_evalplus, read_plan, read_runs

__all__ = ["Params", "ResamplingLimits", "read_evalplus"]


class Params(LimitParams):
    """Parameters of `resampling-limits`."""

    form: Literal["runs", "plan"] = Field("runs", description="Items are tasks of judged runs, or deployment plans.")
    false_positive_values: tuple[float, ...] = Field(
        (0.0, -1.0, -2.0, -4.0, -8.0), max_length=100, description="Values of a false positive that are tabled."
    )
    reference: str = Field("", description="Group that others are compared with; empty: the best single samples.")
    curves: bool = Field(True, description="Give whole curves in the summary.")

    @pydantic.field_validator("false_positive_values")
    @classmethod
    def _losses(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if any(value > 0 for value in values):
            raise ValueError("no value of a false positive may be above 0")
        return values


class ResamplingLimits(Method[Params]):
    """Measure what resampling until a verifier passes can reach, and the best number of attempts.

    A verifier that lets wrong answers through bounds accuracy whatever the budget, and where a wrong answer costs
    more than none, trying on soon does harm.  Items are tasks with judged samples, or deployment plans.
    """

    title = "Inference Scaling fLaws: The Limits of LLM Resampling with Imperfect Verifiers"
    paper = "arXiv:2411.17501"
    version = 1
    Params = Params
    scope = "group"
    reads = (*RUN_FIELDS, *PLAN_FIELDS)
    fit_reads = RUN_FIELDS
    columns = (
        Column("limit", "Correct share of what passes: accuracy of endless attempts.", "float64", nullable=True),
        Column("reward_at_best", "Expected reward within the group's best number of attempts.", "float64"),
        Column("p_pass_at_best", "Chance that one of those attempts passes.", "float64"),
        Column("fpr", "Share of wrong samples that pass.", "float64", "", "lower", True),
        Column("single", "Share of samples that are correct.", "float64"),
    )
    fitted = "optional"
    stages = ("fit",)
    cost = "A running product per distinct (n, v): 1,000 tasks at 200 numbers of attempts in under a millisecond."
    reproduced = (
        "24 two-type plans and 4 count tables within 1e-9; simulated models show every claim, and SmolLM2-135M on "
        "additions with a last-digit verifier plateaus, its false-positive rate rising with the attempt."
    )

    def declared_columns(self) -> tuple[Column, ...]:
        return self.columns if self.params.form == "runs" else _PLAN_COLUMNS

    @classmethod
    def example(cls) -> Example:
        """Tasks of ten samples by two models, from a sure one to one of which nothing right passes."""
        counts = (("a", "strong", 9, 9), ("b", "strong", 6, 5), ("c", "weak", 5, 3), ("d", "weak", 4, 0))
        items = tuple(
            Item(name, fields={"n": 10, "v": v, "g": g, "u": g, "group": group, "task": name})
            for name, group, v, g in counts
        )
        return Example(params={"max_attempts": 10}, items=items, ordered=True, examples=items)

    # ------------------------------------------------------------ hooks

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        if not len(items):
            return Scores({column.name: np.empty(0) for column in self.declared_columns()})
        return self._runs(items, call) if self.params.form == "runs" else self._plans(items, call)

    @hookimpl
    def fit(self, examples: Iterable[Item], out: ArtifactWriter, call: Call) -> Iterator[Progress]:
        """Keep every group's best number of attempts, to judge other runs by it."""
        if self.params.form == "plan":
            raise InvalidParams("form", "is plan; fit reads runs, plans need none")
        yield from fit_limits(examples, self.params, out, call)

    # ------------------------------------------------------------ runs

    def _runs(self, items: Items, call: Call) -> Scores:
        runs = read_runs(items, "items")
        if self.params.reference and self.params.reference not in (names := [run.group for run in runs]):
            raise InvalidParams("reference", f"is {self.params.reference!r}; groups are {', '.join(names)}")
        kept = {} if self.artifact is None else self.artifact.read_json(FITTED)
        columns = {column.name: np.empty(len(items)) for column in self.columns}
        flags: list[Flag] = []
        groups, reports = [], {}
        for run in runs:
            call.check()
            found = measure(run, self.params, call.seed)
            known = kept.get(run.group)
            k = found.k_best if known is None else int(known["k_best"])
            for name, values in self._rows(found, k).items():
                columns[name][run.rows] = values
            if not run.counts.v.any():
                why = "passes the verifier: no limit can be given, take more samples"
                flags.append(Flag(int(run.rows[0]), "unsolved", f"no sample of {run.group!r} {why}"))
            flags += [
                Flag(int(row), "false_negative", "the verifier rejects a correct sample: left out of the group")
                for row in run.rows[~found.kept]
            ]
            told = report(found, self.params, self.params.false_positive_values, self.params.curves)
            reports[run.group] = {**told, "k": k, "k_from": "items" if known is None else "artifact"}
            groups.append(found)
        comparison = compare(groups, self.params.reference, self.params)
        answered = told_runs(groups, comparison, self.params.stakes)
        summary = {**answered, "groups": reports, "comparison": comparison}
        return Scores(columns, groups=_table(groups), summary=summary, flags=tuple(flags))

    def _rows(self, found: Measured, k: int) -> Mapping[str, np.ndarray]:
        counts = found.run.counts
        tries = Tries.within(counts, k)
        wrong = counts.n - counts.u
        return {
            "limit": np.where(counts.v > 0, counts.correct_if_passed, np.nan),
            "reward_at_best": tries.reward(counts, self.params.stakes) + 0.0,  # no -0
            "p_pass_at_best": tries.passed,
            "fpr": np.divide(counts.v - counts.g, wrong, out=np.full(len(counts), np.nan), where=wrong > 0),
            "single": counts.u / counts.n,
        }

    # ------------------------------------------------------------ plans

    def _plans(self, items: Items, call: Call) -> Scores:
        rows, told = [], []
        plans = {}
        for row, item in enumerate(items):
            call.check()
            plan = read_plan(item, row, self.params.stakes, self.params.max_attempts)
            notebook = self.params.mode == "notebook"
            if notebook and plan.stakes.attempt:
                raise InvalidItems(f"items[{row}].fields.cost", f"must be 0 with mode=notebook (item {item.id!r})")
            curves = plan.curves(notebook)
            reward = curves.reward(plan.stakes)
            k = best(reward)
            plans[item.id] = (curves, reward, k)
            at = {
                "reward": reward,
                "accuracy": curves.accuracy,
                "false_positive": curves.false_positive,
                "attempts": curves.attempts,
            }
            rows.append(
                {name: values[k - 1] if k else 0.0 for name, values in at.items()}
                | {"k_opt": k, "limit": plan.types.limit}
            )
            told.append({"id": item.id, "k_opt": k, "max_reward": reward.max(), **(at if self.params.curves else {})})
        columns = {column.name: np.array([row[column.name] for row in rows]) for column in _PLAN_COLUMNS}
        return Scores(columns, summary={**told_plans(plans), "plans": told})


_PLAN_COLUMNS = (
    Column("reward", "Expected reward of the best number of attempts; 0 for none.", "float64"),
    Column("k_opt", "Best number of attempts; 0: do not try.", "int64", "", "none"),
    Column("accuracy", "Probability of a correct answer within them.", "float64"),
    Column("false_positive", "Probability of a wrong answer within them.", "float64", "", "lower"),
    Column("attempts", "Expected attempts.", "float64", "", "lower"),
    Column("limit", "Accuracy of endless attempts.", "float64"),
)

_GROUP_COLUMNS = (
    Column("tasks", "Tasks that count.", "int64", "", "none"),
    Column("dropped", "Tasks left out for a false negative.", "int64", "", "none"),
    Column("unsolved", "Tasks that count of which nothing passes.", "int64", "", "none"),
    Column("k_best", "Best number of attempts; 0: do not try.", "int64", "", "none"),
    Column("max_reward", "Highest mean reward of any number of attempts from 1 on.", "float64"),
    Column("single", "Accuracy of single samples.", "float64"),
    Column("conditional", "Mean limit of tasks of which something passes.", "float64", nullable=True),
    Column("limit_worst", "Mean limit, unsolved tasks as wrong.", "float64"),
    Column("limit_best", "Mean limit, unsolved tasks as right.", "float64"),
    Column("soundness", "Share of wrong samples that the verifier rejects.", "float64", nullable=True),
    Column("soundness_notebook", "The same as the public notebook has it.", "float64", nullable=True),
    Column("completeness", "Share of correct samples that it passes, of all tasks.", "float64", nullable=True),
)


def _table(groups: Sequence[Measured]) -> Groups:
    """One row per group."""
    rows: list[dict[str, Any]] = [each.fitted() for each in groups]
    columns = {each.name: np.array([row[each.name] for row in rows], each.dtype) for each in _GROUP_COLUMNS}
    return Groups(tuple(each.run.group for each in groups), columns, _GROUP_COLUMNS)
