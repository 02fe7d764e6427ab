"""The fitted predictor at work: prompts in, the base's keys and values out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pickaxe.lm import KV, rotate
from pickaxe_plugins.decoding.kv_predict._predictor import Pair, predict

if TYPE_CHECKING:
    from pickaxe.call import Call
    from pickaxe.lm import LM

SPARE = 128
"""Tokens of free room in a predicted cache, so that what follows need not be copied."""


@dataclass(frozen=True)
class Reader:
    """Reads prompts with the auxiliary model in place of the base.

    `arrays` are the predictor's, with `key_norm` (layers, head_size) where the base norms its keys.
    """

    base: LM
    aux: LM
    layer_map: Sequence[int]
    arrays: Mapping[str, np.ndarray]

    def read(self, prompts: Sequence[Sequence[int]], call: Call | None = None) -> list[KV]:
        """For each prompt a predicted cache of the base, of one row, with all its tokens."""
        lengths = np.array([len(ids) for ids in prompts])
        padded = np.zeros((len(prompts), int(lengths.max())), np.int64)
        for row, ids in enumerate(prompts):
            padded[row, : len(ids)] = ids
        _, cache = self.aux.forward(padded, lengths=lengths, logits_at="none", call=call)
        pairs = [self._placed(layer, *pair) for layer, pair in enumerate(self._predicted(cache))]
        return [self._row(pairs, row, int(length)) for row, length in enumerate(lengths)]

    def _predicted(self, cache: KV) -> list[Pair]:
        positions, architecture = np.arange(cache.width), self.aux.network.architecture
        seen = {}
        for source in set(self.layer_map):
            keys = rotate(cache.keys(source).astype(np.float32), positions, architecture, inverse=True)
            seen[source] = keys.swapaxes(1, 2), cache.values(source).astype(np.float32).swapaxes(1, 2)
        return predict(self.arrays, self.layer_map, seen, self.base.network.architecture)

    def _placed(self, layer: int, keys: np.ndarray, values: np.ndarray) -> Pair:
        """As the base's cache holds them: keys normed and turned by their positions, heads before tokens."""
        architecture = self.base.network.architecture
        if "key_norm" in self.arrays:
            square = (keys**2).mean(-1, keepdims=True)
            keys = keys / np.sqrt(square + architecture.eps) * self.arrays["key_norm"][layer]
        turned = rotate(keys.swapaxes(1, 2), np.arange(keys.shape[1]), architecture)
        return turned, values.swapaxes(1, 2)

    def _row(self, pairs: Sequence[Pair], row: int, length: int) -> KV:
        cache = KV.empty(self.base.network.architecture, 1, length + SPARE, self.base.network.dtype)
        tensors = cache.tensors
        for layer, pair in enumerate(pairs):
            for place, source in enumerate(pair):
                tensors[2 * layer + place][0, :, :length] = source[row, :, :length]
        return KV(tensors, [length])
