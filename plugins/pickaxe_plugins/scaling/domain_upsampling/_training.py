"""One training run that can be left at any step and gone on from, with the same bits."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pickaxe.extras import require
from pickaxe.lm.weights import Architecture
from pickaxe_plugins.scaling.domain_upsampling._data import Benchmark, Streams
from pickaxe_plugins.scaling.domain_upsampling._schedule import Credits, ordinals
from pickaxe_plugins.train import llama

_FLOOR = 0.1
"""Of the highest rate, where cosine and linear schedules end."""
_ROWS = 64
"""Rows of a benchmark that are read at once."""


@dataclass(frozen=True)
class Settings:
    """What decides a step, beside its tokens."""

    architecture: Architecture
    steps: int
    rate: float
    warmup: int
    schedule: str
    decay: float
    clip: float


@dataclass(frozen=True)
class State:
    """Weights and optimizer state after `step` steps, and the draws so far."""

    step: int
    tree: Any
    credits: Credits


def rate_at(settings: Settings, step: Any) -> Any:
    """The learning rate of a step: a warm-up, then one fall over the whole run, whatever mix is trained on."""
    jnp = require("jax.numpy", extra="train")
    warmup = max(min(settings.warmup, settings.steps - 1), 1)
    rising = (step + 1) / warmup
    done = jnp.clip((step - warmup) / max(settings.steps - warmup, 1), 0.0, 1.0)
    falling = {
        "cosine": _FLOOR + (1 - _FLOOR) * 0.5 * (1 + jnp.cos(jnp.pi * done)),
        "linear": 1 - (1 - _FLOOR) * done,
        "invsqrt": jnp.sqrt(warmup / jnp.maximum(step + 1, warmup)),
    }[settings.schedule]
    return settings.rate * jnp.minimum(rising, falling)


def begin(settings: Settings, domains: int, seed: int) -> State:
    weights = llama.initial(settings.architecture, seed)
    return State(0, (weights, _optimizer(settings).init(weights)), Credits(domains))


def advance(
    settings: Settings, state: State, streams: Streams, mix: np.ndarray, until: int, batch: int
) -> Generator[tuple[int, float], None, State]:
    """Train on the mix up to step `until`, yielding (step, loss); the given state is left as it is."""
    jax = require("jax", extra="train")
    credits = state.credits.copy()
    before = credits.counts.copy()
    drawn = credits.draw(mix, (until - state.step) * batch)
    places = ordinals(drawn, before)
    update = _update(settings)
    # A step writes into the memory of the state that it is given, which others may go on from too.
    tree = jax.tree_util.tree_map(jax.numpy.array, state.tree)
    for step in range(state.step, until):
        rows = slice((step - state.step) * batch, (step - state.step + 1) * batch)
        tree, loss = update(tree, streams.batch(drawn[rows], places[rows]))
        yield step + 1, float(loss)
    return State(until, jax.tree_util.tree_map(np.asarray, tree), credits)


def evaluate(settings: Settings, state: State, benchmarks: Sequence[Benchmark]) -> list[float]:
    """The value of each benchmark for the model as it is."""
    read = _reading(settings.architecture)
    values = []
    for each in benchmarks:
        sums = []
        for start in range(0, len(each.ids), _ROWS):
            ids, weights = each.ids[start : start + _ROWS], each.weights[start : start + _ROWS]
            room = ((0, _ROWS - len(ids)), (0, 0))
            sums.append(np.asarray(read(state.tree[0], np.pad(ids, room), np.pad(weights, room)))[: len(ids)])
        values.append(each.value(np.concatenate(sums).astype(float)))
    return values


def keep(state: State, path: Path) -> None:
    """Write the state: weights, optimizer state with its step count, draws."""
    leaves = require("jax", extra="train").tree_util.tree_leaves(state.tree)
    arrays = {str(place): np.asarray(leaf) for place, leaf in enumerate(leaves)}
    arrays |= {"step": np.array(state.step), "credits": state.credits.credits, "counts": state.credits.counts}
    require("safetensors.numpy", extra="cpu").save_file(arrays, str(path))


def restore(settings: Settings, domains: int, path: Path) -> State:
    """What `keep` wrote."""
    tree = require("jax", extra="train").tree_util
    arrays: Mapping[str, np.ndarray] = require("safetensors.numpy", extra="cpu").load_file(str(path))
    leaves, form = tree.tree_flatten(begin(settings, domains, 0).tree)
    whole = tree.tree_unflatten(form, [arrays[str(place)] for place in range(len(leaves))])
    return State(int(arrays["step"]), whole, Credits(domains, arrays["credits"], arrays["counts"]))


@functools.lru_cache(maxsize=4)
def _optimizer(settings: Settings) -> Any:
    optax = require("optax", extra="train")
    jax = require("jax", extra="train")

    def matrices(tree: Any) -> Any:
        return jax.tree_util.tree_map(lambda leaf: leaf.ndim > 1, tree)

    adam = optax.adamw(lambda step: rate_at(settings, step), weight_decay=settings.decay, mask=matrices)
    return optax.chain(optax.clip_by_global_norm(settings.clip), adam)


@functools.lru_cache(maxsize=4)
def _update(settings: Settings) -> Callable[..., Any]:
    """One step: ((weights, optimizer state), ids (B, T + 1)) -> (the same after it, loss)."""
    jax, optax = require("jax", extra="train"), require("optax", extra="train")
    optimizer = _optimizer(settings)

    def loss(weights: Any, ids: Any) -> Any:
        return -_logprobs(settings.architecture, weights, ids).mean()

    def update(tree: Any, ids: Any) -> Any:
        weights, state = tree
        value, slope = jax.value_and_grad(loss)(weights, ids)
        change, state = optimizer.update(slope, state, weights)
        return (optax.apply_updates(weights, change), state), value

    step: Callable[..., Any] = jax.jit(update, donate_argnums=(0,))
    return step


@functools.lru_cache(maxsize=4)
def _reading(architecture: Architecture) -> Callable[..., Any]:
    jax = require("jax", extra="train")
    function: Callable[..., Any] = jax.jit(
        lambda weights, ids, counted: (_logprobs(architecture, weights, ids) * counted).sum(1)
    )
    return function


def _logprobs(architecture: Architecture, weights: Any, ids: Any) -> Any:
    """(B, T + 1) -> log-probs of each next token (B, T)."""
    jax = require("jax", extra="train")
    given, wanted = ids[:, :-1], ids[:, 1:]
    scores = llama.logits(weights, llama.hidden_states(weights, architecture, given))
    return jax.numpy.take_along_axis(jax.nn.log_softmax(scores), wanted[..., None], -1)[..., 0]
