"""What n-grams weigh, and what documents score by the n-grams they hold (arXiv 2204.10628, LM+FM and intersective)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from pickaxe.errors import InvalidItems
from pickaxe_plugins.retrieval._token_index import TokenIndex

Key = tuple[int, ...]
Scoring = Literal["lm", "lm_fm", "intersective"]

LARGEST_COUNT = 10_000_000
"""Keys that occur more often are dropped."""


@dataclass(frozen=True)
class Settings:
    """How keys are weighed and put together; `Params` of `seal` says what each is."""

    alpha: float = 2.0
    beta: float = 0.8
    smoothing: float = 5.0
    length_penalty: float = 0.0
    max_hits: int = 1500
    fully_score: int = 1500
    unigrams: int = 5000
    unigram_keys: bool = True
    allow_overlaps: bool = False
    single_key: float = 0.0
    scoring: Scoring = "intersective"


def log_odds(logprobs: np.ndarray, counts: np.ndarray, total: int, smoothing: float) -> np.ndarray:
    """w(n, q) >= 0 of n-grams: how much likelier the query makes them than chance does, as a log odds ratio.

    `logprobs` log P(n|q) (m,); `counts` F(n) (m,) among `total` tokens.  0 for what does not occur.
    """
    given = np.minimum(np.asarray(logprobs, np.float64), 0.0) - 1e-10
    chance = (counts + smoothing) / (total + smoothing)
    with np.errstate(divide="ignore"):
        odds = given - np.log(-np.expm1(given)) - np.log(chance) + np.log1p(-np.minimum(chance, 1.0))
    return np.where(counts > 0, np.maximum(odds, 0.0), 0.0)


@dataclass(frozen=True)
class Weighed:
    """Keys that count, heaviest first (equal ones by their tokens)."""

    keys: tuple[Key, ...]
    weights: np.ndarray
    """float64 (m,), above 0."""
    counts: np.ndarray
    """int64 (m,): F of each."""
    low: np.ndarray
    high: np.ndarray
    unigrams: np.ndarray
    """float64 (vocabulary,): what each token adds where no key covers it."""

    @classmethod
    def of(
        cls,
        index: TokenIndex,
        logprobs: Mapping[Key, float],
        unigram_logprobs: np.ndarray | None,
        settings: Settings,
        special: Sequence[int] = (),
        vocabulary: int = 0,
    ) -> Weighed:
        """Weigh keys by log P(n|q); `unigram_logprobs` (v,) are those of single tokens, `special` weigh nothing.

        Raises `InvalidItems` for NaN.
        """
        keys = [key for key in logprobs if key]
        given = np.array([logprobs[key] for key in keys], np.float64)
        if np.isnan(given).any() or (unigram_logprobs is not None and np.isnan(unigram_logprobs).any()):
            raise InvalidItems("logprobs", "hold NaN: the language model's output is broken")
        low, high = index.ranges(keys)
        counts = high - low
        lengths = np.array([len(key) for key in keys], np.int64)
        if settings.scoring == "lm":
            weights = np.where(counts > 0, np.exp(given), 0.0)
        else:
            penalised = given * (1 - settings.length_penalty) ** (lengths - 1)
            weights = log_odds(penalised, counts, len(index), settings.smoothing) ** settings.alpha
        size = max(vocabulary, 0 if unigram_logprobs is None else len(unigram_logprobs))
        size = max(size, 1 + int(index.index.symbols.max(initial=0)), 1 + max((max(key) for key in keys), default=0))
        unigrams = np.zeros(size)
        if unigram_logprobs is not None and settings.unigrams and settings.scoring == "intersective":
            unigrams = _unigrams(index, unigram_logprobs, settings, size)
            unigrams[[token for token in special if token < size]] = 0
            unigrams[[key[0] for key in keys if len(key) == 1]] = 0
        found = dict(zip(keys, weights.tolist(), strict=True))
        if settings.unigram_keys:
            best = np.argsort(-unigrams, kind="stable")[: len(keys)]
            found |= {(token,): float(unigrams[token]) for token in best.tolist() if unigrams[token] > 0}
        alive = sorted((key for key, weight in found.items() if weight > 0), key=lambda key: (-found[key], key))
        low, high = index.ranges(alive)
        kept = np.flatnonzero(high - low <= LARGEST_COUNT)
        return cls(
            tuple(alive[row] for row in kept.tolist()),
            np.array([found[alive[row]] for row in kept.tolist()], np.float64),
            (high - low)[kept],
            low[kept],
            high[kept],
            unigrams,
        )

    # ------------------------------------------------------------ what the loops take

    @cached_property
    def lengths(self) -> np.ndarray:
        return np.array([len(key) for key in self.keys], np.int64)

    @cached_property
    def types(self) -> tuple[np.ndarray, np.ndarray]:
        """The distinct tokens of all keys, and where those of each begin."""
        distinct = [sorted(set(key)) for key in self.keys]
        spread = np.concatenate([[0], np.cumsum([len(each) for each in distinct])]).astype(np.int64)
        return np.array([token for each in distinct for token in each], np.int64), spread

    @cached_property
    def trie(self) -> tuple[np.ndarray, ...]:
        """roots, edges, offsets, targets, ends: node v has edges[offsets[v] : offsets[v + 1]], tokens to targets."""
        children: list[dict[int, int]] = [{}]
        ends = [-1]
        for row, key in enumerate(self.keys):
            node = 0
            for token in key:
                if token not in children[node]:
                    children[node][token] = len(children)
                    children.append({})
                    ends.append(-1)
                node = children[node][token]
            ends[node] = row
        offsets = np.concatenate([[0], np.cumsum([len(each) for each in children])]).astype(np.int64)
        pairs = [pair for each in children for pair in sorted(each.items())]
        edges, targets = (np.array([pair[side] for pair in pairs], np.int64) for side in range(2))
        roots = np.full(len(self.unigrams), -1, np.int64)
        for token, node in children[0].items():
            roots[token] = node
        return roots, edges, offsets, targets, np.array(ends, np.int64)


def _unigrams(index: TokenIndex, logprobs: np.ndarray, settings: Settings, size: int) -> np.ndarray:
    """w of the likeliest tokens (size,), not raised to alpha; 0 for all others."""
    counts = index.token_counts(size)
    weights = np.zeros(size)
    weights[: len(logprobs)] = log_odds(logprobs, counts[: len(logprobs)], len(index), settings.smoothing)
    if settings.unigrams < size:
        weights[np.argsort(-weights, kind="stable")[settings.unigrams :]] = 0
    return weights


@dataclass(frozen=True)
class Match:
    """A key in a document: tokens [start, end), the key's number and what it added (0 for its later places)."""

    start: int
    end: int
    key: int
    gain: float


