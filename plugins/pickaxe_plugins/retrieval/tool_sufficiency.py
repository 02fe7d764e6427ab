"""Whether a search found all the tools that a query needs: Sufficiency@k (arXiv:2410.03212)."""

from __future__ import annotations

import numpy as np
import pydantic
from pydantic import Field

import pickaxe
from pickaxe import Call, Column, Example, InputField, Item, Items, Method, Scores
from pickaxe.errors import InvalidItems, Violation
from pickaxe.hooks import hookimpl
from pickaxe.metrics import ndcg, recall
from pickaxe.report import Axis, Figure, Series, explain, number


class Params(pickaxe.Params):
    """Parameters of `tool-sufficiency`."""

    cutoffs: tuple[int, ...] = Field(
        (5, 10), min_length=1, max_length=16, description="Depths k at which runs are measured; the first is primary."
    )

    @pydantic.field_validator("cutoffs")
    @classmethod
    def _positive_and_different(cls, cutoffs: tuple[int, ...]) -> tuple[int, ...]:
        if min(cutoffs) < 1 or len(set(cutoffs)) < len(cutoffs):
            raise ValueError("must be different numbers of at least 1")
        return cutoffs


class ToolSufficiency(Method[Params]):
    """Measure runs of tool retrieval: were all tools that a query needs among the first k?

    Half of the tools are of no use when the task needs them all, so a query counts only when none is missing.  NDCG
    and recall stand beside it.
    """

    title = "Data-Efficient Massive Tool Retrieval: Query-Tool Alignment"
    paper = "arXiv:2410.03212"
    version = 1
    Params = Params
    scope = "pool"
    reads = (
        InputField("found", "texts", "Ids of what was found, best first."),
        InputField("relevant", "texts", "Ids of the tools that the query needs."),
    )
    columns = (
        Column("sufficiency@5", "1 when all needed tools are among the first 5, else 0."),
        Column("sufficiency@10", "1 when all needed tools are among the first 10, else 0."),
        Column("ndcg@5", "NDCG of the first 5, with gains of 0 and 1."),
        Column("ndcg@10", "NDCG of the first 10, with gains of 0 and 1."),
        Column("recall@5", "Share of the needed tools among the first 5."),
        Column("recall@10", "Share of the needed tools among the first 10."),
    )
    cost = "Microseconds per query."
    reproduced = "The baselines of four tool sets with all-MiniLM-L6-v2, see `qta`."

    @classmethod
    def example(cls) -> Example:
        return Example(
            params={"cutoffs": (2, 3)},
            items=(
                Item("both", fields={"found": ("a", "b", "c"), "relevant": ("b", "a")}),
                Item("half", fields={"found": ("a", "c", "d"), "relevant": ("a", "b")}),
            ),
            ordered=True,
        )

    def declared_columns(self) -> tuple[Column, ...]:
        told = {each.name.partition("@")[0]: each.doc for each in self.columns}
        return tuple(
            Column(f"{name}@{k}", doc.replace("first 10", f"first {k}"))
            for name, doc in told.items()
            for k in self.params.cutoffs
        )

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        found, needed = _read(items)
        columns = {
            f"{name}@{k}": values
            for name in ("sufficiency", "ndcg", "recall")
            for k, values in zip(self.params.cutoffs, _measured(name, found, needed, self.params.cutoffs), strict=True)
        }
        return Scores(columns, summary=self._summary(columns, found, needed) if len(items) else {})

    def _summary(
        self, columns: dict[str, np.ndarray], found: list[list[str]], needed: list[list[str]]
    ) -> dict[str, object]:
        means = {name: float(values.mean()) for name, values in columns.items()}
        first = self.params.cutoffs[0]
        depths = tuple(range(1, max(self.params.cutoffs) + 1))[:200]
        curves = {
            name: [float(values.mean()) for values in _measured(name, found, needed, depths)]
            for name in ("sufficiency", "recall")
        }
        return {
            **explain(
                answer=[
                    f"All tools are among the first {first} for {number(100 * means[f'sufficiency@{first}'], 3)}% of "
                    f"{len(found)} queries; {number(100 * means[f'recall@{first}'], 3)}% of the single tools are."
                ],
                figures=[
                    Figure(
                        "Queries with all their tools, and tools found, by depth",
                        Axis("depth k"),
                        Axis("share"),
                        tuple(Series(name, "line", depths, curve) for name, curve in curves.items()),
                    )
                ],
            ),
            "means": means,
        }


def sufficiency(found: list[str], needed: list[str], k: int) -> float:
    """1.0 when all needed ids are among the first k, else 0.0."""
    return float(set(needed) <= set(found[:k]))


def _measured(name: str, found: list[list[str]], needed: list[list[str]], depths: tuple[int, ...]) -> list[np.ndarray]:
    """One array (n,) per depth."""
    if name == "sufficiency":
        return [
            np.array([sufficiency(*pair, k) for pair in zip(found, needed, strict=True)], np.float32) for k in depths
        ]
    run = {str(row): ids for row, ids in enumerate(found)}
    qrels = {str(row): dict.fromkeys(ids, 1) for row, ids in enumerate(needed)}
    measure = {"ndcg": ndcg, "recall": recall}[name]
    return [np.array(list(measure(run, qrels, k).values()), np.float32) for k in depths]


def _read(items: Items) -> tuple[list[list[str]], list[list[str]]]:
    """Runs and needed ids; raises `InvalidItems` for runs that repeat an id and queries that need nothing."""
    runs = [[str(name) for name in item.fields["found"]] for item in items]  # type: ignore[union-attr]  # texts by `reads`
    needed = [[str(name) for name in item.fields["relevant"]] for item in items]  # type: ignore[union-attr]  # the same
    wrong = [
        Violation(f"items[{row}].fields.found", f"holds an id more than once (item {items[row].id!r})")
        for row, ids in enumerate(runs)
        if len(set(ids)) < len(ids)
    ]
    wrong += [
        Violation(f"items[{row}].fields.relevant", f"is empty (item {items[row].id!r})")
        for row, ids in enumerate(needed)
        if not ids
    ]
    if wrong:
        raise InvalidItems(wrong)
    return runs, needed
