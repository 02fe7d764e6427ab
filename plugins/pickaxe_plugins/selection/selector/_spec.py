"""How a pipeline is declared: stages of a utility and a mechanism (arXiv 2402.16827), in Python, JSON or YAML."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, ClassVar, Literal

import pydantic
from pydantic import Field, field_validator, model_validator

import pickaxe
from pickaxe.params import MethodRef
from pickaxe_plugins.selection.selector import _rules
from pickaxe_plugins.selection.selector._rules import Mechanism, Utility

RESERVED = frozenset({"id", "priority", "keep", "count", "dropped_by", "reason", "text", "flag", "segments"})


class Term(Utility):
    weight: float = Field(1.0, description="How much it counts in the sum.")


class Combine(pickaxe.Params):
    """A weighted sum of utilities."""

    terms: tuple[Term, ...] = Field(min_length=1, description="Utilities with a `weight` each.")
    normalise: Literal["none", "z", "rank"] = Field(
        "none", description="z: in standard deviations from the mean; rank: as the share of items below; none: as is."
    )


def _built(value: Any, handler: pydantic.ValidatorFunctionWrapHandler) -> Any:
    """Build the mechanism that `kind` names: errors then lead to its keys, not through a union."""
    kind = _rules.KINDS.get(value.get("kind")) if isinstance(value, dict) else None
    return handler(value) if kind is None else kind.model_validate(value)


class Stage(pickaxe.Params):
    """One step: a utility for every item that is left, and which items stay by it."""

    name: str = Field(min_length=1, max_length=64, description="Unique; the utility's column has this name.")
    utility: Utility | None = Field(None, description="What items are judged by; dedup and conditions need none.")
    combine: Combine | None = Field(None, description="A weighted sum of utilities instead of one.")
    mechanism: Annotated[Mechanism, pydantic.WrapValidator(_built)] = Field(description="Who stays.")
    on_missing: Literal["drop", "keep", "fail"] = Field("drop", description="What happens to items without a utility.")
    edit: bool = Field(False, description="Later stages and the output get the `text` that the utility's method made.")
    about: str = Field("", description="Kind of the utility, for the record: heuristic, model, distance, label …")
    train_stage: str = Field("pretraining", description="What the data is for, for the record.")

    @model_validator(mode="after")
    def _consistent(self) -> Stage:
        if self.utility is not None and self.combine is not None:
            raise ValueError("give utility or combine, not both")
        if self.mechanism.needs_utility and self.utility is None and self.combine is None:
            raise ValueError(f"{self.mechanism.kind} needs a utility (or combine)")
        if isinstance(self.mechanism, _rules.Conditions) and (self.utility or self.combine):
            raise ValueError(f"{self.mechanism.kind} has the utilities in its conditions")
        if self.edit and (self.utility is None or not self.utility.name):
            raise ValueError("edit needs a utility of a method that makes a text")
        return self

    @property
    def scored(self) -> bool:
        return self.utility is not None or self.combine is not None

    def utilities(self) -> tuple[Utility, ...]:
        """Everything that has to be computed for this stage's items, in the order of its values."""
        own = self.combine.terms if self.combine else (self.utility,) if self.utility else ()
        return (*own, *self.mechanism.utilities())

    def axes(self) -> dict[str, str]:
        """Where the stage stands in the survey's taxonomy."""
        return {
            "goal": self.mechanism.goal,
            "effect on items": "edit" if self.edit else "keep whole or drop",
            "output": self.mechanism.output,
            "utility": self.about or ("label" if self.utility is not None and not self.utility.name else ""),
            "training stage": self.train_stage,
        }


class Params(pickaxe.Params):
    stages: tuple[Stage, ...] = Field(description="The stages, in order; at least one.")
    max_characters: int | None = Field(
        10_000_000, ge=1, description="Longer texts are dropped first (reason `too_long`); None: no limit."
    )
    examples: int = Field(3, ge=0, le=20, description="Dropped items that the report shows of every reason.")
    by: str = Field("", description="A field, e.g. language: the report also counts what is kept of each value.")

    LIMIT: ClassVar[int] = 64

    @field_validator("stages")
    @classmethod
    def _distinct(cls, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        if not 0 < len(stages) <= cls.LIMIT:
            raise ValueError(f"has {len(stages)} stages, wanted 1 to {cls.LIMIT}")
        counted = Counter(stage.name for stage in stages)
        if twice := [name for name, count in counted.items() if count > 1]:
            raise ValueError(f"two stages are called {twice[0]!r}")
        if taken := RESERVED & set(counted):
            raise ValueError(f"no stage may be called {min(taken)!r}, which is a column of its own")
        return stages


def reference(utility: Utility) -> MethodRef:
    return MethodRef(name=utility.name, params=utility.params, artifact=utility.artifact)
