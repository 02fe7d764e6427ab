"""CUR decomposition of a matrix of scores: every document as a combination of a few anchor documents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Inverse:
    """U, which turns a document's scores under the anchor queries into its weights of the anchor documents."""

    matrix: np.ndarray
    """(anchors, anchor queries) float64."""
    rank: int
    condition: float
    """Largest over smallest singular value that was inverted."""

    @classmethod
    def of(cls, scores: np.ndarray, rcond: float) -> Inverse:
        """Moore-Penrose inverse of (anchor queries, anchors); singular values up to rcond times the largest are 0."""
        left, values, right = np.linalg.svd(np.asarray(scores, np.float64), full_matrices=False)
        kept = values > rcond * values[0]
        inverted = np.where(kept, 1 / np.where(kept, values, 1), 0)
        rank = int(kept.sum())
        condition = float(values[0] / values[rank - 1]) if rank else 1.0
        return cls((right.T * inverted) @ left.T, rank, condition)

    def embed(self, columns: np.ndarray) -> np.ndarray:
        """(n, anchors) embeddings of documents with these scores (n, anchor queries)."""
        return np.asarray(columns, np.float64) @ self.matrix.T


def best(scores: np.ndarray, count: int) -> np.ndarray:
    """Places of the `count` highest scores (n,), best first; of equal ones the first.  Fewer where there are fewer."""
    count = min(count, len(scores))
    if count <= 0:
        return np.empty(0, np.int64)
    least = np.partition(scores, len(scores) - count)[len(scores) - count]
    found = np.flatnonzero(scores >= least)
    return found[np.argsort(-scores[found], kind="stable")[:count]]
