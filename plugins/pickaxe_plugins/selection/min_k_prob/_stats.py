"""Statistics of token log-probabilities (arXiv 2310.16789): pure functions of float64 arrays, in nats."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

_BLOCK = 1 << 23
"""Values that one partition handles at a time: 64 MiB of float64."""
_LEAST_VARIANCE = 1e-12
"""A next-token distribution whose log-probabilities vary less than this is a point mass."""


def lowest_count(n: int, ratio: float) -> int:
    """How many of `n` values the lowest `ratio` is: floor(n * ratio) in float64, at least one."""
    return max(1, int(n * ratio))


def lowest_means(values: Sequence[np.ndarray], ratios: Sequence[float]) -> np.ndarray:
    """Mean of the lowest share of each array: (len(values), len(ratios)), NaN for an empty array.

    Arrays of equal length are partitioned together, which is what makes many short texts cheap.
    """
    means = np.full((len(values), len(ratios)), np.nan)
    lengths = np.fromiter((len(each) for each in values), np.int64, len(values))
    order = np.argsort(lengths, kind="stable")
    for rows in _runs(lengths, order):
        n = int(lengths[rows[0]])
        if n == 0:
            continue
        block = np.concatenate([values[row] for row in rows]).astype(np.float64, copy=False).reshape(len(rows), n)
        counts = [lowest_count(n, ratio) for ratio in ratios]
        block.partition(sorted({count - 1 for count in counts}), axis=1)
        for column, count in enumerate(counts):
            means[rows, column] = block[:, :count].mean(axis=1)
    return means


def _runs(lengths: np.ndarray, order: np.ndarray) -> Iterator[np.ndarray]:
    """`order` cut where the length changes and where a block would grow too large."""
    edges = np.flatnonzero(np.diff(lengths[order])) + 1
    for rows in np.split(order, edges):
        step = max(1, _BLOCK // max(1, int(lengths[rows[0]]))) if len(rows) else 1
        for start in range(0, len(rows), step):
            yield rows[start : start + step]


def surprise_scores(logprobs: np.ndarray, means: np.ndarray, stds: np.ndarray) -> np.ndarray:
    """Min-K%++'s z = (log-prob - mean) / std per token, 0 where the distribution is a point mass.

    `means` and `stds` are those of log p(.|prefix) under p(.|prefix) over the whole vocabulary; all (n,).
    """
    spread = stds > np.sqrt(_LEAST_VARIANCE)
    z = np.zeros(len(logprobs))
    np.divide(logprobs - means, stds, out=z, where=spread)
    return z


def from_logits(logits: np.ndarray, token_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-probability of each token, and mean and standard deviation of log p under p: three (n,) arrays.

    Row i of `logits` (n, V) predicts `token_ids[i]`.
    """
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    p = np.exp(logs)
    weighted = np.where(p > 0, p * np.where(p > 0, logs, 0.0), 0.0)
    means = weighted.sum(axis=1)
    squares = np.where(p > 0, weighted * np.where(p > 0, logs, 0.0), 0.0).sum(axis=1)
    stds = np.sqrt(np.maximum(squares - means**2, _LEAST_VARIANCE))
    return logs[np.arange(len(token_ids)), token_ids], means, stds


def compressed_sizes(texts: Sequence[str]) -> np.ndarray:
    """Bytes of each text's UTF-8 under zlib at its default level, as float64; threads, as zlib frees the lock."""
    slices = [texts[start : start + 256] for start in range(0, len(texts), 256)]
    if len(slices) < 2:
        return np.array([_size(text) for text in texts], np.float64)
    with ThreadPoolExecutor(min(len(slices), os.cpu_count() or 1)) as pool:
        parts = pool.map(lambda part: [_size(text) for text in part], slices)
        return np.array([size for part in parts for size in part], np.float64)


def _size(text: str) -> int:
    return len(zlib.compress(text.encode("utf-8", "surrogatepass")))
