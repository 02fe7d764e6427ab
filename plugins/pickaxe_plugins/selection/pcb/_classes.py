"""Classes as vectors beside the items' ones: from names or descriptions, and learned from labelled items."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from pickaxe import Call

Mode = Literal["none", "AS", "AE"]
_BLOCK = 1 << 21
"""Probabilities that are computed at a time."""


def class_matrix(vectors: Sequence[np.ndarray], mode: Mode) -> np.ndarray:
    """(K, d) such that logits are scale * features @ matrix.T, from each class's vectors (count, d).

    none and AE: the mean of the vectors as they are, scaled to length 1 (none has one vector a class).
    AS: the mean of the vectors scaled to length 1, so that logits are the mean of the descriptions' logits.
    """
    if mode == "AS":
        return np.stack([unit(each).mean(axis=0) for each in vectors])
    return unit(np.stack([each.mean(axis=0) for each in vectors]))


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12))


def probabilities(features: np.ndarray, matrix: np.ndarray, scale: float, call: Call) -> np.ndarray:
    """(N, K) softmax of the logits."""
    found = np.empty((len(features), len(matrix)))
    size = max(1, _BLOCK // len(matrix))
    for start in range(0, len(features), size):
        call.check()
        found[start : start + size] = _softmax(scale * (features[start : start + size] @ matrix.T))
    return found


def _softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def learn(
    start: np.ndarray,
    features: np.ndarray,
    labels: np.ndarray,
    scale: float,
    *,
    epochs: int,
    rate: float,
    batch: int,
    rng: np.random.Generator,
    normalised: bool,
) -> Iterator[tuple[np.ndarray, float]]:
    """Train residual class vectors by SGD with momentum on cross-entropy; yields (matrix, mean loss) of each epoch.

    Rates as in CoOp: a first epoch at 1e-5 of 0.002's scale, then a cosine from `rate` to 0.
    """
    vectors, speed = start.astype(np.float64), np.zeros(start.shape)
    for epoch in range(epochs):
        now = rate / 200 if epoch == 0 else rate * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        order, total = rng.permutation(len(features)), 0.0
        for first in range(0, len(order), batch):
            rows = order[first : first + batch]
            loss, slope = _slope(vectors, features[rows], labels[rows], scale, normalised)
            speed = 0.9 * speed + slope
            vectors = vectors - now * speed
            total += loss * len(rows)
        yield (unit(vectors) if normalised else vectors), total / len(order)


def _slope(
    vectors: np.ndarray, features: np.ndarray, labels: np.ndarray, scale: float, normalised: bool
) -> tuple[float, np.ndarray]:
    """Mean cross-entropy, and its slope over the class vectors."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True) if normalised else np.ones((len(vectors), 1))
    directions = vectors / lengths
    p = _softmax(scale * (features @ directions.T))
    loss = float(-np.log(np.maximum(p[np.arange(len(p)), labels], 1e-300)).mean())
    p[np.arange(len(p)), labels] -= 1
    slope = scale * (p.T @ features) / len(p)
    if normalised:
        slope = (slope - directions * (slope * directions).sum(axis=1, keepdims=True)) / lengths
    return loss, slope
