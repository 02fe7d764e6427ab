"""Logistic regression on hashed words and pairs of words, learned from all documents at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pickaxe.extras import require
from pickaxe_plugins.selection.pretrainers_guide._text import hashed


def learn(texts: Sequence[str], positive: np.ndarray, bits: int, l2: float) -> tuple[np.ndarray, float]:
    """(weights (2^bits,) float32, bias) of p(positive) for `positive` (n,) bool, both classes counting alike.

    Minimises the mean cross-entropy + l2/2 |weights|^2.  Documents are sorted first: their order changes no bit.
    """
    sparse, optimize = require("scipy.sparse", extra="scaling"), require("scipy.optimize", extra="scaling")
    order = sorted(range(len(texts)), key=lambda row: (texts[row], bool(positive[row])))
    wanted = np.where(positive[order], 1.0, -1.0)
    parts = list(hashed([texts[row] for row in order], bits))
    rows, buckets = (np.concatenate([part[at] for part in parts]) for at in (0, 1))
    used, columns = np.unique(buckets, return_inverse=True)
    counts = np.bincount(rows, minlength=len(texts))
    values = 1 / np.sqrt(counts[rows])
    matrix = sparse.csr_matrix((values, (rows, columns)), shape=(len(texts), len(used)))
    shares = np.where(wanted > 0, 0.5 / max(1, (wanted > 0).sum()), 0.5 / max(1, (wanted < 0).sum()))

    def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = point[:-1], point[-1]
        margins = wanted * (matrix @ weights + bias)
        slopes = -shares * wanted * np.exp(-np.logaddexp(0, margins))
        gradient = np.append(matrix.T @ slopes + l2 * weights, slopes.sum())
        return float(shares @ np.logaddexp(0, -margins) + l2 / 2 * (weights @ weights)), gradient

    found = optimize.minimize(
        objective, np.zeros(len(used) + 1), jac=True, method="L-BFGS-B", options={"maxiter": 300, "gtol": 1e-8}
    ).x
    weights = np.zeros(1 << bits, np.float32)
    weights[used] = found[:-1]
    return weights, float(found[-1])


def chances(texts: Sequence[str], weights: Sequence[np.ndarray], biases: Sequence[float], bits: int) -> np.ndarray:
    """p(positive) of each text under each model, (models, n) float64; a text without words has the bias alone."""
    sums, counts = np.zeros((len(weights), len(texts))), np.zeros(len(texts))
    for rows, buckets in hashed(texts, bits):
        counts += np.bincount(rows, minlength=len(texts))
        for into, model in zip(sums, weights, strict=True):
            into += np.bincount(rows, model[buckets], len(texts))
    logits = sums / np.sqrt(np.maximum(counts, 1)) + np.asarray(biases, np.float64).reshape(-1, 1)
    scores: np.ndarray = np.exp(-np.logaddexp(0, -logits))
    return scores
