"""Parameters that methods offer for training: what a new network looks like, and the recipe."""

from __future__ import annotations

from typing import Self

import pydantic
from pydantic import Field

import pickaxe
from pickaxe.lm.weights import Architecture

GRAIN = 32
"""Widths are multiples of it: blocks of so many weights share a scale when they are stored in 8 bits."""


class Shape(pickaxe.Params):
    """The size of a new Llama-shaped network."""

    layers: int = Field(default=4, ge=1, description="Layers.")
    width: int = Field(default=128, ge=GRAIN, multiple_of=GRAIN, description="Size of the hidden states.")
    heads: int = Field(default=4, ge=1, description="Attention heads; width / heads is a multiple of 16.")
    kv_heads: int = Field(default=2, ge=1, description="Heads of keys and values, which divide the heads.")

    @pydantic.model_validator(mode="after")
    def _divides(self) -> Self:
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads {self.kv_heads} must divide heads {self.heads}")
        if self.width % (16 * self.heads):
            raise ValueError(f"width {self.width} must be a multiple of 16 * heads, that is of {16 * self.heads}")
        return self

    def sized(self, vocab: int, context: int) -> Architecture:
        """With a vocabulary of that size, tied to the output, and an MLP of about 8/3 of the width."""
        return Architecture(
            layers=self.layers,
            width=self.width,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_size=self.width // self.heads,
            mlp=GRAIN * round(8 * self.width / 3 / GRAIN),
            vocab=vocab,
            context=context,
            tied=True,
        )


class Net(Shape):
    """A new Llama-shaped network with a vocabulary of its own."""

    vocab: int = Field(
        default=512, ge=257, description="Most tokens of the byte-pair vocabulary learned from the examples."
    )
    context: int = Field(default=2048, ge=16, description="Most tokens it reads.")

    def architecture(self, vocab: int) -> Architecture:
        """With a vocabulary of that size."""
        return self.sized(vocab, self.context)


class Recipe(pickaxe.Params):
    """How a network is trained: AdamW on a cosine schedule with warm-up."""

    epochs: int = Field(default=4, ge=1, description="How often each example is used.")
    batch: int = Field(default=8, ge=1, description="Examples of one step.")
    rate: float = Field(default=1e-3, gt=0, description="Highest learning rate.")
    warmup: int = Field(default=50, ge=0, description="Steps until the highest rate.")
    decay: float = Field(default=0.0, ge=0, description="Weight decay.")
    clip: float = Field(default=1.0, gt=0, description="Largest norm of a gradient.")
    noise: float = Field(
        default=0.0, ge=0, description="NEFTune's alpha: uniform noise of +-alpha / sqrt(tokens * width)."
    )
    checkpoint: int = Field(
        default=100, ge=1, description="Steps between the points at which an interrupted fit resumes."
    )

    def steps(self, examples: int) -> int:
        """How many steps the epochs are."""
        return self.epochs * -(-examples // self.batch)
