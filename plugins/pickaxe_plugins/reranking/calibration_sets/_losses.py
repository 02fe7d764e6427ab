"""The calibration losses in float64: what training minimises, and its yardstick."""

from __future__ import annotations

import numpy as np

IGNORED = -100
"""Label of a place that does not count."""


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis, in float64."""
    shifted = np.asarray(logits, np.float64)
    shifted = shifted - shifted.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def rank_scores(logits: np.ndarray, labels: np.ndarray, scale: float, alpha: float) -> np.ndarray:
    """s = scale * sum_t log p(y_t) / length^alpha: logits (..., T, V), labels (..., T) -> (...).

    `labels` hold `IGNORED` where nothing counts; the length is the number of the others.
    """
    labels = np.asarray(labels)
    counted = labels != IGNORED
    at = np.take_along_axis(log_softmax(logits), np.where(counted, labels, 0)[..., None], -1)[..., 0]
    scores: np.ndarray = scale * (at * counted).sum(-1) / np.maximum(counted.sum(-1), 1) ** alpha
    return scores


def ranking(scores: np.ndarray, lam: float) -> float:
    """sum over gaps g of the mean over pairs of max(0, s_{i+g} - s_i + lam g): scores (B, k), best first."""
    scores = np.asarray(scores, np.float64)
    return float(
        sum(np.maximum(0, scores[:, gap:] - scores[:, :-gap] + lam * gap).mean() for gap in range(1, scores.shape[1]))
    )


def contrastive(states: np.ndarray, positives: int) -> float:
    """Mean over pairs a < b of the positives, which come first, of -log(exp cos(a, b) / sum_{c != a} exp cos(a, c)).

    States (n, d); 0 with fewer than 2 positives.
    """
    states = np.asarray(states, np.float64)
    unit = states / np.maximum(np.linalg.norm(states, axis=1, keepdims=True), 1e-12)
    cosines = unit @ unit.T
    others = np.log(np.where(np.eye(len(states), dtype=bool), 0, np.exp(cosines)).sum(1))
    pairs = [others[a] - cosines[a, b] for a in range(positives) for b in range(a + 1, positives)]
    return float(np.mean(pairs)) if pairs else 0.0


def unlikelihood(logits: np.ndarray, labels: np.ndarray, smoothing: float) -> float:
    """What negatives add: -log(1 - p), (1 - smoothing) of it of the label and smoothing of the vocabulary's mean.

    Mean over all labelled places; 1 - p is at least 1e-10.
    """
    labels = np.asarray(labels)
    counted = labels != IGNORED
    away = -np.log(np.maximum(1 - np.exp(log_softmax(logits)[counted]), 1e-10))
    at = away[np.arange(len(away)), labels[counted]]
    return float(((1 - smoothing) * at + smoothing * away.mean(1)).mean())
