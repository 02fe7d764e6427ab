"""Training of auxiliary model and predictor against a frozen base."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from pickaxe import ArtifactWriter, Call, Progress
from pickaxe.extras import require
from pickaxe.lm.weights import Architecture
from pickaxe_plugins.decoding.kv_predict._loss import IGNORED, Loss, entropy, losses
from pickaxe_plugins.decoding.kv_predict._predictor import Pair, Regression, predict, random_start
from pickaxe_plugins.train import llama
from pickaxe_plugins.train.descent import Shuffle, adamw, descend
from pickaxe_plugins.train.settings import Recipe

ROOM = 32
"""Batches are padded to multiples of so many tokens, so that few shapes are compiled."""
BETA2, FLOOR = 0.95, 0.1
"""AdamW's second decay, and the last learning rate as a share of the highest, as in the authors' configurations."""

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Pairing:
    """A base, an auxiliary model, and which layer of the second serves each layer of the first."""

    base: Architecture
    aux: Architecture
    layer_map: tuple[int, ...]


def pruned(base: Architecture, weights: Mapping[str, np.ndarray], kept: Sequence[int]) -> tuple[Architecture, Arrays]:
    """The base with these layers only."""
    chosen = {name: array for name, array in weights.items() if not name.startswith("layers.")}
    for place, layer in enumerate(kept):
        prefix = f"layers.{layer}."
        own = (name for name in weights if name.startswith(prefix))
        chosen |= {f"layers.{place}.{name.removeprefix(prefix)}": weights[name] for name in own}
    return replace(base, layers=len(kept)), chosen


def windows(texts: Iterator[Sequence[int]], length: int) -> list[np.ndarray]:
    """Pieces of at most `length` tokens and the one that follows; the next piece begins with that one."""
    return [
        np.asarray(ids[start : start + length + 1], np.int32)
        for ids in texts
        for start in range(0, len(ids) - 1, length)
    ]


def batch(chosen: Sequence[np.ndarray], size: int) -> dict[str, np.ndarray]:
    """`ids` and `targets` (size, T) of these windows; padding has the target `IGNORED`."""
    width = ROOM * -(-max(len(window) - 1 for window in chosen) // ROOM)
    ids = np.zeros((size, width), np.int32)
    targets = np.full((size, width), IGNORED, np.int32)
    for row, window in enumerate(chosen):
        ids[row, : len(window) - 1], targets[row, : len(window) - 1] = window[:-1], window[1:]
    return {"ids": ids, "targets": targets}


@dataclass(frozen=True)
class Trainer:
    """Fits to windows of token ids, and measures on others.

    A tree is {"aux": weights of the auxiliary model, "predictor": its arrays}.
    """

    pairing: Pairing
    frozen: Mapping[str, Any]
    """The base's weights, on JAX's device."""
    loss: Loss
    recipe: Recipe
    out: ArtifactWriter
    call: Call

    @classmethod
    def of(cls, pairing: Pairing, base: Arrays, loss: Loss, recipe: Recipe, out: ArtifactWriter, call: Call) -> Trainer:
        jnp = require("jax.numpy", extra="train")
        return cls(pairing, {name: jnp.asarray(array) for name, array in base.items()}, loss, recipe, out, call)

    def start(
        self, aux: Arrays, learned: Sequence[np.ndarray], kind: Literal["regression", "random"], tokens: int
    ) -> Generator[Progress, None, Arrays]:
        """The predictor's arrays before training."""
        if kind == "random":
            return random_start(self.pairing.base, self.pairing.aux, self.call.seed)
        found = Regression(self.pairing.layer_map)
        read = _pairs(self.pairing)
        shuffle = Shuffle(len(learned), self.recipe.batch, self.call.seed)
        seen = 0
        for step in range(shuffle.per_epoch):
            self.call.check()
            given = batch([learned[row] for row in shuffle.rows(step)], self.recipe.batch)
            kept = given["targets"] != IGNORED
            found.add(*read(aux, self.frozen, given["ids"]), kept)
            seen += int(kept.sum())
            yield Progress("start", min(seen, tokens), tokens)
            if seen >= tokens:
                break
        return found.solved()

    def train(
        self, tree: Mapping[str, Arrays], learned: Sequence[np.ndarray], steps: int
    ) -> Generator[Progress, None, dict[str, Arrays]]:
        """The tree after so many steps; each reports every term of the loss."""
        recipe = self.recipe
        shuffle = Shuffle(len(learned), recipe.batch, self.call.seed)

        def given(step: int) -> dict[str, Any]:
            self.call.check()
            return {"base": self.frozen, **batch([learned[row] for row in shuffle.rows(step)], recipe.batch)}

        trained: dict[str, Arrays] = yield from descend(
            _training_loss(self.pairing, self.loss),
            adamw(recipe, steps, beta2=BETA2, floor=FLOOR, matrices_only=True),
            tree,
            given,
            steps,
            self.out,
            seed=self.call.seed,
            checkpoint=recipe.checkpoint,
        )
        return trained

    def measure(
        self, tree: Mapping[str, Arrays], held: Sequence[np.ndarray]
    ) -> Generator[Progress, None, dict[str, float]]:
        """Every term over the held windows, by tokens, and `exact_loss`, the base's own cross-entropy."""
        evaluate = _evaluation(self.pairing, self.loss)
        sums: dict[str, float] = {}
        tokens = 0
        for start in range(0, len(held), self.recipe.batch):
            self.call.check()
            given = batch(held[start : start + self.recipe.batch], self.recipe.batch)
            count = int((given["targets"] != IGNORED).sum())
            for name, value in evaluate(tree, {"base": self.frozen, **given}).items():
                sums[name] = sums.get(name, 0.0) + count * float(value)
            tokens += count
            yield Progress("measure", min(start + self.recipe.batch, len(held)), len(held))
        return {name: value / tokens for name, value in sums.items()}


