"""How many documents, demonstrations and iterations a token budget is best spent on (arXiv:2410.04343)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from pydantic import Field

import pickaxe
from pickaxe import Call, Column, Example, InputField, Item, Items, Method, Progress, Scores
from pickaxe.artifact import ArtifactWriter
from pickaxe.data import FieldValue
from pickaxe.errors import InvalidItems, InvalidParams, Violation
from pickaxe.hooks import hookimpl
from pickaxe_plugins.generation import _rag_law
from pickaxe_plugins.generation._rag_law import PUBLISHED, Law

DOCUMENTS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
DEMONSTRATIONS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256)
ITERATIONS = (1, 2, 3, 4, 5)
"""The paper's grid."""

TASK = "all"
"""The task of items that name none."""
BASE, ONE_DOCUMENT, ONE_SHOT = (0, 0, 1), (1, 0, 1), (0, 1, 1)
"""The configurations (k, m, n) whose differences in P are i_doc and i_shot."""
LENGTHS = ("instruction_tokens", "doc_tokens", "qa_tokens")

_CONFIGURATION = (
    InputField("k", "int64", "Documents, 0 or more."),
    InputField("m", "int64", "Demonstrations, 0 or more."),
    InputField("n", "int64", "Iterations (model calls), 1 or more."),
    InputField("task", "text", 'The task; "all" where items name none.', False),
    InputField("i_doc", "float64", "What the first document adds to P; else by `metric` or the artifact.", False),
    InputField("i_shot", "float64", "What the first demonstration adds to P; likewise.", False),
)


class Params(pickaxe.Params):
    """Parameters of `rag-allocation`."""

    budget: int | None = Field(None, ge=1, description="Most input tokens of a question, all its calls together.")
    a: tuple[float, float, float] = Field(PUBLISHED.a, description="Weights of log k, log m, log n, without a fit.")
    b: tuple[float, float, float] = Field(PUBLISHED.b, description="What i adds to the weights, without a fit.")
    c: float = Field(PUBLISHED.c, description="Constant, without a fit.")
    epsilon: float = Field(0.01, gt=0, description="Added to k, m and n before the logarithm.")
    sigma: Literal["published", "refit", "linear"] = Field(
        "published", description="The curve over the linear prediction: the paper's, one fitted too, or none."
    )
    interactions: bool = Field(True, description="Fit b; without it, i is not needed and four columns remain.")
    standardise: bool = Field(True, description="Fit: turn each task's metric into z-scores; else it is P already.")


