"""Drafts of one position, drawn by a law and put on trial so that the outcome is the target's own draw
(arXiv 2502.18779).

A draft that is rejected leaves less of the target to be drawn from; when all were, the token comes from what is
left, the residual.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Literal

import numpy as np

from pickaxe_plugins.decoding._speculation.multidraft import (
    Law,
    RatioOrder,
    greedy_optimum,
    greedy_recursive,
    most_probable,
)
from pickaxe_plugins.decoding._speculation.transport import Distribution, KSequential

Rule = Literal["greedy_optimal", "rrs", "k_sequential"]
"""How drafts are verified."""

PAIRS: tuple[tuple[Law, Rule], ...] = (
    ("greedy", "greedy_optimal"),
    ("greedy", "rrs"),
    ("without", "rrs"),
    ("with", "k_sequential"),
    ("with", "rrs"),
)
"""Laws with the rules that can verify their drafts, a law's best first."""

_NOTHING = 1e-15


# ---------------------------------------------------------------- drafts


def draw(law: Law, draft: Distribution, n: int, random: np.random.Generator) -> list[int]:
    """At most n tokens by the law, in the order in which they are tried; distinct ones unless drawn "with"."""
    if law == "with":
        return draft.tokens(random.random(n))
    n = min(n, int(np.count_nonzero(draft.probs)))
    if law == "without":
        return [draft.id(place) for place in _distinct(draft.probs, n, random)]
    top = most_probable(draft.probs, n - 1)
    rest = draft.probs.copy()
    rest[top] = 0.0
    return [draft.id(place) for place in (*top.tolist(), *_distinct(rest, 1, random))]


def _distinct(weights: np.ndarray, n: int, random: np.random.Generator) -> list[int]:
    """n places drawn without replacement: of independent draws, those that were not there before."""
    found: list[int] = []
    rest = weights.copy()
    while len(found) < n:
        drawn = Distribution(rest / rest.sum()).tokens(random.random(1 if n == 1 else 2 * n))
        found += list(dict.fromkeys(drawn))[: n - len(found)]
        rest[found] = 0.0
    return found


# ---------------------------------------------------------------- trials


def trial(law: Law, rule: Rule, target: Distribution, draft: Distribution, drafts: Sequence[int]) -> Trial:
    """The rule's trial of drafts that were drawn by the law; both make one of `PAIRS`."""
    if rule == "k_sequential":
        return Sequential(target, draft, drafts)
    if rule == "greedy_optimal":
        return GreedyOptimal(target, draft, drafts)
    if law == "greedy":
        return GreedyRecursive(target, draft, drafts)
    return Recursive(target, draft, drafts, distinct=law == "without")


def acceptance(
    law: Law, rule: Rule, target: np.ndarray, draft: np.ndarray, n: int, samples: int, random: np.random.Generator
) -> float:
    """Probability that one of n drafts is accepted, distributions being (V,) over the same tokens.

    Exact but for distinct drafts where their sequences are many: then estimated from so many `samples`.
    """
    if law == "greedy":
        return (greedy_optimum if rule == "greedy_optimal" else greedy_recursive)(target, draft, n)
    if rule == "k_sequential":
        return KSequential(Distribution(target), Distribution(draft), n).acceptance
    order = RatioOrder.of(target, draft)
    if law == "with":
        return order.recursive_with(n)
    exact = order.recursive_without(n)
    return order.estimated_without(n, samples, random)[0] if exact is None else exact


class Trial(ABC):
    """The drafts of one position before the target: the token that comes out is drawn as the target would.

    Target and draft are what tokens are drawn from, after temperature and cuts.  `drafts` are in drawing order.
    """

    def __init__(self, target: Distribution, draft: Distribution, drafts: Sequence[int]) -> None:
        self.target, self.draft, self.drafts = target, draft, drafts

    @abstractmethod
    def chances(self) -> Iterator[tuple[int, float]]:
        """The drafts that are tried, each with the probability that it is accepted if those before it were not."""

    @abstractmethod
    def residual(self) -> Distribution:
        """What the token is drawn from once all of `chances` were gone through and rejected."""

    def select(self, random: np.random.Generator) -> tuple[int, bool]:
        """(token, whether it is a draft): a uniform number per tried draft, and one more if none is accepted."""
        for token, chance in self.chances():
            if random.random() < chance:
                return token, True
        token = self.residual().token(random.random())
        return token, token in self.drafts

    def _above(self, covered: np.ndarray) -> Distribution:
        """The target's mass above `covered`, normed; where rounding alone led here, the target itself."""
        above = np.maximum(self.target.probs - covered, 0.0)
        total = above.sum()
        return Distribution(above / total, self.target.ids) if total > _NOTHING else self.target


