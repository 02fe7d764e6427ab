"""Euclidean k-means (Lloyd) in blocks: seeds far apart, empty clusters seeded anew, the objective never grows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pickaxe.call import Call

PER_CENTROID = 256
"""Vectors for each cluster that are learned from, where there are more; all are assigned."""
BLOCK_BYTES = 16 << 20
"""Size of a block of distances or vectors."""
FEW = 64
"""Clusters that are summed one by one."""


@dataclass(frozen=True)
class Clusters:
    """Centroids (k, d) float64, the nearest one of each vector, and its distance."""

    centroids: np.ndarray
    labels: np.ndarray
    """(n,) int64; of equally near centroids the first."""
    distances: np.ndarray
    """(n,) Euclidean, float64."""
    objective: tuple[float, ...]
    """Sum of squared distances of the learned vectors at each iteration."""


def kmeans(vectors: np.ndarray, k: int, iterations: int, rng: np.random.Generator, call: Call) -> Clusters:
    """At most `iterations` rounds, fewer when no label changes; at most as many clusters as vectors.

    `vectors` (n, d) may be mapped from a file: blocks of it are read.  Of more than `PER_CENTROID` vectors for each
    cluster, so many are drawn to learn from, as faiss does.
    """
    k = min(k, len(vectors))
    learned = vectors
    if len(vectors) > PER_CENTROID * k:
        learned = vectors[np.sort(rng.choice(len(vectors), PER_CENTROID * k, replace=False))]
    shift = learned.mean(axis=0, dtype=np.float64)
    learned = (learned - shift).astype(learned.dtype if learned.dtype.kind == "f" else np.float64)
    centroids = seeds(learned, k, rng, call)
    centroids, objective = lloyd(learned, centroids, iterations, call)
    centroids = centroids + shift
    labels, squared = assign(vectors, centroids, call)
    return Clusters(centroids, labels, np.sqrt(squared), objective)


def lloyd(
    vectors: np.ndarray, centroids: np.ndarray, iterations: int, call: Call, *, reseed: bool = True
) -> tuple[np.ndarray, tuple[float, ...]]:
    """Centroids (k, d) after at most `iterations` rounds from these, and the sum of squared distances before each.

    An empty cluster is seeded anew, or without `reseed` keeps its centre.
    """
    objective: list[float] = []
    before: np.ndarray | None = None
    for _ in range(iterations):
        labels, squared = assign(vectors, centroids, call)
        objective.append(float(squared.sum()))
        if before is not None and np.array_equal(labels, before):
            break
        moved = _moved(vectors, labels, squared, len(centroids), call, reseed=reseed)
        empty = np.bincount(labels, minlength=len(centroids)) == 0
        centroids = moved if reseed else np.where(empty[:, None], centroids, moved)
        before = labels
    return centroids, tuple(objective)


def assign(vectors: np.ndarray, centroids: np.ndarray, call: Call) -> tuple[np.ndarray, np.ndarray]:
    """(n,) nearest centroid and (n,) squared distance to it, float64."""
    centre = centroids.mean(axis=0).astype(vectors.dtype)
    near = (centroids - centre).astype(vectors.dtype)
    doubled, norms = 2 * near.T, np.einsum("kd,kd->k", near, near)
    labels, squared = np.empty(len(vectors), np.int64), np.empty(len(vectors))
    for rows in _blocks(len(vectors), max(len(centroids), vectors.shape[1]), call):
        block = vectors[rows] - centre
        apart = norms - block @ doubled
        labels[rows] = apart.argmin(axis=1)
        # Once more from the difference: what the product leaves of a short distance is rounding.
        off = block - near[labels[rows]]
        squared[rows] = np.einsum("nd,nd->n", off, off, dtype=np.float64)
    return labels, squared


def seeds(vectors: np.ndarray, k: int, rng: np.random.Generator, call: Call) -> np.ndarray:
    """k vectors by k-means++: each drawn in proportion to its squared distance to those before it."""
    chosen = [int(rng.integers(len(vectors)))]
    norms = np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)
    apart = np.full(len(vectors), np.inf)
    while len(chosen) < k:
        call.check()
        last = vectors[chosen[-1]]
        np.minimum(apart, np.maximum(norms + norms[chosen[-1]] - 2 * (vectors @ last), 0), out=apart)
        apart[chosen] = 0
        total = np.cumsum(apart)
        if total[-1] > 0:
            place = min(int(np.searchsorted(total, rng.random() * total[-1], side="right")), len(vectors) - 1)
        else:  # all others are copies of the chosen ones
            place = int(np.flatnonzero(np.isin(np.arange(len(vectors)), chosen, invert=True))[0])
        chosen.append(place)
    return vectors[chosen].astype(np.float64)


def _moved(
    vectors: np.ndarray, labels: np.ndarray, squared: np.ndarray, k: int, call: Call, *, reseed: bool = True
) -> np.ndarray:
    """Means of the clusters; an empty one gets the vector that is farthest from its own centroid, or else zeros."""
    sums, counts = np.zeros((k, vectors.shape[1])), np.bincount(labels, minlength=k)
    for rows in _blocks(len(vectors), vectors.shape[1], call):
        if k <= FEW:  # faster than sorting, and than a product with the indicator where BLAS has threads
            block, of = vectors[rows], labels[rows]
            sums += np.stack([block[of == label].sum(axis=0) for label in range(k)])
            continue
        order = np.argsort(labels[rows], kind="stable")
        sorted_labels = labels[rows][order]
        first = np.flatnonzero(np.diff(sorted_labels, prepend=-1))
        sums[sorted_labels[first]] += np.add.reduceat(vectors[rows][order], first, axis=0, dtype=np.float64)
    centroids = sums / np.maximum(counts, 1)[:, None]
    if reseed and len(empty := np.flatnonzero(counts == 0)):
        farthest = np.argsort(-squared, kind="stable")[: len(empty)]
        centroids[empty[: len(farthest)]] = vectors[farthest]
    return centroids


def _blocks(n: int, width: int, call: Call) -> Iterator[slice]:
    size = max(1, BLOCK_BYTES // (8 * width))
    for start in range(0, n, size):
        call.check()
        yield slice(start, start + size)
