"""The predictor as an ONNX graph: caches in, caches out, without the training libraries."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pickaxe.lm.weights import Architecture
from pickaxe.lm.writer import MICROSOFT, GraphWriter, WeightFile


def write_graph(
    arrays: Mapping[str, np.ndarray],
    layer_map: Sequence[int],
    base: Architecture,
    aux: Architecture,
    path: Path,
) -> None:
    """Write the graph of the predictor's arrays, with `key_norm` (layers, head_size) where the base norms its keys.

    Inputs: `key.s` and `value.s` (B, kv_heads, T, head_size) of each auxiliary layer s that serves one, as its cache
    holds them; `undo_cos`, `undo_sin`, `turn_cos` and `turn_sin` of `tables`.  Outputs: `key.i` and `value.i` as the
    cache of the base holds them.
    """
    writer = GraphWriter(WeightFile(path, io.BytesIO()))  # all tensors are constants of the graph
    graph = _Predictor(writer, base, aux)
    for turn, of in (("undo", aux), ("turn", base)):
        for part in ("cos", "sin"):
            writer.input(f"{turn}_{part}", np.float32, ["time", of.head_size // 2])
    seen = {(kind, source): graph.rows(kind, source) for source in sorted(set(layer_map)) for kind in ("key", "value")}
    for layer, source in enumerate(layer_map):
        norm = arrays["key_norm"][layer] if "key_norm" in arrays else None
        for kind in ("key", "value"):
            weight, bias = arrays[f"{kind}_weight"][layer], arrays[f"{kind}_bias"][layer]
            graph.predicted(kind, layer, seen[kind, source], weight, bias, norm if kind == "key" else None)
    writer.save(path)


def tables(base: Architecture, aux: Architecture, tokens: int) -> dict[str, np.ndarray]:
    """The rotary tables for tokens at positions 0 to tokens - 1: off with the auxiliary model's, on with the base's."""
    found = {}
    for turn, of, sign in (("undo", aux, -1.0), ("turn", base, 1.0)):
        angles = np.arange(tokens)[:, None] * of.inverse_frequencies()
        found[f"{turn}_cos"] = np.cos(angles).astype(np.float32)
        found[f"{turn}_sin"] = (sign * np.sin(angles)).astype(np.float32)
    return found


class _Predictor:
    def __init__(self, writer: GraphWriter, base: Architecture, aux: Architecture) -> None:
        self._writer, self._base, self._aux = writer, base, aux
        self._first = writer.constant("first", np.zeros(1, np.int64))
        self._flat = writer.constant("flat", np.array([0, 0, aux.kv_heads * aux.head_size], np.int64))
        self._heads = writer.constant("heads", np.array([0, 0, base.kv_heads, base.head_size], np.int64))

    def rows(self, kind: str, source: int) -> str:
        """Keys before rotary, or values, of an auxiliary layer: (B, T, kv_heads * head_size)."""
        writer, aux = self._writer, self._aux
        name = f"{kind}.{source}"
        x = writer.input(f"seen_{name}", np.float32, ["batch", aux.kv_heads, "time", aux.head_size])
        if kind == "key":
            x = self._rotated(x, "undo", aux, f"undone_{name}")
        tokens = writer.node("Transpose", [x], f"tokens_{name}", perm=[0, 2, 1, 3])
        return writer.node("Reshape", [tokens, self._flat], f"rows_{name}")

    def predicted(
        self, kind: str, layer: int, rows: str, weight: np.ndarray, bias: np.ndarray, norm: np.ndarray | None
    ) -> None:
        writer, base = self._writer, self._base
        name = f"{kind}.{layer}"
        matrix = writer.constant(f"weight_{name}", np.ascontiguousarray(weight.T))
        product = writer.node("MatMul", [rows, matrix], f"product_{name}")
        mapped = writer.node("Add", [product, writer.constant(f"bias_{name}", bias)], f"mapped_{name}")
        heads = writer.node("Reshape", [mapped, self._heads], f"heads_{name}")
        if norm is not None:
            scale = writer.constant(f"norm_{name}", norm)
            heads = writer.node(
                "SimplifiedLayerNormalization", [heads, scale], f"normed_{name}", epsilon=base.eps, axis=-1
            )
        if kind == "key":
            placed = writer.node("Transpose", [heads], f"placed_{name}", perm=[0, 2, 1, 3])
            self._rotated(placed, "turn", base, name)
        else:
            writer.node("Transpose", [heads], name, perm=[0, 2, 1, 3])
        writer.output(name, np.float32, ["batch", base.kv_heads, "time", base.head_size])

    def _rotated(self, x: str, turn: str, of: Architecture, out: str) -> str:
        inputs = [x, self._first, f"{turn}_cos", f"{turn}_sin"]
        interleaved = int(of.rope_interleaved)
        return self._writer.node("RotaryEmbedding", inputs, out, domain=MICROSOFT, interleaved=interleaved)