class RagAllocation(Method[Params]):
    """Predict how well RAG configurations (k documents, m demonstrations, n iterations) do, and pick by budget.

    sigma^-1(P) = (a + b i)^T log(theta + epsilon) + c.  The summary names each task's best configuration whose
    every question stays within the budget.  `fit` learns the coefficients from measured runs.
    """

    title = "Inference Scaling for Long-Context Retrieval Augmented Generation"
    paper = "arXiv:2410.04343"
    version = 1
    Params = Params
    scope = "pool"
    reads = (
        *_CONFIGURATION,
        InputField("metric", "float64", "Measured at (0, 0, 1), (1, 0, 1), (0, 1, 1): gives a new task's i.", False),
        InputField("instruction_tokens", "float64", "Tokens of the instruction; for lengths and budgets.", False),
        InputField("doc_tokens", "float64", "Tokens of a document; likewise.", False),
        InputField("qa_tokens", "float64", "Tokens of a question with its answer; likewise.", False),
    )
    fit_reads = (*_CONFIGURATION, InputField("metric", "float64", "What was measured, averaged over the questions."))
    columns = (
        Column("predicted", "Predicted P, z-scored over the task's configurations.", "float64", "standard deviations"),
        Column("linear", "The same before sigma.", "float64"),
        Column(
            "effective_context_length",
            "Input tokens of all calls of one question.",
            "float64",
            "tokens",
            "lower",
            nullable=True,
        ),
        Column("within_budget", "Whether the configuration's every item stays within the budget.", "bool"),
    )
    fitted = "optional"
    stages = ("fit",)
    cost = "A few vector operations over the configurations; the paper's whole grid takes less than a millisecond."
    reproduced = (
        "The law with the published parameters, its fit, allocations and the growth of 6.54 points per decade in the "
        "published table; the underlying runs (Gemini 1.5 Flash) were not repeated."
    )

    @classmethod
    def example(cls) -> Example:
        """The published law without noise for two made-up tasks, on a small grid."""
        runs: list[Item] = []
        for task, i_doc, i_shot in (("easy", 0.3, 0.1), ("hard", 0.9, 0.4)):
            grid = configurations((0, 1, 5), (0, 1, 4), (1, 3), task=task, i_doc=i_doc, i_shot=i_shot)
            theta, i = _theta(grid), np.full((len(grid), 2), (i_doc, i_shot))
            values = PUBLISHED.value(PUBLISHED.linear(theta, i)).tolist()
            runs += [
                Item(f"{task}/{each.id}", fields={**each.fields, "metric": value})
                for each, value in zip(grid, values, strict=True)
            ]
        lengths: dict[str, FieldValue] = {"instruction_tokens": 20, "doc_tokens": 150, "qa_tokens": 30}
        asked = configurations((0, 1, 5, 10), (0, 4), (1, 2), task="hard", **lengths)
        return Example(
            params={"budget": 4000, "standardise": False},
            items=tuple(Item(each.id, fields={**each.fields, "i_doc": 0.9, "i_shot": 0.4}) for each in asked),
            examples=tuple(runs),
        )

    # ------------------------------------------------------------ score

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        if not items:
            return Scores({each.name: np.empty(0) for each in self.columns[:3]} | {"within_budget": np.empty(0, bool)})
        theta, tasks = _theta(items), _tasks(items)
        i = self._contributions(items, theta, tasks)
        law = self._law
        linear = law.linear(theta, i)
        value = law.value(linear)
        lengths = self._lengths(items, theta)
        call.check()
        whole = _longest(theta, tasks, lengths)
        budget = self.params.budget
        within = np.ones(len(items), bool) if budget is None else whole <= budget
        best = {task: self._best(items, rows, value, linear, whole) for task, rows in _rows(tasks).items()}
        columns = {"predicted": value, "linear": linear, "effective_context_length": lengths, "within_budget": within}
        return Scores(columns, summary={"budget": budget, "law": law.to_json(), "best": best})

    @property
    def _law(self) -> Law:
        params = self.params
        if self.artifact is not None:
            return Law.from_json(self._stored["law"])
        return Law(params.a, params.b, params.c, None if params.sigma == "linear" else PUBLISHED.sigma, params.epsilon)

    @cached_property
    def _stored(self) -> dict[str, Any]:
        assert self.artifact is not None
        stored: dict[str, Any] = self.artifact.read_json("law.json")
        return stored

    def _contributions(self, items: Items, theta: np.ndarray, tasks: list[str]) -> np.ndarray:
        """i (rows, 2): given, else by the base configurations' metric, else what the fit found for the task."""
        known = self._stored["tasks"] if self.artifact is not None else {}
        scale = self._stored["scale"] if self.artifact is not None else 1.0
        found = np.zeros((len(items), 2))
        for task, rows in _rows(tasks).items():
            given = _given(items, rows)
            if given is None and not any(self._law.b):
                continue
            if given is None:
                measured = {row: items[row].get("metric") for row in rows}
                p = np.array([np.nan if measured[row] is None else measured[row] for row in rows], np.float64)
                given = _from_bases(theta[rows], p / scale)
            if given is None and task in known:
                given = np.array([known[task]["i_doc"], known[task]["i_shot"]])
            if given is None:
                raise InvalidItems(
                    f"items[{rows[0]}].fields.i_doc",
                    f"is missing, and so is another source for task {task!r}: give i_doc and i_shot, or `metric` at "
                    f"the configurations (0, 0, 1), (1, 0, 1) and (0, 1, 1); the artifact knows {sorted(known)}",
                )
            found[rows] = given
        return found

    def _lengths(self, items: Items, theta: np.ndarray) -> np.ndarray:
        """Effective context length per row; NaN where lengths are missing, which a budget does not allow."""
        read = np.full((len(items), 3), np.nan)
        wrong = []
        for row, item in enumerate(items):
            for place, name in enumerate(LENGTHS):
                value = item.get(name)
                if value is not None:
                    read[row, place] = value
                    if not read[row, place] >= 0:
                        wrong.append(Violation(f"items[{row}].fields.{name}", f"is {value}, wanted 0 or more"))
                elif self.params.budget is not None:
                    wrong.append(Violation(f"items[{row}].fields.{name}", "is missing: a budget needs all lengths"))
        if wrong:
            raise InvalidItems(wrong)
        instruction, document, question = read.T
        return _rag_law.effective_length(theta, document, question, instruction)

    def _best(
        self, items: Items, rows: list[int], value: np.ndarray, linear: np.ndarray, lengths: np.ndarray
    ) -> dict[str, Any]:
        """The task's best configuration; raises `InvalidParams` when none is within the budget."""
        budget = self.params.budget
        costs = lengths[rows] if budget is not None else np.zeros(len(rows))
        place = _rag_law.allocate(linear[rows], costs, budget or 0)
        if place is None:
            raise InvalidParams(
                "budget",
                f"is {budget} tokens, the smallest configuration takes {costs.min():g}: raise it, or offer smaller "
                "configurations",
                metadata={"budget": budget, "smallest": float(costs.min())},
            )
        row = rows[place]
        length = float(lengths[row])
        return {
            "id": items[row].id,
            **{name: int(items[row].fields[name]) for name in "kmn"},  # type: ignore[arg-type]
            "predicted": float(value[row]),
            "linear": float(linear[row]),
            "effective_context_length": None if np.isnan(length) else length,
        }

    # ------------------------------------------------------------ fit

    @hookimpl
    def fit(
        self, examples: Iterable[Item], validation: Iterable[Item] | None, out: ArtifactWriter, call: Call
    ) -> Iterator[Progress]:
        params = self.params
        runs = _Runs.read(Items(examples), "examples", params)
        law, quality = _rag_law.fit_law(
            runs.theta,
            runs.i,
            runs.p,
            sigma=params.sigma,
            interactions=params.interactions,
            epsilon=params.epsilon,
        )
        call.check()
        if validation is not None:
            held = _Runs.read(Items(validation), "validation", params)
            judged = _rag_law.fit_quality(law, held.theta, held.i, held.p)
            quality |= {f"validation_{name}": value for name, value in judged.items()}
        scale = float(np.mean([task["std"] for task in runs.tasks.values()]))
        out.write_json("law.json", {"law": law.to_json(), "quality": quality, "tasks": runs.tasks, "scale": scale})
        out.notes |= {"rows": len(runs.p), "tasks": len(runs.tasks), **law.to_json(), **quality}
        yield Progress("fit", 1, 1, quality)


