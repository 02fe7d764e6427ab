"""Writes a tiny model as exporters do: one graph of standard ONNX operators, its configuration and its tokenizer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17


@dataclass(frozen=True)
class Sizes:
    heads: int
    kv_heads: int
    head: int
    context: int
    eps: float
    base: float


@dataclass(frozen=True)
class Kind:
    """Ways in which exports differ.

    `masked`: slots of the attention mask are heeded, not only counted.  `merged`: two graphs and an input that says
    which, of which the one for tokens on top of a past was made for one token.  `quantised`: the last product in 8
    bits with one scale for the whole batch.  `keep`: logits for the last positions only, as many as are asked for.
    """

    half: bool = False
    positions: bool = True
    masked: bool = True
    merged: bool = False
    quantised: bool = False
    keep: bool = False
    external: bool = False
    """Weights in a file of their own."""


def export(
    top: dict[str, np.ndarray], layers: list[dict[str, np.ndarray]], sizes: Sizes, kind: Kind
) -> onnx.ModelProto:
    """`top` and `layers` are those of the tests' reference decoder."""
    weights: dict[str, Any] = {}
    dtype = np.float16 if kind.half else np.float32
    element = TensorProto.FLOAT16 if kind.half else TensorProto.FLOAT
    inputs = [_value("input_ids", TensorProto.INT64, ["batch", "tokens"])]
    inputs.append(_value("attention_mask", TensorProto.INT64, ["batch", "slots"]))
    if kind.positions:
        inputs.append(_value("position_ids", TensorProto.INT64, ["batch", "tokens"]))
    for layer in range(len(layers)):
        for name in ("key", "value"):
            shape = ["batch", sizes.kv_heads, "past", sizes.head]
            inputs.append(_value(f"past_key_values.{layer}.{name}", element, shape))
    if kind.merged:
        inputs.append(_value("use_cache_branch", TensorProto.BOOL, [1]))
    if kind.keep:
        inputs.append(_value("num_logits_to_keep", TensorProto.INT64, []))
    outputs = [_value("logits", element, ["batch", "kept", len(top["embedding"])])]
    for layer in range(len(layers)):
        for name in ("key", "value"):
            outputs.append(_value(f"present.{layer}.{name}", element, ["batch", sizes.kv_heads, "slots", sizes.head]))

    def body(prefix: str, causal: bool) -> list[Any]:
        graph = _Decoder(top, layers, sizes, kind, weights, dtype, prefix, causal)
        graph.write()
        return graph.nodes

    if kind.merged:
        branches = {
            name: helper.make_graph(
                body(f"{name}.", causal), name, [], [_renamed(value, f"{name}.{value.name}") for value in outputs]
            )
            for name, causal in (("else_branch", True), ("then_branch", False))
        }
        names = [value.name for value in outputs]
        nodes = [helper.make_node("If", ["use_cache_branch"], names, **branches)]
    else:
        nodes = body("", True)
    graph = helper.make_graph(nodes, "decoder", inputs, outputs, list(weights.values()))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def save(model: onnx.ModelProto, file: Path, external: bool = False) -> None:
    """Write the graph; with `external`, its weights into a file beside it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    place = f"{file.name}_data"
    onnx.save(model, str(file), save_as_external_data=external, location=place, size_threshold=1024)


def _value(name: str, element: int, shape: list[Any]) -> Any:
    return helper.make_tensor_value_info(name, element, shape)


def _renamed(value: Any, name: str) -> Any:
    copy = type(value)()
    copy.CopyFrom(value)
    copy.name = name
    return copy


@dataclass
class _Decoder:
    top: dict[str, np.ndarray]
    layers: list[dict[str, np.ndarray]]
    sizes: Sizes
    kind: Kind
    weights: dict[str, Any]
    dtype: type
    prefix: str
    causal: bool
    nodes: list[Any] = field(default_factory=list)

    def op(self, kind: str, *inputs: str, outputs: tuple[str, ...] = (), **attributes: Any) -> str:
        names = outputs or (f"{self.prefix}{kind}_{len(self.nodes)}",)
        self.nodes.append(helper.make_node(kind, list(inputs), list(names), **attributes))
        return names[0]

    def constant(self, value: Any, dtype: type = np.int64) -> str:
        array = np.asarray(value, dtype)
        name = f"c_{np.dtype(dtype).name}_{array.shape}_{hash(array.tobytes())}"
        return self.weight(name, array)

    def weight(self, name: str, array: np.ndarray) -> str:
        if name not in self.weights:
            self.weights[name] = numpy_helper.from_array(array.copy(order="C"), name)
        return name

    def linear(self, x: str, layer: int, name: str) -> str:
        matrix = self.weight(f"{layer}.{name}", self.layers[layer][name].T.astype(self.dtype))
        out = self.op("MatMul", x, matrix)
        bias = self.layers[layer].get(f"{name}_bias")
        return (
            out if bias is None else self.op("Add", out, self.weight(f"{layer}.{name}_bias", bias.astype(self.dtype)))
        )

    def norm(self, x: str, name: str, scale: np.ndarray) -> str:
        square = self.op("ReduceMean", self.op("Mul", x, x), axes=[-1])
        root = self.op("Sqrt", self.op("Add", square, self.constant(self.sizes.eps, self.dtype)))
        return self.op("Mul", self.op("Div", x, root), self.weight(name, scale.astype(self.dtype)))

    # ------------------------------------------------------------ the whole

    def write(self) -> None:
        visible, positions = self.visible(), self.positions()
        angles = np.arange(self.sizes.context)[:, None] * self.sizes.base ** (
            -np.arange(0, self.sizes.head, 2) / self.sizes.head
        )
        turn = []
        for name, table in (("cos", np.cos(angles)), ("sin", np.sin(angles))):
            rows = self.op("Gather", self.weight(name, np.tile(table, 2).astype(self.dtype)), positions)
            turn.append(self.op("Unsqueeze", rows, self.constant([1])))
        embedding = self.weight("embedding", self.top["embedding"].astype(self.dtype))
        x = self.op("Gather", embedding, "input_ids")
        for index, layer in enumerate(self.layers):
            attended = self.attention(index, self.norm(x, f"{index}.attn_norm", layer["attn_norm"]), turn, visible)
            x = self.op("Add", x, attended)
            h = self.norm(x, f"{index}.ffn_norm", layer["ffn_norm"])
            gate = self.linear(h, index, "ffn_gate")
            opened = self.op("Mul", gate, self.op("Sigmoid", gate))
            x = self.op(
                "Add", x, self.linear(self.op("Mul", opened, self.linear(h, index, "ffn_up")), index, "ffn_down")
            )
        self.head(self.norm(x, "norm", self.top["norm"]))

    def head(self, x: str) -> None:
        if self.kind.keep:
            start = self.op("Unsqueeze", self.op("Neg", "num_logits_to_keep"), self.constant([0]))
            end, axis = self.constant([2**62]), self.constant([1])
            x = self.op("Slice", x, start, end, axis)
        matrix = self.top.get("output", self.top["embedding"]).T
        name = f"{self.prefix}logits"
        if not self.kind.quantised:
            self.op("MatMul", x, self.weight("output", matrix.astype(self.dtype)), outputs=(name,))
            return
        scale = np.float32(np.abs(matrix).max() / 127)
        packed = self.weight("output", np.round(matrix / scale).astype(np.int8))
        parts = tuple(f"{self.prefix}quantised_{part}" for part in ("x", "scale", "zero"))
        self.op("DynamicQuantizeLinear", x, outputs=parts)
        whole = self.op("Cast", self.op("MatMulInteger", parts[0], packed, parts[2]), to=TensorProto.FLOAT)
        self.op("Mul", whole, self.op("Mul", parts[1], self.constant(scale, np.float32)), outputs=(name,))

    # ------------------------------------------------------------ attention

    def count(self, tensor: str, axis: int) -> str:
        return self.op("Gather", self.op("Shape", tensor), self.constant(axis))

    def positions(self) -> str:
        if self.kind.positions:
            return "position_ids"
        counted = self.op("Sub", self.op("CumSum", "attention_mask", self.constant(1)), self.constant(1))
        start = self.op("Unsqueeze", self.op("Neg", self.count("input_ids", 1)), self.constant([0]))
        last = self.op("Slice", counted, start, self.constant([2**62]), self.constant([1]))
        return self.op("Max", last, self.constant(0))

    def visible(self) -> str:
        """bool (B | 1, 1, 1, T, S)"""
        slots, tokens = self.count("attention_mask", 1), self.count("input_ids", 1)
        keys = self.op("Range", self.constant(0), slots, self.constant(1))
        queries = self.op("Range", self.op("Sub", slots, tokens), slots, self.constant(1))
        if not self.causal:  # as traced with one token, which sees all
            queries = self.op("Add", queries, tokens)
        seen = self.op("LessOrEqual", keys, self.op("Unsqueeze", queries, self.constant([1])))
        if not self.kind.masked:
            return seen
        mask = self.op("Cast", "attention_mask", to=TensorProto.BOOL)
        return self.op("And", seen, self.op("Unsqueeze", mask, self.constant([1, 2, 3])))

    def attention(self, index: int, x: str, turn: list[str], visible: str) -> str:
        sizes = self.sizes
        heads = {"q": sizes.heads, "k": sizes.kv_heads, "v": sizes.kv_heads}
        parts = {}
        for part, count in heads.items():
            apart = self.op("Reshape", self.linear(x, index, f"attn_{part}"), self.constant([0, 0, count, sizes.head]))
            if f"attn_{part}_norm" in self.layers[index]:
                apart = self.norm(apart, f"{index}.{part}_norm", self.layers[index][f"attn_{part}_norm"])
            parts[part] = self.op("Transpose", apart, perm=[0, 2, 1, 3])
        parts |= {part: self.rotated(parts[part], turn) for part in "qk"}
        for part, name in (("k", "key"), ("v", "value")):
            present = f"{self.prefix}present.{index}.{name}"
            self.op("Concat", f"past_key_values.{index}.{name}", parts[part], outputs=(present,), axis=2)
            parts[part] = self.op("Unsqueeze", present, self.constant([2]))
        group = sizes.heads // sizes.kv_heads
        queries = self.op("Reshape", parts["q"], self.constant([0, sizes.kv_heads, group, -1, sizes.head]))
        scores = self.op("MatMul", queries, self.op("Transpose", parts["k"], perm=[0, 1, 2, 4, 3]))
        scores = self.op("Mul", scores, self.constant(sizes.head**-0.5, self.dtype))
        scores = self.op("Where", visible, scores, self.constant(-6e4, self.dtype))
        mixed = self.op("MatMul", self.op("Softmax", scores, axis=-1), parts["v"])
        joined = self.op("Reshape", mixed, self.constant([0, sizes.heads, -1, sizes.head]))
        ordered = self.op("Transpose", joined, perm=[0, 2, 1, 3])
        return self.linear(
            self.op("Reshape", ordered, self.constant([0, 0, sizes.heads * sizes.head])), index, "attn_output"
        )

    def rotated(self, x: str, turn: list[str]) -> str:
        half, end = self.sizes.head // 2, self.constant([2**62])
        axis = self.constant([3])
        first = self.op("Slice", x, self.constant([0]), self.constant([half]), axis)
        second = self.op("Slice", x, self.constant([half]), end, axis)
        swapped = self.op("Concat", self.op("Neg", second), first, axis=-1)
        return self.op("Add", self.op("Mul", x, turn[0]), self.op("Mul", swapped, turn[1]))
