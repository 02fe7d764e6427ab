"""The predictor: one linear map with bias for each layer of the base and each of keys and values.

Its arrays are `key_weight` and `value_weight` (layers, base size, auxiliary size) and `key_bias` and `value_bias`
(layers, base size), where a size is heads * head size: all heads are mixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import pickaxe
from pickaxe.lm.weights import Architecture

KINDS = ("key", "value")
Pair = tuple[Any, Any]
"""Keys and values of one layer, (B, T, heads, head_size) each; keys before rotary.

Those of the auxiliary model are after its key norm, where it has one: its cache cannot be taken back behind that.  They
lose nothing that matters, for the base norms what is predicted from them.
"""


def predict(
    arrays: Mapping[str, Any], layer_map: Sequence[int], seen: Mapping[int, Pair] | Sequence[Pair], base: Architecture
) -> list[Pair]:
    """Keys (before key norm and rotary) and values of every layer of the base, from those of the auxiliary model.

    `seen[layer_map[i]]` serves layer i.  Works on NumPy and JAX arrays alike.
    """

    def mapped(kind: str, layer: int, source: Any) -> Any:
        flat = source.reshape(*source.shape[:2], -1)
        out = flat @ arrays[f"{kind}_weight"][layer].T + arrays[f"{kind}_bias"][layer]
        return out.reshape(*source.shape[:2], base.kv_heads, base.head_size)

    return [
        (mapped("key", layer, seen[source][0]), mapped("value", layer, seen[source][1]))
        for layer, source in enumerate(layer_map)
    ]


def shapes(base: Architecture, auxiliary: Architecture) -> dict[str, tuple[int, ...]]:
    """Of the predictor's arrays."""
    wide, narrow = base.kv_heads * base.head_size, auxiliary.kv_heads * auxiliary.head_size
    of_kind = {"weight": (base.layers, wide, narrow), "bias": (base.layers, wide)}
    return {f"{kind}_{part}": shape for kind in KINDS for part, shape in of_kind.items()}


def random_start(base: Architecture, auxiliary: Architecture, seed: int) -> dict[str, np.ndarray]:
    """Uniform within one over the root of the auxiliary size."""
    reach = (auxiliary.kv_heads * auxiliary.head_size) ** -0.5
    return {
        name: pickaxe.generator(seed, "predictor", name).uniform(-reach, reach, shape).astype(np.float32)
        for name, shape in shapes(base, auxiliary).items()
    }


class Regression:
    """The predictor of least squared error, from sums over tokens that are added batch by batch."""

    DAMPING = 1e-4
    """Share of the inputs' mean square that is added to each of them, so that the solution stays small."""

    def __init__(self, layer_map: Sequence[int]) -> None:
        self._map = layer_map
        self._inputs: dict[tuple[str, int], np.ndarray] = {}
        self._outputs: dict[tuple[str, int], np.ndarray] = {}

    def add(self, seen: Sequence[Pair], true: Sequence[Pair], kept: np.ndarray) -> None:
        """Tokens where `kept` (B, T): the auxiliary model's and the base's own pairs, by layer."""
        for place, kind in enumerate(KINDS):
            inputs = {source: _rows(seen[source][place], kept) for source in set(self._map)}
            for source, x in inputs.items():
                _add(self._inputs, (kind, source), _with_one(x).T @ _with_one(x))
            for layer, source in enumerate(self._map):
                y = _rows(true[layer][place], kept)
                _add(self._outputs, (kind, layer), _with_one(inputs[source]).T @ y)

    def solved(self) -> dict[str, np.ndarray]:
        """The predictor's arrays."""
        arrays: dict[str, np.ndarray] = {}
        for kind in KINDS:
            found = [self._solve(kind, layer, source) for layer, source in enumerate(self._map)]
            arrays[f"{kind}_weight"] = np.stack([each[:-1].T for each in found]).astype(np.float32)
            arrays[f"{kind}_bias"] = np.stack([each[-1] for each in found]).astype(np.float32)
        return arrays

    def _solve(self, kind: str, layer: int, source: int) -> np.ndarray:
        """(auxiliary size + 1, base size), the bias last."""
        square = self._inputs[kind, source]
        size = len(square) - 1
        damping = np.zeros(len(square))
        damping[:size] = self.DAMPING * np.trace(square[:size, :size]) / size
        solution: np.ndarray = np.linalg.solve(square + np.diag(damping), self._outputs[kind, layer])
        return solution


def _rows(array: Any, kept: np.ndarray) -> np.ndarray:
    return np.asarray(array, np.float64).reshape(*kept.shape, -1)[kept]


def _with_one(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)


def _add(sums: dict[tuple[str, int], np.ndarray], key: tuple[str, int], more: np.ndarray) -> None:
    sums[key] = sums[key] + more if key in sums else more
