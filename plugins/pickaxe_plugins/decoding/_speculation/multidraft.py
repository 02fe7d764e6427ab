"""How often a token of the target can be among n drafts: the optimum, and recursive rejection (arXiv 2502.18779).

Target t and draft d are distributions over the same vocabulary.  The best coupling of the drafts' joint law with t
keeps its token among the drafts with probability

    1 + min over token sets H of [ t(H) - Q(H) ],   Q(H) = P(all n drafts lie in H),

and for drafts drawn independently or without replacement the best H is a prefix of the tokens sorted by t/d.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from math import lgamma
from typing import Literal

import numpy as np

from pickaxe_plugins.decoding._speculation.transport import over_prefixes, ratio_order

Law = Literal["greedy", "without", "with"]
"""How n drafts come about: the n - 1 most probable tokens and one drawn from the rest; n drawn without replacement;
n drawn independently."""

ENUMERABLE = 8
"""Largest vocabulary of which all sequences of drafts are gone through."""
_CERTAIN = 30.0
"""A token whose race has lasted this many of its mean times has rung: exp(-30) is nothing."""
_NEVER = 1e-13
_FINE = 4096
"""Up to so many tokens the quadrature takes a finer step, which then costs nothing that matters."""
_BLOCK = 32_768


@dataclass(frozen=True)
class RatioOrder:
    """Target and draft (W,) over the tokens that can be drafted, by t/d ascending, equal ones in order of ids.

    `outside` is the target's mass on tokens that cannot be drafted, which come last in the order.
    """

    target: np.ndarray
    draft: np.ndarray
    outside: float

    @classmethod
    def of(cls, target: np.ndarray, draft: np.ndarray) -> RatioOrder:
        """Of two distributions (V,) that sum to 1."""
        order = ratio_order(target, draft)[: np.count_nonzero(draft)]
        return cls(target[order], draft[order], float(target[draft == 0].sum()))

    @property
    def support(self) -> int:
        """Number of tokens that can be drafted."""
        return len(self.draft)

    # ------------------------------------------------------------ the optimum

    def optimum(self, n: int, law: Literal["without", "with"]) -> tuple[float, int]:
        """Best acceptance of n drafts, and how many tokens of this order make the minimising set."""
        value, length = over_prefixes(np.cumsum(self.target), self.all_inside(n, law)[1:])
        return max(0.0, value), length

    def all_inside(self, n: int, law: Literal["without", "with"]) -> np.ndarray:
        """Q (W + 1,): the probability that all n drafts are among the first k tokens, k = 0, …, W.

        Without replacement there are at most `support` drafts.
        """
        n = min(n, self.support) if law == "without" else n
        if law == "with" or n == 1:
            return _sums_before(self.draft) ** n
        if n == 2:
            return self._both_inside()
        return _enough_rang(self.draft, self._draft_after, n)

    def _both_inside(self) -> np.ndarray:
        """Q of a first draft and one of the rest."""
        heaviest = int(np.argmax(self.draft))
        others = self.draft.copy()
        others[heaviest] = 0.0
        first = others / self._beside
        found = _sums_before(self.draft) * _sums_before(first) - _sums_before(others * first)
        found[heaviest + 1 :] += self.draft[heaviest] / self._beside[heaviest] * _sums_before(others)[heaviest + 1 :]
        return np.clip(found, 0.0, 1.0)

    # ------------------------------------------------------------ recursive rejection

    # A draft from q = d / left that is tried against r = (t - a d)_+ / m and rejected leaves (t - (a + m / left) d)_+
    # normed.  So every residual is of one family: the number a says which, and its mass is the chance to come there.

    def excess(self, share: float | np.ndarray) -> np.ndarray:
        """Sum of (t - share d)_+ over the vocabulary, for each share ≥ 0."""
        first = np.searchsorted(self._ratio, share, side="right")
        found: np.ndarray = np.maximum(self._target_after[first] - share * self._draft_after[first], 0.0)
        return found

    def recursive_with(self, n: int) -> float:
        """Acceptance of recursive rejection of n independent drafts."""
        share = 0.0
        for _ in range(n):
            share += float(self.excess(share))
        return float(1.0 - self.excess(share))

    def recursive_without(self, n: int) -> float | None:
        """Acceptance of recursive rejection of n distinct drafts where their sequences are few: n <= 2, or at most
        `ENUMERABLE` tokens.  None elsewhere."""
        n = min(n, self.support)
        if n == 1:
            return float(1.0 - self.excess(1.0))
        if n == 2:
            return self._recursive_two()
        if self.support > ENUMERABLE:
            return None
        paths = np.array(list(permutations(range(self.support), n - 1)), np.int64)
        likely = np.ones(len(paths))
        for place in range(n - 1):
            likely *= self.draft[paths[:, place]] / self._left(paths[:, :place])
        return float(1.0 - likely @ self._rejected(paths))

    def _recursive_two(self) -> float:
        """Only tokens with t < d can be rejected first, each then leads to a residual of its own."""
        first = self.excess(1.0)
        if first == 0.0:
            return 1.0
        able = int(np.searchsorted(self._ratio, 1.0))
        rejected = self.draft[:able] - self.target[:able]
        return float(1.0 - rejected @ self.excess(1.0 + first / self._beside[:able]) / first)

    def estimated_without(self, n: int, samples: int, random: np.random.Generator) -> tuple[float, float]:
        """The same from so many (at least 2) drawn sequences of drafts, and its standard error."""
        rejected = self._rejected(self._distinct(min(n, self.support) - 1, samples, random))
        return float(1.0 - rejected.mean()), float(rejected.std(ddof=1) / np.sqrt(samples))

    def _rejected(self, paths: np.ndarray) -> np.ndarray:
        """(P,): chance that n drafts are all rejected, if the first n - 1 are `paths` (P, n - 1) and the last is any.

        `paths` hold places in this order.
        """
        share, mass, rejected = np.zeros(len(paths)), np.ones(len(paths)), np.ones(len(paths))
        for place in range(paths.shape[1] + 1):
            step = mass / self._left(paths[:, :place])
            following = self.excess(share + step)
            if place == paths.shape[1]:
                chance = following / mass
            else:
                d, t = self.draft[paths[:, place]], self.target[paths[:, place]]
                chance = 1.0 - np.clip((t - share * d) / (step * d), 0.0, 1.0)
            rejected *= np.where(following > 0, chance, 0.0)
            share = share + step
            mass = np.where(following > 0, following, 1.0)
        return rejected

    # ------------------------------------------------------------ distinct drafts

    def _distinct(self, count: int, samples: int, random: np.random.Generator) -> np.ndarray:
        """(samples, count) places drawn without replacement."""
        drawn = np.empty((samples, 0), np.int64)
        rows = np.arange(samples)
        for _ in range(count):
            begin, end, mass = self._runs(drawn)
            up_to = np.cumsum(mass, axis=1)
            point = random.random(samples) * up_to[:, -1]
            run = (up_to[:, :-1] <= point[:, None]).sum(axis=1)
            begin, end = begin[rows, run], end[rows, run]
            inside = np.maximum(point - up_to[rows, run] + mass[rows, run], 0.0)
            place = np.searchsorted(self._lighter, self._lighter[begin] + inside, side="right") - 1
            place = np.clip(place, begin, np.maximum(end - 1, begin))
            drawn = np.column_stack([drawn, self._by_weight[place]])
        return drawn

    def _left(self, taken: np.ndarray) -> np.ndarray:
        """(P,): the draft's mass beside the taken places (P, k)."""
        left: np.ndarray = self._runs(taken)[2].sum(axis=1)
        return left

    def _runs(self, taken: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Runs (P, k + 1) of tokens by weight between the taken places (P, k): begin, end and mass.

        Sums of lighter tokens alone are exact where 1 minus the heavier ones would not be.
        """
        edges = np.sort(self._rank[taken], axis=1)
        outer = np.zeros((len(taken), 1), np.int64)
        begin = np.concatenate([outer, edges + 1], axis=1)
        end = np.concatenate([edges, outer + self.support], axis=1)
        return begin, end, self._lighter[end] - self._lighter[begin]

    @cached_property
    def _by_weight(self) -> np.ndarray:
        return np.argsort(self.draft, kind="stable")

    @cached_property
    def _rank(self) -> np.ndarray:
        rank = np.empty(self.support, np.int64)
        rank[self._by_weight] = np.arange(self.support)
        return rank

    @cached_property
    def _lighter(self) -> np.ndarray:
        return _sums_before(self.draft[self._by_weight])

    # ------------------------------------------------------------ sums

    @cached_property
    def _ratio(self) -> np.ndarray:
        return self.target / self.draft

    @cached_property
    def _beside(self) -> np.ndarray:
        """1 - d; of the heaviest token it is summed up, as there may be next to nothing beside it."""
        heaviest = int(np.argmax(self.draft))
        beside = 1.0 - self.draft
        beside[heaviest] = self.draft[:heaviest].sum() + self.draft[heaviest + 1 :].sum()
        return beside

    @cached_property
    def _draft_after(self) -> np.ndarray:
        return _sums_after(self.draft)

    @cached_property
    def _target_after(self) -> np.ndarray:
        return _sums_after(self.target) + self.outside


def _sums_before(values: np.ndarray) -> np.ndarray:
    """(W + 1,): sums of the first k values."""
    return np.concatenate([[0.0], np.cumsum(values)])


def _sums_after(values: np.ndarray) -> np.ndarray:
    """(W + 1,): sums of all but the first k values, added from the end, so that small ones are exact."""
    return np.concatenate([np.cumsum(values[::-1])[::-1], [0.0]])


def _enough_rang(draft: np.ndarray, after: np.ndarray, n: int) -> np.ndarray:
    """Q (W + 1,) of n >= 2 distinct drafts, all prefixes in one quadrature.

    Let token i ring at rate d_i: drafts without replacement are the first n to ring.  They lie in a prefix if n of
    its tokens have rung when the first token outside does, at a time T of rate r = `after`:
    Q = int r exp(-r T) P(n of the prefix rang by T) dT, by the trapezoid rule in ln T.
    """
    found = np.zeros(len(after))
    step = 0.25 if len(draft) <= _FINE else 0.4
    first = (lgamma(n + 1) + np.log(_NEVER)) / n  # before, n tokens have rung with a probability below T^n / n!
    last = np.log(45.0 / after[-2])
    times = np.exp(np.arange(first, last + step, step))
    rows = max(1, _BLOCK // len(after))
    certain = False
    for begin in range(0, len(times), rows):
        block = times[begin : begin + rows, None]
        near = int(np.searchsorted(-after, -45.0 / block[0, 0]))  # further out, exp(-r T) has vanished
        rate = after[near:] * block
        weight = step * rate * np.exp(-rate)
        if not certain:
            rang = 1.0 - _fewer_rang(draft, block, n)[:, near:]
            certain = bool(rang[-1, 0] > 1.0 - _NEVER)
            weight *= rang
        found[near:] += weight.sum(axis=0)
    found[:n] = 0.0
    found[-1] = 1.0
    return np.clip(found, 0.0, 1.0)


def _fewer_rang(draft: np.ndarray, times: np.ndarray, n: int) -> np.ndarray:
    """(M, W + 1): probability that fewer than n of the first k tokens have rung by each time (M, 1).

    P(exactly j) = exp(-S T) E_j, E_j(k) = sum over i <= k of (exp(d_i T) - 1) E_{j-1}(i - 1).  Tokens that have
    certainly rung are counted apart, so that nothing overflows.
    """
    elapsed = draft * times
    certain = elapsed > _CERTAIN
    any_certain = bool(certain.any())
    if any_certain:
        elapsed[certain] = 0.0
    weight = np.exp(elapsed)
    weight -= 1.0
    shape = len(times), len(draft) + 1
    silent, exactly, below, counted = np.zeros(shape), np.ones(shape), np.ones(shape), np.zeros(shape, np.int64)
    np.cumsum(elapsed, axis=1, out=silent[:, 1:])
    if any_certain:
        np.cumsum(certain, axis=1, out=counted[:, 1:])
        below = (counted < n).astype(np.float64)
    for j in range(1, n):
        exactly[:, 1:] = np.cumsum(weight * exactly[:, :-1], axis=1)
        exactly[:, 0] = 0.0
        below += np.where(counted < n - j, exactly, 0.0) if any_certain else exactly
    below *= np.exp(-silent)
    return below


# ---------------------------------------------------------------- greedy drafts


def most_probable(draft: np.ndarray, count: int) -> np.ndarray:
    """The `count` most probable tokens, best first, the lowest id first among equals."""
    if count == 0:
        return np.empty(0, np.int64)
    bound = np.partition(draft, len(draft) - count)[len(draft) - count]
    candidates = np.flatnonzero(draft >= bound)
    return candidates[np.argsort(-draft[candidates], kind="stable")[:count]]


def greedy_rest(draft: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The n - 1 most probable tokens, and the draft (V,) renormalised outside them.

    Fewer than n tokens that can be drafted are used as they are, the last one as the drawn one.
    """
    top = most_probable(draft, min(n, int(np.count_nonzero(draft))) - 1)
    rest = draft.copy()
    rest[top] = 0.0
    return top, rest / rest.sum()


def greedy_optimum(target: np.ndarray, draft: np.ndarray, n: int) -> float:
    """Best acceptance of greedy drafts: t(top) + sum of min(t, q) outside, for q as in `greedy_rest`."""
    top, rest = greedy_rest(draft, n)
    return float(target[top].sum() + np.minimum(target, rest).sum())


def greedy_recursive(target: np.ndarray, draft: np.ndarray, n: int) -> float:
    """Acceptance of recursive rejection of greedy drafts: the drawn one meets what the top ones left of t."""
    top, rest = greedy_rest(draft, n)
    left = np.delete(target, top).sum()
    return float(target[top].sum() + np.minimum(target, left * rest)[rest > 0].sum())
