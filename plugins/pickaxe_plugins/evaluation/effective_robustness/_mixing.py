"""Mixing training sources: outputs of models, the Gaussian model, a filter by similarity (arXiv 2208.05516)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pickaxe.errors import InvalidParams
from pickaxe.extras import require


def output_mixing(logits: Sequence[np.ndarray], mode: Literal["logit", "prob"] = "logit") -> np.ndarray:
    """Averaged outputs of models that were trained apart; logits are (..., classes) of equal shapes.

    `logit` averages the logits as they are, `prob` the probabilities.  Raises `InvalidParams`.
    """
    if mode not in ("logit", "prob"):
        raise InvalidParams("mode", f"must be logit or prob (got {mode!r})")
    given = [np.asarray(each, np.float64) for each in logits]
    if not given or any(each.shape != given[0].shape or not each.ndim for each in given):
        raise InvalidParams("logits", f"must be arrays of one shape (got {[each.shape for each in given]})")
    if mode == "prob":
        given = [_softmax(each) for each in given]
    return np.asarray(np.mean(given, axis=0))


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def similarity_filter(first: np.ndarray, second: np.ndarray, threshold: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the pairs whose cosine is at least `threshold`, and all cosines; embeddings are (n, d) each.

    0.3 is what LAION kept of image and text.  Rows of zeros have the cosine 0.  Raises `InvalidParams`.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.ndim != 2 or a.shape != b.shape:
        raise InvalidParams("second", f"must have the shape of the first, (n, d) (got {a.shape} and {b.shape})")
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = np.divide((a * b).sum(axis=1), norms, out=np.zeros(len(a)), where=norms > 0)
    return np.flatnonzero(cosine >= threshold), cosine


@dataclass(frozen=True)
class GaussianMix:
    """What an averaging classifier reaches; arrays are (mixes, tests)."""

    accuracy: np.ndarray
    probit: np.ndarray


def gaussian_mix(sources: np.ndarray, shares: np.ndarray, tests: np.ndarray, sigma: np.ndarray) -> GaussianMix:
    """The averaging classifier w = sum_k p_k mu_k, trained without limit on mixed sources x | y ~ N(y mu_k, .).

    `sources` (K, d) and `tests` (T, d) are means, `sigma` (T,) deviations of the tests, `shares` (mixes, K) rows that
    add up to 1.  Accuracy is Phi(w.mu / (sigma |w|)).  The ratio of two tests' probits is, for a mix, the mean of the
    sources' ratios with weights p_k mu_k.mu_id.  Raises `InvalidParams`.
    """
    means, parts = np.asarray(sources, np.float64), np.asarray(shares, np.float64)
    places, deviations = np.asarray(tests, np.float64), np.asarray(sigma, np.float64)
    if means.ndim != 2 or places.ndim != 2 or means.shape[1] != places.shape[1]:
        raise InvalidParams("sources", f"and tests must be (K, d) and (T, d) (got {means.shape}, {places.shape})")
    if deviations.shape != (len(places),) or not (deviations > 0).all():
        raise InvalidParams("sigma", f"must be {len(places)} positive numbers")
    if (
        parts.ndim != 2
        or parts.shape[1] != len(means)
        or (parts < 0).any()
        or (abs(parts.sum(axis=1) - 1) > 1e-9).any()
    ):
        raise InvalidParams("shares", f"must be rows of {len(means)} shares of 0 or more that add up to 1")
    w = parts @ means
    length = np.linalg.norm(w, axis=1, keepdims=True)
    if not length.all():
        raise InvalidParams("shares", f"cancel the sources in row {int(np.argmin(length))}: no classifier is left")
    probit = w @ places.T / (length * deviations)
    return GaussianMix(np.asarray(require("scipy.special", "scaling").ndtr(probit)), probit)
