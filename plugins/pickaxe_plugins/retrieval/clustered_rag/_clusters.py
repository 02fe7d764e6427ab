"""Clusters of one set of texts: k-means from several starts, its number of clusters chosen, a fixed order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pickaxe import Call
from pickaxe.errors import InvalidParams
from pickaxe.kmeans import assign, lloyd, seeds
from pickaxe.randomness import generator

AUTO = range(2, 9)
"""Numbers of clusters that are tried."""
JUDGED = 2000
"""Vectors that a silhouette is measured on, where there are more."""


@dataclass(frozen=True)
class Clusters:
    """Clusters in their order; none is empty."""

    labels: np.ndarray
    """(n,) int64."""
    centroids: np.ndarray
    """(k, d) float64."""
    distances: np.ndarray
    """(n,) Euclidean, to the own centroid."""
    inertia: float
    objective: tuple[float, ...]
    """Sum of squared distances before each round."""

    def __len__(self) -> int:
        return len(self.centroids)

    def members(self, cluster: int) -> list[int]:
        """Rows of a cluster, nearest to the centroid first."""
        rows = np.flatnonzero(self.labels == cluster)
        return [int(row) for row in rows[np.argsort(self.distances[rows], kind="stable")]]


@dataclass(frozen=True)
class Settings:
    """How vectors are clustered."""

    k: int | Literal["auto"]
    runs: int
    rounds: int
    order: Literal["size", "index"]
    starts: tuple[int, ...] = ()
    """Rows to begin at, in place of k-means++."""


def cluster(vectors: np.ndarray, settings: Settings, seed: int, call: Call) -> Clusters:
    """At most k clusters of the vectors (n, d); never more than there are different ones."""
    if settings.starts:
        if max(settings.starts) >= len(vectors):
            raise InvalidParams("starts", f"names row {max(settings.starts)} of {len(vectors)} texts")
        begun = vectors[list(settings.starts)].astype(np.float64)
        return _ordered(vectors, *lloyd(vectors, begun, settings.rounds, call, reseed=False), settings, call)
    different = len(np.unique(vectors, axis=0))
    if settings.k != "auto":
        return _best(vectors, min(settings.k, different), settings, seed, call)
    tried = [k for k in AUTO if k < different]
    if not tried:
        return _best(vectors, different, settings, seed, call)
    made = [_best(vectors, k, settings, seed, call) for k in tried]
    rows = np.arange(len(vectors))
    if len(rows) > JUDGED:
        rows = np.sort(generator(seed, "clustered-rag", "silhouette").choice(len(rows), JUDGED, replace=False))
    return max(made, key=lambda each: silhouette(vectors[rows], each.labels[rows]))


def _best(vectors: np.ndarray, k: int, settings: Settings, seed: int, call: Call) -> Clusters:
    """The run of least inertia; of equal ones the first."""
    runs = []
    for run in range(1 if k == 1 else settings.runs):
        begun = seeds(vectors, k, generator(seed, "clustered-rag", k, run), call)
        runs.append(lloyd(vectors, begun, settings.rounds, call, reseed=False))
    inertias = [float(assign(vectors, centroids, call)[1].sum()) for centroids, _ in runs]
    return _ordered(vectors, *runs[int(np.argmin(inertias))], settings, call)


def _ordered(
    vectors: np.ndarray, centroids: np.ndarray, objective: tuple[float, ...], settings: Settings, call: Call
) -> Clusters:
    labels, squared = assign(vectors, centroids, call)
    sizes = np.bincount(labels, minlength=len(centroids))
    firsts = {int(label): row for row, label in reversed(list(enumerate(labels)))}
    there = sorted(firsts, key=lambda label: (-sizes[label] if settings.order == "size" else 0, firsts[label]))
    place = np.full(len(centroids), -1)
    place[there] = np.arange(len(there))
    return Clusters(place[labels], centroids[there], np.sqrt(squared), float(squared.sum()), objective)


def silhouette(vectors: np.ndarray, labels: np.ndarray) -> float:
    """Mean over vectors of (b - a) / max(a, b): a is the mean distance to the own cluster's others, b to the nearest.

    0 for a cluster of one; -1 where there is only one cluster.
    """
    present, own = np.unique(labels, return_inverse=True)
    if len(present) < 2:
        return -1.0
    points = vectors.astype(np.float64)
    norms = (points**2).sum(axis=1)
    apart = np.sqrt(np.maximum(norms[:, None] + norms - 2 * points @ points.T, 0))
    np.fill_diagonal(apart, 0)
    sizes = np.bincount(own)
    sums = apart @ np.eye(len(present))[own]
    rows = np.arange(len(points))
    inside = sums[rows, own] / np.maximum(sizes[own] - 1, 1)
    means = sums / sizes
    means[rows, own] = np.inf
    outside = means.min(axis=1)
    widest = np.maximum(inside, outside)
    values = np.where((sizes[own] > 1) & (widest > 0), (outside - inside) / np.where(widest > 0, widest, 1), 0)
    return float(values.mean())


def agreement(answers: np.ndarray, references: np.ndarray) -> np.ndarray:
    """(n,) cosines of two sets of answers (n, d), row by row; 0 where a vector is all zeros."""
    lengths = np.linalg.norm(answers, axis=1) * np.linalg.norm(references, axis=1)
    return np.asarray(np.einsum("nd,nd->n", answers, references) / np.where(lengths > 0, lengths, 1))
