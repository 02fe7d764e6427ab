"""Training on texts: the weighted cross-entropy of chosen tokens."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pickaxe import ArtifactWriter, Progress
from pickaxe.errors import InvalidItems
from pickaxe.extras import require
from pickaxe.lm.weights import Architecture
from pickaxe_plugins.train import llama
from pickaxe_plugins.train.descent import Loss, Shuffle, adamw, descend
from pickaxe_plugins.train.settings import Recipe

ROOM = 32
"""Batches are padded to multiples of so many tokens, so that few shapes are compiled."""


@dataclass(frozen=True, slots=True)
class Text:
    """One sequence to learn: its loss is -sum_k weights[k] log p(ids[k] | ids[:k]).

    `ids` (n,) int32; `weights` (n,) float32, 0 where a token is read but not learned, as is the first.
    """

    ids: np.ndarray
    weights: np.ndarray

    def __post_init__(self) -> None:
        if self.ids.shape != self.weights.shape or not self.weights.any() or self.weights[0]:
            raise InvalidItems("weights", "must be one for each id, not all 0, and 0 for the first")


def train(
    architecture: Architecture,
    weights: Mapping[str, np.ndarray],
    texts: Sequence[Text],
    recipe: Recipe,
    out: ArtifactWriter,
    seed: int,
    stage: str = "train",
) -> Generator[Progress, None, dict[str, np.ndarray]]:
    """Train and return the new weights; each step reports its loss, the mean over the texts of its batch.

    Which texts a step sees, and its noise, depend on (seed, step) alone.  Every `recipe.checkpoint` steps
    everything is written to `out`; a fit that was interrupted goes on from there to the same weights, bit by bit.
    """
    shuffle = Shuffle(len(texts), recipe.batch, seed)
    steps = recipe.steps(len(texts))
    trained: dict[str, np.ndarray] = yield from descend(
        _noisy_loss(architecture, recipe.noise),
        adamw(recipe, steps),
        dict(weights),
        lambda step: batch([texts[row] for row in shuffle.rows(step)], recipe.batch),
        steps,
        out,
        seed=seed,
        stage=stage,
        checkpoint=recipe.checkpoint,
    )
    return trained


def mean_loss(
    architecture: Architecture, weights: Mapping[str, np.ndarray], texts: Sequence[Text], size: int = 8
) -> float:
    """The loss without noise, meaned over the texts."""
    evaluate = _evaluation(architecture)
    total = 0.0
    for start in range(0, len(texts), size):
        chosen = texts[start : start + size]
        total += float(evaluate(dict(weights), batch(chosen, size))) * len(chosen)
    return total / len(texts)


def batch(texts: Sequence[Text], size: int) -> dict[str, np.ndarray]:
    """Texts padded into arrays of `size` rows.

    `ids` (B, T), `lengths` (B,); the K tokens that count at most: `places` (B, K) of the tokens before them, their
    ids `targets` (B, K), and `shares` (B, K), the weights over the number of texts, 0 where nothing counts.
    """
    counted = [np.flatnonzero(text.weights) for text in texts]
    width = _roomy(max(len(text.ids) for text in texts), ROOM)
    count = _roomy(max(map(len, counted)), ROOM // 2)
    ids, lengths = np.zeros((size, width), np.int32), np.ones(size, np.int32)
    places, targets = np.zeros((size, count), np.int32), np.zeros((size, count), np.int32)
    shares = np.zeros((size, count), np.float32)
    for row, (text, these) in enumerate(zip(texts, counted, strict=True)):
        ids[row, : len(text.ids)], lengths[row] = text.ids, len(text.ids)
        places[row, : len(these)], targets[row, : len(these)] = these - 1, text.ids[these]
        shares[row, : len(these)] = text.weights[these] / len(texts)
    return {"ids": ids, "lengths": lengths, "places": places, "targets": targets, "shares": shares}


def _roomy(length: int, grain: int) -> int:
    return grain * math.ceil(length / grain)


def _loss(architecture: Architecture, weights: llama.Weights, given: Mapping[str, Any], noise: Any) -> Any:
    import jax
    import jax.numpy as jnp

    hidden = llama.hidden_states(weights, architecture, given["ids"], noise)
    rows = jnp.take_along_axis(hidden, given["places"][..., None], 1)
    logprobs = jax.nn.log_softmax(llama.logits(weights, rows))
    return -(given["shares"] * jnp.take_along_axis(logprobs, given["targets"][..., None], -1)[..., 0]).sum()


@functools.lru_cache(maxsize=4)
def _noisy_loss(architecture: Architecture, alpha: float) -> Loss:
    """The loss of a training step, with NEFTune's noise on the embeddings (arXiv 2310.05914)."""
    jax = require("jax", extra="train")

    def loss(weights: llama.Weights, given: Mapping[str, Any], key: Any) -> tuple[Any, Mapping[str, Any]]:
        noise: Any = 0.0
        if alpha:
            shape = (*given["ids"].shape, architecture.width)
            reach = alpha / jax.numpy.sqrt(given["lengths"] * architecture.width)
            noise = jax.random.uniform(key, shape, minval=-1.0, maxval=1.0) * reach[:, None, None]
        return _loss(architecture, weights, given, noise), {}

    return loss


@functools.lru_cache(maxsize=4)
def _evaluation(architecture: Architecture) -> Callable[..., Any]:
    jax = require("jax", extra="train")
    function: Callable[..., Any] = jax.jit(lambda weights, given: _loss(architecture, weights, given, 0.0))
    return function
