"""Parameters of `domain-upsampling`."""

from __future__ import annotations

import math
from typing import Literal, Self

import pydantic
from pydantic import Field

import pickaxe
from pickaxe_plugins.train.settings import Net


class Params(pickaxe.Params):
    """Parameters of `domain-upsampling`."""

    mode: Literal["auto", "plan", "utility"] = Field(
        "auto", description="Plan the final mix, or say what fit measured; auto: the latter with an artifact."
    )
    delta: float = Field(0.2, gt=0, lt=1, description="Share of training that comes last, on the final mix.")
    group_share: dict[str, float] = Field(
        {}, description="Share of each group in the final mix; a group that is not named keeps its base share."
    )
    base_mix: dict[str, float] = Field(
        {}, description="Weight of every domain in the first phase; empty: as items say, or by their tokens."
    )
    total_tokens: float | None = Field(None, gt=0, description="Tokens of the training; None: as many as there are.")
    epochs_cap: float = Field(4.0, gt=0, description="Passes over a domain above which repetition is warned of.")
    benchmark_weights: dict[str, float] = Field(
        {}, description="Weights of the benchmarks in `utility`; empty: the mean, each over its spread over seeds."
    )
    seeds: int = Field(1, ge=1, le=32, description="How often everything is trained; from 2 on with a spread.")
    sweep: tuple[float, ...] = Field((), description="Further values of delta at which the final mix is tried.")
    branch_from: Literal["reuse", "retrain"] = Field(
        "reuse", description="Branches go on from the base run's checkpoint, or repeat it from the start."
    )
    net: Net = Field(default_factory=lambda: Net(layers=2, width=64, heads=2, kv_heads=1, context=256),
                     description="The small network that is trained.")  # fmt: skip
    length: int = Field(64, ge=4, description="Tokens of a training sequence.")
    batch: int = Field(16, ge=1, description="Sequences of one step.")
    rate: float = Field(3e-3, gt=0, description="Highest learning rate.")
    warmup: int = Field(50, ge=0, description="Steps until the highest rate.")
    schedule: Literal["cosine", "invsqrt", "linear"] = Field(
        "cosine", description="How the rate falls over the whole run; cosine and linear end at a tenth."
    )
    decay: float = Field(0.1, ge=0, description="Weight decay of matrices.")
    clip: float = Field(1.0, gt=0, description="Largest norm of a gradient.")

    @pydantic.model_validator(mode="after")
    def _fits(self) -> Self:
        for field in ("group_share", "base_mix", "benchmark_weights"):
            for name, value in getattr(self, field).items():
                if value < 0:
                    raise ValueError(f"{field}: {name!r} is {value:g}, wanted a number that is not negative")
        if self.base_mix and not sum(self.base_mix.values()) > 0:
            raise ValueError("base_mix: adds up to 0, one weight must be above")
        if self.benchmark_weights and not sum(self.benchmark_weights.values()) > 0:
            raise ValueError("benchmark_weights: add up to 0, one must be above")
        if any(not 0 < delta < 1 for delta in self.sweep):
            raise ValueError("sweep: every delta must be between 0 and 1")
        if self.length > self.net.context:
            raise ValueError(f"length {self.length} is more than the network's context of {self.net.context}")
        return self

    def steps(self, tokens: float) -> int:
        """Steps of a training on so many tokens."""
        return max(2, math.floor(tokens / (self.batch * self.length)))

    def switch(self, steps: int, delta: float) -> int:
        """Steps of the first phase."""
        return min(max(round((1 - delta) * steps), 1), steps - 1)