class GreedyOptimal(Trial):
    """Greedy drafts, verified as well as can be: only the drawn one is tried.

    Top tokens come out of the residual, and are drafts that were accepted.
    """

    @cached_property
    def rest(self) -> Distribution:
        """What the last draft was drawn from: the draft's probabilities outside the top tokens."""
        rest = _without(self.draft, self.drafts[:-1])
        return Distribution(rest / rest.sum(), self.draft.ids)

    def chances(self) -> Iterator[tuple[int, float]]:
        drawn = self.drafts[-1]
        yield drawn, min(1.0, self.target.of(drawn) / self.rest.of(drawn))

    def residual(self) -> Distribution:
        return self._above(self.rest.over(self.target))


class GreedyRecursive(GreedyOptimal):
    """Greedy drafts, one after the other: each top token by its share of the target that is left, then the drawn."""

    @cached_property
    def _outside(self) -> Distribution:
        """The target outside the top tokens, not normed."""
        return Distribution(_without(self.target, self.drafts[:-1]), self.target.ids)

    def chances(self) -> Iterator[tuple[int, float]]:
        *top, drawn = self.drafts
        left = float(self._outside.probs.sum())
        own = [self.target.of(token) for token in top]
        for token, mass, ahead in zip(top, own, left + np.cumsum(own[::-1])[::-1], strict=True):
            yield token, mass / ahead
        yield drawn, min(1.0, self.target.of(drawn) / (left * self.rest.of(drawn)))

    def residual(self) -> Distribution:
        outside = self._outside.probs
        above = np.maximum(outside - outside.sum() * self.rest.over(self.target), 0.0)
        total = above.sum()
        return Distribution(above / total, self.target.ids) if total > _NOTHING else self.target


class Recursive(Trial):
    """Recursive rejection sampling: each draft in turn against what those before it have left of the target.

    All residuals are (t - a d)_+ normed.  Rejecting a draft that was drawn from d / left moves a on by
    (mass of the residual) / left; left is 1 for independent drafts.
    """

    def __init__(self, target: Distribution, draft: Distribution, drafts: Sequence[int], *, distinct: bool) -> None:
        super().__init__(target, draft, drafts)
        self._share, self._left = 0.0, np.ones(len(drafts))
        self._drafted = draft.over(target)
        self._own = [draft.of(token) for token in drafts]
        if distinct:  # summed up, since 1 minus the heavy ones is inexact
            self._left = float(_without(draft, drafts).sum()) + np.cumsum(self._own[::-1])[::-1]

    def chances(self) -> Iterator[tuple[int, float]]:
        share, mass = 0.0, 1.0
        for token, d, left in zip(self.drafts, self._own, self._left, strict=True):
            step = mass / float(left)
            yield token, min(1.0, max(0.0, self.target.of(token) - share * d) / (step * d))
            share += step
            self._share = share
            mass = float(np.maximum(self.target.probs - share * self._drafted, 0.0).sum())
            if mass <= _NOTHING:  # then rounding alone rejected the draft
                yield token, 1.0
                return

    def residual(self) -> Distribution:
        return self._above(self._share * self._drafted)


class Sequential(Trial):
    """k-sequential selection of independent drafts (arXiv 2310.15141)."""

    @cached_property
    def selection(self) -> KSequential:
        return KSequential(self.target, self.draft, len(self.drafts))

    def chances(self) -> Iterator[tuple[int, float]]:
        for token in self.drafts:
            yield token, min(1.0, self.target.of(token) / (self.selection.rho * self.draft.of(token)))

    def residual(self) -> Distribution:
        return self.selection.residual


def _without(distribution: Distribution, tokens: Sequence[int]) -> np.ndarray:
    """Its probabilities with those of these tokens set to 0."""
    rest, ids = distribution.probs.copy(), np.asarray(tokens, np.int64)
    if distribution.ids is None:
        ids = ids[ids < len(rest)]
    else:
        places = np.minimum(np.searchsorted(distribution.ids, ids), len(rest) - 1)
        ids = places[distribution.ids[places] == ids]
    rest[ids] = 0.0
    return rest