@dataclass(frozen=True)
class _Runs:
    """Measured runs, ready for the regression: theta (rows, 3), i (rows, 2), P (rows,), facts about each task."""

    theta: np.ndarray
    i: np.ndarray
    p: np.ndarray
    tasks: dict[str, dict[str, float]]

    @classmethod
    def read(cls, items: Items, label: str, params: Params) -> _Runs:
        if not items:
            raise InvalidItems(label, "are none: a fit needs measured configurations")
        theta, tasks = _theta(items, label), _tasks(items)
        p = items.column("metric").astype(np.float64)
        if bad := np.flatnonzero(~np.isfinite(p)).tolist():
            raise InvalidItems(Violation(f"{label}[{row}].fields.metric", "is not a finite number") for row in bad)
        i, facts = np.zeros((len(items), 2)), {}
        for task, rows in _rows(tasks).items():
            mean, std = 0.0, 1.0
            if params.standardise:
                mean, std = float(p[rows].mean()), float(p[rows].std())
                if std == 0:
                    raise InvalidItems(label, f"of task {task!r} have the same metric throughout: nothing to learn")
                p[rows] = (p[rows] - mean) / std
            given = _given(items, rows)
            if given is None:
                given = _from_bases(theta[rows], p[rows])
            if given is None and params.interactions:
                raise InvalidItems(
                    label,
                    f"of task {task!r} have neither i_doc and i_shot nor runs of the configurations (0, 0, 1), "
                    "(1, 0, 1) and (0, 1, 1), of which those are made: add them, or fit with interactions=false",
                )
            if given is not None:
                i[rows] = given
            i_doc, i_shot = i[rows[0]].tolist()
            facts[task] = {"rows": len(rows), "mean": mean, "std": std, "i_doc": i_doc, "i_shot": i_shot}
        return cls(theta, i, p, facts)


