"""The parameters of every mechanism, and which of them need to see the whole pool."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field, model_validator

import pickaxe

MATCH, DIVERSIFY = "distribution matching", "diversification"


class Utility(pickaxe.Params):
    """What items are judged by: a column of a scorer, or a field of the items.  A bare name is a scorer."""

    name: str = Field("", description="A scorer; empty: `column` is a field of the items.")
    params: dict[str, Any] = Field(default_factory=dict, description="The scorer's parameters.")
    artifact: str = Field("", description="The scorer's artifact.")
    column: str = Field("", description="The scorer's column (its first, unless named), or the items' field.")
    direction: Literal["", "higher", "lower"] = Field(
        "", description="Which end is better; empty: as the column says, higher for fields."
    )

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _something(self) -> Utility:
        if not self.name and not self.column:
            raise ValueError("name a scorer (name) or a field of the items (column)")
        if not self.name and (self.params or self.artifact):
            raise ValueError("params and artifact belong to a scorer: name it")
        return self


class Rule(pickaxe.Params):
    """Base of the mechanisms."""

    kind: str
    needs_utility: ClassVar[bool] = True
    itemwise: ClassVar[bool] = False
    """Whether each item's fate hangs on that item alone."""
    goal: ClassVar[str] = MATCH
    output: ClassVar[str] = "binary"

    def utilities(self) -> tuple[Utility, ...]:
        return ()


class _Bounds(pickaxe.Params):
    at_least: float | None = Field(None, description="Lower bound; items exactly at it stay.")
    at_most: float | None = Field(None, description="Upper bound; items exactly at it stay.")

    @model_validator(mode="after")
    def _some(self) -> _Bounds:
        if self.at_least is None and self.at_most is None:
            raise ValueError("give at_least, at_most or both")
        return self


class Threshold(_Bounds, Rule):
    """All within the bounds, in the column's own units."""

    kind: Literal["threshold"]
    itemwise: ClassVar[bool] = True


class Pareto(Rule):
    """At random with probability (2 - s) ** -alpha, for utilities s in [0, 1]."""

    kind: Literal["pareto"]
    itemwise: ClassVar[bool] = True
    alpha: float = Field(9.0, gt=0, description="Shape of the Lomax distribution.")


class Condition(_Bounds):
    utility: Utility = Field(description="What is compared with the bounds.")


class Conditions(Rule):
    """all_of: every condition holds; any_of: at least one."""

    kind: Literal["all_of", "any_of"]
    itemwise: ClassVar[bool] = True
    needs_utility: ClassVar[bool] = False
    conditions: tuple[Condition, ...] = Field(min_length=1, description="Utilities with at_least and at_most.")

    def utilities(self) -> tuple[Utility, ...]:
        return tuple(each.utility for each in self.conditions)


class Quantile(Rule):
    """All at or beyond a quantile of the utility: 0.9 keeps about the best tenth."""

    kind: Literal["quantile"]
    q: float = Field(ge=0, le=1, description="The quantile.")


class TopK(Rule):
    """The best k; ties go to the earlier item."""

    kind: Literal["top_k"]
    k: int = Field(ge=0, description="How many.")


class TopFraction(Rule):
    """The best items until a share of all items, tokens or characters is reached; the crossing item is in."""

    kind: Literal["top_fraction"]
    fraction: float = Field(gt=0, le=1, description="The share.")
    by: Literal["items", "tokens", "characters"] = Field("items", description="What is counted.")
    tokens: Utility | None = Field(None, description="Tokens of an item, e.g. {column: n_tokens}; for by: tokens.")

    @model_validator(mode="after")
    def _counted(self) -> TopFraction:
        if (self.by == "tokens") != (self.tokens is not None):
            raise ValueError("by: tokens needs the token counts (tokens: {column: n_tokens}), and only that does")
        return self

    def utilities(self) -> tuple[Utility, ...]:
        return () if self.tokens is None else (self.tokens,)


class PerGroup(Rule):
    """The best ceil(fraction * n) items of every group."""

    kind: Literal["per_group"]
    goal: ClassVar[str] = DIVERSIFY
    group: str = Field(min_length=1, description="The items' field that names the group.")
    fraction: float = Field(gt=0, le=1, description="The share of every group.")


