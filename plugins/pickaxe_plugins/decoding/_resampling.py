"""Resampling until a verifier passes, from counts: exact curves, their limits, the best number of attempts.

For tasks of n samples, of which v pass the verifier, g pass it and are correct, and u are correct at all
(arXiv 2411.17501).  Attempts are drawn without replacement.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pickaxe_plugins.decoding._passk import pass_at_k

TOLERANCE = 1e-12
"""Rewards closer than this are equal: plateaus differ by rounding only."""


@dataclass(frozen=True)
class Counts:
    """The tasks of one run; every array is (T,) int64."""

    n: np.ndarray
    v: np.ndarray
    g: np.ndarray
    u: np.ndarray

    def __len__(self) -> int:
        return len(self.n)

    def of(self, rows: np.ndarray) -> Counts:
        """The tasks of a mask or of row numbers."""
        return Counts(self.n[rows], self.v[rows], self.g[rows], self.u[rows])

    @property
    def correct_if_passed(self) -> np.ndarray:
        """g/v, (T,): how often what the verifier passes is correct; 0 where nothing passes."""
        return np.divide(self.g, self.v, out=np.zeros(len(self)), where=self.v > 0)


@dataclass(frozen=True)
class Stakes:
    """What answers are worth: `correct` > 0 for a right one, `wrong` <= 0 for a false positive, `attempt` >= 0."""

    correct: float = 1.0
    wrong: float = -1.0
    attempt: float = 0.0

    def of_a_pass(self, correct: np.ndarray) -> np.ndarray:
        """Expected value of an answer that is correct with this probability."""
        return self.correct * correct + self.wrong * (1 - correct)


def none_passed(n: np.ndarray, v: np.ndarray, top: int) -> np.ndarray:
    """C(n-v, K) / C(n, K) for K = 0..top, (T, top+1): chance that K attempts all fail.  top <= min n.

    A running product of (1 - v/n) (1 - v/(n-1)) …, which is 0 as soon as more attempts than failures are drawn.
    """
    drawn = np.arange(top)
    chances = np.ones((len(n), top + 1))
    left = n[:, None] - drawn
    np.cumprod(np.maximum(left - v[:, None], 0) / left, axis=1, out=chances[:, 1:])
    return chances


@dataclass(frozen=True)
class Curves:
    """Means over tasks at K = 1..top attempts, each (top,): the parts that every reward is made of."""

    passed: np.ndarray
    accuracy: np.ndarray
    attempts: np.ndarray

    @property
    def false_positive(self) -> np.ndarray:
        """Probability of handing out a wrong answer."""
        return self.passed - self.accuracy

    def reward(self, stakes: Stakes) -> np.ndarray:
        return stakes.correct * self.accuracy + stakes.wrong * self.false_positive - stakes.attempt * self.attempts


def exact_curves(counts: Counts, top: int) -> Curves:
    """The curves as closed forms.  Tasks with equal (n, v) are computed once, a block of them at a time."""
    pairs, place, tasks = np.unique(counts.n * (counts.n.max() + 1) + counts.v, return_inverse=True, return_counts=True)
    right = np.bincount(place, counts.correct_if_passed)
    n, v = np.divmod(pairs, counts.n.max() + 1)
    failing, lost = np.zeros(top + 1), np.zeros(top + 1)
    size = max(1, _BLOCK // (top + 1))
    for start in range(0, len(pairs), size):
        block = slice(start, start + size)
        waiting = none_passed(n[block], v[block], top)
        failing += tasks[block] @ waiting
        lost += right[block] @ waiting
    failing, lost = failing / len(counts), lost / len(counts)
    return Curves(1 - failing[1:], lost[0] - lost[1:], np.cumsum(failing[:-1]))


_BLOCK = 1 << 22
"""Chances that are computed together."""


def simulated_curves(counts: Counts, top: int, rounds: int, rngs: Iterable[np.random.Generator]) -> Curves:
    """The same from random permutations of every task's samples, as in the public notebooks; a generator per task."""
    passed, right = np.zeros(top), np.zeros(top)
    for n, v, g, rng in zip(counts.n, counts.v, counts.g, rngs, strict=True):
        if v:
            order = rng.permuted(np.tile(np.arange(n), (rounds, 1)), axis=1)  # samples below v pass, below g rightly
            first = np.argmax(order < v, axis=1)
            rightly = np.take_along_axis(order, first[:, None], axis=1)[:, 0] < g
            passed += np.bincount(first, minlength=top)[:top]
            right += np.bincount(first[rightly], minlength=top)[:top]
    total = rounds * len(counts)
    passed, right = np.cumsum(passed) / total, np.cumsum(right) / total
    return Curves(passed, right, np.cumsum(np.concatenate([[1.0], 1 - passed[:-1]])))


