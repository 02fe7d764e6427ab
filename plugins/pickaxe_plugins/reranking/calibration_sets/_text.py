"""What texts have in common: extractive fragments (arXiv:1804.11283), ROUGE-n and self-BLEU."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ORDERS = 4
"""Longest n-grams of self-BLEU."""


def words(text: str) -> list[str]:
    """Runs of letters and digits in lower case."""
    return re.findall(r"\w+", text.lower())


@dataclass(frozen=True, slots=True)
class Fragments:
    """The stretches of a summary that stand in its source: (start in summary, start in source, length) each."""

    found: tuple[tuple[int, int, int], ...]
    summary: int
    """Tokens of the summary."""
    source: int
    """Tokens of the source."""

    @property
    def coverage(self) -> float:
        """Share of the summary's tokens that are copied, 0 for an empty summary."""
        return sum(length for _, _, length in self.found) / self.summary if self.summary else 0.0

    @property
    def density(self) -> float:
        """Mean over the summary's tokens of the length of their fragment: at most the summary's length."""
        return sum(length**2 for _, _, length in self.found) / self.summary if self.summary else 0.0

    @property
    def compression(self) -> float:
        """Tokens of the source per token of the summary; 0 for an empty summary."""
        return self.source / self.summary if self.summary else 0.0


def fragments(summary: Sequence[str], source: Sequence[str]) -> Fragments:
    """Greedy fragments: at each place the longest match in the source, the first of equal ones, then behind it.

    As in the official code, the search goes on behind a match, so matches that begin inside one are not seen.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for place, token in enumerate(source):
        places[token].append(place)
    found, start = [], 0
    while start < len(summary):
        best, at, resume = 0, 0, 0
        for place in places.get(summary[start], ()):
            if place < resume:
                continue
            length = _shared(summary, start, source, place)
            resume = place + length
            if length > best:
                best, at = length, place
        if best:
            found.append((start, at, best))
        start += max(best, 1)
    return Fragments(tuple(found), len(summary), len(source))


def _shared(left: Sequence[str], start: int, right: Sequence[str], place: int) -> int:
    length = 0
    while start + length < len(left) and place + length < len(right) and left[start + length] == right[place + length]:
        length += 1
    return length


def rouge(candidate: Sequence[str], reference: Sequence[str], n: int) -> float:
    """ROUGE-n F1 in percent; 0 when either side has no n-gram."""
    ours, theirs = _grams(candidate, n), _grams(reference, n)
    total = ours.total() + theirs.total()
    return 200 * (ours & theirs).total() / total if total else 0.0


def _grams(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(tokens[place:] for place in range(n)), strict=False))


class SelfBleu:
    """BLEU-4 of each text of a set against the others as references, for many subsets of one pool.

    Orders above 1 are smoothed by adding 1 to hits and total; texts shorter than 4 words have fewer orders.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        tokens = [text.lower().split() for text in texts]
        self._lengths = np.array([len(each) for each in tokens], np.int64)
        counts: list[Counter[tuple[str, ...]]] = [
            sum((_grams(each, n) for n in range(1, ORDERS + 1)), Counter()) for each in tokens
        ]
        holders = Counter(gram for count in counts for gram in count)
        self._hits = [_hits(row, counts, holders) for row in range(len(tokens))]

    def diversity(self, subsets: np.ndarray) -> np.ndarray:
        """Mean of 1 - self-BLEU over the members of each subset: (C, k) places -> (C,) float64; 0 for k = 1."""
        count, k = subsets.shape
        total = np.zeros(count)
        if k == 1:
            return total
        for member in range(len(self._lengths)):
            rows, slots = np.nonzero(subsets == member)
            if not len(rows):
                continue
            others = subsets[rows][np.arange(k) != slots[:, None]].reshape(len(rows), k - 1)
            np.add.at(total, rows, 1 - self._bleu(member, others))
        return total / k

    def _bleu(self, member: int, others: np.ndarray) -> np.ndarray:
        length = int(self._lengths[member])
        if not length:
            return np.zeros(len(others))
        hits, orders = self._hits[member]
        best = hits[others[:, 0]]
        for slot in range(1, others.shape[1]):
            best = np.maximum(best, hits[others[:, slot]])
        clipped = best @ orders
        used = min(ORDERS, length)
        totals = length - np.arange(used)
        plus = np.arange(used) > 0
        with np.errstate(divide="ignore"):  # no common word: log 0, and BLEU is 0
            score = np.exp(np.log((clipped[:, :used] + plus) / (totals + plus)).mean(axis=1))
        return score * self._brevity(length, self._lengths[others])

    @staticmethod
    def _brevity(length: int, references: np.ndarray) -> np.ndarray:
        """Penalty against the reference of the nearest length, the shorter of two equally near ones."""
        nearness = np.abs(references - length) * (references.max() + 1) + references
        nearest = np.take_along_axis(references, nearness.argmin(axis=1)[:, None], 1)[:, 0]
        return np.exp(np.minimum(0.0, 1 - nearest / length))


def _hits(
    row: int, counts: Sequence[Counter[tuple[str, ...]]], holders: Counter[tuple[str, ...]]
) -> tuple[np.ndarray, np.ndarray]:
    """Clipped counts (n, G) of a text's grams in every text, and (G, orders) which order each gram has.

    Grams that no other text holds are left out: they never count.
    """
    grams = [gram for gram in counts[row] if holders[gram] > 1]
    hits = np.array([[min(counts[row][gram], other[gram]) for gram in grams] for other in counts], np.float32)
    orders = np.zeros((len(grams), ORDERS), np.float32)
    orders[np.arange(len(grams)), [len(gram) - 1 for gram in grams]] = 1
    return hits.reshape(len(counts), len(grams)), orders
