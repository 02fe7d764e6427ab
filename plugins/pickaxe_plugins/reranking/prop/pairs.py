"""Pairs of word sets: which of the two a document's language model finds more likely."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

import pickaxe
from pickaxe_plugins.reranking.prop.statistics import TIE, Counts, Statistics, smoothed

ROUNDS = 50
"""Times that pairs of equal likelihood are drawn again; those that stay equal are left out."""
EXTRA = 100
"""Background words of a document that has enough of its own."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two sets of equally many words, the more likely one first."""

    positive: tuple[str, ...]
    negative: tuple[str, ...]


def right_one(first: float, second: float) -> int:
    """Which set is the positive one, 1 or 2: the more likely; of equal ones the second, as in the official code."""
    return 1 if first > second + TIE else 2


@dataclass(frozen=True)
class Sampler:
    """Draws pairs from a corpus's statistics.  A document's pairs depend on the seed and its id alone."""

    statistics: Statistics
    background: np.ndarray
    """P(w|C), (v,)."""
    keep: np.ndarray
    """Probability that a drawn word is kept, (v,)."""
    mu: float
    poisson_lambda: float = 3.0
    support_size: int = 500
    keep_ties: bool = False
    forms: Mapping[str, Mapping[str, int]] | None = None
    """Words that stems stood for, when words are stems."""

    def pairs(self, document: Counts, count: int, seed: int, name: str) -> list[Pair]:
        """At most `count` pairs: fewer for documents that hardly have two different sets."""
        random = pickaxe.generator(seed, "pairs", name)
        support = self._support(document, random)
        chances = smoothed(document, self.background, self.mu, support)
        totals = np.cumsum(chances * self.keep[support])
        if not len(totals) or totals[-1] <= 0:
            return []
        logs = np.log(np.maximum(chances, 1e-300))
        lengths = _lengths(random, self.poisson_lambda, count)
        found: list[tuple[np.ndarray, np.ndarray] | None] = [None] * count
        open_ones = np.arange(count)
        for _ in range(ROUNDS):
            first, second = (self._sets(random, totals, lengths[open_ones]) for _ in range(2))
            equal = []
            for place, one, other in zip(open_ones.tolist(), first, second, strict=True):
                ahead, behind = float(logs[one].sum()), float(logs[other].sum())
                if abs(ahead - behind) <= TIE and not self.keep_ties:
                    equal.append(place)
                else:
                    found[place] = (one, other) if right_one(ahead, behind) == 1 else (other, one)
            open_ones = np.array(equal, np.int64)
            if not equal:
                break
        return [
            Pair(self._words(support[pair[0]], random), self._words(support[pair[1]], random))
            for pair in found
            if pair is not None
        ]

    def _support(self, document: Counts, random: np.random.Generator) -> np.ndarray:
        """The document's words that have a background probability, and some of the background, rising."""
        own = document.numbers[self.background[document.numbers] > 0]
        totals, missing = np.cumsum(self.background), self.support_size - len(own)
        if not len(totals) or totals[-1] <= 0:
            return own
        return np.union1d(own, _draw(random, totals, missing if missing > 0 else EXTRA))

    def _sets(self, random: np.random.Generator, totals: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
        """Places in the support.  To draw and then keep with a probability is to draw by the product of both."""
        return np.split(_draw(random, totals, int(lengths.sum())), np.cumsum(lengths)[:-1])

    def _words(self, numbers: np.ndarray, random: np.random.Generator) -> tuple[str, ...]:
        """The words; of a stem one that it stood for, drawn by log(count + 1)."""
        chosen = [self.statistics.vocabulary[number] for number in numbers.tolist()]
        if not self.forms:
            return tuple(chosen)
        return tuple(_surface(self.forms[word], random) for word in chosen)


def _surface(forms: Mapping[str, int], random: np.random.Generator) -> str:
    totals = np.cumsum(np.log(np.array(list(forms.values())) + 1.0))
    return list(forms)[int(_draw(random, totals, 1)[0])]


def _lengths(random: np.random.Generator, rate: float, count: int) -> np.ndarray:
    """Poisson numbers, drawn again until they are above 0."""
    found = random.poisson(rate, count)
    while len(zeros := np.flatnonzero(found == 0)):
        found[zeros] = random.poisson(rate, len(zeros))
    return found


def _draw(random: np.random.Generator, totals: np.ndarray, count: int) -> np.ndarray:
    """Places of `count` draws by these cumulative weights."""
    drawn = np.searchsorted(totals, random.random(count) * totals[-1], side="right")
    return np.minimum(drawn, len(totals) - 1)
