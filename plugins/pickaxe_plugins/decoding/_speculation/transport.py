"""How to accept one of k drafts so that what comes out is the target's own draw (arXiv 2310.15141).

`Distribution` holds what a token is drawn from; `KSequential` is the paper's selection for k independent drafts
of one distribution; the functions below it say how often any selection could accept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pickaxe.errors import InvalidItems
from pickaxe.lm import drawn

SUM_TOLERANCE = 1e-3
"""How far from 1 the sum of a given distribution may be; it is renormalised."""
_NOTHING = 1e-15


@dataclass(frozen=True)
class Distribution:
    """Probabilities of tokens: float64 `probs` that sum to 1, of `ids` (ascending; None: 0, 1, 2, …)."""

    probs: np.ndarray
    ids: np.ndarray | None = None
    peak: float | None = None
    """What the largest probability was before temperature 0 made it 1, where that is known."""

    @classmethod
    def one(cls, token: int) -> Distribution:
        """All on one token."""
        return cls(np.ones(1), np.array([token]))

    def __len__(self) -> int:
        return len(self.probs)

    @property
    def surest(self) -> float:
        """The largest probability: how sure a draft is of its likeliest token."""
        return float(self.probs.max()) if self.peak is None else self.peak

    def id(self, place: int) -> int:
        """The token at this place of `probs`."""
        return place if self.ids is None else int(self.ids[place])

    def of(self, token: int) -> float:
        """Probability of one token."""
        if self.ids is None:
            return float(self.probs[token]) if token < len(self.probs) else 0.0
        place = int(np.searchsorted(self.ids, token))
        return float(self.probs[place]) if place < len(self.ids) and self.ids[place] == token else 0.0

    def over(self, other: Distribution) -> np.ndarray:
        """The probabilities that this distribution gives to the tokens of `other`, in their order."""
        if other.ids is None:
            if self.ids is None and len(self) >= len(other):
                return self.probs[: len(other)]
            dense = np.zeros(len(other))
            if self.ids is None:
                dense[: len(self)] = self.probs
            else:
                known = self.ids < len(other)
                dense[self.ids[known]] = self.probs[known]
            return dense
        if self.ids is None:
            known = other.ids < len(self)
            return np.where(known, self.probs[other.ids * known], 0.0)
        places = np.minimum(np.searchsorted(self.ids, other.ids), len(self.ids) - 1)
        return np.where(self.ids[places] == other.ids, self.probs[places], 0.0)

    def token(self, uniform: float) -> int:
        """The token where the cumulated probability first exceeds `uniform` in [0, 1)."""
        return self.id(drawn(self.probs, uniform))

    def tokens(self, uniforms: np.ndarray) -> list[int]:
        """One token per uniform number."""
        return [self.token(uniform) for uniform in uniforms.tolist()]


class Greedy(Distribution):
    """All on the token that has the highest of these logits (V,)."""

    def __init__(self, logits: np.ndarray, token: int) -> None:
        super().__init__(np.ones(1), np.array([token]))
        self.__dict__ |= {"_logits": logits, "top": token}

    _logits: np.ndarray
    top: int

    @cached_property
    def surest(self) -> float:  # on demand: only of a draft's law somebody asks
        return float(1 / np.exp(self._logits - self._logits[self.top]).sum())

    def of(self, token: int) -> float:
        return float(token == self.top)

    def token(self, uniform: float) -> int:
        return self.top


class Softmax(Distribution):
    """Of every token, in proportion to float32 `weights`: normed only when somebody wants all probabilities."""

    def __init__(self, logits: np.ndarray, temperature: float = 1.0) -> None:
        """Of logits (V,) that are not all -inf."""
        weights = logits - logits.max()
        if temperature != 1:
            weights /= np.float32(temperature)
        np.exp(weights, out=weights)
        self.__dict__ |= {"weights": weights, "total": float(weights.sum(dtype=np.float64)), "ids": None, "peak": None}

    weights: np.ndarray
    """The largest is 1."""
    total: float

    def __len__(self) -> int:
        return len(self.weights)

    @cached_property
    def probs(self) -> np.ndarray:  # a field there, made on demand here
        probs = self.weights.astype(np.float64)
        probs /= self.total
        return probs

    @property
    def surest(self) -> float:
        return 1 / self.total

    def of(self, token: int) -> float:
        return float(self.weights[token]) / self.total if token < len(self.weights) else 0.0

    def token(self, uniform: float) -> int:
        return drawn(self.weights, uniform)


def checked(values: object, where: str) -> np.ndarray:
    """float64 probabilities (V,) that sum to 1, or `InvalidItems` that names `where`."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not array.size:
        raise InvalidItems(where, f"has shape {array.shape}; must be one probability per token")
    if not np.isfinite(array).all() or array.min() < 0:
        raise InvalidItems(where, "holds a negative number, an infinite one or NaN; probabilities are needed")
    total = float(array.sum())
    if abs(total - 1) > SUM_TOLERANCE:
        raise InvalidItems(where, f"sums to {total:.6g}; probabilities must sum to 1 within {SUM_TOLERANCE}")
    return array / total


# ---------------------------------------------------------------- selection


