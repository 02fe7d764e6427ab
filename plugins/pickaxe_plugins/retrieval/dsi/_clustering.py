"""The tree of clusters behind semantic identifiers: k-means within k-means."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from pickaxe import Call, generator
from pickaxe.extras import require
from pickaxe_plugins.retrieval.dsi._identifiers import Clusters, Code, Identifiers, Kind, by_cluster

ITERATIONS = 300
STARTS = 4
"""Runs of k-means of which the tightest counts."""
LARGE = 1000
"""Sets from this size on are clustered in mini-batches."""


def semantic(
    kind: Kind, ids: list[str], vectors: np.ndarray, k: int, leaf: int, seed: int, call: Call,
    report: Callable[[int], None] = lambda done: None,
) -> tuple[Identifiers, Clusters]:  # fmt: skip
    """Identifiers of documents with these vectors (n, d), in groups of `k` down to leaves of `leaf` members."""
    clusters = Clusters({}, {})

    def split(rows: np.ndarray, path: Code) -> np.ndarray:
        call.check()
        labels = kmeans(vectors[rows], k, seed, path)
        names = np.unique(labels)
        if len(names) > 1:
            clusters.groups[path] = tuple(names.tolist())
            clusters.centroids[path] = np.stack([vectors[rows[labels == name]].mean(0) for name in names])
        report(len(clusters.groups))
        return labels

    return by_cluster(kind, ids, leaf, max(k, leaf, 2), split), clusters


def kmeans(vectors: np.ndarray, k: int, seed: int, path: Code) -> np.ndarray:
    """(m,) labels below `k`; all 0 when the vectors are equal.  Groups may be fewer, and numbers missing."""
    distinct = min(k, len(np.unique(vectors, axis=0)))
    if distinct < 2:
        return np.zeros(len(vectors), np.int64)
    library = require("sklearn.cluster", extra="cluster")
    state = int(generator(seed, "clusters", *path).integers(2**31))
    kind = library.MiniBatchKMeans if len(vectors) >= LARGE else library.KMeans
    model = kind(distinct, init="k-means++", n_init=STARTS, max_iter=ITERATIONS, random_state=state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of vectors that differ by rounding: fewer groups than asked for are fine
        return np.asarray(model.fit_predict(vectors.astype(np.float64)), np.int64)
