"""The two networks that STAR and ADORE can train: a linear head on frozen vectors, or a whole encoder with a head."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pickaxe.extras import require
from pickaxe_plugins.retrieval._towers import Side, headed
from pickaxe_plugins.train import bert
from pickaxe_plugins.train.pairs import Encoded, batch

BATCH = 64
"""Texts that are embedded at once outside of a step."""


class Embedder(Hashable, Protocol):
    """How a step makes vectors.  Hashable, so that a step is compiled once."""

    def query(self, weights: Any, given: Any, key: Any) -> Any:
        """(B, d)."""

    def document(self, weights: Any, given: Any, key: Any) -> Any:
        """(B, d)."""


@dataclass(frozen=True, slots=True)
class HeadOnly:
    """Vectors are given; those of queries go through a matrix."""

    def query(self, weights: Any, given: Any, key: Any) -> Any:
        return headed(weights, given)

    def document(self, weights: Any, given: Any, key: Any) -> Any:
        return given


@dataclass(frozen=True, slots=True)
class Whole:
    """Both sides read tokens with the same weights."""

    config: bert.Config
    dropout: float = 0.0

    def query(self, weights: Any, given: Any, key: Any) -> Any:
        return headed(weights, bert.embed(weights, self.config, given, dropout=self.dropout, key=key))

    document = query


@dataclass(frozen=True)
class Inputs:
    """What the embedder is given of all queries and of all documents: vectors (n, d), or tokens."""

    sides: Mapping[Side, np.ndarray | list[Encoded]]

    def given(self, side: Side, rows: Sequence[int] | np.ndarray) -> Any:
        of = self.sides[side]
        return of[np.asarray(rows)] if isinstance(of, np.ndarray) else batch([of[row] for row in rows])

    def embed(self, embedder: Embedder, weights: Any, side: Side) -> np.ndarray:
        """Vectors (n, d) float32 of a whole side, without dropout."""
        of, make = self.sides[side], _embedding(embedder, side)
        if isinstance(of, np.ndarray):
            return np.asarray(make(weights, of), np.float32)
        order = np.argsort([len(each) for each in of], kind="stable")
        parts = []
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            parts.append(np.asarray(make(weights, batch([of[row] for row in rows], BATCH)))[: len(rows)])
        vectors = np.concatenate(parts)
        back = np.empty_like(vectors)
        back[order] = vectors
        return back


@functools.lru_cache(maxsize=8)
def _embedding(embedder: Embedder, side: Side) -> Any:
    jax = require("jax", extra="train")
    make = embedder.query if side == "query" else embedder.document
    return jax.jit(lambda weights, given: make(weights, given, None))
