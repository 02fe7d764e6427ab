"""Training a part of a network: low-rank changes of named matrices (LoRA, arXiv:2106.09685), and frozen tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

import pickaxe
from pickaxe.errors import InvalidParams
from pickaxe_plugins.train.linear import linear

Weights = Mapping[str, Any]
Changes = Mapping[str, Mapping[str, Any]]
"""The name of a matrix (out, in) -> `down` (rank, in) and `up` (out, rank); the change is scale * up down."""


class LowRank:
    """Stands in for a matrix (see `linear`): the frozen one, and beside it the trained change, never multiplied out."""

    def __init__(self, weight: Any, change: Mapping[str, Any], scale: float) -> None:
        self._weight, self._change, self._scale = weight, change, scale

    def __call__(self, x: Any) -> Any:
        return linear(self._weight, x) + self._scale * ((x @ self._change["down"].T) @ self._change["up"].T)


def chosen(weights: Weights, pattern: str) -> list[str]:
    """Names of the tensors in which the regular expression is found; raises `InvalidParams` when there is none."""
    names = [name for name in weights if re.search(pattern, name)]
    if not names:
        some = ", ".join(sorted(weights)[:8])
        raise InvalidParams("layers", f"{pattern!r} is found in no tensor's name; there are {some} …")
    return names


def initial(weights: Weights, pattern: str, rank: int, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """Changes that change nothing yet, of every matrix whose name the pattern is found in: `up` is 0.

    The layers must be applied through `linear`: those of `llama` (q, k, v, o, gate, up, down) and all dense ones of
    `bert`.
    """
    changes = {}
    for name in chosen(weights, pattern):
        if weights[name].ndim != 2:
            continue
        outputs, inputs = weights[name].shape
        draw = pickaxe.generator(seed, "adapter", name)
        down = draw.uniform(-1, 1, (rank, inputs)) * np.sqrt(3 / inputs)  # a variance of 1 / inputs
        changes[name] = {"down": down.astype(np.float32), "up": np.zeros((outputs, rank), np.float32)}
    if not changes:
        raise InvalidParams("layers", f"{pattern!r} is found in no matrix's name")
    return changes


def adapted(weights: Weights, changes: Changes, scale: float = 1.0) -> dict[str, Any]:
    """Weights for a network to run with, changed by scale * up down (LoRA's scale is alpha / rank).

    For a loss over the changes alone: `loss(adapted(frozen, changes), …)`, which takes no gradients of the frozen.
    """
    return {**weights, **{name: LowRank(weights[name], change, scale) for name, change in changes.items()}}


def merged(weights: Weights, changes: Changes, scale: float = 1.0) -> dict[str, Any]:
    """Plain weights with the changes in them, to be saved and exported."""
    return {
        **weights,
        **{name: weights[name] + scale * (change["up"] @ change["down"]) for name, change in changes.items()},
    }


def split(weights: Weights, pattern: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(those whose names the pattern is found in, to be trained; the others, frozen).  `{**b, **a}` joins them."""
    names = set(chosen(weights, pattern))
    return (
        {name: array for name, array in weights.items() if name in names},
        {name: array for name, array in weights.items() if name not in names},
    )