@dataclass(frozen=True)
class KSequential:
    """Selection among k independent draws of `draft` such that the outcome is distributed as `target`.

    Each draft in turn is accepted with probability min(1, t(x) / (rho d(x))); if none is, the token comes from
    the residual.  `rho` is the smallest number that leaves no residual negative.
    """

    target: Distribution
    draft: Distribution
    k: int
    tolerance: float = 1e-12

    @cached_property
    def _mass(self) -> np.ndarray:
        return self.target.over(self.draft)

    @cached_property
    def rho(self) -> float:
        if self.k == 1:
            return 1.0
        return smallest_rho(self._mass, self.draft.probs, self.k, self.tolerance)

    @cached_property
    def beta(self) -> float:
        """Probability that one draft is accepted, when it is its turn."""
        return min(1.0, float(np.minimum(self.draft.probs, self._mass / self.rho).sum()))

    @cached_property
    def acceptance(self) -> float:
        """Probability that some draft is accepted."""
        return _any_of(self.beta, self.k)

    def accepts(self, token: int, uniform: float) -> bool:
        """Whether this draft is accepted at this uniform number in [0, 1)."""
        probability = self.draft.of(token)
        if probability <= 0:
            raise ValueError(f"token {token} was drafted although its draft probability is 0")
        return uniform <= min(1.0, self.target.of(token) / (self.rho * probability))

    @cached_property
    def residual(self) -> Distribution:
        """What the token is drawn from when no draft was accepted."""
        left = self._left()
        total = left.sum()
        return Distribution(left / total, self.target.ids) if total > _NOTHING else self.target

    def _left(self) -> np.ndarray:
        """The target's probabilities less what was accepted."""
        target = self.target.probs
        if self.k == 1:
            left = target.copy()
            if self.draft.ids is None and self.target.ids is None:
                known = min(len(self.draft), len(left))
                left[:known] -= self.draft.probs[:known]
            else:
                left -= self.draft.over(self.target)
            return np.maximum(left, 0.0, out=left)
        if self.beta <= 0:
            return target
        covered = np.minimum(self.draft.over(self.target), target / self.rho)
        return np.maximum(target - covered * (self.acceptance / self.beta), 0.0)

    def select(self, drafts: Iterable[int], random: np.random.Generator) -> tuple[int, bool]:
        """(token, whether it is a draft): a uniform number per draft until one is accepted, else one more."""
        for token in drafts:
            if self.accepts(token, random.random()):
                return token, True
        return self.residual.token(random.random()), False


def smallest_rho(target: np.ndarray, draft: np.ndarray, k: int, tolerance: float = 1e-12) -> float:
    """Smallest rho in [1, k] with rho beta(rho) >= 1 - (1 - beta(rho))^k, from above within `tolerance` (relative).

    beta(rho) = sum min(d, t / rho).  Both arrays are over the same tokens, the draft's support.  Between two
    values of t / d it is a + b / rho, so each step solves one such piece exactly and looks which piece holds there.
    """
    low, high, rho = 1.0, float(k), 1.0
    if k == 1:
        return 1.0
    whole = float(draft.sum())
    while high - low > tolerance * high:
        below = target < rho * draft  # sums, not dot products: those start threads, which costs more here
        a, b = whole - float((draft * below).sum()), float((target * below).sum())
        if _excess(a, b, k, rho) >= (-_NOTHING if rho == 1 else 0):
            high = rho
        else:
            low = rho
        root = _root(a, b, k, low, high, tolerance)
        if high - root <= tolerance * high:
            break
        rho = root if root - low > tolerance * low else (low + high) / 2
    return high


def _excess(a: float, b: float, k: int, rho: float) -> float:
    """rho beta - (1 - (1 - beta)^k) for beta = a + b / rho; grows with rho."""
    beta = min(1.0, max(0.0, a + b / rho))
    return rho * beta - _any_of(beta, k)


def _root(a: float, b: float, k: int, low: float, high: float, tolerance: float) -> float:
    """The upper end of where `_excess` changes its sign in [low, high]."""
    while high - low > tolerance * high / 4:
        middle = (low + high) / 2
        if _excess(a, b, k, middle) >= 0:
            high = middle
        else:
            low = middle
    return high


def _any_of(beta: float, k: int) -> float:
    """1 - (1 - beta)^k."""
    return 1.0 if beta >= 1 else -math.expm1(k * math.log1p(-beta))


# ---------------------------------------------------------------- what could be accepted


def single_draft(target: np.ndarray, draft: np.ndarray) -> float:
    """Acceptance of one draft at best: 1 - TV(t, d).  Arrays (V,) over the same tokens, as in all below."""
    return float(np.minimum(target, draft).sum())


def upper_bound(target: np.ndarray, draft: np.ndarray, k: int) -> float:
    """sum min(t, 1 - (1 - d)^k): no token can be accepted more often than it is among the drafts."""
    among = -np.expm1(k * np.log1p(-np.minimum(draft, 1 - 1e-16)))
    return float(np.minimum(target, among).sum())


def ratio_order(target: np.ndarray, draft: np.ndarray) -> np.ndarray:
    """Tokens by t / d, lowest first; those with d = 0 last; equal ones in order of ids."""
    ratio = np.full(len(target), np.inf)
    np.divide(target, draft, out=ratio, where=draft > 0)
    return np.argsort(ratio, kind="stable")


def over_prefixes(target_mass: np.ndarray, q: np.ndarray) -> tuple[float, int]:
    """(optimal acceptance, length of a prefix that gives it) from the dual of the transport problem.

    Row i of both (V,) is about the first i + 1 tokens in `ratio_order`: the target's mass of them, and the
    probability that all drafts lie among them.  alpha = 1 + min over prefixes, the empty one too, of their
    difference (arXiv 2502.18779).
    """
    difference = target_mass - q
    place = int(np.argmin(difference))
    if difference[place] >= 0:
        return 1.0, 0
    return 1.0 + float(difference[place]), place + 1


def optimal(target: np.ndarray, draft: np.ndarray, k: int) -> float:
    """Best acceptance that any selection can have with k independent drafts."""
    order = ratio_order(target, draft)
    return over_prefixes(np.cumsum(target[order]), np.cumsum(draft[order]) ** k)[0]
