"""Optimisers and learning-rate schedules by the names and forms that papers give them.

Schedules are values: two of the same numbers are equal, and so are the optimisers made with them, so that a training
step is compiled once.  A schedule's `step` counts from 0, the first update.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pickaxe.extras import require

Rate = float | Callable[[Any], Any]
"""A learning rate, or a hashable schedule of it."""


@dataclass(frozen=True, slots=True)
class Linear:
    """From 0 up to `rate` in `warmup` steps, then linearly to 0 at `steps`: the usual one for BERT."""

    rate: float
    steps: int
    warmup: int = 0

    def __call__(self, step: Any) -> Any:
        left = (self.steps - step) / max(1, self.steps - self.warmup)
        return self.rate * _clip(_least(step / max(1, self.warmup), left) if self.warmup else left)


@dataclass(frozen=True, slots=True)
class Cosine:
    """From 0 up to `rate` in `warmup` steps, then by half a cosine to `floor` of it at `steps`."""

    rate: float
    steps: int
    warmup: int = 0
    floor: float = 0.0

    def __call__(self, step: Any) -> Any:
        jnp = require("jax", extra="train").numpy
        done = _clip((step - self.warmup) / max(1, self.steps - self.warmup))
        falling = self.floor + (1 - self.floor) * 0.5 * (1 + jnp.cos(jnp.pi * done))
        return self.rate * jnp.where(step < self.warmup, step / max(1, self.warmup), falling)


@dataclass(frozen=True, slots=True)
class WarmupStableDecay:
    """From 0 up to `rate` in `warmup` steps, constant until `stable`, then halved every `half_life` steps."""

    rate: float
    warmup: int
    stable: int
    half_life: float

    def __call__(self, step: Any) -> Any:
        jnp = require("jax", extra="train").numpy
        rising = _clip(step / max(1, self.warmup)) if self.warmup else 1.0
        return self.rate * rising * 0.5 ** (jnp.maximum(step - self.stable, 0) / self.half_life)


def matrices(tree: Any) -> Any:
    """Which leaves decay: those of more than one axis, so no biases and norms."""
    return require("jax", extra="train").tree_util.tree_map(lambda leaf: leaf.ndim > 1, tree)


def everything(tree: Any) -> Any:
    """All leaves decay."""
    return require("jax", extra="train").tree_util.tree_map(lambda leaf: True, tree)


@functools.lru_cache(maxsize=16)
def adamw(
    rate: Rate,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    decay: float = 0.01,
    clip: float | None = None,
    decayed: Callable[[Any], Any] = everything,
) -> Any:
    """AdamW as PyTorch has it: p (1 - rate decay) - rate m / (sqrt(v) + eps), with unbiased m and v.

    `clip` bounds the norm of all gradients together before.  `decayed` says which leaves decay: see `matrices`.
    """
    optax = require("optax", extra="train")
    step = optax.adamw(rate, b1=betas[0], b2=betas[1], eps=eps, weight_decay=decay, mask=decayed)
    return step if clip is None else optax.chain(clipped(clip), step)


@functools.lru_cache(maxsize=16)
def lamb(
    rate: Rate,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    decay: float = 0.01,
    clip: float | None = None,
    decayed: Callable[[Any], Any] = matrices,
) -> Any:
    """LAMB (arXiv:1904.00962): AdamW's step of each array, scaled to the array's own norm.  For large batches."""
    optax = require("optax", extra="train")
    step = optax.lamb(rate, b1=betas[0], b2=betas[1], eps=eps, weight_decay=decay, mask=decayed)
    return step if clip is None else optax.chain(clipped(clip), step)


def clipped(most: float) -> Any:
    """Scale gradients by min(1, most / (their common norm + 1e-6)): PyTorch's form of clipping."""
    jax, optax = require("jax", extra="train"), require("optax", extra="train")

    def update(slopes: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        squares = sum(jax.numpy.square(slope).sum() for slope in jax.tree_util.tree_leaves(slopes))
        share = jax.numpy.minimum(1.0, most / (squares**0.5 + 1e-6))
        return jax.tree_util.tree_map(lambda slope: slope * share, slopes), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def masked(optimiser: Any, mask: Any) -> Any:
    """The optimiser confined to a mask, a tree like the weights of booleans or of 0/1 arrays in their shapes.

    What is masked out (0) keeps its bits: its gradient, moments and change are 0, and it does not decay.
    """
    jax, optax = require("jax", extra="train"), require("optax", extra="train")

    def only(tree: Any) -> Any:
        return jax.tree_util.tree_map(lambda keep, leaf: jax.numpy.where(keep, leaf, 0), mask, tree)

    def update(slopes: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        change, state = optimiser.update(only(slopes), state, params)
        return only(change), state

    return optax.GradientTransformation(optimiser.init, update)


def _clip(share: Any) -> Any:
    return require("jax", extra="train").numpy.clip(share, 0.0, 1.0)


def _least(left: Any, right: Any) -> Any:
    return require("jax", extra="train").numpy.minimum(left, right)
