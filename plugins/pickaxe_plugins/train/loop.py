"""The training loop: weighted cross-entropy, AdamW on a cosine schedule, exact resume."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import pickaxe
from pickaxe import ArtifactWriter, Progress
from pickaxe.errors import InvalidItems
from pickaxe.extras import require
from pickaxe.lm.weights import Architecture
from pickaxe_plugins.train import llama
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
    jax = require("jax", extra="train")
    per_epoch = math.ceil(len(texts) / recipe.batch)
    steps = recipe.epochs * per_epoch
    optimiser, update = _compiled(architecture, recipe, steps)
    state = dict(weights), optimiser.init(dict(weights))
    saved = _Checkpoint(out)
    start, state = saved.restore(state)
    order = np.empty(0, np.int64)
    for step in range(start, steps):
        epoch, place = divmod(step, per_epoch)
        if place == 0 or step == start:
            order = pickaxe.generator(seed, "order", epoch).permutation(len(texts))
        rows = order[place * recipe.batch : (place + 1) * recipe.batch]
        key = jax.random.fold_in(jax.random.key(seed), step)
        *state, loss = update(*state, batch([texts[row] for row in rows], recipe.batch), key)
        if (step + 1) % recipe.checkpoint == 0 and step + 1 < steps:
            saved.keep(tuple(state), step + 1)
        yield Progress(stage, step + 1, steps, {"loss": float(loss)})
    saved.remove()
    return {name: np.asarray(array) for name, array in state[0].items()}


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
def _compiled(architecture: Architecture, recipe: Recipe, steps: int) -> tuple[Any, Callable[..., Any]]:
    """The optimiser, and one step: (weights, its state, batch, key) -> (weights, state, loss)."""
    jax, optax = require("jax", extra="train"), require("optax", extra="train")
    warmup = min(recipe.warmup, steps - 1)
    schedule = optax.warmup_cosine_decay_schedule(recipe.rate / (warmup + 1), recipe.rate, warmup, steps)
    optimiser = optax.chain(optax.clip_by_global_norm(recipe.clip), optax.adamw(schedule, weight_decay=recipe.decay))

    def update(weights: Any, state: Any, given: Mapping[str, Any], key: Any) -> tuple[Any, Any, Any]:
        noise: Any = 0.0
        if recipe.noise:
            shape = (*given["ids"].shape, architecture.width)
            reach = recipe.noise / jax.numpy.sqrt(given["lengths"] * architecture.width)
            noise = jax.random.uniform(key, shape, minval=-1.0, maxval=1.0) * reach[:, None, None]
        loss, slope = jax.value_and_grad(lambda each: _loss(architecture, each, given, noise))(weights)
        change, state = optimiser.update(slope, state, weights)
        return optax.apply_updates(weights, change), state, loss

    return optimiser, jax.jit(update, donate_argnums=(0, 1))


@functools.lru_cache(maxsize=4)
def _evaluation(architecture: Architecture) -> Callable[..., Any]:
    jax = require("jax", extra="train")
    function: Callable[..., Any] = jax.jit(lambda weights, given: _loss(architecture, weights, given, 0.0))
    return function


class _Checkpoint:
    """Weights and optimiser state in the unfinished artifact."""

    STAGE = "checkpoint"

    def __init__(self, out: ArtifactWriter) -> None:
        self._out = out

    def restore(self, fresh: tuple[Any, Any]) -> tuple[int, tuple[Any, Any]]:
        """Steps done, and the state after them; the fresh state if there is none."""
        step = int(self._out.stage_notes(self.STAGE)["step"]) if self._out.done(self.STAGE) else 0
        if not step or not self._file(step).is_file():  # gone when the training had ended, but not what follows
            return 0, fresh
        tree = require("jax", extra="train").tree_util
        arrays = require("safetensors.numpy", extra="cpu").load_file(str(self._file(step)))
        leaves, form = tree.tree_flatten(fresh)
        return step, tree.tree_unflatten(form, [arrays[str(place)] for place in range(len(leaves))])

    def keep(self, state: tuple[Any, Any], step: int) -> None:
        """Write a new file, enter it, then drop the one before: one of them is whole at any time."""
        leaves = require("jax", extra="train").tree_util.tree_leaves(state)
        arrays = {str(place): np.asarray(leaf) for place, leaf in enumerate(leaves)}
        require("safetensors.numpy", extra="cpu").save_file(arrays, str(self._file(step)))
        self._out.finish(self.STAGE, step=step)
        self.remove(but=step)

    def remove(self, but: int | None = None) -> None:
        for path in self._out.path.glob("checkpoint-*.safetensors"):
            if but is None or path != self._file(but):
                path.unlink()

    def _file(self, step: int) -> Any:
        return self._out.file(f"checkpoint-{step}.safetensors")
