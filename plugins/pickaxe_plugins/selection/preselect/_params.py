"""PreSelect's parameters."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

import pickaxe

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Params(pickaxe.Params):
    benchmark_scores: tuple[Finite, ...] = Field(
        (), description="One benchmark score per model, in the order of `losses`; needed for strengths, so for a fit."
    )
    models: tuple[str, ...] = Field(
        (), description="Causal language models, one per benchmark score, for documents that come without `losses`."
    )
    precision: Literal["auto", "fp32", "int8", "int4", "fp16"] = Field(
        "auto", description="Weights of `models`; auto is int8 on a CPU and fp16 on a GPU."
    )
    block: int = Field(1900, ge=1, description="Tokens that a window scores at most; less where a context is shorter.")
    stride: int = Field(512, ge=1, description="Tokens from one window's begin to the next, at most `block`.")
    positive: Literal["all_pairs"] | Annotated[float, Field(gt=0, le=0.5)] = Field(
        "all_pairs", description="Positives: documents of strength 1, or this share of highest strength."
    )
    max_per_class: int = Field(200_000, ge=2, description="Most documents per class to train on.")
    epoch: int = Field(3, ge=1, le=1000, description="fastText: passes over the training lines.")
    lr: float = Field(0.1, gt=0, le=10, description="fastText: learning rate.")
    word_ngrams: int = Field(2, ge=1, le=10, description="fastText: longest run of words that is a feature.")
    dim: int = Field(100, ge=1, le=4096, description="fastText: length of vectors.")
    bucket: int = Field(
        2_000_000, ge=1000, le=100_000_000, description="fastText: rows for runs of words; each takes `dim` float32."
    )
    thread: int = Field(1, ge=1, le=1024, description="fastText: training threads; above 1, fits are not repeatable.")
    quantise: bool = Field(False, description="Whether to compress the model, to about an eighth of its size.")
    adopt: str | None = Field(
        None, description="A ready fastText model to use instead of training one: a path, or a resource of a server."
    )
    label: str = Field(
        "1", min_length=1, coerce_numbers_to_str=True, description="The model's label for texts to keep."
    )
    keep_fraction: float = Field(0.1, gt=0, le=1, description="Share of all characters to keep.")
    threshold: float | None = Field(
        None, ge=0, le=1, description="Keep what has this probability, instead of a share; None: `keep_fraction`."
    )

    @field_validator("benchmark_scores")
    @classmethod
    def _tells_models_apart(cls, scores: tuple[float, ...]) -> tuple[float, ...]:
        if scores and len(scores) < 2:
            raise ValueError("needs at least two models")
        if scores and len(set(scores)) == 1:
            raise ValueError("are all equal, so no pair of models is ordered")
        return scores

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.models and len(self.models) != len(self.benchmark_scores):
            raise ValueError(f"{len(self.models)} models but {len(self.benchmark_scores)} benchmark_scores")
        if self.stride > self.block:
            raise ValueError(f"stride {self.stride} is longer than block {self.block}: tokens would be left out")
        return self
