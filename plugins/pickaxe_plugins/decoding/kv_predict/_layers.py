"""Which layers the auxiliary model has, which of them serves which layer of the base, and what that saves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pickaxe.lm.weights import Architecture


def kept_layers(layers: int, count: int) -> tuple[int, ...]:
    """`count` of the base's layers, evenly from the first on: half are 0, 2, 4 …, three quarters 0, 1, 2, 4 …"""
    return tuple(place * layers // count for place in range(count))


def nearest_map(layers: int, kept: Sequence[int]) -> tuple[int, ...]:
    """For each layer of the base the place in `kept` of the last layer kept up to it (the first, where none is)."""
    return tuple(np.maximum(np.searchsorted(kept, np.arange(layers), side="right") - 1, 0).tolist())


def spread_map(layers: int, auxiliary: int) -> tuple[int, ...]:
    """For each layer of the base a layer of the auxiliary model, in order; the earliest ones serve one more."""
    each, more = divmod(layers, auxiliary)
    counts = [each + (place < more) for place in range(auxiliary)]
    return tuple(np.repeat(np.arange(auxiliary), counts).tolist())


def prefill_share(base: Architecture, auxiliary: Architecture, tokens: int) -> float:
    """Operations until the first token with prediction, as a share of those that the base takes alone."""
    own = _reading(base, tokens) + _head(base)
    wide, narrow = base.kv_heads * base.head_size, auxiliary.kv_heads * auxiliary.head_size
    predictor = 2 * base.layers * 2 * wide * narrow * (tokens - 1)
    last = _reading(base, tokens) - _reading(base, tokens - 1)
    return (_reading(auxiliary, tokens - 1) + predictor + last + _head(base)) / own


def _reading(of: Architecture, tokens: int) -> float:
    """Multiplications and additions of all layers: their matrices, and causal attention."""
    queries, keys = of.heads * of.head_size, of.kv_heads * of.head_size
    matrices = 2 * of.width * queries + 2 * of.width * keys + 3 * of.width * of.mlp
    return of.layers * (2 * matrices * tokens + 2 * queries * tokens * (tokens + 1))


def _head(of: Architecture) -> float:
    return 2 * of.vocab * of.width
