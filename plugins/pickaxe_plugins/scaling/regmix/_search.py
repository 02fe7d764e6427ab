"""The search: simulated mixtures, and the mean of those that are predicted best."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from pickaxe.errors import InvalidParams
from pickaxe.randomness import generator

_BLOCK = 16_384
"""Draws that share a stream: draw i is number i % _BLOCK of block i // _BLOCK."""

Objective = Callable[[np.ndarray], np.ndarray]
"""(n, D) -> (n,), lower is better."""


@dataclass(frozen=True)
class Best:
    """The k best mixtures (k, D), their objective (k,), best first, and how many were looked at and allowed."""

    mixtures: np.ndarray
    objective: np.ndarray
    drawn: int
    allowed: int

    @property
    def mean(self) -> np.ndarray:
        """The answer (D,): it keeps every bound that the mixtures keep, and averages out the noise of the fit."""
        mean: np.ndarray = self.mixtures.mean(0)
        return mean


def simulated(prior: np.ndarray, strength: float, n: int, seed: int) -> Iterator[np.ndarray]:
    """`n` draws of Dirichlet(strength * prior) in blocks (m, D); a domain without a share never gets a weight."""
    used = prior > 0
    for block, start in enumerate(range(0, n, _BLOCK)):
        rng = generator(seed, "regmix", "simulate", block)
        draws = np.zeros((_BLOCK, len(prior)))
        draws[:, used] = rng.dirichlet(strength * prior[used], _BLOCK)
        yield draws[: n - start]


def search(
    blocks: Iterable[np.ndarray], objective: Objective, k: int, bound: np.ndarray | None = None
) -> Iterator[Best]:
    """The k best of all blocks so far, after each block; mixtures beyond the bound (D,) are left out.

    Of equal ones the earlier win.  Memory: one block and k mixtures.
    """
    best: Best | None = None
    for block in blocks:
        allowed = block if bound is None else block[(block <= bound).all(1)]
        mixtures, values = allowed, objective(allowed) if len(allowed) else np.empty(0)
        drawn, count = len(block), len(allowed)
        if best is not None:
            mixtures, values = np.concatenate([best.mixtures, mixtures]), np.concatenate([best.objective, values])
            drawn, count = drawn + best.drawn, count + best.allowed
        order = np.argsort(values, kind="stable")[:k]
        best = Best(mixtures[order], values[order], drawn, count)
        yield best


def enough(best: Best, k: int) -> Best:
    """The result, once k mixtures kept the caps."""
    if len(best.mixtures) < k:
        raise InvalidParams(
            "caps",
            f"are kept by {best.allowed} of {best.drawn} simulated mixtures, {k} are wanted: raise n_simulate, "
            "raise strength where caps lie near the prior, lower top_k, or loosen the caps",
        )
    return best
