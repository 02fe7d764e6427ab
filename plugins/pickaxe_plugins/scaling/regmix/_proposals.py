"""Mixtures for proxy runs, drawn around the token shares at many strengths (arXiv 2407.01492 and its code)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pickaxe.errors import InvalidParams
from pickaxe.randomness import generator

STRENGTHS = tuple(np.logspace(np.log10(0.1), np.log10(5.0), 15).tolist())
MINIMUM = 2e-4
"""The least weight, and the step between weights."""
_BLOCK = 4096
"""Draws that share a stream: draw i is number i % _BLOCK of block i // _BLOCK."""
_LEAST_ACCEPTED = 1e-4
"""Below this share of accepted draws there is no hope."""


def propose(
    prior: Mapping[str, float],
    n: int,
    seed: int = 0,
    *,
    max_epochs: float = 15.0,
    temperature: float = 0.5,
    minimum: float = MINIMUM,
    oversample: int = 100,
) -> list[dict[str, float]]:
    """`n` different mixtures to train proxy models on, as domain -> weight.

    `prior` are token shares.  No weight exceeds `max_epochs` times its share; weights are 0 or multiples of
    `minimum`, so that they add up to 1 only within D * minimum / 2: scale them before training.  `oversample` times
    as many are drawn and made unique, then `n` are chosen at random.  Raises `InvalidParams`.
    """
    if n < 1 or oversample < 1:
        raise InvalidParams("n", f"is {n}, oversample {oversample}: both must be at least 1")
    names = sorted(prior)
    shares = np.array([prior[name] for name in names], float)
    if not len(shares) or not np.isfinite(shares).all() or (shares < 0).any() or not shares.sum() > 0:
        raise InvalidParams("prior", "must hold finite shares that are not negative, one of them above 0")
    bound, centre = upper_bound(shares, max_epochs), tempered(shares, temperature)
    if bound.sum() < 1:
        raise InvalidParams(
            "max_epochs", f"is {max_epochs:g}: all bounds together allow {bound.sum():.3g} of a mixture"
        )
    found: list[np.ndarray] = []
    count, block = 0, 0
    while count < n * oversample:
        kept = settled(_draws(centre, seed, block), bound, minimum)
        found.append(kept)
        count, block = count + len(kept), block + 1
        if count < _LEAST_ACCEPTED * block * _BLOCK:
            raise InvalidParams("max_epochs", f"is {max_epochs:g}: hardly any draw keeps its bounds; raise it")
    distinct = unique(np.concatenate(found)[: n * oversample])
    if len(distinct) < n:
        raise InvalidParams("n", f"is {n}, only {len(distinct)} different mixtures were drawn: raise oversample")
    chosen = distinct[generator(seed, "regmix", "choose").choice(len(distinct), n, replace=False)]
    return [dict(zip(names, row.tolist(), strict=True)) for row in chosen]


def upper_bound(shares: np.ndarray, max_epochs: float) -> np.ndarray:
    """The greatest weight of each domain (D,), by its share before tempering."""
    bound: np.ndarray = np.minimum(shares / shares.sum() * max_epochs, 1.0)
    return bound


def tempered(shares: np.ndarray, temperature: float) -> np.ndarray:
    """Shares to the power of `temperature`, adding up to 1."""
    powers = (shares / shares.sum()) ** temperature * (shares > 0)
    return powers / powers.sum()


def settled(draws: np.ndarray, bound: np.ndarray, minimum: float = MINIMUM) -> np.ndarray:
    """The draws (n, D) within the bounds, rounded: weights below `minimum` go, the rest take multiples of it.

    A rounded weight that is above its bound, by up to half a step, makes its draw fall out too.
    """
    kept = draws[(draws <= bound).all(1)]
    kept = np.where(kept < minimum, 0.0, kept)
    kept = kept / kept.sum(1, keepdims=True)
    rounded: np.ndarray = np.round(kept / minimum) * minimum
    return rounded[(rounded <= bound + 1e-12).all(1)]


def unique(mixtures: np.ndarray, apart: float = 1e-5) -> np.ndarray:
    """In lexicographic order, without those within `apart` (sum of absolute differences) of the one before."""
    ordered = mixtures[np.lexsort(mixtures.T[::-1])]
    far = np.abs(np.diff(ordered, axis=0)).sum(1) > apart
    return ordered[np.concatenate([[True], far])]


def _draws(centre: np.ndarray, seed: int, block: int) -> np.ndarray:
    """(_BLOCK, D), each from a Dirichlet of random strength."""
    rng = generator(seed, "regmix", "propose", block)
    which = rng.integers(len(STRENGTHS), size=_BLOCK)
    used = centre > 0
    draws = np.zeros((_BLOCK, len(centre)))
    for place, strength in enumerate(STRENGTHS):
        rows = np.flatnonzero(which == place)
        draws[np.ix_(rows, used)] = rng.dirichlet(strength * centre[used], len(rows))
    return draws
