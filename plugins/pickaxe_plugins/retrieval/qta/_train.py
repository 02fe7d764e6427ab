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
    # One table for all steps: equal shapes are compiled once.
    table = loop.batch([text for pair in pairs for text in pair.texts()], 2 * len(pairs))

    def given(step: int) -> dict[str, Any]:
        rows = shuffle.rows(step)
        filled = np.resize(rows, size)
        used = np.where(np.arange(size) < len(rows), 1 / len(rows), 0).astype(np.float32)
        both = np.stack([2 * filled, 2 * filled + 1], axis=1).ravel()
        texts = {name: array[both] for name, array in table.items()}
        return {**texts, "reference": reference[filled], "used": used, "frozen": frozen}

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
        gained = log_likelihoods(architecture, weights, given).reshape(-1, 2) - given["reference"]
        margin = beta * (gained[:, 0] - gained[:, 1])
        value = -(given["used"] * jax.nn.log_sigmoid(margin)).sum()
        told = {"margin": (given["used"] * margin).sum(), "accuracy": (given["used"] * (margin > 0)).sum()}
        return value, told

    return loss
