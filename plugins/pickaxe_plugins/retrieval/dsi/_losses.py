"""The losses of training, in JAX: cross-entropy and the two kinds of consistency between two passes."""

from __future__ import annotations

from typing import Any, Literal

from pickaxe.extras import require

IGNORED = -100

Consistency = Literal["contrastive", "kl"]


def cross_entropy(logits: Any, labels: Any) -> Any:
    """The mean over the labels (…,) that are not `IGNORED`, for logits (…, V)."""
    jax = require("jax", extra="train")
    counted = labels != IGNORED
    logprobs = jax.nn.log_softmax(logits)
    own = jax.numpy.take_along_axis(logprobs, jax.numpy.where(counted, labels, 0)[..., None], -1)[..., 0]
    return -(own * counted).sum() / jax.numpy.maximum(counted.sum(), 1)


def symmetric_kl(one: Any, other: Any) -> Any:
    """(sum KL(p || q) + sum KL(q || p)) / 2 / T for logits (B, T, V): summed over the batch and all positions."""
    jax = require("jax", extra="train")
    p, q = jax.nn.log_softmax(one), jax.nn.log_softmax(other)
    both = ((jax.numpy.exp(p) - jax.numpy.exp(q)) * (p - q)).sum()
    return both / 2 / one.shape[1]


def contrastive(one: Any, other: Any, counted: Any | None = None) -> Any:
    """The mean cross-entropy with which each state picks the other pass of its query, by dot products.

    States are (n, T, d); those of one position are compared with each other only, a state never with itself.
    `counted` (n, T) says which exist: others are picked by none and pick none.
    """
    jax = require("jax", extra="train")
    jnp = jax.numpy
    states = jnp.concatenate([one, other])
    count = len(states)
    here = jnp.ones(states.shape[:2], bool) if counted is None else jnp.concatenate([counted, counted])
    products = jnp.einsum("atd,btd->tab", states, states)
    legal = here.T[:, None, :] & ~jnp.eye(count, dtype=bool)
    logprobs = jax.nn.log_softmax(jnp.where(legal, products, -1e9))
    rows = jnp.arange(count)
    picked = logprobs[:, rows, (rows + count // 2) % count]
    return -(picked * here.T).sum() / jnp.maximum(here.sum(), 1)
