"""Coverage of repeated sampling: pass@k, the exponentiated power law, selection and cost (arXiv 2407.21787)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pydantic
from pydantic import Field

import pickaxe
from pickaxe import ArtifactWriter, Call, Column, Example, Groups, InputField, Item, Items, Method, Progress, Scores
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe.hooks import hookimpl
from pickaxe.randomness import generator
from pickaxe_plugins.decoding._cost import Prices, average
from pickaxe_plugins.decoding._passk import band, log_grid, pass_at_k
from pickaxe_plugins.decoding._selection import RULES
from pickaxe_plugins.decoding.coverage._law import Law, fit_law, shift
from pickaxe_plugins.decoding.coverage._problems import Problem, Read, read_problem
from pickaxe_plugins.decoding.coverage._report import told

_LAWS = "laws.json"
_ALL = "all"
"""The group of items that name none."""


class Params(pickaxe.Params):
    """Parameters of `coverage`."""

    k: tuple[int, ...] = Field((1,), min_length=1, max_length=256, description="Values of k with a column pass_at_k.")
    curve: tuple[int, ...] = Field((), description="Values of k of the coverage curve; empty: a grid even in log k.")
    points: int = Field(50, ge=2, le=1000, description="Points of that grid, from 1 to the least n.")
    per_item: bool = Field(
        False, description="Let curves run to the largest n: each k averages the items that have k samples."
    )
    curves: bool = Field(False, description="Also give every problem's own curve in the summary.")
    law: bool = Field(True, description="Fit the exponentiated power law to each group's curve.")
    bootstrap: int = Field(1000, ge=0, le=100_000, description="Resamples of problems for bands; 0: none.")
    confidence: float = Field(0.95, gt=0, lt=1, description="Share of resamples that a band holds.")
    subsets: int = Field(100, ge=0, le=10_000, description="Random subsets per size in selection curves; 0: none.")
    subset_points: int = Field(12, ge=1, le=200, description="Sizes at which selection curves are taken.")
    predict: tuple[int, ...] = Field((), description="Values of k at which each group's law predicts coverage.")
    target: float | None = Field(None, gt=0, lt=1, description="Coverage whose k each group's law predicts.")
    prompt_tokens: float = Field(0, ge=0, description="Prompt tokens per problem, where items do not say.")
    output_tokens: float = Field(0, ge=0, description="Output tokens per sample, where items do not say.")
    usd_per_m_input: float = Field(0, ge=0, description="Dollars per million prompt tokens, where items do not say.")
    usd_per_m_output: float = Field(0, ge=0, description="Dollars per million output tokens, where items do not say.")
    model_parameters: float = Field(0, ge=0, description="Parameters of the model, for FLOPs; 0: none.")
    budget_usd: float | None = Field(None, gt=0, description="Dollars per problem at which groups are compared.")

    @pydantic.field_validator("k", "curve", "predict")
    @classmethod
    def _counts(cls, ks: tuple[int, ...]) -> tuple[int, ...]:
        if any(k < 1 for k in ks):
            raise ValueError("every k must be at least 1")
        return tuple(sorted(set(ks)))


@dataclass(frozen=True)
class _Group:
    """The problems of one group, read and checked."""

    name: str
    problems: Sequence[Problem]

    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Samples and correct ones of every problem: n and c, (P,) int64 each."""
        return (
            np.array([each.n for each in self.problems], np.int64),
            np.array([each.c for each in self.problems], np.int64),
        )


