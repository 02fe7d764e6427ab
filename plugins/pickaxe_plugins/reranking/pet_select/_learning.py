"""A fit: for each threshold the contrastive layer and the selector, and which of them routes held-out tasks best."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pickaxe import ArtifactWriter, Call, Progress
from pickaxe.errors import InvalidItems
from pickaxe_plugins.reranking.pet_select import _training as training
from pickaxe_plugins.reranking.pet_select._routing import Routed, quality, route
from pickaxe_plugins.reranking.pet_select._training import logits

if TYPE_CHECKING:
    from pickaxe_plugins.reranking.pet_select._method import Params
    from pickaxe_plugins.reranking.pet_select._records import Tasks


@dataclass(frozen=True)
class Learned:
    """What a fit found."""

    threshold: float
    residual: np.ndarray
    selector: dict[str, np.ndarray]
    measured: dict[str, Any]


@dataclass(frozen=True)
class Learner:
    """Tasks to learn from and tasks to measure with, with their vectors."""

    tasks: Tasks
    vectors: np.ndarray
    held: Tasks
    held_vectors: np.ndarray
    params: Params
    out: ArtifactWriter
    call: Call

    def run(self) -> Generator[Progress, None, Learned]:
        """The best of all thresholds: highest accuracy on held-out tasks, then fewest tokens, then the first."""
        best: tuple[tuple[float, float], Learned] | None = None
        for threshold in self._thresholds():
            self.call.check()
            learned = yield from self._learn(threshold)
            routed = learned.measured["router"]
            key = (-routed["accuracy"], routed["tokens"])
            if best is None or key < best[0]:
                best = key, learned
        assert best is not None  # `_thresholds` gives one or raises
        return best[1]

    def _thresholds(self) -> Iterator[float]:
        params, values = self.params, self.tasks.complexity
        if params.threshold is not None:
            yield params.threshold
            return
        tried: set[float] = set()
        for quantile in params.grid:
            threshold = float(np.quantile(values, quantile))
            if threshold not in tried and min((values < threshold).sum(), (values >= threshold).sum()) >= 2:
                tried.add(threshold)
                yield threshold
        if not tried:
            raise InvalidItems("examples", "have no two easy and two hard tasks: their complexities are too alike")

    def _learn(self, threshold: float) -> Generator[Progress, None, Learned]:
        params, seed = self.params, self.call.seed
        made = training.triplets(self.tasks.complexity >= threshold, params.n_triplets, params.symmetric, seed)
        width = self.vectors.shape[1]
        residual = np.zeros((width, width), np.float32)
        if params.triplet_epochs:
            residual = yield from training.tune(self.vectors, made, params, self.out, seed)
        moved = self.vectors + self.vectors @ residual.T
        tasks = training.Tasks(moved, self.tasks.passed, self.tasks.best)
        selector = yield from training.select(tasks, params, self.out, seed)
        return Learned(threshold, residual, selector, self._measured(threshold, residual, selector))

    def _measured(self, threshold: float, residual: np.ndarray, selector: dict[str, np.ndarray]) -> dict[str, Any]:
        """On held-out tasks, or without any on those learned from: the router against single techniques."""
        on_held = len(self.held.ids) > 0
        tasks, vectors = (self.held, self.held_vectors) if on_held else (self.tasks, self.vectors)
        moved = vectors + vectors @ residual.T
        scores = logits(selector, moved)
        hard = tasks.complexity >= threshold
        each = [quality(row, passed) for row, passed in zip(scores, tasks.passed, strict=True)]
        return {
            "on": "held-out tasks" if on_held else "the examples",
            "tasks": len(tasks.ids),
            "router": asdict(route(scores, tasks.passed, tasks.tokens)),
            "single": {name: asdict(self._single(tasks, place)) for place, name in enumerate(tasks.techniques)},
            "oracle": asdict(route(tasks.passed - tasks.tokens / tasks.tokens.max() / 2, tasks.passed, tasks.tokens)),
            "ndcg": float(np.mean([ndcg for ndcg, _ in each])),
            "mrr": float(np.mean([reciprocal for _, reciprocal in each])),
            "triplet_accuracy": self._triplet_accuracy(moved, hard),
            "triplet_accuracy_untuned": self._triplet_accuracy(vectors, hard),
            "hard_by_length_auc": auc(np.array([len(text) for text in tasks.texts]), hard),
        }

    def _single(self, tasks: Tasks, place: int) -> Routed:
        scores = np.zeros_like(tasks.tokens)
        scores[:, place] = 1
        return route(scores, tasks.passed, tasks.tokens)

    def _triplet_accuracy(self, vectors: np.ndarray, hard: np.ndarray) -> float | None:
        """Share of triplets whose negative is farther; null with fewer than 2 tasks of a side."""
        if min(hard.sum(), (~hard).sum()) < 2:
            return None
        made = training.triplets(hard, self.params.n_triplets, True, self.call.seed)
        near, far = (np.linalg.norm(vectors[made[:, 0]] - vectors[made[:, at]], axis=1) for at in (1, 2))
        return float((near < far).mean())


def auc(values: np.ndarray, positive: np.ndarray) -> float | None:
    """Chance that a positive has the higher value, ties counting half; null without one of each."""
    high, low = values[positive], values[~positive]
    if not len(high) or not len(low):
        return None
    return float((high[:, None] > low).mean() + (high[:, None] == low).mean() / 2)