def _terms(pairing: Pairing, loss: Loss, tree: Any, given: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """The terms of the loss, and the base's logits without prediction."""
    base, frozen, ids = pairing.base, given["base"], given["ids"]
    hidden, seen = llama.read(tree["aux"], pairing.aux, ids)
    predicted = predict(tree["predictor"], pairing.layer_map, _cached(tree["aux"], pairing.aux, seen), base)
    guided, _ = llama.read(frozen, base, ids, given=predicted)
    exact, true = llama.read(frozen, base, ids)
    told = losses(
        llama.logits(frozen, guided),
        llama.logits(tree["aux"], hidden),
        given["targets"],
        _cached(frozen, base, predicted),
        _cached(frozen, base, true),
        loss,
    )
    return told, llama.logits(frozen, exact)


def _cached(weights: Any, architecture: Architecture, pairs: Sequence[Pair]) -> list[Pair]:
    """Projected keys and values as a cache has them but for rotary: keys after their norm."""
    return [
        (llama.normed_keys(weights, architecture, layer, keys), values) for layer, (keys, values) in enumerate(pairs)
    ]


@functools.lru_cache(maxsize=4)
def _training_loss(pairing: Pairing, loss: Loss) -> Callable[..., tuple[Any, dict[str, Any]]]:
    def total(tree: Any, given: Mapping[str, Any], key: Any) -> tuple[Any, dict[str, Any]]:
        told, _ = _terms(pairing, loss, tree, given)
        return told.pop("total_loss"), told

    return total


@functools.lru_cache(maxsize=4)
def _evaluation(pairing: Pairing, loss: Loss) -> Callable[..., dict[str, Any]]:
    def every(tree: Any, given: Mapping[str, Any]) -> dict[str, Any]:
        told, logits = _terms(pairing, loss, tree, given)
        return {**told, "exact_loss": entropy(logits, given["targets"])[0]}

    compiled: Callable[..., dict[str, Any]] = require("jax", extra="train").jit(every)
    return compiled


@functools.lru_cache(maxsize=4)
def _pairs(pairing: Pairing) -> Callable[..., tuple[list[Any], list[Any]]]:
    """(auxiliary weights, base weights, ids) -> what the predictor sees, and what it should say, by layer."""

    def both(aux: Any, base: Any, ids: Any) -> tuple[list[Any], list[Any]]:
        seen = _cached(aux, pairing.aux, llama.read(aux, pairing.aux, ids)[1])
        return seen, llama.read(base, pairing.base, ids)[1]

    compiled: Callable[..., tuple[list[Any], list[Any]]] = require("jax", extra="train").jit(both)
    return compiled
