"""The fitted predictor at work: prompts in, the base's keys and values out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pickaxe.errors import ArtifactCorrupt
from pickaxe.lm import KV, same_tokenizer
from pickaxe_plugins.decoding.kv_predict._graph import tables

if TYPE_CHECKING:
    from pickaxe.call import Call
    from pickaxe.lm import LM
    from pickaxe.session import Session

SPARE = 128
"""Tokens of free room in a predicted cache, so that what follows need not be copied."""


@dataclass(frozen=True)
class Reader:
    """Reads prompts with the auxiliary model in place of the base."""

    base: LM
    aux: LM
    layer_map: Sequence[int]
    predictor: Session
    """The graph of `write_graph`."""

    @classmethod
    def open(cls, base: LM, aux: LM, layer_map: Sequence[int], graph: Path) -> Reader:
        """Raises `Unmet` for two tokenizers, `ArtifactCorrupt` where models, map and graph do not fit together."""
        same_tokenizer(base.tokenizer, aux.tokenizer)
        layers, sources = base.network.architecture.layers, aux.network.architecture.layers
        predictor = base.network.runtime.open(graph)
        given = {f"seen_{kind}.{source}" for source in layer_map for kind in ("key", "value")}
        wanted = {f"{kind}.{layer}" for layer in range(layers) for kind in ("key", "value")}
        in_range = all(0 <= source < sources for source in layer_map)
        if not in_range or not given <= set(predictor.inputs) or wanted != set(predictor.outputs):
            raise ArtifactCorrupt(
                f"the predictor in {graph.parent} with layer map {list(layer_map)} does not fit a base of {layers} and "
                f"an auxiliary model of {sources} layers: fit again",
                metadata={"artifact": graph.parent, "base_layers": layers, "aux_layers": sources},
            )
        return cls(base, aux, tuple(layer_map), predictor)

    def read(self, prompts: Sequence[Sequence[int]], call: Call | None = None) -> list[KV]:
        """For each prompt a predicted cache of the base, of one row, with all its tokens."""
        lengths = np.array([len(ids) for ids in prompts])
        padded = np.zeros((len(prompts), int(lengths.max())), np.int64)
        for row, ids in enumerate(prompts):
            padded[row, : len(ids)] = ids
        _, cache = self.aux.forward(padded, lengths=lengths, logits_at="none", call=call)
        feeds = tables(self.base.network.architecture, self.aux.network.architecture, cache.width)
        for source in set(self.layer_map):
            feeds[f"seen_key.{source}"] = np.ascontiguousarray(cache.keys(source), np.float32)
            feeds[f"seen_value.{source}"] = np.ascontiguousarray(cache.values(source), np.float32)
        names = [f"{kind}.{layer}" for layer in range(len(self.layer_map)) for kind in ("key", "value")]
        predicted = self.predictor.run(feeds, names, call)
        return [self._row(predicted, row, int(length)) for row, length in enumerate(lengths)]

    def _row(self, predicted: Sequence[np.ndarray], row: int, length: int) -> KV:
        empty = KV.empty(self.base.network.architecture, 1, length + SPARE, self.base.network.dtype)
        for tensor, source in zip(empty.tensors, predicted, strict=True):
            tensor[0, :, :length] = source[row, :, :length]
        return KV(empty.tensors, [length])
