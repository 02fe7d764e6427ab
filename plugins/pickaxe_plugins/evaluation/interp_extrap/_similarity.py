"""Cosine neighbours and spherical k-means of query embeddings in blocks; for `interp-extrap`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pickaxe import Call
from pickaxe.randomness import generator

_BLOCK = 12_000_000
"""Similarities held at once."""


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1; float32 stays, all else becomes float64; rows of zeros stay."""
    rows = np.asarray(vectors, np.float32 if vectors.dtype == np.float32 else np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1))


@dataclass(frozen=True)
class Neighbours:
    """What one pass over all similarities leaves behind."""

    near: np.ndarray
    """(n_train,) among the n most similar of some test query."""
    similarity: np.ndarray
    """(n_train,) highest similarity to any test query."""


def neighbours(train: np.ndarray, test: np.ndarray, n: int, call: Call) -> Neighbours:
    """The n training queries nearest to each test query; of equally near ones the first."""
    near, highest = np.zeros(len(train), bool), np.full(len(train), -np.inf)
    n = min(n, len(train))
    rows = max(1, _BLOCK // max(1, len(train)))
    for start in range(0, len(test), rows):
        call.check()
        block = test[start : start + rows] @ train.T
        np.maximum(highest, block.max(axis=0), out=highest)
        least = np.partition(block, len(train) - n, axis=1)[:, len(train) - n, None]
        chosen = block >= least
        for row in np.flatnonzero(chosen.sum(axis=1) > n):
            above = block[row] > least[row]
            level = np.flatnonzero(block[row] == least[row])[: n - above.sum()]
            chosen[row] = above
            chosen[row, level] = True
        near |= chosen.any(axis=0)
    return Neighbours(near, highest)


def nearest(train: np.ndarray, test: np.ndarray, labels: np.ndarray, k: int, call: Call) -> np.ndarray:
    """(n_test, k) highest similarity of each test query to training queries of each label; -inf without any."""
    found = np.full((len(test), k), -np.inf)
    for label in range(k):
        part = train[labels == label]
        if not len(part):
            continue
        rows = max(1, _BLOCK // len(part))
        for start in range(0, len(test), rows):
            call.check()
            found[start : start + rows, label] = (test[start : start + rows] @ part.T).max(axis=1)
    return found


def assign(vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """The nearest centroid by cosine; of equally near ones the first."""
    return np.asarray((vectors @ unit(centroids).astype(vectors.dtype).T).argmax(axis=1))


_ROUNDS = 50
_STILL = 1e-5
"""Relative gain of the mean similarity below which clustering ends."""


def spherical_kmeans(vectors: np.ndarray, k: int, n_init: int, seed: int, call: Call) -> np.ndarray:
    """(k, d) centroids of unit rows: the best of n_init runs from seeds far apart (k-means++ on 1 - cosine)."""
    best, centroids = -np.inf, np.zeros((k, vectors.shape[1]), vectors.dtype)
    for run in range(n_init):
        gain, found = _one_run(vectors, k, generator(seed, "k-means", run), call)
        if gain > best:
            best, centroids = gain, found
    return centroids


def _one_run(vectors: np.ndarray, k: int, rng: np.random.Generator, call: Call) -> tuple[float, np.ndarray]:
    centroids = _seeds(vectors, k, rng)
    before = -np.inf
    for _ in range(_ROUNDS):
        call.check()
        similar = vectors @ centroids.T
        label = similar.argmax(axis=1)
        gain = float(similar[np.arange(len(vectors)), label].mean(dtype=np.float64))
        if gain - before <= _STILL * abs(gain):
            break
        before = gain
        # This way round: of a product k x n x d, threaded BLAS waits for itself most of the time.
        sums = (vectors.T @ (label[:, None] == np.arange(k)).astype(vectors.dtype)).T
        if len(empty := np.flatnonzero(np.bincount(label, minlength=k) == 0)):
            sums[empty] = vectors[np.argsort(similar.max(axis=1), kind="stable")[: len(empty)]]
        centroids = unit(sums)
    return gain, centroids


def _seeds(vectors: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    chosen = [int(rng.integers(len(vectors)))]
    apart = np.full(len(vectors), np.inf)
    while len(chosen) < k:
        apart = np.minimum(apart, np.maximum(1 - vectors @ vectors[chosen[-1]], 0))
        total = np.cumsum(apart, dtype=np.float64)
        place = int(np.searchsorted(total, rng.random() * total[-1], side="right"))
        chosen.append(min(place, len(vectors) - 1))
    return vectors[chosen]
