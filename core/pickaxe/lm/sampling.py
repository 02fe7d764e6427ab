"""From a row of logits to a token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pickaxe.data import Sampling
from pickaxe.errors import InvalidParams, Unmet, Violation

STRIDE = 256
"""Weights that are summed at a time where one of them is looked for."""


@dataclass(frozen=True, slots=True)
class Draw:
    """`Sampling` with every open choice made: no limit on tokens kept, temperature 1, seed 0."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    @classmethod
    def of(cls, sampling: Sampling) -> Draw:
        """Raises `InvalidParams` for values outside their range."""
        temperature = 1.0 if sampling.temperature is None else sampling.temperature
        top_k = 0 if sampling.top_k is None else sampling.top_k
        top_p = 1.0 if sampling.top_p is None else sampling.top_p
        wrong = []
        if not (np.isfinite(temperature) and temperature >= 0):
            wrong.append(Violation("temperature", f"is {temperature}; must be a number of at least 0"))
        if top_k < 0:
            wrong.append(Violation("top_k", f"is {top_k}; must be at least 0 (0: no limit)"))
        if not 0 < top_p <= 1:
            wrong.append(Violation("top_p", f"is {top_p}; must be in (0, 1]"))
        if wrong:
            raise InvalidParams(wrong)
        return cls(temperature, top_k, top_p)

    def distribution(self, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(ids, probabilities) that a token is drawn from, in order of ids: tempered, cut, normed (float64)."""
        if self.temperature == 0:
            return np.array([_best(logits)[0]]), np.ones(1)
        weights = self._weights(logits)
        ids = self._kept(weights)
        probabilities = weights[ids].astype(np.float64)
        return ids, probabilities / probabilities.sum()

    def token(self, logits: np.ndarray, random: np.random.Generator) -> int:
        """The id drawn by inverting the distribution at one uniform number (none is used up when greedy)."""
        if self.temperature == 0:
            return _best(logits)[0]
        weights = self._weights(logits)
        if self.top_p == 1 and not 0 < self.top_k < len(weights):
            return drawn(weights, random.random())
        ids = self._kept(weights)
        return int(ids[drawn(weights[ids], random.random() if len(ids) > 1 else 0.0)])

    def _weights(self, logits: np.ndarray) -> np.ndarray:
        """Tempered and not normed: the heaviest weighs 1."""
        return np.exp((logits - _best(logits)[1]) / np.float32(self.temperature))

    def _kept(self, weights: np.ndarray) -> np.ndarray:
        """Ids that the cuts leave, in order."""
        if self.top_p < 1:
            return np.sort(_nucleus(weights, self.top_k, self.top_p))
        if 0 < self.top_k < len(weights):
            heaviest = _heaviest(weights, lambda candidates: len(candidates) >= self.top_k)
            return np.sort(heaviest[: self.top_k])
        return np.flatnonzero(weights)


def _best(logits: np.ndarray) -> tuple[int, np.float32]:
    """The first id with the highest logit, and that logit."""
    place = int(np.argmax(logits))
    if logits[place] == -np.inf:
        raise Unmet("every token is forbidden here: the logits processors contradict each other")
    return place, logits[place]


def drawn(weights: np.ndarray, uniform: float) -> int:
    """The place where the running sum of `weights` first exceeds this share, in [0, 1), of their total."""
    if len(weights) <= 2 * STRIDE:
        return _passed(np.cumsum(weights, dtype=np.float64), uniform, weights)
    parts = np.add.reduceat(weights, np.arange(0, len(weights), STRIDE), dtype=np.float64)  # a sum in many lanes
    sums = np.cumsum(parts)
    wanted = uniform * sums[-1]
    part = min(int(np.searchsorted(sums, wanted, side="right")), int(np.flatnonzero(parts)[-1]))
    within = weights[part * STRIDE : (part + 1) * STRIDE]
    left = (wanted - (sums[part - 1] if part else 0.0)) / parts[part]
    return part * STRIDE + _passed(np.cumsum(within, dtype=np.float64), left, within)


def _passed(sums: np.ndarray, uniform: float, weights: np.ndarray) -> int:
    place = int(np.searchsorted(sums, uniform * sums[-1], side="right"))
    return place if place < len(sums) else int(np.flatnonzero(weights)[-1])  # by rounding


def _nucleus(weights: np.ndarray, top_k: int, share: float) -> np.ndarray:
    """The fewest of the `top_k` heaviest ids (0: of all) that hold this share of those ids' weight."""
    if 0 < top_k < len(weights):
        kept = _heaviest(weights, lambda candidates: len(candidates) >= top_k)[:top_k]
        wanted = share * weights[kept].sum(dtype=np.float64)
    else:
        wanted = share * weights.sum(dtype=np.float64)
        kept = _heaviest(weights, lambda candidates: weights[candidates].sum(dtype=np.float64) >= wanted)
    mass = np.cumsum(weights[kept], dtype=np.float64)
    return kept[: int(np.searchsorted(mass, wanted, side="left")) + 1]


def _heaviest(weights: np.ndarray, enough: Callable[[np.ndarray], bool]) -> np.ndarray:
    """Ids of positive weight, heaviest first (then by id): so many that there are enough of them, or all.

    Looks below ever smaller bounds instead of sorting the whole vocabulary, of which few ids matter.
    """
    bound = np.float32(1e-2)  # the heaviest weight is 1
    while True:
        candidates = np.flatnonzero(weights > bound)
        if bound == 0 or enough(candidates):
            return candidates[np.argsort(-weights[candidates], kind="stable")]
        bound = bound / 64 if bound > 1e-12 else np.float32(0)


def logsumexp(logits: np.ndarray, peak: np.ndarray | None = None) -> np.ndarray:
    """Over the last axis, float64: logits minus it are natural log-probabilities.  `peak`: their maxima, if known."""
    best = logits.max(axis=-1) if peak is None else peak
    total: np.ndarray = np.log(np.exp(logits - best[..., None]).sum(axis=-1, dtype=np.float64)) + best
    return total


class StopText:
    """Finds stop strings in a stream of text and holds back what might become one."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = [text for text in stop if text]
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """(text that is certain to stay, whether a stop string was reached); the stop string is cut off."""
        self._held += text
        found = [place for place in (self._held.find(text) for text in self._stop) if place >= 0]
        if found:
            kept, self._held = self._held[: min(found)], ""
            return kept, True
        keep = max((self._open_end(text) for text in self._stop), default=0)
        kept, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return kept, False

    def flush(self) -> str:
        """What was held back, when nothing more comes."""
        held, self._held = self._held, ""
        return held

    def _open_end(self, stop: str) -> int:
        """Length of the longest end of the held text that begins the stop string."""
        for size in range(min(len(stop) - 1, len(self._held)), 0, -1):
            if self._held.endswith(stop[:size]):
                return size
        return 0
