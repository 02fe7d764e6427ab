"""Whether two neighbouring sentences belong together: a small network over their embeddings (arXiv:2503.01713)."""

from __future__ import annotations

import functools
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import pickaxe
from pickaxe import Artifact, ArtifactWriter, Progress
from pickaxe.extras import require

if TYPE_CHECKING:
    from pickaxe_plugins.train.settings import Recipe

Features = Literal["augmented", "concatenation"]
"""[x1, x2, x1 - x2, x1 * x2] or [x1, x2] alone."""
Pair = tuple[int, int, int]
"""Rows of two sentences, and 1 when they belong together, else 0."""
PARTS = ("w1", "b1", "w2", "b2")
SLOPE, OFFSET = 7.0, -2.4
"""Of the cosine's logit, where there is no network: see the method's page."""


@dataclass(frozen=True)
class Network:
    """sigmoid(relu(f W1 + b1) W2 + b2) of f = [x1, x2, x1 - x2, x1 * x2]; H is the embeddings' width.

    `w1` (4 H, hidden), `b1` (hidden,), `w2` (hidden,), `b2` ().
    """

    w1: np.ndarray
    b1: np.ndarray
    w2: np.ndarray
    b2: np.ndarray

    def neighbours(self, embeddings: np.ndarray) -> np.ndarray:
        """Scores (n - 1,) of every sentence with the next, for embeddings (n, H)."""
        if len(embeddings) < 2:
            return np.empty(0, embeddings.dtype)
        first, second, difference, product = np.split(self.w1, 4)
        # The difference is linear in both, so a sentence is multiplied once for its role in each pair.
        before, after = embeddings @ (first + difference), embeddings @ (second - difference)
        hidden = before[:-1] + after[1:] + (embeddings[:-1] * embeddings[1:]) @ product + self.b1
        return sigmoid(np.maximum(hidden, 0) @ self.w2 + self.b2)

    def pairs(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Scores (n,) of pairs of embeddings, each (n, H)."""
        features = np.concatenate([left, right, left - right, left * right], axis=1)
        return sigmoid(np.maximum(features @ self.w1 + self.b1, 0) @ self.w2 + self.b2)

    def write(self, out: ArtifactWriter) -> None:
        for name in PARTS:
            out.write_array(f"{name}.npy", getattr(self, name))

    @classmethod
    def read(cls, artifact: Artifact) -> Network:
        return cls(*(np.array(artifact.read_array(f"{name}.npy")) for name in PARTS))


def cosine_scores(embeddings: np.ndarray) -> np.ndarray:
    """What stands in for a network: sigmoid(7 cosine - 2.4) of every sentence with the next, for unit vectors."""
    cosines = (embeddings[:-1] * embeddings[1:]).sum(1)
    return sigmoid(SLOPE * cosines + OFFSET)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) without overflow."""
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1, small) / (1 + small))


def mean_squared_error(scores: np.ndarray, labels: np.ndarray) -> float:
    """What training minimises."""
    return float(np.square(np.asarray(scores) - labels).mean())


# ---------------------------------------------------------------- training


def training_pairs(articles: Sequence[Sequence[Sequence[int]]], seed: int) -> list[Pair]:
    """Pairs of sentences, from articles as lists of paragraphs as lists of sentence rows.

    1: neighbours in a paragraph.  0: the sentences on both sides of a paragraph break, and as many random pairs from
    different paragraphs of an article as make both labels equally frequent; articles of one paragraph take the other
    sentence from another article.
    """
    together = [(a, b, 1) for paragraphs in articles for rows in paragraphs for a, b in pairwise(rows)]
    apart = [(one[-1], two[0], 0) for paragraphs in articles for one, two in pairwise(paragraphs)]
    blocks = [(number, rows) for number, paragraphs in enumerate(articles) for rows in paragraphs]
    rivals = {number: [rows for other, rows in blocks if other == number] for number in range(len(articles))}
    random = pickaxe.generator(seed, "sage-segment", "pairs")
    for _ in range(len(together) - len(apart) if len(blocks) > 1 else 0):
        number, rows = blocks[int(random.integers(len(blocks)))]
        pool = rivals[number] if len(rivals[number]) > 1 else [each for _, each in blocks]
        other = rows
        while other is rows:
            other = pool[int(random.integers(len(pool)))]
        apart.append((int(random.choice(rows)), int(random.choice(other)), 0))
    return together + apart


