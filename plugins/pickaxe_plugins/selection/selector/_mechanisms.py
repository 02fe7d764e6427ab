"""Selection mechanisms: from utilities to how often each item is used (arXiv 2402.16827, section 2).

Utilities are float64 arrays (n,) without NaN, higher is better; ties go to the earlier row.  Masks are bool (n,),
counts int64 (n,).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np


def descending(scores: np.ndarray) -> np.ndarray:
    """Rows from the best to the worst; equal scores keep their order."""
    return np.argsort(-np.asarray(scores, np.float64), kind="stable")


def _mask(n: int, rows: np.ndarray) -> np.ndarray:
    kept = np.zeros(n, bool)
    kept[rows] = True
    return kept


def threshold(scores: np.ndarray, at_least: float | None = None, at_most: float | None = None) -> np.ndarray:
    """Rows within both bounds; those exactly at a bound are in."""
    kept = np.ones(len(scores), bool)
    if at_least is not None:
        kept &= scores >= at_least
    if at_most is not None:
        kept &= scores <= at_most
    return kept


def top_k(scores: np.ndarray, k: int) -> np.ndarray:
    return _mask(len(scores), descending(scores)[:k])


def top_fraction(scores: np.ndarray, fraction: float, sizes: np.ndarray | None = None) -> np.ndarray:
    """The smallest prefix of the descending order whose sizes reach `fraction` of all; the crossing item is in.

    Without `sizes` each item counts 1.  A relative slack of 1e-12 forgives the rounding of `fraction * total`.
    """
    order = descending(scores)
    weights = np.ones(len(order)) if sizes is None else np.asarray(sizes, np.float64)[order]
    reached = np.cumsum(weights)
    if not len(order):
        return np.zeros(0, bool)
    wanted = fraction * reached[-1] * (1 - 1e-12)
    return _mask(len(order), order[: int(np.searchsorted(reached, wanted)) + 1])


def per_group(scores: np.ndarray, groups: np.ndarray, fraction: float) -> np.ndarray:
    """The best ceil(fraction * n_g) of every group."""
    kept = np.zeros(len(scores), bool)
    _, inverse = np.unique(groups, return_inverse=True)
    order = descending(scores)
    by_group = order[np.argsort(inverse[order], kind="stable")]
    ends = np.cumsum(np.bincount(inverse))
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        kept[by_group[start : start + math.ceil(fraction * (end - start) * (1 - 1e-12))]] = True
    return kept


def at_quantile(scores: np.ndarray, q: float, values: np.ndarray | None = None) -> np.ndarray:
    """Rows at or beyond the quantile `q` of `values` (of the scores themselves, unless given), -inf left out."""
    base = scores if values is None else values
    base = np.sort(base[base > -np.inf])
    if not len(base):
        return np.zeros(len(scores), bool)
    place = q * (len(base) - 1)
    below = int(place)
    bound = base[below]
    if place > below and base[below + 1] > bound:
        bound += (place - below) * (base[below + 1] - bound)
    return np.asarray(scores >= bound)


def draws(seed: int, purpose: str, ids: Sequence[str]) -> np.ndarray:
    """One uniform number in (0, 1) per id; it depends on seed, purpose and id alone, never on order or shard."""
    key = hashlib.blake2b(f"{seed}\x1f{purpose}".encode("utf-8", "surrogatepass"), digest_size=32).digest()
    digests = b"".join(
        hashlib.blake2b(each.encode("utf-8", "surrogatepass"), digest_size=8, key=key).digest() for each in ids
    )
    return ((np.frombuffer(digests, "<u8") >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def gumbel(uniform: np.ndarray) -> np.ndarray:
    """Standard Gumbel noise of uniform numbers in (0, 1)."""
    return -np.log(-np.log(uniform))


def gumbel_top_k(scores: np.ndarray, k: int, noise: np.ndarray, tau: float = 1.0) -> np.ndarray:
    """The k largest of score + tau * noise: k draws without replacement, proportional to exp(score / tau).

    Scores of -inf are never drawn.
    """
    possible = np.flatnonzero(scores > -np.inf)
    return _mask(len(scores), possible[descending(scores[possible] + tau * noise[possible])[:k]])


def pareto_probability(scores: np.ndarray, alpha: float = 9.0) -> np.ndarray:
    """(2 - s) ** -alpha for scores in [0, 1]: the chance that a Lomax(alpha) draw exceeds 1 - s."""
    return (2.0 - np.clip(scores, 0.0, 1.0)) ** -alpha


def pareto(scores: np.ndarray, uniform: np.ndarray, alpha: float = 9.0) -> np.ndarray:
    return uniform < pareto_probability(scores, alpha)


def resample(scores: np.ndarray, n: int, generator: np.random.Generator, tau: float = 1.0) -> np.ndarray:
    """Counts of n draws with replacement, each proportional to exp(score / tau)."""
    if not len(scores) or not np.isfinite(top := np.max(scores)):
        return np.zeros(len(scores), np.int64)
    weights = np.exp((scores - top) / tau)
    return generator.multinomial(n, weights / weights.sum()).astype(np.int64)


def shares(sizes: np.ndarray, total: float, weights: np.ndarray, temperature: float, cap: float | None) -> np.ndarray:
    """Uses of each group: `total` * w ** (1 / temperature), normalised; at most `cap` times its size.

    What a cap cuts off goes to the groups below theirs, in proportion; the sum falls short only when all are full.
    """
    powered = np.where(weights > 0, weights, 0.0) ** (1.0 / temperature)
    limits = np.full(len(sizes), np.inf) if cap is None else cap * sizes
    uses = np.zeros(len(sizes))
    free = powered > 0
    while free.any():
        left = total - uses[~free].sum()
        uses[free] = left * powered[free] / powered[free].sum()
        over = free & (uses > limits)
        if not over.any():
            break
        uses[over] = limits[over]
        free &= ~over
    return uses


def _whole(uses: np.ndarray, limits: np.ndarray | float) -> np.ndarray:
    """Whole numbers with the same sum: rounded down, and the largest remainders up where the limits allow it."""
    whole = np.floor(uses + 1e-9)
    room = whole + 1 <= limits + 1e-9
    order = np.argsort(np.where(room, whole - uses, np.inf), kind="stable")[: room.sum()]
    left = int(np.floor(uses.sum() + 1e-6) - whole.sum())
    whole[order[:left]] += 1
    return whole.astype(np.int64)


def epochs(
    scores: np.ndarray,
    groups: np.ndarray,
    total: float,
    *,
    weights: Mapping[str, float] | None = None,
    temperature: float = 1.0,
    cap: float | None = None,
) -> np.ndarray:
    """Counts that give each group its share of `total` uses (`shares`); without weights, groups weigh by size.

    Every item of a group is used as often, and the best ones once more to make up its number.
    """
    names, inverse = np.unique(groups, return_inverse=True)
    sizes = np.bincount(inverse, minlength=len(names)).astype(np.float64)
    wanted = sizes if weights is None else np.array([weights.get(str(name), 0.0) for name in names])
    uses = _whole(shares(sizes, total, wanted, temperature, cap), np.inf if cap is None else cap * sizes)
    counts = np.zeros(len(scores), np.int64)
    order = descending(scores)
    for group in range(len(names)):
        rows = order[inverse[order] == group]
        whole, rest = divmod(int(uses[group]), len(rows))
        counts[rows] = whole
        counts[rows[:rest]] += 1
    return counts


def z_scores(values: np.ndarray, among: np.ndarray | None = None) -> np.ndarray:
    """(value - mean) / population deviation of `among` (the values themselves); 0 where nothing varies.

    NaN stays NaN and does not count.
    """
    base = values if among is None else among
    base = base[~np.isnan(base)]
    if not len(base):
        return np.full(len(values), np.nan)
    deviation = float(base.std())
    return (values - float(base.mean())) / (deviation if deviation > 0 else np.inf)


def rank_shares(values: np.ndarray, among: np.ndarray | None = None) -> np.ndarray:
    """The share of `among` (the values themselves) below each value, equal ones counted half; NaN stays NaN."""
    base = np.sort(values if among is None else among)
    base = base[~np.isnan(base)]
    if not len(base):
        return np.full(len(values), np.nan)
    below, upto = np.searchsorted(base, values, "left"), np.searchsorted(base, values, "right")
    return np.where(np.isnan(values), np.nan, (below + upto) / (2 * len(base)))
