"""The draw of `mates`: Gumbel-top-k over predicted labels, keyed by the items' ids."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pickaxe_plugins.selection import _keyed_draws


def gumbel(seed: int, ids: Sequence[str]) -> np.ndarray:
    """(n,) standard Gumbel noise that belongs to (seed, id)."""
    names = _keyed_draws.keys(ids)
    uniform = _keyed_draws.uniforms(seed, names, np.full(len(names), _keyed_draws.key("mates"), np.uint64))
    # Into the open interval: neither of the logarithms is of 0.
    noise: np.ndarray = -np.log(-np.log(uniform + 2.0**-54))
    return noise


def keys(labels: np.ndarray, noise: np.ndarray, temperature: float, compat: bool = False) -> np.ndarray:
    """(n,) of which the k largest are the draw: -label / temperature + noise, or -label alone at temperature 0.

    The k largest keys are a draw without replacement with probabilities proportional to exp(-label / temperature).
    `compat` takes the noise with the sign that it has in the authors' code, the k smallest of label / temperature +
    noise: not quite that distribution.
    """
    if temperature == 0:
        return -labels
    return -labels / temperature + (-noise if compat else noise)


def chosen(keys: np.ndarray, count: int) -> np.ndarray:
    """(n,) bool: the `count` largest keys, of equal ones the first."""
    picked = np.zeros(len(keys), bool)
    picked[np.argsort(-keys, kind="stable")[:count]] = True
    return picked


def how_many(fraction: float, n: int) -> int:
    """The nearest whole number to the fraction of n, at least one of one or more."""
    return min(n, max(1, int(fraction * n + 0.5)))
