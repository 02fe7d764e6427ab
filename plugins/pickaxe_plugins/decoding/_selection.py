"""Which of many samples to return: majority vote, best of n, score-weighted vote, and how often each is right."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

RULES = {
    "majority": "the most frequent answer",
    "best_of_n": "the best-scored sample",
    "weighted_majority": "the answer with the largest sum of scores",
}
"""The selection rules and what each returns."""

_TIE = 1e-12
"""Summed scores closer than this are a tie."""


def codes_of(answers: Sequence[Hashable]) -> np.ndarray:
    """Answers as numbers 0.. in order of first appearance: (n,) int64."""
    seen: dict[Hashable, int] = {}
    return np.fromiter((seen.setdefault(answer, len(seen)) for answer in answers), np.int64, len(answers))


def majority(answers: Sequence[Hashable]) -> int:
    """Index of the first sample that gave the most frequent answer; ties go to the answer seen first."""
    codes = codes_of(answers)
    return int(np.argmax(codes == np.argmax(np.bincount(codes))))


def best_of_n(scores: Sequence[float] | np.ndarray) -> int:
    """Index of the highest score; ties go to the first."""
    return int(np.argmax(np.asarray(scores, np.float64)))


def weighted_majority(answers: Sequence[Hashable], scores: Sequence[float]) -> int:
    """Index of the first sample of the answer with the largest sum of scores; ties within 1e-12: first seen."""
    codes = codes_of(answers)
    return int(np.argmax(codes == _first_within_tie(np.bincount(codes, np.asarray(scores, np.float64))[None])[0]))


def _first_within_tie(sums: np.ndarray) -> np.ndarray:
    """Per row the first column within a tie of the largest: columns stand in order of first appearance."""
    return np.argmax(sums >= sums.max(axis=1, keepdims=True) - _TIE, axis=1)


def subset_success(
    codes: np.ndarray,
    correct: np.ndarray,
    scores: np.ndarray | None,
    ks: Sequence[int],
    rounds: int,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Mean success of each rule on random subsets of every size in `ks` (rising): name → (K,) float64.

    `rounds` random orders of the n samples are drawn; the first k of an order are a random subset of size k.
    At k = n the samples stand as they are, so that value is exact.  Rules that need scores are left out
    without them.
    """
    n = len(codes)
    orders = rng.permuted(np.tile(np.arange(n), (rounds, 1)), axis=1)
    names = ("majority",) if scores is None else ("majority", "best_of_n", "weighted_majority")
    success = {name: np.empty(len(ks)) for name in names}
    for column, k in enumerate(ks):
        subsets = np.arange(n)[None] if k == n else np.sort(orders[:, :k], axis=1)
        for name, picked in _picks(codes[subsets], None if scores is None else scores[subsets]).items():
            success[name][column] = correct[subsets[np.arange(len(subsets)), picked]].mean()
    return success


def _picks(codes: np.ndarray, scores: np.ndarray | None) -> dict[str, np.ndarray]:
    """Per row of (R, k) samples, the position that each rule selects."""
    rows, k = codes.shape
    dense, first = _by_appearance(codes)
    flat = (dense + np.arange(rows)[:, None] * k).ravel()
    votes = np.bincount(flat, minlength=rows * k).reshape(rows, k)
    everyone = np.arange(rows)
    picks = {"majority": first[everyone, np.argmax(votes, axis=1)]}
    if scores is not None:
        sums = np.bincount(flat, scores.ravel(), rows * k).reshape(rows, k)
        sums = np.where(votes > 0, sums, -np.inf)
        picks["best_of_n"] = np.argmax(scores, axis=1)
        picks["weighted_majority"] = first[everyone, _first_within_tie(sums)]
    return picks


def _by_appearance(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each row's codes renumbered 0.. by first appearance, and the position where number i first stands."""
    rows, k = codes.shape
    width = int(codes.max()) + 1
    flat = codes + np.arange(rows)[:, None] * width
    where = np.full(rows * width, k)
    np.minimum.at(where, flat.ravel(), np.tile(np.arange(k), rows))
    firsts = where[flat]
    is_first = firsts == np.arange(k)
    number = np.cumsum(is_first, axis=1) - 1
    place = np.zeros((rows, k), np.int64)
    row, column = np.nonzero(is_first)
    place[row, number[row, column]] = column
    return np.take_along_axis(number, firsts, axis=1), place
