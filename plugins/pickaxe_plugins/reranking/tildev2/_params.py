"""Parameters of TILDEv2."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

import pickaxe

BAKED_IN = ("expander", "m", "official_order", "p_max_len", "stop_words", "store_dtype", "quantize_bits")
"""What an index is built by."""
RATES = {True: 1e-2, False: 5e-6}
"""Learning rates that are not given: of the projection alone, and of the whole encoder as published."""


class Params(pickaxe.Params):
    base: str = Field("encoder", min_length=1, description="BERT-like encoder: alias, name or path.")
    expander: Literal["none", "tilde", "provided"] = Field(
        "none", description="Further terms of a passage: none, a masked language model's, or its `expansion_terms`."
    )
    expander_model: str | None = Field(
        None, min_length=1, description="Masked language model of `tilde`; null: the one that fit trained."
    )
    m: int = Field(200, ge=0, description="tilde: likeliest ids looked at, before any is dropped.")
    official_order: bool = Field(False, description="tilde: append by id, not by likelihood, as the official code.")
    p_max_len: int = Field(192, ge=8, le=512, description="Most tokens of a passage, expansion included.")
    cut_off: int = Field(1000, ge=1, description="Only the first so many candidates are ordered anew.")
    quantize_bits: int | None = Field(None, ge=1, le=16, description="Store weights as integers of so many bits.")
    store_dtype: Literal["float16", "float32"] = Field("float16", description="How weights are stored otherwise.")
    stop_words: Literal["official", "none"] | tuple[str, ...] = Field(
        "official", description="Words that are no terms: the official list, none, or these."
    )
    missing: Literal["error", "score0"] = Field("error", description="What a candidate is that the index lacks.")
    explain: int = Field(10, ge=0, description="So many of the best come with their matched terms, in the record.")
    head_only: bool = Field(True, description="fit: train the projection alone, on the encoder as it is.")
    q_max_len: int = Field(16, ge=3, description="fit: most tokens of a query, the special ones included.")
    batch: int = Field(8, ge=1, description="fit: queries of one step.")
    group: int = Field(8, ge=2, description="fit: passages of each query, one of them right.")
    epochs: int = Field(5, ge=1, description="fit: how often each query is used.")
    rate: float | None = Field(None, gt=0, description="fit: highest learning rate; null: 0.01, or 5e-6 of an encoder.")
    warmup: float = Field(0.1, ge=0, le=1, description="fit: share of the steps until the highest rate.")
    decay: float = Field(0.01, ge=0, description="fit: weight decay of matrices.")
    dropout: float = Field(0.1, ge=0, lt=1, description="fit: share of activations dropped, of a whole encoder.")
    expander_epochs: int = Field(5, ge=1, description="fit, tilde: how often the expander uses each pair.")
    expander_rate: float = Field(1e-3, gt=0, description="fit, tilde: the expander's highest learning rate.")
    checkpoint: int = Field(200, ge=1, description="fit: steps between the points at which an interrupted fit resumes.")

    @model_validator(mode="after")
    def _of_one_kind(self) -> Params:
        if self.expander_model is not None and self.expander != "tilde":
            raise ValueError("expander_model is for expander='tilde'")
        return self

    @property
    def usual_rate(self) -> float:
        return RATES[self.head_only]