class Coverage(Method[Params]):
    """Measure what repeated sampling brings: coverage at k samples, its law, what selection keeps of it, its cost.

    Items are the problems of a run with their samples judged: `correct`, or `n` and `c`.  Higher pass@k means a
    problem more likely solved within k samples.
    """

    title = "Large Language Monkeys: Scaling Inference Compute with Repeated Sampling"
    paper = "arXiv:2407.21787"
    version = 1
    Params = Params
    scope = "group"
    reads = (
        InputField("correct", "tensor", "Whether each sample is correct: (n,) bool.", False),
        InputField("n", "int64", "Samples, where `correct` is not given.", False),
        InputField("c", "int64", "Correct samples, where `correct` is not given.", False),
        InputField("group", "text", "Model or task; curves and laws are per group.", False),
        InputField("answers", "texts", "The final answer of each sample; `[invalid]` for none.", False),
        InputField("scores", "tensor", "A score of each sample, (n,), for best of n and weighted votes.", False),
        InputField("reference", "text", "The right answer; judges `answers` where `correct` is not given.", False),
        InputField("prompt_tokens", "float64", "Tokens of the prompt.", False),
        InputField("output_tokens", "float64", "Mean tokens of a sample.", False),
        InputField("usd_per_m_input", "float64", "Dollars per million prompt tokens.", False),
        InputField("usd_per_m_output", "float64", "Dollars per million output tokens.", False),
    )
    fit_reads = reads
    columns = (Column("pass_at_1", "Share of samples that are correct.", "float64"),)
    fitted = "optional"
    stages = ("fit",)
    cost = "One table of log-factorials; 100,000 problems at 30 k in about a second."
    reproduced = (
        "Exact pass@k, the law of a golden curve within 1e-3; on 100 additions sampled 64 times from SmolLM2-135M "
        "the law fits within 0.0014 (T = 0.6) and 0.0065 (T = 1)."
    )

    def declared_columns(self) -> tuple[Column, ...]:
        """The largest pass_at_k first, the others rising, then what each selection rule returns."""
        *others, largest = self.params.k
        doc = "Chance that {} random samples of the problem hold a correct one."
        return (
            *(
                Column(f"pass_at_{k}", doc.format(k), "float64", nullable=self.params.per_item)
                for k in (largest, *others)
            ),
            *(Column(rule, f"1 when {text} is correct.", "float64", nullable=True) for rule, text in RULES.items()),
        )

    @classmethod
    def example(cls) -> Example:
        """Problems of ten samples, from easy to hard, solved by two models."""
        counts = (("easy", 8, "large"), ("fair", 3, "large"), ("rare", 1, "small"), ("hard", 0, "small"))
        items = tuple(Item(name, fields={"n": 10, "c": c, "group": group}) for name, c, group in counts)
        return Example(params={"k": (1, 5)}, items=items, ordered=True, examples=items)

    # ------------------------------------------------------------ hooks

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        if not len(items):
            return Scores({column.name: np.empty(0) for column in self.declared_columns()})
        problems = self._read(items, "items")
        ks = np.array(self.params.k)
        n = np.array([each.n for each in problems])
        if not self.params.per_item:
            self._check_reach(problems, ks)
        values = pass_at_k(n, np.array([each.c for each in problems]), ks)
        columns = {f"pass_at_{k}": values[:, place] for place, k in enumerate(ks)}
        for rule in RULES:
            columns[rule] = np.array([each.success(rule) for each in problems])
        laws = self._kept_laws()
        reports = {}
        for group in _grouped(problems):
            call.check()
            reports[group.name] = self._report(group, laws.get(group.name), call)
        summary: dict[str, Any] = {**told(reports, self.params.confidence), "groups": reports}
        if len(reports) > 1:
            summary["shifts"] = _shifts(reports)
        return Scores(columns, groups=_table(reports), summary=summary)

    @hookimpl
    def fit(self, examples: Iterable[Item], out: ArtifactWriter, call: Call) -> Iterator[Progress]:
        """Fit the law of every group; an artifact then predicts coverage and needed samples."""
        groups = _grouped(self._read(Items(examples), "examples"))
        if not groups:
            raise InvalidItems("examples", "are empty: give at least one problem")
        laws = {}
        for step, group in enumerate(groups):
            call.check()
            n, c = group.counts()
            ks = self._grid(n)
            laws[group.name] = asdict(fit_law(ks, _coverage(n, c, ks), f"coverage of group {group.name!r}"))
            yield Progress("fit", step + 1, len(groups), {"mean_abs_error": laws[group.name]["mean_abs_error"]})
        out.write_json(_LAWS, laws)
        out.notes["laws"] = laws

    # ------------------------------------------------------------ parts

    def _read(self, items: Items, where: str) -> list[Problem]:
        p = self.params
        prices = Prices(p.prompt_tokens, p.output_tokens, p.usd_per_m_input, p.usd_per_m_output)
        read = Read(where, prices, _ALL)
        return [read_problem(item, row, read) for row, item in enumerate(items)]

    def _check_reach(self, problems: Sequence[Problem], ks: np.ndarray) -> None:
        for row, problem in enumerate(problems):
            if problem.n < ks.max():
                raise InvalidItems(
                    f"items[{row}]",
                    f"has {problem.n} samples, fewer than k = {ks.max()} (item {problem.id!r}): ask for a smaller k, "
                    "or set per_item",
                )

    def _grid(self, n: np.ndarray) -> np.ndarray:
        """The values of k of a group's curve: the asked ones within reach, or a grid even in log k."""
        reach = int(n.max() if self.params.per_item else n.min())
        if self.params.curve:
            ks = np.array([k for k in self.params.curve if k <= reach], np.int64)
            if not len(ks):
                raise InvalidParams("curve", f"has no k within the {reach} samples of every problem")
            return ks
        return log_grid(reach, self.params.points)

    def _kept_laws(self) -> Mapping[str, Law]:
        if self.artifact is None:
            return {}
        return {name: Law(**values) for name, values in self.artifact.read_json(_LAWS).items()}

    def _report(self, group: _Group, kept: Law | None, call: Call) -> dict[str, Any]:
        n, c = group.counts()
        ks = self._grid(n)
        coverage = _coverage(n, c, ks)
        report: dict[str, Any] = {"problems": len(n), "n_least": int(n.min()), "k": ks, "coverage": coverage}
        if self.params.bootstrap:
            rng = generator(call.seed, "bootstrap", group.name)
            report["low"], report["high"] = band(n, c, ks, self.params.bootstrap, self.params.confidence, rng)
        report |= self._law(group, ks, coverage, kept)
        report |= self._selection(group, call)
        report |= self._costs(group, ks, coverage, report.get("law"))
        if self.params.curves:
            curves = pass_at_k(n, c, ks)
            report["curves"] = {each.id: curve for each, curve in zip(group.problems, curves, strict=True)}
        return report

    def _law(self, group: _Group, ks: np.ndarray, coverage: np.ndarray, kept: Law | None) -> dict[str, Any]:
        """The law kept from `fit`, or one of these items; its error on these items; its predictions."""
        if kept is None and not self.params.law:
            return {}
        try:
            law = kept or fit_law(ks, coverage, f"coverage of group {group.name!r}")
        except InvalidItems as refused:
            return {"law": None, "law_refused": "; ".join(each.description for each in refused.violations)}
        error = float(np.abs(law.coverage(ks) - coverage).mean())
        found: dict[str, Any] = {
            "law": {"a": law.a, "b": law.b, "mean_abs_error": error, "k_max": law.k_max},
            "law_from": "items" if kept is None else "artifact",
        }
        if self.params.predict:
            found["predicted"] = [
                {"k": k, "coverage": float(law.coverage(k)), "extrapolated": k > law.k_max} for k in self.params.predict
            ]
        if self.params.target is not None:
            k = law.samples_for(self.params.target)
            found["target"] = {"coverage": self.params.target, "k": k, "extrapolated": k > law.k_max}
        return found

    def _selection(self, group: _Group, call: Call) -> dict[str, Any]:
        """Mean success of each selection rule over the problems that have what it needs, by sample count."""
        able = [each for each in group.problems if each.codes is not None]
        if not (able and self.params.subsets):
            return {}
        ks = log_grid(min(each.n for each in able), self.params.subset_points)
        totals: dict[str, list[np.ndarray]] = {}
        for each in able:
            call.check()
            rng = generator(call.seed, "subsets", each.id)
            for rule, success in each.subset_success(ks, self.params.subsets, rng).items():
                totals.setdefault(rule, []).append(success)
        n, c = _Group(group.name, able).counts()
        coverage = _coverage(n, c, ks)
        curves = {rule: np.mean(parts, axis=0) for rule, parts in totals.items() if len(parts) == len(able)}
        gaps = {f"{rule}_below_coverage": float(coverage[-1] - curve[-1]) for rule, curve in curves.items()}
        return {"selection": {"problems": len(able), "k": ks, "coverage": coverage, **curves, **gaps}}

    def _costs(
        self, group: _Group, ks: np.ndarray, coverage: np.ndarray, law: Mapping[str, float] | None
    ) -> dict[str, Any]:
        """Mean dollars and FLOPs per problem along the curve, and the coverage that the budget buys."""
        prices = average([each.prices for each in group.problems])
        report: dict[str, Any] = {}
        if prices.shared(1) > 0:
            report["usd_billed"] = [prices.billed(k) for k in ks]
            report["usd_shared"] = [prices.shared(k) for k in ks]
        if self.params.model_parameters:
            report["flops"] = [prices.flops(k, self.params.model_parameters) for k in ks]
        if self.params.budget_usd is not None:
            k = prices.samples(self.params.budget_usd)
            report["at_budget"] = {"usd": self.params.budget_usd, "k": k, **_bought(k, ks, coverage, law)}
        return report


