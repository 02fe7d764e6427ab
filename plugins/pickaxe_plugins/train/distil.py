"""Distillation: a small language model learns the next-token distributions of a large one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import numpy as np

import pickaxe
from pickaxe import ArtifactWriter, Progress
from pickaxe.extras import require
from pickaxe.lm.weights import Architecture
from pickaxe_plugins.train import llama
from pickaxe_plugins.train.descent import Loss, Shuffle, adamw, descend
from pickaxe_plugins.train.settings import Recipe

Teacher = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""ids (B, T) padded on the right, lengths (B,) -> float32 logits (B, T, vocab)."""
ROOM = 32
"""Batches are padded to multiples of so many tokens, so that few shapes are compiled."""
KL_BESIDE = 0.1
"""Share of the divergence that stays in the loss when the total variation is minimised."""


def reduced(embedding: np.ndarray, width: int, seed: int) -> np.ndarray:
    """A vocabulary's (vocab, width) start from another model's (vocab, any width): its truncated SVD.

    Columns beyond the other's width are random.  The mean square is 1 / width.
    """
    _, directions = np.linalg.eigh(embedding.T.astype(np.float64) @ embedding)
    kept = embedding @ directions[:, ::-1][:, :width].astype(np.float32)
    if missing := width - kept.shape[1]:
        noise = pickaxe.generator(seed, "weights", "embedding").standard_normal((len(kept), missing))
        kept = np.concatenate([kept, kept.std() * noise], axis=1)
    return (kept / np.sqrt(width * np.square(kept).mean())).astype(np.float32)


def distil(
    architecture: Architecture,
    weights: Mapping[str, np.ndarray],
    sequences: Sequence[np.ndarray],
    teacher: Teacher,
    recipe: Recipe,
    out: ArtifactWriter,
    *,
    steps: int,
    sharpen: float,
    seed: int,
) -> Generator[Progress, None, dict[str, np.ndarray]]:
    """Train for so many steps on every position of the sequences of token ids; the new weights.

    The loss is KL(teacher || student); in the last `sharpen` of the steps it is their total variation, 1 - the share
    of drafts that speculative sampling accepts, + 0.1 KL.  Each step reports `loss`, `kl` and `acceptance`.
    """
    shuffle = Shuffle(len(sequences), recipe.batch, seed)

    def given(step: int) -> dict[str, Any]:
        chosen = batch([sequences[row] for row in shuffle.rows(step)], recipe.batch)
        share = np.float32(step >= (1 - sharpen) * steps)
        return {**chosen, "sharp": share, "logits": teacher(chosen["ids"], chosen["lengths"])}

    trained: dict[str, np.ndarray] = yield from descend(
        _loss(architecture),
        adamw(recipe, steps, matrices_only=True),
        dict(weights),
        given,
        steps,
        out,
        seed=seed,
        checkpoint=recipe.checkpoint,
    )
    return trained


def likeness(
    architecture: Architecture,
    weights: Mapping[str, np.ndarray],
    sequences: Sequence[np.ndarray],
    teacher: Teacher,
    size: int,
) -> Generator[Progress, None, dict[str, float]]:
    """Over all positions: `kl`, `acceptance` (mean of sum min(p, q)) and `agreement` of the likeliest tokens."""
    measure = _likeness(architecture)
    sums: dict[str, float] = {}
    tokens = 0
    for start in range(0, len(sequences), size):
        chosen = batch(sequences[start : start + size], size)
        logits = teacher(chosen["ids"], chosen["lengths"])
        count = int(chosen["lengths"].sum())
        for name, value in measure(dict(weights), {**chosen, "logits": logits}).items():
            sums[name] = sums.get(name, 0.0) + count * float(value)
        tokens += count
        yield Progress("measure", min(start + size, len(sequences)), len(sequences))
    return {name: value / tokens for name, value in sums.items()}


def batch(sequences: Sequence[np.ndarray], size: int) -> dict[str, np.ndarray]:
    """`ids` (size, T) and `lengths` (size,), 0 for rows without a sequence."""
    width = ROOM * -(-max(map(len, sequences)) // ROOM)
    ids, lengths = np.zeros((size, width), np.int32), np.zeros(size, np.int32)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)], lengths[row] = sequence, len(sequence)
    return {"ids": ids, "lengths": lengths}


def _terms(architecture: Architecture, weights: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    jax = require("jax", extra="train")
    jnp = jax.numpy
    counted = jnp.arange(given["ids"].shape[1]) < given["lengths"][:, None]
    own = llama.logits(weights, llama.hidden_states(weights, architecture, given["ids"]))
    log_p, log_q = jax.nn.log_softmax(given["logits"]), jax.nn.log_softmax(own)
    p, q = jnp.exp(log_p), jnp.exp(log_q)
    places = {
        "kl": (p * (log_p - log_q)).sum(-1),
        "acceptance": jnp.minimum(p, q).sum(-1),
        "agreement": given["logits"].argmax(-1) == own.argmax(-1),
    }
    return {name: jnp.where(counted, value, 0).sum() / counted.sum() for name, value in places.items()}


@functools.lru_cache(maxsize=4)
def _loss(architecture: Architecture) -> Loss:
    def loss(weights: Any, given: Mapping[str, Any], key: Any) -> tuple[Any, Mapping[str, Any]]:
        terms = _terms(architecture, weights, given)
        kl, variation = terms["kl"], 1 - terms["acceptance"]
        sharp = given["sharp"]
        value = (1 - sharp) * kl + sharp * (variation + KL_BESIDE * kl)
        return value, {"kl": kl, "acceptance": terms["acceptance"]}

    return loss


@functools.lru_cache(maxsize=4)
def _likeness(architecture: Architecture) -> Callable[..., dict[str, Any]]:
    jax = require("jax", extra="train")
    compiled: Callable[..., dict[str, Any]] = jax.jit(lambda weights, given: _terms(architecture, weights, given))
    return compiled
