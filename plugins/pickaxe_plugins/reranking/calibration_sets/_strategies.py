"""Which candidates of a document make its calibration set.

Candidates stand best aggregate first, and every strategy keeps that order in what it returns.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Literal

import numpy as np

from pickaxe.errors import InvalidParams
from pickaxe_plugins.reranking.calibration_sets._text import SelfBleu

Reference = Literal["positive", "ensure", "remove"]


@dataclass(frozen=True)
class Pool:
    """Candidates of one document, best aggregate first; NaN where a candidate has no value."""

    aggregate: np.ndarray
    texts: Sequence[str] = ()
    sample_idx: np.ndarray = field(default_factory=lambda: np.empty(0))
    likelihood: np.ndarray = field(default_factory=lambda: np.empty(0))
    density: np.ndarray = field(default_factory=lambda: np.empty(0))
    own: np.ndarray = field(default_factory=lambda: np.empty(0, bool))
    """Which candidates are the model's own beams; the surprise strategies look at those only."""

    def __len__(self) -> int:
        return len(self.aggregate)

    @cached_property
    def lengths(self) -> np.ndarray:
        return np.array([len(text.split()) for text in self.texts])

    @cached_property
    def bleu(self) -> SelfBleu:
        return SelfBleu(self.texts)


@dataclass(frozen=True)
class Search:
    """How subsets are searched: all of them up to `limit`, else as many random ones."""

    limit: int
    rng: Callable[[], np.random.Generator]

    def subsets(self, n: int, k: int) -> np.ndarray:
        """(C, k) places in rising order."""
        if math.comb(n, k) <= self.limit:
            return _all_subsets(n, k)
        rng = self.rng()
        drawn = np.array([rng.choice(n, k, replace=False) for _ in range(self.limit)])
        drawn.sort(axis=1)
        return drawn


Strategy = Callable[[Pool, int, Search], "Sequence[int] | np.ndarray"]
"""(pool of at least k candidates, k, search) -> places of those to take, in any order."""


@functools.lru_cache(maxsize=16)
def _all_subsets(n: int, k: int) -> np.ndarray:
    found = np.array(list(combinations(range(n), k)), np.int64).reshape(-1, k)
    found.setflags(write=False)
    return found


def _random(pool: Pool, k: int, search: Search) -> np.ndarray:
    return search.rng().choice(len(pool), k, replace=False)


