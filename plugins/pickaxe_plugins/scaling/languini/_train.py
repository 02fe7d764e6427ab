"""Languini's training: measured throughput, stateful rows of book streams, evaluation in sliding windows."""

from __future__ import annotations

import functools
import os
import platform
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pickaxe import ArtifactWriter
from pickaxe.extras import require
from pickaxe.randomness import generator
from pickaxe_plugins.scaling.languini._nets import Net
from pickaxe_plugins.scaling.languini._stream import learning_rate, scored_targets, windows, worker_rows
from pickaxe_plugins.train import trained
from pickaxe_plugins.train.trained import Trained

ROUNDS, WARM = 20, 6
"""Steps of a throughput measurement, of which the first are not timed."""
_AT_ONCE = 1024
"""Tokens that an evaluation reads in one call."""
_POINTS = 100
"""Losses that a training keeps."""
_STAGE = "checkpoint"


# ---------------------------------------------------------------- throughput


def throughput(net: Net, vocab: int, batch: int, seq_len: int, seed: int) -> int:
    """Tokens per second of an optimiser step on random tokens; 0 when that exceeds the memory."""
    jax = require("jax", extra="train")
    update = _update(net, 1)
    ids = jax.numpy.array(generator(seed, "throughput").integers(vocab, size=(batch, seq_len + 1)), "int32")
    try:
        state = _fresh(net, batch, seed)
        taken = []
        for _ in range(ROUNDS):
            begin = time.perf_counter()
            state, _ = jax.block_until_ready(update(state, ids, np.float32(1e-4)))
            taken.append(time.perf_counter() - begin)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return 0
    return round(batch * seq_len / float(np.mean(taken[WARM:])))


def sweep(measure: Callable[[int], int], largest: int) -> dict[int, int]:
    """Batch size -> tokens per second (0: too large): 1, then every eighth up to `largest`.

    Where the memory is exceeded, the pace is halved and sizes between the last good one and that are tried.
    """
    found = {1: measure(1)}
    good, room, pace = 0, largest, 8
    while pace and found[1]:
        batch = min(good + pace, room)
        if batch in found:
            break
        found[batch] = measure(batch)
        if found[batch]:
            good = batch
        else:
            room, pace = batch - 1, pace // 2
    return found


def device() -> str:
    """What JAX computes on here."""
    first = require("jax", extra="train").devices()[0]
    if first.platform != "cpu":
        return str(first.device_kind)
    return f"{platform.machine()} CPU, {len(os.sched_getaffinity(0))} cores"


# ---------------------------------------------------------------- training


@dataclass(frozen=True)
class Settings:
    """What decides a training, beside its tokens."""

    net: Net
    batch: int
    seq_len: int
    steps: int
    rate: float
    lowest: float
    warmup: int
    accumulation: int
    checkpoint: int


@dataclass(frozen=True)
class Learned:
    """A training that has ended: its weights, and (2, n) steps and the losses there."""

    weights: dict[str, np.ndarray]
    curve: np.ndarray


