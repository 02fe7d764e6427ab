"""A matrix W that makes cosines of embeddings say what labelled pairs say: cos(q W, d W) near the label.

Mean squared error by Adam, with dropout on the embeddings that go in; the gradient is written out, so NumPy is
enough.  Kept is the W of the epoch with the best validation accuracy, before any training included.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from pickaxe.randomness import generator

TINY = 1e-12


def normalised(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1 (rows of zeros stay zeros)."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), TINY))


def custom_cosine(queries: np.ndarray, documents: np.ndarray, matrix: np.ndarray | None = None) -> np.ndarray:
    """cos(q W, d W) of every query (n, d) with every document (m, d); plain cosine without W (d, e)."""
    if matrix is not None:
        queries, documents = queries @ matrix, documents @ matrix
    return np.asarray(normalised(queries) @ normalised(documents).T)


@dataclass(frozen=True)
class Pairs:
    """Labelled pairs: rows of `queries` (n, d) and of `documents` (m, d), and the cosine wanted (1, 0 or -1)."""

    queries: np.ndarray
    documents: np.ndarray
    query_rows: np.ndarray
    document_rows: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)

    def cosines(self, matrix: np.ndarray) -> np.ndarray:
        """(pairs,) cosines after W."""
        left, right = normalised(self.queries @ matrix), normalised(self.documents @ matrix)
        return np.einsum("ij,ij->i", left[self.query_rows], right[self.document_rows])

    def batch(self, pairs: np.ndarray) -> Batch:
        """These pairs, with every embedding in them once."""
        query_rows, own = np.unique(self.query_rows[pairs], return_inverse=True)
        document_rows, others = np.unique(self.document_rows[pairs], return_inverse=True)
        shape = len(query_rows), len(document_rows)
        targets, weights = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        targets[own, others] = self.targets[pairs]
        weights[own, others] = np.float32(1 / len(pairs))
        return Batch(self.queries[query_rows], self.documents[document_rows], targets, weights)


@dataclass(frozen=True)
class Batch:
    """Embeddings (q, d) and (t, d), and for each of their q x t pairs the target and its weight in the loss."""

    queries: np.ndarray
    documents: np.ndarray
    targets: np.ndarray
    weights: np.ndarray

    def loss_and_gradient(self, matrix: np.ndarray) -> tuple[float, np.ndarray]:
        """Weighted sum of (cos(q W, d W) - target)^2 and its derivative by W, shaped like W."""
        left, right = self.queries @ matrix, self.documents @ matrix
        left_norm = np.maximum(np.linalg.norm(left, axis=1, keepdims=True), TINY)
        right_norm = np.maximum(np.linalg.norm(right, axis=1, keepdims=True), TINY)
        left, right = left / left_norm, right / right_norm
        cosines = left @ right.T
        error = cosines - self.targets
        slope = 2 * self.weights * error
        through = slope * cosines
        gradient = self.queries.T @ ((slope @ right - through.sum(1)[:, None] * left) / left_norm)
        gradient += self.documents.T @ ((slope.T @ left - through.sum(0)[:, None] * right) / right_norm)
        return float((self.weights * error**2).sum()), gradient

    def dropped(self, share: float, random: np.random.Generator) -> Batch:
        """With this share of all embedding entries set to 0 and the rest scaled up."""
        return replace(
            self, queries=_dropped(self.queries, share, random), documents=_dropped(self.documents, share, random)
        )


@dataclass(frozen=True)
class Epoch:
    """W after an epoch (0: before training), its mean training loss and its validation accuracy."""

    number: int
    matrix: np.ndarray
    loss: float
    accuracy: float


def accuracy(cosines: np.ndarray, targets: np.ndarray) -> float:
    """The best share of pairs that one threshold on the cosine puts on the right side."""
    order = np.argsort(-cosines, kind="stable")
    positive = targets[order] > 0
    right = np.concatenate([[0], np.cumsum(positive)]) + np.concatenate([np.cumsum(~positive[::-1])[::-1], [0]])
    sorted_cosines = cosines[order]
    splits = np.concatenate([[True], sorted_cosines[1:] < sorted_cosines[:-1], [True]])
    return float(right[splits].max() / len(targets))


def train(
    training: Pairs, validation: Pairs, *, matrix_dim: int | None, lr: float, epochs: int, dropout: float,
    batch: int, seed: int,
) -> Iterator[Epoch]:  # fmt: skip
    """One `Epoch` at a time.  Starts from the identity, or from random orthogonal columns for fewer dimensions."""
    dimension = training.queries.shape[1]
    matrix = _start(dimension, matrix_dim or dimension, seed)
    yield Epoch(0, matrix.copy(), float("nan"), accuracy(validation.cosines(matrix), validation.targets))
    mean, square, step = np.zeros_like(matrix), np.zeros_like(matrix), 0
    for number in range(1, epochs + 1):
        random = generator(seed, "chronicles", "epoch", number)
        order = random.permutation(len(training))
        losses = []
        for start in range(0, len(order), batch):
            drawn = training.batch(order[start : start + batch]).dropped(dropout, random)
            loss, gradient = drawn.loss_and_gradient(matrix)
            losses.append(loss)
            step += 1
            mean = 0.9 * mean + 0.1 * gradient
            square = 0.999 * square + 0.001 * gradient**2
            matrix -= lr * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
        score = accuracy(validation.cosines(matrix), validation.targets)
        yield Epoch(number, matrix.copy(), float(np.mean(losses)), score)


def _start(dimension: int, wanted: int, seed: int) -> np.ndarray:
    if wanted == dimension:
        return np.eye(dimension, dtype=np.float32)
    normal = generator(seed, "chronicles", "start").standard_normal((max(dimension, wanted), min(dimension, wanted)))
    columns, _ = np.linalg.qr(normal)
    return np.ascontiguousarray(columns if wanted < dimension else columns.T, dtype=np.float32)


def _dropped(vectors: np.ndarray, share: float, random: np.random.Generator) -> np.ndarray:
    if share == 0:
        return vectors
    return np.asarray(vectors * (random.random(vectors.shape, np.float32) >= share) / np.float32(1 - share))


def labelled_pairs(
    queries: np.ndarray, documents: np.ndarray, gold: np.ndarray, *, negatives: int, hard: bool,
    negative_target: float, seed: int, key: str,
) -> Pairs:  # fmt: skip
    """Each question with its gold text (target 1) and `negatives` other texts (target `negative_target`).

    `queries` (n, d), `documents` (m, d), `gold` (n,) rows of `documents`.  Hard negatives are the other texts of
    highest cosine, random ones are drawn per question.
    """
    count = min(negatives, len(documents) - 1)
    rows = np.arange(len(queries))
    chosen = np.empty((len(queries), count), np.int64)
    cosines = custom_cosine(queries, documents) if hard else None
    for row, own in enumerate(gold):
        if cosines is not None:
            order = np.argsort(-cosines[row], kind="stable")
            chosen[row] = order[order != own][:count]
        else:
            drawn = generator(seed, "chronicles", key, row).choice(len(documents) - 1, count, replace=False)
            chosen[row] = drawn + (drawn >= own)
    targets = np.concatenate([np.ones(len(queries)), np.full(chosen.size, negative_target)]).astype(np.float32)
    return Pairs(
        queries, documents, np.concatenate([rows, np.repeat(rows, count)]),
        np.concatenate([gold, chosen.ravel()]), targets,
    )  # fmt: skip
