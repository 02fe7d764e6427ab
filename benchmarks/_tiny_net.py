"""A tiny language model for claims about training: embeddings of four tokens, one hidden layer, in JAX."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from pickaxe.extras import require

VOCAB, CONTEXT, EMBEDDING = 64, 4, 16


def text(examples: int, seed: int) -> np.ndarray:
    """Rows of CONTEXT tokens and the next one, (examples, CONTEXT + 1), spoken by a random network."""
    teacher = np.random.default_rng(1234)
    embedding = teacher.normal(size=(VOCAB, EMBEDDING))
    first = teacher.normal(size=(CONTEXT * EMBEDDING, 256)) / 8
    last = teacher.normal(size=(256, VOCAB)) / 6
    common = -0.9 * np.log(np.arange(1, VOCAB + 1))
    rng = np.random.default_rng(seed)
    length, speakers = 64, -(-examples // 64)
    tokens = rng.integers(0, VOCAB, (speakers, CONTEXT + length))
    for place in range(CONTEXT, CONTEXT + length):
        read = embedding[tokens[:, place - CONTEXT : place]].reshape(speakers, -1)
        logits = np.maximum(read @ first, 0) @ last + common
        tokens[:, place] = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    windows = np.lib.stride_tricks.sliding_window_view(tokens, CONTEXT + 1, axis=1).reshape(-1, CONTEXT + 1)
    return rng.permutation(windows)[:examples].astype(np.int32)


def prunable(hidden: int) -> dict[str, int]:
    """Names and sizes of the two matrices."""
    return {"first": CONTEXT * EMBEDDING * hidden, "last": hidden * VOCAB}


def initial(hidden: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "embedding": rng.normal(size=(VOCAB, EMBEDDING)).astype(np.float32),
        "first": (rng.normal(size=(CONTEXT * EMBEDDING, hidden)) / 8).astype(np.float32),
        "bias": np.zeros(hidden, np.float32),
        "last": (rng.normal(size=(hidden, VOCAB)) / hidden**0.5).astype(np.float32),
        "common": np.zeros(VOCAB, np.float32),
    }


def loss(weights: Any, rows: Any, key: Any = None, dropout: float = 0.0) -> Any:
    """Mean negative log-likelihood of the last token of each row, in nats."""
    jax = require("jax", extra="train")
    read = weights["embedding"][rows[:, :-1]].reshape(len(rows), -1)
    hidden = jax.nn.relu(read @ weights["first"] + weights["bias"])
    if dropout:
        hidden = hidden * jax.random.bernoulli(key, 1 - dropout, hidden.shape) / (1 - dropout)
    logprobs = jax.nn.log_softmax(hidden @ weights["last"] + weights["common"])
    return -jax.numpy.take_along_axis(logprobs, rows[:, -1:], 1).mean()


def train(
    start: dict[str, np.ndarray],
    batches: np.ndarray,
    optimiser: Any,
    dropout: float = 0.0,
    seed: int = 0,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """All steps on batches (steps, batch, CONTEXT + 1); weights, and the loss of each step."""
    run = _steps(optimiser, dropout)
    weights, losses = run(start, batches, require("jax", extra="train").random.key(seed))
    return {name: np.asarray(part) for name, part in weights.items()}, np.asarray(losses)


@functools.lru_cache(maxsize=8)
def _steps(optimiser: Any, dropout: float) -> Callable[..., Any]:
    jax, optax = require("jax", extra="train"), require("optax", extra="train")

    def step(state: Any, rows: Any) -> Any:
        weights, held, key = state
        key, own = jax.random.split(key)
        value, slope = jax.value_and_grad(loss)(weights, rows, own, dropout)
        change, held = optimiser.update(slope, held, weights)
        return (optax.apply_updates(weights, change), held, key), value

    def run(start: Any, batches: Any, key: Any) -> Any:
        (weights, _, _), losses = jax.lax.scan(step, (start, optimiser.init(start), key), batches)
        return weights, losses

    compiled: Callable[..., Any] = jax.jit(run)
    return compiled


@functools.lru_cache(maxsize=8)
def adam(steps: int, rate: float = 3e-3) -> Any:
    optax = require("optax", extra="train")
    return optax.adam(optax.cosine_decay_schedule(rate, steps, 0.05))
