"""Direct preference optimisation of a query rewriter, by low-rank changes of its matrices (arXiv:2305.18290)."""

from __future__ import annotations

import functools
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pickaxe import ArtifactWriter, Progress
from pickaxe.extras import require
from pickaxe.lm.weights import Architecture
from pickaxe_plugins.train import adapters, llama, loop
from pickaxe_plugins.train.descent import Loss, Shuffle, adamw, descend
from pickaxe_plugins.train.settings import Recipe

LAYERS = r"layers\.\d+\.(q|k|v|o|gate|up|down)$"
"""The matrices that are changed."""
ROWS = 2
"""Sequences that are scored together beside a training step."""


@dataclass(frozen=True)
class Pair:
    """Token ids of a prompt and of two responses to it."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]

    def texts(self) -> tuple[loop.Text, loop.Text]:
        return _text(self.prompt, self.chosen), _text(self.prompt, self.rejected)


def _text(prompt: Sequence[int], response: Sequence[int]) -> loop.Text:
    """Only the response counts, each token once."""
    counted = np.arange(len(prompt) + len(response)) >= len(prompt)
    return loop.Text(np.array([*prompt, *response], np.int32), counted.astype(np.float32))


def log_likelihoods(architecture: Architecture, weights: Any, given: Mapping[str, Any]) -> Any:
    """float32 (B,): log-probabilities of the responses, summed over their tokens; `given` is from `loop.batch`."""
    jax = require("jax", extra="train")
    jnp = jax.numpy
    hidden = llama.hidden_states(weights, architecture, given["ids"])
    rows = jnp.take_along_axis(hidden, given["places"][..., None], 1)
    logprobs = jax.nn.log_softmax(llama.logits(weights, rows))
    own = jnp.take_along_axis(logprobs, given["targets"][..., None], -1)[..., 0]
    return (jnp.where(given["shares"] > 0, own, 0)).sum(1)


def train(
    architecture: Architecture,
    frozen: Mapping[str, np.ndarray],
    changes: Mapping[str, Any],
    pairs: Sequence[Pair],
    beta: float,
    scale: float,
    recipe: Recipe,
    out: ArtifactWriter,
    seed: int,
) -> Generator[Progress, None, Any]:
    """Changes under which the chosen responses are likelier, against the frozen weights, which are the reference.

    The reference's log-probabilities are computed once, without the changes.  Each step reports `margin` and
    `accuracy`.
    """
    reference = np.array([_both(architecture, frozen, pair) for pair in pairs], np.float32)
    steps, size = recipe.steps(len(pairs)), recipe.batch
    shuffle = Shuffle(len(pairs), size, seed)

    def given(step: int) -> dict[str, Any]:
        rows = shuffle.rows(step)
        sides = list(zip(*(pairs[row].texts() for row in rows), strict=True))
        held, used = np.zeros((size, 2), np.float32), np.zeros(size, np.float32)
        held[: len(rows)], used[: len(rows)] = reference[rows], 1 / len(rows)
        return {
            "chosen": loop.batch(sides[0], size), "rejected": loop.batch(sides[1], size),
            "reference": held, "used": used, "frozen": frozen,
        }  # fmt: skip

    trained = yield from descend(
        _loss(architecture, beta, scale), adamw(recipe, steps), changes, given, steps, out, seed=seed,
        checkpoint=steps + 1,
    )  # fmt: skip
    return trained


def _both(architecture: Architecture, weights: Mapping[str, Any], pair: Pair) -> list[float]:
    found = _likelihoods(architecture)(dict(weights), loop.batch(pair.texts(), ROWS))
    return [float(value) for value in found]


def mean_margin(
    architecture: Architecture,
    weights: Mapping[str, Any],
    frozen: Mapping[str, Any],
    pairs: Sequence[Pair],
    beta: float,
) -> float:
    """Mean reward margin of pairs under merged weights."""
    policy, reference = (np.array([_both(architecture, each, pair) for pair in pairs]) for each in (weights, frozen))
    return float(beta * ((policy - reference) @ [1, -1]).mean())


@functools.lru_cache(maxsize=4)
def _likelihoods(architecture: Architecture) -> Any:
    jax = require("jax", extra="train")
    return jax.jit(lambda weights, given: log_likelihoods(architecture, weights, given))


@functools.lru_cache(maxsize=4)
def _loss(architecture: Architecture, beta: float, scale: float) -> Loss:
    jax = require("jax", extra="train")

    def loss(changes: Any, given: Mapping[str, Any], key: Any) -> tuple[Any, Mapping[str, Any]]:
        weights = adapters.adapted(given["frozen"], changes, scale)
        chosen, rejected = (log_likelihoods(architecture, weights, given[side]) for side in ("chosen", "rejected"))
        margin = beta * ((chosen - given["reference"][:, 0]) - (rejected - given["reference"][:, 1]))
        value = -(given["used"] * jax.nn.log_sigmoid(margin)).sum()
        told = {"margin": (given["used"] * margin).sum(), "accuracy": (given["used"] * (margin > 0)).sum()}
        return value, told

    return loss
