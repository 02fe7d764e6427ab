"""Pairs of word sets: which of the two a document's language model finds more likely."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

import pickaxe
from pickaxe_plugins.reranking.prop._statistics import TIE, Counts, Statistics, smoothed

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
        # To draw a word and then keep it with some probability is to draw by the product of both.
        totals = np.cumsum(chances * self.keep[support])
        if not len(totals) or totals[-1] <= 0:
            return []
        logs = np.log(np.maximum(chances, 1e-300))
        lengths = _lengths(random, self.poisson_lambda, count)
        found: dict[int, Pair] = {}
        open_ones = np.arange(count)
        for _ in range(ROUNDS):
            sizes = lengths[open_ones]
            starts = np.cumsum(sizes) - sizes
            sets = [draw(random, totals, int(sizes.sum())) for _ in range(2)]
            ahead, behind = (np.add.reduceat(logs[each], starts) for each in sets)
            equal = (np.abs(ahead - behind) <= TIE) & (not self.keep_ties)
            first = [self._words(support[each], random) for each in sets]
            for row in np.flatnonzero(~equal).tolist():
                part = slice(int(starts[row]), int(starts[row] + sizes[row]))
                one, other = (tuple(each[part]) for each in first)
                won = right_one(float(ahead[row]), float(behind[row])) == 1
                found[int(open_ones[row])] = Pair(one, other) if won else Pair(other, one)
            open_ones = open_ones[equal]
            if not len(open_ones):
                break
        return [found[place] for place in sorted(found)]

    @cached_property
    def _background(self) -> np.ndarray:
        return np.cumsum(self.background)

    def _support(self, document: Counts, random: np.random.Generator) -> np.ndarray:
        """The document's words that have a background probability, and some of the background, rising."""
        own = document.numbers[self.background[document.numbers] > 0]
        totals, missing = self._background, self.support_size - len(own)
        if not len(totals) or totals[-1] <= 0:
            return own
        return np.union1d(own, draw(random, totals, missing if missing > 0 else EXTRA))

    def _words(self, numbers: np.ndarray, random: np.random.Generator) -> list[str]:
        """The words; of a stem one that it stood for, drawn by log(count + 1)."""
        chosen = [self.statistics.vocabulary[number] for number in numbers.tolist()]
        return [_surface(self.forms[word], random) for word in chosen] if self.forms else chosen


def _surface(forms: Mapping[str, int], random: np.random.Generator) -> str:
    totals = np.cumsum(np.log(np.array(list(forms.values())) + 1.0))
    return list(forms)[int(draw(random, totals, 1)[0])]


def _lengths(random: np.random.Generator, rate: float, count: int) -> np.ndarray:
    """Poisson numbers, drawn again until they are above 0."""
    found = random.poisson(rate, count)
    while len(zeros := np.flatnonzero(found == 0)):
        found[zeros] = random.poisson(rate, len(zeros))
    return found


def draw(random: np.random.Generator, totals: np.ndarray, count: int) -> np.ndarray:
    """Places of `count` draws by these cumulative weights."""
    drawn = np.searchsorted(totals, random.random(count) * totals[-1], side="right")
    return np.minimum(drawn, len(totals) - 1)
