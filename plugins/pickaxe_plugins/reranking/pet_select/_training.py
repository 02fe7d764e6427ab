"""The two trainings: a residual layer that parts easy from hard queries, and the selector on top of it."""

from __future__ import annotations

import functools
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from pickaxe import ArtifactWriter, Progress
from pickaxe.errors import InvalidItems
from pickaxe.extras import require
from pickaxe.randomness import generator
from pickaxe_plugins.reranking.pet_select._routing import EPS
from pickaxe_plugins.train import optimisers
from pickaxe_plugins.train.descent import Loss, Shuffle, descend

if TYPE_CHECKING:
    from pickaxe_plugins.reranking.pet_select._method import Params

HIDDEN = (128, 64)
"""Widths of the selector's layers [code]."""
Weights = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Tasks:
    """Training tasks: vectors (n, d), success (n, T) of 0 and 1, and the technique that did best (n,)."""

    vectors: np.ndarray
    passed: np.ndarray
    best: np.ndarray


def triplets(hard: np.ndarray, count: int, symmetric: bool, seed: int) -> np.ndarray:
    """Rows (m, 3) of anchor, positive and negative: easy anchors, or with `symmetric` hard ones too.

    Each anchor gets up to `count` positives of its own side and negatives of the other, none of them twice.
    Raises `InvalidItems` with fewer than 2 easy or hard tasks.
    """
    sides = np.flatnonzero(~hard), np.flatnonzero(hard)
    if min(map(len, sides)) < 2:
        raise InvalidItems(
            "examples",
            f"are {len(sides[0])} easy and {len(sides[1])} hard tasks: 2 of each are needed; set a threshold",
        )
    found = []
    for own, other in (sides, sides[::-1])[: 1 + symmetric]:
        for anchor in own.tolist():
            rng = generator(seed, "triplets", anchor)
            near, far = rng.permutation(own[own != anchor]), rng.permutation(other)
            found += [(anchor, *pair) for pair in zip(near[:count].tolist(), far[:count].tolist(), strict=False)]
    return np.array(found)


def tune(
    vectors: np.ndarray, made: np.ndarray, params: Params, out: ArtifactWriter, seed: int
) -> Generator[Progress, None, np.ndarray]:
    """The residual matrix (d, d) that the triplets want; vectors become v + v W.T."""
    shuffle, size = Shuffle(len(made), params.batch, seed), params.batch
    steps = params.triplet_epochs * shuffle.per_epoch
    width = vectors.shape[1]

    def given(step: int) -> dict[str, np.ndarray]:
        rows = made[shuffle.rows(step)]
        shares = np.zeros(size, np.float32)
        shares[: len(rows)] = 1 / len(rows)
        full = np.concatenate([rows, np.repeat(rows[:1], size - len(rows), axis=0)])
        return {"triplets": vectors[full], "shares": shares}

    rate = optimisers.Linear(params.triplet_rate, steps, round(0.1 * steps))
    start = {"residual": np.zeros((width, width), np.float32)}
    # No checkpoint: all of it takes seconds, and its bits depend on the seed alone.
    tree = yield from descend(
        _triplet_loss(params.margin),
        optimisers.adamw(rate),
        start,
        given,
        steps,
        out,
        seed=seed,
        stage="triplets",
        checkpoint=steps + 1,
    )
    residual: np.ndarray = tree["residual"]
    return residual


@functools.lru_cache(maxsize=4)
def _triplet_loss(margin: float) -> Loss:
    jnp = require("jax", extra="train").numpy

    def loss(tree: Any, given: Mapping[str, Any], key: Any) -> tuple[Any, Mapping[str, Any]]:
        moved = given["triplets"] + given["triplets"] @ tree["residual"].T
        near, far = (jnp.sqrt(((moved[:, 0] - moved[:, at] + EPS) ** 2).sum(-1)) for at in (1, 2))
        return (given["shares"] * jnp.maximum(0, near - far + margin)).sum(), {}

    return loss


def select(
    tasks: Tasks, params: Params, out: ArtifactWriter, seed: int
) -> Generator[Progress, None, dict[str, np.ndarray]]:
    """The selector's weights: d -> 128 -> 64 -> T."""
    shuffle, size = Shuffle(len(tasks.vectors), params.batch, seed), params.batch
    steps = params.epochs * shuffle.per_epoch

    def given(step: int) -> dict[str, np.ndarray]:
        rows = shuffle.rows(step)
        shares = np.zeros(size, np.float32)
        shares[: len(rows)] = 1 / len(rows)
        full = np.concatenate([rows, np.repeat(rows[:1], size - len(rows))])
        return {
            "vectors": tasks.vectors[full],
            "passed": tasks.passed[full],
            "best": tasks.best[full],
            "shares": shares,
        }

    tree: dict[str, np.ndarray] = yield from descend(
        _selector_loss(params.loss),
        optimisers.adamw(params.rate, decay=0.0),
        _initial((tasks.vectors.shape[1], *HIDDEN, tasks.passed.shape[1]), seed),
        given,
        steps,
        out,
        seed=seed,
        stage="selector",
        checkpoint=steps + 1,
    )
    return tree


def _initial(widths: tuple[int, ...], seed: int) -> dict[str, np.ndarray]:
    """Uniform in +-1 / sqrt(width read), biases too."""
    found = {}
    for layer, (read, written) in enumerate(pairwise(widths)):
        rng, reach = generator(seed, "selector", layer), read**-0.5
        found[f"weight{layer}"] = rng.uniform(-reach, reach, (written, read)).astype(np.float32)
        found[f"bias{layer}"] = rng.uniform(-reach, reach, written).astype(np.float32)
    return found


@functools.lru_cache(maxsize=4)
def _selector_loss(kind: str) -> Loss:
    jax = require("jax", extra="train")

    def loss(tree: Any, given: Mapping[str, Any], key: Any) -> tuple[Any, Mapping[str, Any]]:
        scores = logits(tree, given["vectors"], jax.nn.relu)
        if kind == "softmax":
            each = -jax.numpy.take_along_axis(jax.nn.log_softmax(scores), given["best"][:, None], 1)[:, 0]
        else:
            each = (jax.nn.softplus(scores) - given["passed"] * scores).mean(1)
        return (given["shares"] * each).sum(), {}

    return loss


def logits(weights: Mapping[str, Any], vectors: Any, relu: Any = lambda x: np.maximum(x, 0)) -> Any:
    """(n, d) -> (n, T), in NumPy or JAX."""
    layers = len(weights) // 2
    for layer in range(layers):
        vectors = vectors @ weights[f"weight{layer}"].T + weights[f"bias{layer}"]
        if layer < layers - 1:
            vectors = relu(vectors)
    return vectors
