"""Training and test parts of the three protocols of `interp-extrap`, and what test and training queries share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pickaxe import Call
from pickaxe.errors import InvalidItems
from pickaxe.metrics import Qrels
from pickaxe.randomness import generator
from pickaxe_plugins.evaluation.interp_extrap import _similarity as similarity

Sampling = Literal["ascending", "random_dissimilar"]


@dataclass(frozen=True)
class Splits:
    """F trainings: `training` (F, n_train) who takes part; `side` (F, n_test) 0 interpolation, 1 extrapolation, -1 not
    tested; `nearest` (F, n_test) highest similarity to a training query that takes part."""

    training: np.ndarray
    side: np.ndarray
    nearest: np.ndarray


def resttest(train: np.ndarray, test: np.ndarray, centroids: np.ndarray, call: Call) -> Splits:
    """Fold b trains without bucket b; the test queries of bucket b extrapolate there, all others interpolate."""
    k = len(centroids)
    of_train, of_test = similarity.assign(train, centroids), similarity.assign(test, centroids)
    training = of_train != np.arange(k)[:, None]
    if len(lost := np.flatnonzero(~training.any(axis=1))):
        raise InvalidItems("examples", f"all lie in bucket {lost[0]}: its fold has none to train on; try another k")
    by_bucket = similarity.nearest(train, test, of_train, k, call)
    others = np.where(np.eye(k, dtype=bool)[:, None], -np.inf, by_bucket[None]).max(axis=2)
    return Splits(training, (of_test == np.arange(k)[:, None]).astype(np.int8), others)


@dataclass(frozen=True)
class Resample:
    """How ReSTrain draws its two sets."""

    n_per_query: int
    sampling: Sampling
    tau: float
    balance: bool


def restrain(train: np.ndarray, test: np.ndarray, how: Resample, seed: int, call: Call) -> tuple[Splits, np.ndarray]:
    """Training 0 on the neighbours of the test queries, training 1 on as many dissimilar ones; similarities (n_train,).

    The test set is the same for both.
    """
    found = similarity.neighbours(train, test, how.n_per_query, call)
    near, rest = np.flatnonzero(found.near), np.flatnonzero(~found.near)
    if not len(rest):
        raise InvalidItems(
            "examples", f"are all among the {how.n_per_query} nearest of a test query: lower n_per_query or give more"
        )
    if how.sampling == "ascending":
        order = rest[np.argsort(found.similarity[rest], kind="stable")]
    else:
        below = rest[found.similarity[rest] <= np.quantile(found.similarity, how.tau)]
        order = generator(seed, "random_dissimilar").permutation(below)
        if not len(order):
            raise InvalidItems("examples", f"hold none below the similarity quantile tau={how.tau}: raise tau")
    far = order[: len(near)]
    if how.balance and len(far) < len(near):
        near = near[np.argsort(-found.similarity[near], kind="stable")][: len(far)]
    training = np.zeros((2, len(train)), bool)
    training[0, near] = training[1, far] = True
    side = np.repeat(np.array([[0], [1]], np.int8), len(test), axis=1)
    closest = [similarity.nearest(train[rows], test, np.zeros(rows.sum(), int), 1, call)[:, 0] for rows in training]
    return Splits(training, side, np.stack(closest)), found.similarity


def sliced(train: np.ndarray, test: np.ndarray, tau: float, call: Call) -> Splits:
    """One training on everything; test queries up to the quantile tau of nearest similarity count as far."""
    closest = similarity.nearest(train, test, np.zeros(len(train), int), 1, call)[:, 0]
    side = (closest <= np.quantile(closest, tau)).astype(np.int8)
    return Splits(np.ones((1, len(train)), bool), side[None], closest[None])


def label_overlap(train: Qrels, test: Qrels, min_overlap: int = 1, rel_threshold: int = 1) -> list[str]:
    """Test queries with at least `min_overlap` relevant passages that are relevant for a training query too.

    The paper's words say 1, its script counts from 2 on.  Relevant: a grade of `rel_threshold` or more.
    """
    seen = {passage for grades in train.values() for passage, grade in grades.items() if grade >= rel_threshold}
    return [
        query
        for query, grades in test.items()
        if sum(grade >= rel_threshold and passage in seen for passage, grade in grades.items()) >= min_overlap
    ]


def shared_labels(train: Sequence[Mapping[str, str]], test: Sequence[Mapping[str, str]]) -> dict[str, float]:
    """Share of the test queries whose label (entity, intent ...) a training query has too, for each kind of label."""
    shares = {}
    for kind in dict.fromkeys(name for labels in test for name in labels):
        known = {labels[kind] for labels in train if kind in labels}
        own = [labels[kind] for labels in test if kind in labels]
        shares[kind] = sum(value in known for value in own) / len(own)
    return shares