def configurations(
    k: Sequence[int] = DOCUMENTS,
    m: Sequence[int] = DEMONSTRATIONS,
    n: Sequence[int] = ITERATIONS,
    **fields: FieldValue,
) -> list[Item]:
    """Items of a grid, k outermost, each with these further fields (task, i_doc, doc_tokens …)."""
    return [
        Item(f"k={each[0]} m={each[1]} n={each[2]}", fields={**dict(zip("kmn", each, strict=True)), **fields})
        for each in itertools.product(k, m, n)
    ]


def _theta(items: Sequence[Item], label: str = "items") -> np.ndarray:
    """(rows, 3) float64: k, m, n."""
    theta = np.array([[item.fields[name] for name in "kmn"] for item in items], np.float64)
    wrong = [
        Violation(f"{label}[{row}].fields.{'kmn'[column]}", f"is {theta[row, column]:g}, wanted {least} or more")
        for column, least in enumerate((0, 0, 1))
        for row in np.flatnonzero(theta[:, column] < least).tolist()
    ]
    if wrong:
        raise InvalidItems(wrong)
    return theta


def _tasks(items: Items) -> list[str]:
    return [str(TASK if (task := item.get("task")) is None else task) for item in items]


def _rows(tasks: Sequence[str]) -> dict[str, list[int]]:
    """Task → its rows, in the order of first appearance."""
    rows: dict[str, list[int]] = {}
    for row, task in enumerate(tasks):
        rows.setdefault(task, []).append(row)
    return rows


def _given(items: Items, rows: Sequence[int]) -> np.ndarray | None:
    """i (rows, 2) where every item of the task carries it; None where none does."""
    values = [(items[row].get("i_doc"), items[row].get("i_shot")) for row in rows]
    missing = [row for row, pair in zip(rows, values, strict=True) if None in pair]
    if not missing:
        return np.array(values, np.float64)
    if all(pair == (None, None) for pair in values):
        return None
    raise InvalidItems(
        f"items[{missing[0]}].fields", "lacks i_doc or i_shot, which other items of its task have: give both or neither"
    )


def _from_bases(theta: np.ndarray, p: np.ndarray) -> np.ndarray | None:
    """(i_doc, i_shot) from P of the three base configurations, averaged over repeated runs; None without them."""
    means = []
    for base in (BASE, ONE_DOCUMENT, ONE_SHOT):
        values = p[(theta == base).all(axis=1)]
        values = values[~np.isnan(values)]
        if not len(values):
            return None
        means.append(values.mean())
    return np.array([means[1] - means[0], means[2] - means[0]])


def _longest(theta: np.ndarray, tasks: Sequence[str], lengths: np.ndarray) -> np.ndarray:
    """Per row, the longest of the rows of its task and configuration: a budget binds every question."""
    longest: dict[tuple[str, bytes], float] = {}
    keys = [(task, row.tobytes()) for task, row in zip(tasks, theta, strict=True)]
    for key, length in zip(keys, lengths.tolist(), strict=True):
        longest[key] = max(longest.get(key, length), length)
    return np.array([longest[key] for key in keys])