def train(
    settings: Settings, streams: Sequence[np.ndarray], name: str, out: ArtifactWriter, seed: int
) -> Generator[tuple[int, float], None, Learned]:
    """Train, yielding (step, loss); row b of every step goes on where it stopped in stream b, with its state.

    Every `checkpoint` steps all is written to `out`; an interrupted fit goes on from there to the same bits.
    """
    rates = learning_rate(
        np.arange(1, settings.steps + 1), settings.steps, settings.rate, settings.lowest, settings.warmup
    )
    update, jax = _update(settings.net, settings.accumulation), require("jax", extra="train")
    begin = _restored(out, name, Trained(_fresh(settings.net, settings.batch, seed), position={"curve": []}))
    state, curve = jax.tree_util.tree_map(jax.numpy.array, begin.tree), list(begin.position["curve"])
    often = max(1, settings.steps // _POINTS)
    for step in range(begin.step, settings.steps):
        state, value = update(state, rows(streams, step, settings.seq_len), np.float32(rates[step]))
        loss, done = float(value), step + 1
        if done % often == 0 or done == settings.steps:
            curve.append([done, loss])
        if done % settings.checkpoint == 0 and done < settings.steps:
            held = jax.tree_util.tree_map(np.asarray, state)
            _keep(out, name, Trained(held, step=done, position={"curve": curve}))
        yield done, loss
    return Learned({key: np.asarray(each) for key, each in state["weights"].items()}, np.array(curve).T)


def rows(streams: Sequence[np.ndarray], step: int, seq_len: int) -> np.ndarray:
    """(B, seq_len + 1) int32: what a step reads of each stream, which is repeated; the last id is the next's first."""
    places = step * seq_len + np.arange(seq_len + 1)
    return np.stack([each[places % len(each)] for each in streams]).astype(np.int32)


def _fresh(net: Net, batch: int, seed: int) -> dict[str, Any]:
    weights = net.initial(seed)
    return {"weights": weights, "moments": _adam().init(weights), "carried": net.start(batch)}


@functools.lru_cache(maxsize=1)
def _adam() -> Any:
    return require("optax", extra="train").scale_by_adam(b1=0.9, b2=0.95, eps=1e-8)


@functools.lru_cache(maxsize=16)
def _update(net: Net, accumulation: int) -> Callable[..., Any]:
    """One step: (state, ids (B, T + 1), rate) -> (state, mean loss), in so many parts of the rows."""
    jax = require("jax", extra="train")

    def loss(weights: Any, ids: Any, carried: Any) -> tuple[Any, Any]:
        found, behind = _logprobs(net, weights, ids, carried)
        return -found.mean(), behind

    def update(state: Mapping[str, Any], ids: Any, rate: Any) -> tuple[dict[str, Any], Any]:
        value, slope, behind = 0.0, None, []
        for part in worker_rows(len(ids), 1, 0, accumulation):
            share = len(part) / len(ids)
            (each, carried), towards = jax.value_and_grad(loss, has_aux=True)(
                state["weights"], ids[part], state["carried"][:, part]
            )
            scaled = jax.tree_util.tree_map(lambda leaf, share=share: share * leaf, towards)
            slope = scaled if slope is None else jax.tree_util.tree_map(jax.numpy.add, slope, scaled)
            value += share * each
            behind.append(carried)
        change, moments = _adam().update(slope, state["moments"])
        weights = jax.tree_util.tree_map(lambda old, turn: old - rate * turn, state["weights"], change)
        return {"weights": weights, "moments": moments, "carried": jax.numpy.concatenate(behind, 1)}, value

    step: Callable[..., Any] = jax.jit(update, donate_argnums=(0,))
    return step


def _restored(out: ArtifactWriter, name: str, fresh: Trained) -> Trained:
    """The newest checkpoint of that training, else the fresh state."""
    notes = out.stage_notes(_STAGE) if out.done(_STAGE) else {}
    path = out.file(f"checkpoint-{notes.get('step', 0)}.safetensors")
    return trained.read(path, fresh) if notes.get("run") == name and path.is_file() else fresh


def _keep(out: ArtifactWriter, name: str, state: Trained) -> None:
    """Write a new file, enter it, then drop the one before: one of them is whole at any time."""
    path = out.file(f"checkpoint-{state.step}.safetensors")
    trained.write(path, state)
    out.finish(_STAGE, run=name, step=state.step)
    forget(out, but=path.name)


def forget(out: ArtifactWriter, but: str = "") -> None:
    """Remove the checkpoints."""
    for path in out.path.glob("checkpoint-*.safetensors"):
        if path.name != but:
            path.unlink()


# ---------------------------------------------------------------- evaluation


def target_logprobs(
    net: Net, weights: Mapping[str, np.ndarray], tokens: np.ndarray, seq_len: int, last_n: int
) -> np.ndarray:
    """Log-probabilities of the scored targets of each window over a stream, (w, last_n) float64.

    A network without state reads every window anew.  One with state reads the stream once, carrying it: each target
    has all that was before it as context.
    """
    if net.start(1).size:
        places = scored_targets(len(tokens), seq_len, last_n)
        found: np.ndarray = _stateful(net, weights, tokens)[places - 1]
        return found
    starts, size = windows(len(tokens), seq_len, last_n), max(1, _AT_ONCE // seq_len)
    ids = tokens[starts[:, None] + np.arange(seq_len + 1)]
    parts = [np.empty((0, last_n))]
    for first in range(0, len(ids), size):
        part = ids[first : first + size]
        room = np.pad(part, ((0, size - len(part)), (0, 0)))
        read, _ = _reading(net)(weights, room, net.start(size))
        parts.append(np.asarray(read, np.float64)[: len(part), -last_n:])
    return np.concatenate(parts)


def _stateful(net: Net, weights: Mapping[str, np.ndarray], tokens: np.ndarray) -> np.ndarray:
    """Of every target of the stream, (n - 1,)."""
    state, parts = net.start(1), []
    for first in range(0, len(tokens) - 1, _AT_ONCE):
        part = tokens[first : first + _AT_ONCE + 1]
        # What stands behind the last part is read after it and changes nothing.
        read, state = _reading(net)(weights, np.pad(part, (0, _AT_ONCE + 1 - len(part)))[None], state)
        parts.append(np.asarray(read, np.float64)[0, : len(part) - 1])
    return np.concatenate(parts)


@functools.lru_cache(maxsize=4)
def _reading(net: Net) -> Callable[..., Any]:
    function: Callable[..., Any] = require("jax", extra="train").jit(functools.partial(_logprobs, net))
    return function


def _logprobs(net: Net, weights: Any, ids: Any, carried: Any) -> tuple[Any, Any]:
    """(B, T + 1) -> log-probs of each next token (B, T), and the state behind the last that was read."""
    jax = require("jax", extra="train")
    scores, behind = net.read(weights, ids[:, :-1], carried)
    return jax.numpy.take_along_axis(jax.nn.log_softmax(scores), ids[:, 1:, None], -1)[..., 0], behind
