"""Parameters of `regmix`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

import pydantic
from pydantic import Field

import pickaxe
from pickaxe_plugins.scaling.regmix._trees import MOST_LEAVES


class Params(pickaxe.Params):
    """Parameters of `regmix`."""

    domains: tuple[str, ...] = Field(
        (), description="Domains, in the order of `weights`; in wide tables the columns that hold the weights."
    )
    target: str | dict[str, float] = Field(
        "", description="The loss to improve, or weights of several (0: predicted only); empty: the only one."
    )
    sign: Literal["min", "max"] = Field("min", description="Whether a lower or a higher target is better.")
    prior: dict[str, float] | None = Field(
        None, description="Share of every domain in the tokens there are; the search draws around it. None: no search."
    )
    regressor: Literal["gbdt", "linear"] = Field("gbdt", description="Boosted trees (LightGBM), or least squares.")
    rounds: int = Field(1000, ge=1, le=100_000, description="Most trees.")
    learning_rate: float = Field(0.01, gt=0, le=1, description="Shrinkage of each tree.")
    leaves: int = Field(31, ge=2, le=MOST_LEAVES, description="Most leaves of a tree.")
    min_leaf: int = Field(20, ge=1, description="Fewest proxy runs in a leaf.")
    early_stop: int = Field(3, ge=0, description="Rounds without gain on the validation runs that end it; 0: never.")
    validation_share: float = Field(
        0.2, gt=0, lt=1, description="Share of the examples for early stopping where no validation is given."
    )
    test_share: float = Field(
        0.1, ge=0, lt=1, description="Share of the examples kept out of everything, to measure the regressor; 0: none."
    )
    curve_points: int = Field(3, ge=0, le=20, description="Sizes below the whole at which Spearman is measured too.")
    n_simulate: int = Field(100_000, ge=1_000, le=10_000_000, description="Mixtures that the search draws.")
    top_k: int = Field(128, ge=1, description="Best of them whose mean is the answer.")
    strength: float = Field(1.0, gt=0, description="The draws' Dirichlet is strength x prior: more is nearer to it.")
    bootstrap: int = Field(8, ge=0, le=1000, description="Refits on resampled runs, for the range of the answer.")
    caps: dict[str, float] = Field({}, description="Greatest weight of a domain, where there is one.")
    available_tokens: dict[str, float] = Field({}, description="Tokens of a domain; with target_tokens a cap.")
    target_tokens: float | None = Field(None, gt=0, description="Tokens that the large model is trained on.")
    max_epochs: float = Field(4.0, gt=0, description="Most passes over a domain's available tokens.")
    sum_tolerance: float = Field(1e-3, ge=0, description="How far from 1 the weights of a mixture may add up.")
    normalise: bool = Field(False, description="Scale weights to add up to 1 instead, whatever their sum.")

    @pydantic.model_validator(mode="after")
    def _fits(self) -> Self:
        if len(set(self.domains)) < len(self.domains):
            raise ValueError("domains: a name is given twice")
        if isinstance(self.target, dict) and not _shares(self.target):
            raise ValueError("target: weights must not be negative, and one must be above 0")
        if self.prior is not None and not _shares(self.prior):
            raise ValueError("prior: shares must not be negative, and one must be above 0")
        if bad := sorted(name for name, cap in self.caps.items() if not 0 <= cap <= 1):
            raise ValueError(f"caps: {bad[0]!r} is not between 0 and 1")
        if bad := sorted(name for name, tokens in self.available_tokens.items() if tokens < 0):
            raise ValueError(f"available_tokens: {bad[0]!r} is negative")
        if bool(self.available_tokens) != (self.target_tokens is not None):
            raise ValueError("available_tokens and target_tokens make caps only together: give both or none")
        if self.top_k > self.n_simulate:
            raise ValueError(f"top_k {self.top_k} is more than the {self.n_simulate} simulated mixtures")
        return self

    def upper_bounds(self) -> Mapping[str, float]:
        """The cap of every domain that has one: given, or what the tokens allow, whichever is less."""
        bounds = dict(self.caps)
        for name, tokens in self.available_tokens.items():
            assert self.target_tokens is not None
            bounds[name] = min(bounds.get(name, 1.0), tokens * self.max_epochs / self.target_tokens)
        return bounds


def _shares(weights: Mapping[str, float]) -> bool:
    return min(weights.values(), default=0.0) >= 0 and sum(weights.values()) > 0
