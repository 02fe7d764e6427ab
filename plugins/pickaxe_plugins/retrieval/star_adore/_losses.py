"""The losses of STAR and ADORE, and the lists that they are over (arXiv:2104.08051)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from pickaxe.extras import require
from pickaxe.index.dense import DenseIndex

SPARE = 10
"""Documents that are looked up beyond a pool's size, in place of the judged ones that leave it."""


def pair_masks(
    positives: Sequence[int], hard: Sequence[int], relevant: Sequence[Collection[int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Which documents of a batch count against which query: (B, B) of the positives, (B, h) of the hard negatives.

    float32, 0 where a document is judged relevant for the query; a document -1 is none.  Raises `ValueError` when
    no pair is left.
    """
    in_batch, against = (
        np.array([[each >= 0 and each not in known for each in documents] for known in relevant], np.float32)
        for documents in (positives, hard)
    )
    against = against.reshape(len(relevant), len(hard))
    if not in_batch.any() and not against.any():
        raise ValueError("no pair of a right and a wrong document is left in the batch")
    return in_batch, against


def star_loss(queries: Any, positives: Any, hard: Any, in_batch: Any, against: Any) -> Any:
    """Mean of log(1 + exp(s- - s+)) over the pairs that the masks leave, for vectors (B, d), (B, d) and (h, d)."""
    jnp = require("jax", extra="train").numpy
    own = (queries * positives).sum(1, keepdims=True)
    losses = in_batch * jnp.logaddexp(0.0, queries @ positives.T - own)
    others = against * jnp.logaddexp(0.0, queries @ hard.T - own)
    return (losses.sum() + others.sum()) / (in_batch.sum() + against.sum())


class Lists(NamedTuple):
    """What ADORE retrieves for a batch: the top K, and where each positive stands."""

    ids: Any
    """(B, K) rows of the documents with the highest inner products, best first."""
    ranks: Any
    """(B, P) rank of each positive from 1: its own, or behind the K when none of the positives is among them."""
    listed: Any
    """(B, P) whether the positive has a rank at all."""
    negatives: Any
    """(B, K) whether the document counts as a negative."""


def lists(queries: Any, documents: Any, positives: Any, topk: int) -> Lists:
    """Search all documents (n, d) exactly with the queries (B, d); `positives` (B, P) are rows, -1 for none."""
    jax = require("jax", extra="train")
    jnp = jax.numpy
    k = min(topk, len(documents))
    ids = jax.lax.top_k(queries @ documents.T, k)[1]
    same = ids[:, None, :] == positives[:, :, None]
    known, found = positives >= 0, same.any(-1)
    ranks = jnp.where(found, same.argmax(-1) + 1, k + known.cumsum(1))
    return Lists(ids, ranks, known & (found | ~found.any(1, keepdims=True)), ~same.any(1))


def adore_losses(
    queries: Any,
    documents: Any,
    positives: Any,
    found: Lists,
    metric_cut: int | None = None,
    sigma: float = 1.0,
) -> Any:
    """(B,): the mean over pairs of a positive a and a negative b of |1/rank a - 1/rank b| log(1 + exp(y_b - y_a)).

    1/rank counts as 0 beyond `metric_cut`.  Gradients flow through y alone.  A list without a pair has loss 0.
    """
    jnp = require("jax", extra="train").numpy
    right = jnp.einsum("bd,bpd->bp", queries, documents[jnp.maximum(positives, 0)])
    wrong = jnp.einsum("bd,bkd->bk", queries, documents[found.ids])

    def gain(ranks: Any) -> Any:
        return 1 / ranks if metric_cut is None else jnp.where(ranks <= metric_cut, 1 / ranks, 0)

    gains = gain(jnp.arange(1, found.ids.shape[1] + 1))
    weights = jnp.abs(gain(found.ranks)[:, :, None] - gains)
    costs = jnp.logaddexp(0.0, -sigma * (right[:, :, None] - wrong[:, None, :]))
    pairs = found.listed[:, :, None] & found.negatives[:, None, :]
    return jnp.where(pairs, weights * costs, 0).sum((1, 2)) / jnp.maximum(pairs.sum((1, 2)), 1)


def static_pool(
    queries: np.ndarray, index: DenseIndex, relevant: Sequence[Collection[int]], topk: int, first: int = 0
) -> list[list[int]]:
    """For each query (q, d) the `topk` best documents that are not judged relevant, of rank `first` (from 0) or worse.

    Fewer where there are not so many.
    """
    most = max(map(len, relevant), default=0)
    rows = index.search(queries, topk + first + max(SPARE, most))[0].tolist()
    return [
        [row for row in found[first:] if row not in known][:topk] for found, known in zip(rows, relevant, strict=True)
    ]
