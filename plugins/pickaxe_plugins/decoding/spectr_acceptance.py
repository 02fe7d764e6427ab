"""How often drafts of one distribution are accepted for another (arXiv 2310.15141)."""

from __future__ import annotations

import numpy as np
from pydantic import Field

import pickaxe
from pickaxe import Call, Column, Example, InputField, Item, Items, Method, Scores
from pickaxe.errors import InvalidItems
from pickaxe.hooks import hookimpl
from pickaxe_plugins.decoding._speculation import transport
from pickaxe_plugins.decoding._speculation.transport import Distribution, KSequential, checked

MOST = 64


class Params(pickaxe.Params):
    """Parameters of `spectr-acceptance`."""

    num_drafts: int = Field(8, ge=1, le=MOST, description="Drafts (k) where an item does not say.")
    rho_tolerance: float = Field(1e-12, gt=0, le=1e-3, description="Relative width to which rho is found.")


class SpectrAcceptance(Method[Params]):
    """Tell how likely one of k independent drafts is accepted, with what is possible at best.

    An item is one position: the target's and the draft's probabilities.  Higher means a better draft.
    """

    title = "SpecTr: Fast Speculative Decoding via Optimal Transport"
    paper = "arXiv:2310.15141"
    version = 1
    Params = Params
    scope = "item"
    reads = (
        InputField("target", "tensor", "The target's probabilities, (V,)."),
        InputField("draft", "tensor", "The draft's probabilities of the same tokens, (V,)."),
        InputField("k", "int64", "Drafts; default: the parameter.", False),
    )
    columns = (
        Column("acceptance", "Probability that k-sequential selection accepts one of k drafts.", "float64"),
        Column("rho", "Its divisor, from 1 to k.", "float64", direction="none"),
        Column("upper_bound", "sum min(t, 1 - (1 - d)^k): above every selection.", "float64"),
        Column("optimal", "Acceptance of the best selection there is.", "float64"),
        Column("single_draft", "Acceptance of one draft.", "float64"),
    )
    cost = "A few passes over the vocabulary and one sort."
    reproduced = "Selections of golden pairs within 1e-6, their optimum as a linear program finds it."

    @classmethod
    def example(cls) -> Example:
        """The same target with a draft that is right, one that is fair and one that is wrong."""
        target = np.array([0.6, 0.3, 0.1])
        drafts = {"right": [0.6, 0.3, 0.1], "fair": [0.4, 0.3, 0.3], "wrong": [0.05, 0.05, 0.9]}
        items = tuple(Item(name, fields={"target": target, "draft": np.array(draft)}) for name, draft in drafts.items())
        return Example(params={"num_drafts": 2}, items=items, ordered=True)

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        names = [column.name for column in self.columns]
        table = np.empty((len(names), len(items)))
        for row, item in enumerate(items):
            call.check()
            table[:, row] = self._position(item, row)
        return Scores(dict(zip(names, table, strict=True)))

    def _position(self, item: Item, row: int) -> tuple[float, float, float, float, float]:
        where = f"items[{row}].fields"
        target, draft = (_probabilities(item, name, where) for name in ("target", "draft"))
        if len(target) != len(draft):
            raise InvalidItems(
                f"{where}.draft", f"has {len(draft)} tokens, target has {len(target)} (item {item.id!r})"
            )
        k = item.get("k")
        k = self.params.num_drafts if k is None else k
        if not isinstance(k, (int, np.integer)) or isinstance(k, bool) or not 1 <= k <= MOST:
            raise InvalidItems(f"{where}.k", f"is {k!r}; must be a whole number in [1, {MOST}] (item {item.id!r})")
        selection = KSequential(Distribution(target), Distribution(draft), int(k), self.params.rho_tolerance)
        return (
            selection.acceptance,
            selection.rho,
            transport.upper_bound(target, draft, int(k)),
            transport.optimal(target, draft, int(k)),
            transport.single_draft(target, draft),
        )


def _probabilities(item: Item, name: str, where: str) -> np.ndarray:
    value = item.get(name)
    if value is None:
        raise InvalidItems(f"{where}.{name}", f"is missing (item {item.id!r})")
    return checked(value, f"{where}.{name}")