@dataclass(frozen=True)
class Tries:
    """What each task comes to within `k` attempts, (T,) each; more than its n samples are not drawn."""

    passed: np.ndarray
    attempts: np.ndarray

    @classmethod
    def within(cls, counts: Counts, k: int) -> Tries:
        passed, reach = np.empty(len(counts)), np.minimum(k, counts.n)
        for each in np.unique(reach):
            rows = reach == each
            passed[rows] = pass_at_k(counts.n[rows], counts.v[rows], np.array([each]))[:, 0]
        attempts = (counts.n + 1 - (counts.n + 1 - reach) * (1 - passed)) / (counts.v + 1)
        return cls(passed, attempts)

    def reward(self, counts: Counts, stakes: Stakes) -> np.ndarray:
        return self.passed * stakes.of_a_pass(counts.correct_if_passed) - stakes.attempt * self.attempts


def best(reward: np.ndarray) -> int:
    """The first K = 1.. of the highest reward; 0 where trying gains nothing."""
    top = reward.max()
    return 0 if top <= TOLERANCE else int(np.argmax(reward >= top - TOLERANCE)) + 1


def false_positives_by_attempt(curves: Curves) -> list[dict[str, Any]]:
    """P(wrong | the first pass is attempt K) for K in bins [1], [2, 3], [4, 7] …

    It rises with K where late passes are those of hard tasks.  `share` is the probability that the first pass falls
    into the bin; the rate is None where none can.
    """
    top = len(curves.passed)
    passed, wrong = (np.concatenate([[0.0], curve]) for curve in (curves.passed, curves.false_positive))
    bins = []
    for low in (1 << power for power in range(top.bit_length())):
        high = min(2 * low - 1, top)
        share = float(passed[high] - passed[low - 1])
        rate = float(np.clip((wrong[high] - wrong[low - 1]) / share, 0, 1)) if share > TOLERANCE else None
        bins.append({"from": low, "to": high, "share": max(share, 0.0), "false_positive_rate": rate})
    return bins


@dataclass(frozen=True)
class Limits:
    """What no number of attempts gets past, and what the verifier is worth."""

    single: float
    """Accuracy of one sample without a verifier: mean u/n."""
    conditional: float
    """Mean g/v over tasks that some sample passes; NaN without one."""
    limit_worst: float
    """Mean g/v, tasks without a pass counting as wrong."""
    limit_best: float
    """The same with those tasks as right."""
    soundness: float
    """Share of wrong samples that the verifier rejects, pooled; NaN without a wrong sample."""
    soundness_notebook: float
    """The public notebook's mix of means over tasks; NaN where it is not defined."""

    @classmethod
    def of(cls, counts: Counts) -> Limits:
        right, solved = counts.correct_if_passed, counts.v > 0
        single = float((counts.u / counts.n).mean())
        conditional = float(right[solved].mean()) if solved.any() else float("nan")
        wrong = int((counts.n - counts.u).sum())
        let_through = float((counts.v / counts.n).mean())
        rightly = conditional * let_through if solved.any() else 0.0
        return cls(
            single,
            conditional,
            float(right.mean()),
            float(np.where(solved, right, 1.0).mean()),
            1 - int((counts.v - counts.g).sum()) / wrong if wrong else float("nan"),
            (1 - let_through - single + rightly) / (1 - single) if wrong else float("nan"),
        )