class GumbelTopK(Rule):
    """k draws without replacement, each proportional to exp(utility / tau)."""

    kind: Literal["gumbel_top_k"]
    k: int = Field(ge=0, description="How many.")
    tau: float = Field(1.0, ge=0, description="Temperature; 0 is top_k.")


class Resample(Rule):
    """n draws with replacement, each proportional to exp(utility / tau): items are used 0, 1 or more times."""

    kind: Literal["resample"]
    output: ClassVar[str] = "count"
    n: int = Field(ge=0, description="How many draws.")
    tau: float = Field(1.0, gt=0, description="Temperature.")


class Epochs(Rule):
    """Uses per group by weight ** (1 / temperature), so many in all, each group repeated at most max_epochs times."""

    kind: Literal["epochs"]
    goal: ClassVar[str] = DIVERSIFY
    output: ClassVar[str] = "count"
    needs_utility: ClassVar[bool] = False
    group: str = Field(min_length=1, description="The items' field that names the group.")
    total: int = Field(ge=0, description="Uses of all items together.")
    weights: dict[str, float] | None = Field(None, description="Weight of each group; None: its size.")
    temperature: float = Field(1.0, gt=0, description="Above 1 evens out the groups.")
    max_epochs: float | None = Field(None, gt=0, description="Most uses of a group, as a multiple of its size.")


class Diverse(Rule):
    """Greedy within a budget: farthest-first, or from the best down below a similarity to all that are kept."""

    kind: Literal["diverse"]
    goal: ClassVar[str] = DIVERSIFY
    needs_utility: ClassVar[bool] = False
    k: int = Field(ge=0, description="Most items.")
    embedding: str = Field("embedding", min_length=1, description="The items' field with a vector.")
    max_similarity: float | None = Field(
        None, ge=-1, le=1, description="Keep only below this cosine to the kept ones; None: farthest-first."
    )


class ExactDedup(Rule):
    """One of all texts with equal content: the one of the highest utility, else the first."""

    kind: Literal["exact_dedup"]
    goal: ClassVar[str] = DIVERSIFY
    needs_utility: ClassVar[bool] = False
    normalise: Literal["none", "space", "words"] = Field(
        "space", description="space: whatever case and spacing; words: words alone; none: byte by byte."
    )


class MinHashDedup(Rule):
    """One of all near duplicates: the one of the highest utility, else the first."""

    kind: Literal["minhash_dedup"]
    goal: ClassVar[str] = DIVERSIFY
    needs_utility: ClassVar[bool] = False
    bands: int = Field(14, ge=1, le=256, description="Bands.")
    rows: int = Field(8, ge=1, le=256, description="Minima of a band.")
    shingle: int = Field(5, ge=1, le=64, description="Words of a shingle.")
    verify: float | None = Field(
        None, ge=0, le=1, description="Join candidates only at this estimated similarity; None: all that share a band."
    )


class SemanticDedup(Rule):
    """One of all items that are closer than epsilon inside a k-means cluster: the best, else the first."""

    kind: Literal["semantic_dedup"]
    goal: ClassVar[str] = DIVERSIFY
    needs_utility: ClassVar[bool] = False
    epsilon: float = Field(0.05, ge=0, le=2, description="Duplicates have a cosine above 1 - epsilon.")
    clusters: int | None = Field(None, ge=1, description="Clusters; None: one per thousand items.")
    embedding: str = Field("embedding", min_length=1, description="The items' field with a vector.")


Mechanism = Annotated[
    Threshold
    | Pareto
    | Conditions
    | Quantile
    | TopK
    | TopFraction
    | PerGroup
    | GumbelTopK
    | Resample
    | Epochs
    | Diverse
    | ExactDedup
    | MinHashDedup
    | SemanticDedup,
    Field(discriminator="kind"),
]
KINDS: dict[Any, type[Rule]] = {
    name: kind for kind in get_args(get_args(Mechanism)[0]) for name in get_args(kind.model_fields["kind"].annotation)
}
"""Name → its parameters."""
