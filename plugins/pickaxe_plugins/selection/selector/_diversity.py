"""Selection by distance between embeddings: farthest-first, a limit on similarity, semantic duplicates."""

from __future__ import annotations

import numpy as np

from pickaxe.extras import require
from pickaxe_plugins.selection.selector._mechanisms import descending

_BLOCK = 1024
_PER_CLUSTER = 1000


def unit(vectors: np.ndarray) -> np.ndarray:
    """float32 rows of length 1; rows of zeros stay."""
    vectors = np.asarray(vectors, np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def farthest_first(vectors: np.ndarray, scores: np.ndarray, k: int) -> np.ndarray:
    """Mask of k rows: the best one, then always the row farthest (by cosine) from all that are kept.

    Equally far rows go by score, then by position.  Time k * n * d.
    """
    vectors, n = unit(vectors), len(vectors)
    kept = np.zeros(n, bool)
    order = descending(scores)
    nearest = np.full(n, -np.inf, np.float32)
    for _ in range(min(k, n)):
        left = order[~kept[order]]
        row = left[np.argmin(nearest[left])]
        kept[row] = True
        np.maximum(nearest, vectors @ vectors[row], out=nearest)
    return kept


def below_similarity(vectors: np.ndarray, scores: np.ndarray, k: int | None, limit: float) -> np.ndarray:
    """Mask of rows taken from the best down while their cosine with every kept row is below `limit`, at most k."""
    vectors = unit(vectors)
    kept = np.zeros(len(vectors), bool)
    held: np.ndarray = np.empty((0, vectors.shape[1]), np.float32)
    order = descending(scores)
    for start in range(0, len(order), _BLOCK):
        rows = order[start : start + _BLOCK]
        block = vectors[rows]
        far = (block @ held.T < limit).all(axis=1) if len(held) else np.ones(len(rows), bool)
        among = block @ block.T
        fresh: list[int] = []
        for place in np.flatnonzero(far).tolist():
            if k is not None and len(held) + len(fresh) >= k:
                break
            if not fresh or among[place, fresh].max() < limit:
                fresh.append(place)
        kept[rows[fresh]] = True
        held = np.concatenate([held, block[fresh]])
    return kept


def semantic_duplicates(
    vectors: np.ndarray, scores: np.ndarray, epsilon: float, clusters: int | None, seed: int
) -> np.ndarray:
    """Mask of rows that stay: none has a cosine above 1 - epsilon with a better kept one of its k-means cluster."""
    vectors = unit(vectors)
    n = len(vectors)
    wanted = min(n, max(1, n // _PER_CLUSTER) if clusters is None else clusters)
    labels = np.zeros(n, np.int64)
    if wanted > 1:
        kind = require("sklearn.cluster", extra="cluster").MiniBatchKMeans
        labels = kind(wanted, random_state=seed % 2**32, n_init=1).fit_predict(vectors)
    kept = np.zeros(n, bool)
    limit = np.nextafter(np.float32(1 - epsilon), np.float32(2))  # a cosine of just 1 - epsilon is no duplicate
    for label in range(wanted):
        rows = np.flatnonzero(labels == label)
        kept[rows] = below_similarity(vectors[rows], scores[rows], None, float(limit))
    return kept
