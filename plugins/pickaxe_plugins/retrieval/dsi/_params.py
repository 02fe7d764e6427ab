"""Parameters of `dsi`."""

from __future__ import annotations

from typing import Literal, Self

import pydantic
from pydantic import Field

import pickaxe
from pickaxe_plugins.train.settings import Recipe, Shape

Source = Literal["firstp", "daq", "d2q", "labeled"]


class Params(pickaxe.Params):
    ids: Literal["atomic", "naive", "semantic", "semantic2d"] = Field("semantic", description="Kind of identifiers.")
    k: int = Field(10, ge=2, le=64, description="Groups that a set of documents is clustered into.")
    c: int = Field(100, ge=1, le=1000, description="Most documents of a set that is not clustered further.")
    encoder: str = Field("encoder", min_length=1, description="Encoder whose vectors are clustered: alias or path.")
    sources: tuple[Source, ...] = Field(
        ("d2q", "labeled"), min_length=1, description="What is learned: document texts, synthetic or real queries."
    )
    m_queries: int = Field(10, ge=1, description="Most synthetic queries of a document.")
    synthesis: Literal["given", "templates", "lm"] = Field(
        "templates", description="Where documents get them that bring no `synthetic`: nowhere, sentences, a model."
    )
    lm: str = Field("lm", min_length=1, description="Language model of synthesis=lm: alias or path.")
    prompt: str = Field("Passage: {text}\n\nA question that the passage answers:", description="What it goes on with.")
    span_len: int = Field(64, ge=1, le=512, description="Tokens that are read of a query or a document's text.")
    daq_spans: int = Field(10, ge=1, description="Random spans of a document, for daq.")
    pawa: bool = Field(False, description="Adapt the output layer to the part of the identifier that was said.")
    consistency: float = Field(0.0, ge=0, description="Weight of the loss between two dropout passes; 0.15 when on.")
    consistency_kind: Literal["contrastive", "kl"] = Field("contrastive", description="Which loss that is.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Share of embeddings and last states dropped in training.")
    constrained: bool = Field(True, description="Search: only identifiers of documents can be said.")
    beam: int = Field(100, ge=1, description="Search: prefixes of identifiers that are followed; k is at most this.")
    extend: bool = Field(
        False, description="Index: documents that fit did not see get identifiers that the model never learned."
    )
    network: Shape = Field(
        Shape(layers=4, width=256, heads=4, kv_heads=4), description="Size of the language model that is trained."
    )
    vocab: int = Field(4096, ge=257, description="Most tokens of the vocabulary learned from the texts.")
    recipe: Recipe = Field(
        Recipe(epochs=20, batch=32, rate=1e-3, warmup=50, decay=0.01), description="How it is trained."
    )
    patience: int = Field(3, ge=0, description="Epochs without a better MRR@10 on `validation` until it ends; 0: all.")

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(set(self.sources)) < len(self.sources):
            raise ValueError("sources name one twice")
        if self.pawa and self.ids == "atomic":
            raise ValueError("pawa needs identifiers of several tokens: ids is atomic")
        if self.consistency and not self.dropout:
            raise ValueError("consistency needs dropout: without it both passes are the same")
        if self.prompt.count("{text}") != 1 or self.prompt.replace("{text}", "").count("{"):
            raise ValueError("prompt must hold {text} once, and no other brace")
        return self