@dataclass(frozen=True)
class Scorer:
    """Scores of documents for one query's keys; `end` is the token that closes documents."""

    index: TokenIndex
    settings: Settings
    end: int

    @property
    def _single(self) -> float:
        return self.settings.single_key if self.settings.scoring == "intersective" else 1.0

    def best(self, weighed: Weighed, k: int | None = None) -> list[tuple[int, float]]:
        """(document, score) of the `k` best (None: all) that hold a key, best first, equal ones by their order."""
        if not weighed.keys:
            return []
        candidates = self.candidates(weighed)
        scores = self.scores(weighed, candidates)
        order = np.lexsort((candidates, -scores))[:k]
        return [(int(candidates[row]), float(scores[row])) for row in order.tolist() if scores[row] > 0]

    def candidates(self, weighed: Weighed) -> np.ndarray:
        """Documents that hold a rare key: all of them, or the `fully_score` best of the first stage."""
        settings = self.settings
        rare = np.flatnonzero(weighed.counts <= settings.max_hits)
        which, document, first = self.index.occurrences(weighed.low[rare], weighed.high[rare], weighed.lengths[rare])
        found, owner = np.unique(document, return_inverse=True)
        if len(found) <= settings.fully_score:
            return found
        size = int(np.diff(self.index.starts)[found].max()) + 1
        codes = rare[which] * size + first + 1
        order = np.lexsort((codes, owner))
        bounds = np.searchsorted(owner[order], np.arange(len(found) + 1))
        scores = np.empty(len(found))
        self._kernels.first_stage(
            codes[order], bounds, size, weighed.weights, weighed.lengths, *weighed.types, len(weighed.unigrams),
            settings.beta, settings.allow_overlaps, scores,
        )  # fmt: skip
        return np.sort(found[np.lexsort((found, -scores))[: settings.fully_score]])

    def scores(self, weighed: Weighed, documents: np.ndarray) -> np.ndarray:
        """The full score of these documents, float64; 0 for those without a key."""
        scores = np.zeros(len(documents))
        self._kernels.score_all(
            self.index.tokens, self.index.starts, np.asarray(documents, np.int64), self.end, *weighed.trie,
            weighed.weights, weighed.lengths, *weighed.types, weighed.unigrams, self.settings.beta,
            self.settings.allow_overlaps, self._single, scores,
        )  # fmt: skip
        return scores

    def explain(self, weighed: Weighed, document: int) -> list[Match]:
        """The keys that were taken in a document, in the order in which they were, places in its own tokens."""
        kernels = self._kernels
        body = kernels.read(self.index.tokens, self.index.starts, document, self.end)
        found = kernels.matches(body, *weighed.trie)
        gains = np.empty(len(found))
        kernels.greedy(
            found, len(body), weighed.weights, weighed.lengths, *weighed.types, self.settings.beta,
            self.settings.allow_overlaps, 0, np.full(len(weighed.unigrams), -1), np.ones(len(body), bool), gains, True,
        )  # fmt: skip
        taken = np.flatnonzero(~np.isnan(gains))
        matches = []
        for code, gain in zip(found[taken].tolist(), gains[taken].tolist(), strict=True):
            key, place = divmod(code, len(body))
            matches.append(Match(place - 1, place - 1 + len(weighed.keys[key]), key, gain))
        return matches

    @property
    def _kernels(self) -> Any:
        from pickaxe_plugins.retrieval.seal import _kernels

        return _kernels