def train(
    embeddings: np.ndarray,
    pairs: Sequence[Pair],
    hidden: int,
    features: Features,
    recipe: Recipe,
    out: ArtifactWriter,
    seed: int,
    held: tuple[np.ndarray, Sequence[Pair]] | None = None,
) -> Generator[Progress, None, Network]:
    """Fit the network by mean squared error; with `held` (embeddings, pairs), the best epoch's is kept.

    Unit vectors have entries of about H^-1/2, so features are scaled to about 1 and the scales put into W1 after.
    """
    from pickaxe_plugins.train.descent import Shuffle, Stopping, adamw, descend

    width = embeddings.shape[1]
    scale = np.repeat(np.array([width**0.5] * 3 + [width], np.float32), width)
    if features == "concatenation":
        scale[2 * width :] = 0
    random = pickaxe.generator(seed, "sage-segment", "weights")
    start = {
        "w1": (random.standard_normal((4 * width, hidden)) * (2 / (4 * width)) ** 0.5).astype(np.float32),
        "b1": np.zeros(hidden, np.float32),
        "w2": (random.standard_normal(hidden) * hidden**-0.5).astype(np.float32),
        "b2": np.zeros((), np.float32),
    }
    steps, batch = recipe.steps(len(pairs)), recipe.batch
    shuffle = Shuffle(len(pairs), batch, seed)
    table = np.array(pairs, np.int64)

    def given(step: int) -> dict[str, np.ndarray]:
        return _batch(embeddings, table[shuffle.rows(step)], scale, batch)

    def error(weights: Mapping[str, np.ndarray]) -> float:
        assert held is not None
        vectors, others = held
        left, right, labels = np.array(others, np.int64).T
        return mean_squared_error(_folded(weights, scale).pairs(vectors[left], vectors[right]), labels)

    stopping = None if held is None else Stopping(error, every=-(-len(pairs) // batch), patience=0)
    weights = yield from descend(
        _loss(), adamw(recipe, steps, matrices_only=True), start, given, steps, out, seed=seed,
        checkpoint=recipe.checkpoint, stopping=stopping,
    )  # fmt: skip
    return _folded(weights, scale)


def _folded(weights: Mapping[str, np.ndarray], scale: np.ndarray) -> Network:
    return Network(scale[:, None] * weights["w1"], *(np.asarray(weights[name]) for name in PARTS[1:]))


def _batch(embeddings: np.ndarray, rows: np.ndarray, scale: np.ndarray, size: int) -> dict[str, np.ndarray]:
    """Scaled features (size, 4 H), labels and shares (size,), which are 0 for rows that fill up a last batch."""
    left, right = embeddings[rows[:, 0]], embeddings[rows[:, 1]]
    features = np.zeros((size, len(scale)), np.float32)
    features[: len(rows)] = scale * np.concatenate([left, right, left - right, left * right], axis=1)
    labels, shares = np.zeros(size, np.float32), np.zeros(size, np.float32)
    labels[: len(rows)], shares[: len(rows)] = rows[:, 2], 1 / len(rows)
    return {"features": features, "labels": labels, "shares": shares}


@functools.lru_cache(maxsize=1)
def _loss() -> Any:
    jax = require("jax", extra="train")

    def loss(weights: Mapping[str, Any], given: Mapping[str, Any], key: Any) -> tuple[Any, Mapping[str, Any]]:
        hidden = jax.nn.relu(given["features"] @ weights["w1"] + weights["b1"])
        scores = jax.nn.sigmoid(hidden @ weights["w2"] + weights["b2"])
        return (given["shares"] * (scores - given["labels"]) ** 2).sum(), {}

    return loss
