"""How often a target's token can be among n drafts: optima and what verifiers reach (arXiv 2502.18779)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pydantic
from pydantic import Field

import pickaxe
from pickaxe import Call, Column, Example, InputField, Item, Items, Method, Scores
from pickaxe.errors import InvalidItems
from pickaxe.hooks import hookimpl
from pickaxe.randomness import generator
from pickaxe_plugins.decoding._speculation.multidraft import (
    Law,
    RatioOrder,
    greedy_optimum,
    greedy_recursive,
)
from pickaxe_plugins.decoding._speculation.multiverify import PAIRS, Rule
from pickaxe_plugins.decoding._speculation.transport import Distribution, KSequential, checked

MOST_DRAFTS = 16


class Params(pickaxe.Params):
    """Parameters of `mdsd-acceptance`."""

    n: int = Field(2, ge=1, le=MOST_DRAFTS, description="Drafts per position, where an item does not say.")
    law: Law = Field("greedy", description="How drafts are chosen; column optimal is about this law.")
    verify: Literal["auto"] | Rule = Field(
        "auto", description="Verifier that gap is about; auto is the law's best one."
    )
    samples: int = Field(
        2000, ge=0, le=1_000_000, description="Sequences drawn for rrs_without_mc; 0 leaves the column empty."
    )

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Params:
        if self.verify != "auto" and (self.law, self.verify) not in PAIRS:
            raise ValueError(f"verify={self.verify} does not fit drafts of law={self.law}")
        if self.samples == 1:
            raise ValueError("samples=1 gives no standard error: take more, or 0")
        return self


class MdsdAcceptance(Method[Params]):
    """Tell how often the target's token can be among n drafts, and how often verifiers make it so.

    Takes the target's and the draft's distribution of one position.  The optimum over all lossless verifiers is
    exact for independent, distinct and greedy drafts; its gap to a verifier says what is left to win.
    """

    title = "Towards Optimal Multi-draft Speculative Decoding"
    paper = "arXiv:2502.18779"
    version = 1
    Params = Params
    scope = "item"
    reads = (
        InputField("target", "tensor", "The target's distribution of one position, (V,)."),
        InputField("draft", "tensor", "The draft's distribution, over the same tokens, (V,)."),
        InputField("n", "int64", "Drafts per position.", required=False),
    )
    columns = (
        Column("optimal", "Best acceptance with the chosen law.", "float64", "probability"),
        Column("optimal_with", "Best acceptance of independent drafts.", "float64", "probability"),
        Column("optimal_without", "Best acceptance of distinct drafts.", "float64", "probability"),
        Column("optimal_greedy", "Best acceptance of greedy drafts.", "float64", "probability"),
        Column("rrs_with", "Recursive rejection of independent drafts.", "float64", "probability"),
        Column("rrs_without", "Recursive rejection of distinct drafts.", "float64", "probability", nullable=True),
        Column("rrs_without_mc", "The same, estimated, where not exact.", "float64", "probability", nullable=True),
        Column("rrs_without_mc_se", "Its standard error.", "float64", "probability", "lower", nullable=True),
        Column("k_sequential", "k-sequential selection of independent drafts.", "float64", "probability"),
        Column("gap", "Best acceptance minus that of `verify`.", "float64", "probability", "lower", nullable=True),
        Column("n_used", "Distinct drafts that there are, at most n.", "int64", "drafts", "none"),
    )
    cost = "A sort of the vocabulary per item; a quadrature over it for three or more distinct drafts."
    reproduced = (
        "Optima equal a linear program's for small vocabularies.  Random pairs of 2,000 tokens and SmolLM2-135M with "
        "its small draft: rrs_with < k_sequential < optimal_with < optimal_without on average."
    )

    @classmethod
    def example(cls) -> Example:
        """A draft that is close to the target, and one that is not."""
        target = np.array([0.5, 0.3, 0.15, 0.05])
        items = (
            Item("close", fields={"target": target, "draft": np.array([0.4, 0.3, 0.2, 0.1])}),
            Item("far", fields={"target": target, "draft": np.array([0.02, 0.08, 0.1, 0.8])}),
        )
        return Example(items=items, ordered=True)

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        rows = []
        for row, item in enumerate(items):
            call.check()
            rows.append(self._row(_read(item, row, self.params.n), item, call))
        return Scores(
            {
                column.name: np.array([row[place] for row in rows], column.dtype)
                for place, column in enumerate(self.columns)
            }
        )

    def _row(self, case: _Case, item: Item, call: Call) -> tuple[float, ...]:
        """The values of one item, in order of the columns."""
        order, n = case.order, case.n
        optimal = {
            "with": order.optimum(n, "with")[0],
            "without": order.optimum(n, "without")[0],
            "greedy": greedy_optimum(case.target, case.draft, n),
        }
        rrs_with, k_sequential = order.recursive_with(n), case.k_sequential()
        exact = order.recursive_without(n)
        estimate = error = np.nan
        if exact is None and self.params.samples:
            random = generator(call.seed, "mdsd-acceptance", item.id)
            estimate, error = order.estimated_without(n, self.params.samples, random)
        reached = {
            ("with", "rrs"): rrs_with,
            ("with", "k_sequential"): k_sequential,
            ("with", "auto"): max(rrs_with, k_sequential),
            ("without", "rrs"): estimate if exact is None else exact,
            ("greedy", "greedy_optimal"): optimal["greedy"],
            ("greedy", "rrs"): greedy_recursive(case.target, case.draft, n),
        }
        reached["without", "auto"] = reached["without", "rrs"]
        reached["greedy", "auto"] = optimal["greedy"]
        law = self.params.law
        gap = optimal[law] - reached[law, self.params.verify]
        return (
            optimal[law], optimal["with"], optimal["without"], optimal["greedy"], rrs_with,
            np.nan if exact is None else exact, estimate, error, k_sequential, gap, min(n, order.support),
        )  # fmt: skip


@dataclass(frozen=True)
class _Case:
    """One item as it was read."""

    target: np.ndarray
    draft: np.ndarray
    n: int
    order: RatioOrder

    def k_sequential(self) -> float:
        return KSequential(Distribution(self.target), Distribution(self.draft), self.n).acceptance


def _read(item: Item, row: int, n: int) -> _Case:
    """Raises `InvalidItems` naming the item."""
    target, draft = (checked(item.get(name), f"items[{row}].fields.{name}") for name in ("target", "draft"))
    if len(target) != len(draft):
        raise InvalidItems(
            f"items[{row}].fields.draft",
            f"has {len(draft)} tokens, target has {len(target)}; both must be over one vocabulary (item {item.id!r})",
        )
    given = item.get("n")
    if isinstance(given, (int, np.integer)):
        if not 1 <= given <= MOST_DRAFTS:
            raise InvalidItems(f"items[{row}].fields.n", f"is {given}; must be in 1..{MOST_DRAFTS} (item {item.id!r})")
        n = int(given)
    return _Case(target, draft, n, RatioOrder.of(target, draft))
