"""Unbiased pass@k and coverage curves (arXiv 2407.21787): how often k of n samples hold a correct one."""

from __future__ import annotations

import math

import numpy as np


def log_factorials(n: int) -> np.ndarray:
    """log(i!) for i = 0..n, float64."""
    return np.array([math.lgamma(i + 1) for i in range(n + 1)])


def pass_at_k(n: np.ndarray, c: np.ndarray, ks: np.ndarray) -> np.ndarray:
    """1 - C(n-c, k) / C(n, k) for whole numbers n, c (P,) and ks (K,): (P, K) float64, NaN where k > n.

    The share of k-subsets of n samples that hold one of the c correct ones: 1 once n - c < k.  One table of
    log-factorials serves everything; problems with equal (n, c) are computed once.
    """
    if not len(n) or not len(ks):
        return np.empty((len(n), len(ks)))
    top = int(n.max()) + 1
    pairs, back = np.unique(n * top + c, return_inverse=True)
    n, c = (part[:, None] for part in np.divmod(pairs, top))
    ks = ks[None, :]
    table = log_factorials(int(n.max()))
    left = n - c - ks
    all_wrong = table[n - c] + table[np.maximum(n - ks, 0)] - table[np.maximum(left, 0)] - table[n]
    values = np.where(left < 0, 1.0, -np.expm1(np.minimum(all_wrong, 0.0)))
    values = np.where(c == 0, 0.0, values)
    return np.where(ks > n, np.nan, values)[back]


def log_grid(n: int, points: int) -> np.ndarray:
    """At most `points` whole numbers from 1 to n, about evenly spaced in log k."""
    return np.unique(np.rint(np.geomspace(1, n, points)).astype(np.int64))


def band(
    n: np.ndarray, c: np.ndarray, ks: np.ndarray, rounds: int, confidence: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap over problems of the coverage at each k: (low, high), each (K,).

    Problems with equal (n, c) share their curve, so a resample of P problems is one multinomial draw over the
    distinct pairs: the same distribution at a fraction of the work.  A k above an item's n leaves that item out.
    """
    top = int(n.max()) + 1
    pairs, counts = np.unique(n * top + c, return_counts=True)
    curves = pass_at_k(*np.divmod(pairs, top), ks)
    weights = rng.multinomial(len(n), counts / len(n), size=rounds).astype(np.float64)
    known = ~np.isnan(curves)
    shares = weights @ known
    with np.errstate(invalid="ignore"):
        means = (weights @ np.where(known, curves, 0.0)) / np.where(shares > 0, shares, np.nan)
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(means, [tail, 1 - tail], axis=0)
    return low, high