def _bought(k: float, ks: np.ndarray, coverage: np.ndarray, law: Mapping[str, float] | None) -> dict[str, Any]:
    """Coverage at a whole number of samples: on the curve (linear in log k), beyond it by the law."""
    if k < 1:
        return {"coverage": 0.0, "extrapolated": False}
    if k < ks[-1] + 1 or law is None:
        value = float(np.interp(np.log(min(np.floor(k), ks[-1])), np.log(ks), coverage))
        return {"coverage": value, "extrapolated": False}
    return {"coverage": float(Law(**law).coverage(np.floor(k))), "extrapolated": True}  # type: ignore[arg-type]


def _grouped(problems: Sequence[Problem]) -> list[_Group]:
    members: dict[str, list[Problem]] = {}
    for problem in problems:
        members.setdefault(problem.group, []).append(problem)
    return [_Group(name, members[name]) for name in sorted(members)]


def _coverage(n: np.ndarray, c: np.ndarray, ks: np.ndarray) -> np.ndarray:
    """Mean pass@k over the problems with at least k samples, (K,)."""
    coverage: np.ndarray = np.nanmean(pass_at_k(n, c, ks), axis=0)
    return coverage


def _shifts(reports: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """How far every curve lies from the first group's along log k."""
    names = [name for name, report in reports.items() if len(report["k"]) > 1]
    if len(names) < 2:
        return {}
    base = reports[names[0]]
    found = {name: shift(base["k"], base["coverage"], reports[name]["k"], reports[name]["coverage"]) for name in names}
    return {
        "from": names[0],
        "to": {name: {"log_k": d, "samples_ratio": np.exp(d), "rmse": rmse} for name, (d, rmse) in found.items()},
    }


_COLUMNS = (
    Column("problems", "Problems in the group.", "int64", "", "none"),
    Column("k", "Samples at the end of the curve.", "int64", "", "none"),
    Column("coverage", "Coverage there.", "float64"),
    Column("low", "Lower end of its band.", "float64", nullable=True),
    Column("high", "Upper end of its band.", "float64", nullable=True),
    Column("a", "Law exp(a k^b): a.", "float64", "", "none", True),
    Column("b", "Law exp(a k^b): b.", "float64", "", "none", True),
    Column("mean_abs_error", "Mean distance of law and curve.", "float64", "", "lower", True),
    *(Column(rule, f"Share of problems that {text} solves.", "float64", nullable=True) for rule, text in RULES.items()),
    Column("usd_billed", "Dollars per problem, the prompt paid with every sample.", "float64", "USD", "lower", True),
    Column("usd_shared", "Dollars per problem, the prompt paid once.", "float64", "USD", "lower", True),
)


def _table(reports: Mapping[str, Mapping[str, Any]]) -> Groups:
    """One row per group: the end of its curve, its law, what the selection rules reach with all samples."""
    rows = []
    for report in reports.values():
        ends = {name: values[-1] for name, values in report.items() if name in ("k", "coverage", "low", "high")}
        chosen = {rule: report["selection"][rule][-1] for rule in RULES if rule in report.get("selection", {})}
        costs = {name: report[name][-1] for name in ("usd_billed", "usd_shared") if name in report}
        rows.append({"problems": report["problems"], **ends, **(report.get("law") or {}), **chosen, **costs})
    columns = {
        column.name: np.array([row.get(column.name, np.nan) for row in rows], column.dtype) for column in _COLUMNS
    }
    return Groups(tuple(reports), columns, _COLUMNS)
