"""The bandit of `quad`: clusters are arms, neighbours share rewards, batches are accepted or not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pickaxe.errors import InvalidParams

BLOCK = 2**22
"""Distances that are held at a time."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Of cluster i: the clusters `indices[starts[i]:starts[i + 1]]`, i itself among them, with their `shares` of a
    reward, 1 - distance / threshold."""

    starts: np.ndarray
    indices: np.ndarray
    shares: np.ndarray

    def of(self, cluster: int) -> tuple[np.ndarray, np.ndarray]:
        part = slice(self.starts[cluster], self.starts[cluster + 1])
        return self.indices[part], self.shares[part]

    @classmethod
    def alone(cls, count: int) -> Neighbours:
        """Every cluster has itself only."""
        return cls(np.arange(count + 1), np.arange(count), np.ones(count))

    @classmethod
    def from_distances(cls, distances: np.ndarray, threshold: float) -> Neighbours:
        """From a matrix (k, k); raises `InvalidParams` unless it is square and symmetric with zeros in the diagonal."""
        wrong = None
        if distances.ndim != 2 or distances.shape[0] != distances.shape[1]:
            wrong = f"is of shape {distances.shape}, wanted a square"
        elif not np.isfinite(distances).all() or (distances < 0).any():
            wrong = "holds numbers below 0 or none at all"
        elif not np.allclose(distances, distances.T, rtol=0, atol=1e-9):
            wrong = "is not symmetric"
        elif np.diag(distances).any():
            wrong = "is not 0 in the diagonal"
        if wrong:
            raise InvalidParams("distances", f"the matrix of cluster distances {wrong}")
        return cls._joined([_row(row, number, threshold) for number, row in enumerate(distances)])

    @classmethod
    def from_centres(cls, centres: np.ndarray, threshold: float) -> Neighbours:
        """By cosine distance between centres (k, d), block by block: memory stays far below k x k."""
        unit = centres / np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)
        rows, step = [], max(1, BLOCK // len(unit))
        for start in range(0, len(unit), step):
            block = np.maximum(1 - unit[start : start + step] @ unit.T, 0)
            rows += [_row(row, start + number, threshold) for number, row in enumerate(block)]
        return cls._joined(rows)

    @classmethod
    def _joined(cls, rows: list[tuple[np.ndarray, np.ndarray]]) -> Neighbours:
        starts = np.cumsum([0, *(len(indices) for indices, _ in rows)])
        return cls(starts, np.concatenate([each for each, _ in rows]), np.concatenate([each for _, each in rows]))


def _row(distances: np.ndarray, own: int, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    near = distances < threshold
    near[own] = True
    indices = np.flatnonzero(near)
    shares = 1 - distances[indices] / threshold if threshold > 0 else np.ones(len(indices))
    shares[indices == own] = 1.0
    return indices, shares


class Bandit:
    """Rewards R, counts n and their sum N; batches taken and accepted of each cluster."""

    def __init__(
        self, sizes: np.ndarray, neighbours: Neighbours, *, alpha: float, tau: float, arms: int, batch: int
    ) -> None:
        self.sizes, self.alpha, self.tau, self.arms, self.batch = sizes, alpha, tau, arms, batch
        self._neighbours = neighbours
        self.rewards = np.zeros(len(sizes))
        self.counts, self.taken, self.accepted = (np.zeros(len(sizes), np.int64) for _ in range(3))
        self.total = 0
        self.rounds = 0

    @property
    def eligible(self) -> np.ndarray:
        """(k,) whether a whole batch is left of a cluster; others are retired."""
        return (self.taken + 1) * self.batch <= self.sizes

    @property
    def means(self) -> np.ndarray:
        """R / n, 0 where nothing was counted."""
        return self.rewards / np.maximum(self.counts, 1)

    @property
    def scores(self) -> np.ndarray:
        """R / n + alpha sqrt(2 ln N / (n + 1)), of retired clusters too."""
        spread = 2 * np.log(max(1, self.total)) / (self.counts + 1)
        return np.asarray(self.means + self.alpha * np.sqrt(spread))

    def choose(self) -> np.ndarray:
        """The clusters of the next round: those of highest score, ties and the first round by index."""
        open_ = np.flatnonzero(self.eligible)
        if self.rounds:
            open_ = open_[np.argsort(-self.scores[open_], kind="stable")]
        return open_[: self.arms]

    def learn(self, chosen: np.ndarray, influence: np.ndarray) -> np.ndarray:
        """Count the mean influence of the probes of a round; which of the clusters have their batch accepted."""
        rewards = influence - self.tau
        self.taken[chosen] += 1
        accepted = rewards > 0
        self.accepted[chosen[accepted]] += 1
        for cluster, reward in zip(chosen.tolist(), rewards.tolist(), strict=True):
            near, shares = self._neighbours.of(cluster)
            self.rewards[near] += reward * shares
            self.counts[near] += 1
            self.total += len(near)
        self.rounds += 1
        return np.asarray(accepted)