def _ends(pool: Pool, k: int, search: Search) -> list[int]:
    return [*range(k // 2), *range(len(pool) - k // 2, len(pool))]


def _middle(pool: Pool, k: int, search: Search) -> range:
    half, centre = k // 2, len(pool) // 2
    return range(centre - half, centre + half)


def _spread(pool: Pool, k: int, search: Search) -> np.ndarray:
    """Both ends, which alone decide the gap, and places evenly between them."""
    return np.linspace(0, len(pool) - 1, k).round().astype(int)


def _window(pool: Pool, k: int, search: Search) -> range:
    """The k neighbours with the least spread: for sorted values no other set has a smaller mean gap."""
    spread = pool.aggregate[: len(pool) - k + 1] - pool.aggregate[k - 1 :]
    start = int(spread.argmin())
    return range(start, start + k)


def _by(value: Callable[[Pool], np.ndarray], sign: int) -> Strategy:
    """The k with the largest (sign 1) or smallest (-1) value; of equal ones those with the better aggregate."""

    def take(pool: Pool, k: int, search: Search) -> np.ndarray:
        return np.argsort(-sign * value(pool), kind="stable")[:k]

    return take


def _wide_beam(pool: Pool, k: int, search: Search) -> np.ndarray:
    order = np.argsort(pool.sample_idx, kind="stable")
    return order[_ends(pool, k, search)]


def _diverse(sign: int) -> Strategy:
    def take(pool: Pool, k: int, search: Search) -> np.ndarray:
        subsets = search.subsets(len(pool), k)
        chosen: np.ndarray = subsets[int((sign * pool.bleu.diversity(subsets)).argmax())]
        return chosen

    return take


def _surprising(sign: int) -> Strategy:
    """sign 1: the model's ranking disagrees most with the metric."""

    def take(pool: Pool, k: int, search: Search) -> np.ndarray:
        own = np.flatnonzero(pool.own)
        if len(own) <= k:
            return own
        subsets = search.subsets(len(own), k)
        agreement = _agreement(pool.aggregate[own], -pool.sample_idx[own], subsets)
        chosen: np.ndarray = own[subsets[int((-sign * agreement).argmax())]]
        return chosen

    return take


def _agreement(left: np.ndarray, right: np.ndarray, subsets: np.ndarray) -> np.ndarray:
    """`spearman` of two values (n,) over subsets (C, k), from which candidate is above which."""
    pairs = subsets[:, :, None] * len(left) + subsets[:, None, :]
    a, b = (np.sign(each[:, None] - each).astype(np.float32).take(pairs).sum(2) for each in (left, right))
    return _correlation(a, b)


def spearman(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Rank correlations of (C, k) with (C, k), ties sharing their mean rank; 0 where a side is constant."""
    return _correlation(_ranks(left), _ranks(right))


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    scale = np.sqrt((a * a).sum(1, dtype=float) * (b * b).sum(1, dtype=float))
    return np.divide((a * b).sum(1, dtype=float), scale, out=np.zeros(len(a)), where=scale > 0)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Twice the ranks less their mean: how many are below minus how many are above."""
    values = np.asarray(values, float)
    return np.sign(values[:, :, None] - values[:, None, :]).sum(2)


def _sample_idx(pool: Pool) -> np.ndarray:
    return pool.sample_idx


RELEVANCE: Mapping[str, Strategy] = {
    "random": _random,
    "max_margin": _ends,
    "extreme": _ends,
    "min_margin": _middle,
    "average": _middle,
    "max_metric": _by(lambda pool: pool.aggregate, 1),
    "min_metric": lambda pool, k, search: range(len(pool) - k, len(pool)),
    "max_gap": _spread,
    "min_gap": _window,
    "max_diversity": _diverse(1),
    "min_diversity": _diverse(-1),
    "top_beam": _by(_sample_idx, -1),
    "bottom_beam": _by(_sample_idx, 1),
    "wide_beam": _wide_beam,
    "max_length": _by(lambda pool: pool.lengths, 1),
    "min_length": _by(lambda pool: pool.lengths, -1),
    "max_surprise": _surprising(1),
    "min_surprise": _surprising(-1),
}
"""Strategies for a pool of mixed candidates."""

_IN_PAIRS = (_ends, _middle, _wide_beam)
"""They take 2 (k // 2) candidates; one alone is the middle one."""

_HEAD, _TAIL = RELEVANCE["max_metric"], RELEVANCE["min_metric"]
_LIKELY, _UNLIKELY = (_by(lambda pool: pool.likelihood, sign) for sign in (1, -1))

FAITHFULNESS: Mapping[str, tuple[Strategy, Strategy]] = {
    "random": (_random, _random),
    "max_margin": (_HEAD, _TAIL),
    "min_margin": (_TAIL, _HEAD),
    "avg_margin": (_middle, _middle),
    "hard": (_UNLIKELY, _LIKELY),
    "easy": (_LIKELY, _UNLIKELY),
    "max_extractive_gap": (_by(lambda pool: pool.density, 1), _by(lambda pool: pool.density, -1)),
    "max_diversity": (_diverse(1), _diverse(1)),
    "min_diversity": (_diverse(-1), _diverse(-1)),
}
"""Strategies for positives and for negatives."""

NEEDS: Mapping[str, str] = {
    "top_beam": "sample_idx",
    "bottom_beam": "sample_idx",
    "wide_beam": "sample_idx",
    "max_surprise": "sample_idx",
    "min_surprise": "sample_idx",
    "hard": "likelihood",
    "easy": "likelihood",
    "max_extractive_gap": "density",
}
"""Strategy -> the field that it cannot do without."""


def relevant_set(pool: Pool, strategy: str | Strategy, k: int, search: Search) -> list[int]:
    """k places of the pool in its order; with fewer candidates the last one is repeated."""
    take = RELEVANCE.get(strategy) if isinstance(strategy, str) else strategy
    if take is None:
        raise InvalidParams("strategy", f"{strategy!r} is unknown for relevance; known are {', '.join(RELEVANCE)}")
    return _padded(_taken(pool, take, k, search), k)


def faithful_set(
    positives: Pool,
    negatives: Pool,
    strategy: str | tuple[Strategy, Strategy],
    counts: tuple[int, int],
    search: Search,
    reference: int | None = None,
    status: Reference = "positive",
) -> tuple[list[int], list[int]]:
    """Places of so many positives and negatives, each side in its pool's order and padded by its last one.

    `reference` is the reference's place among the positives; `status` says whether it counts like any other, is
    always in, or never.
    """
    sides = FAITHFULNESS.get(strategy) if isinstance(strategy, str) else strategy
    if sides is None:
        raise InvalidParams(
            "strategy", f"{strategy!r} is unknown for faithfulness; known are {', '.join(FAITHFULNESS)}"
        )
    n_pos, n_neg = counts
    chosen = _padded(_taken(negatives, sides[1], n_neg, search), n_neg)
    if reference is None or status == "positive":
        return _padded(_taken(positives, sides[0], n_pos, search), n_pos), chosen
    rest = [place for place in range(len(positives)) if place != reference]
    wanted = n_pos - (status == "ensure")
    others = _taken(_part(positives, rest), sides[0], wanted, search) if wanted else []
    kept = sorted([rest[place] for place in others] + ([reference] if status == "ensure" else []))
    return _padded(kept, n_pos), chosen


def _taken(pool: Pool, take: Strategy, k: int, search: Search) -> list[int]:
    wanted = 2 * (k // 2) if take in _IN_PAIRS else k
    if not wanted:
        return [len(pool) // 2][: len(pool)]
    if len(pool) <= wanted:
        return list(range(len(pool)))
    return sorted(int(place) for place in take(pool, k, search))


def _padded(places: list[int], count: int) -> list[int]:
    return places + places[-1:] * (count - len(places))


def _part(pool: Pool, rows: Sequence[int]) -> Pool:
    def of(values: np.ndarray) -> np.ndarray:
        return values[list(rows)] if len(values) else values

    return Pool(
        of(pool.aggregate),
        [pool.texts[row] for row in rows] if pool.texts else (),
        of(pool.sample_idx),
        of(pool.likelihood),
        of(pool.density),
        of(pool.own),
    )
