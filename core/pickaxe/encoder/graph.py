"""The ONNX graph of a BERT-shaped encoder (arXiv:1810.04805), built from its safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pickaxe.errors import ArtifactCorrupt, Unmet
from pickaxe.extras import require
from pickaxe.models.quantise import read_tensors

VERSION = 1
"""Grows when the graph changes; part of the key under which converted graphs are kept."""

GRAPH = "encoder.onnx"
WEIGHTS = "model.safetensors"
_CONTRIB = "com.microsoft"
_LEAST = np.float32(1e-9)
"""Of what is divided by."""

Precision = Literal["fp32", "int8"]
"""Of the products with weights: as they are, or both sides rounded to 8 bits, which takes a CPU half the time."""


def build(model: Path, target: Path, precision: Precision = "fp32") -> None:
    """Write `encoder.onnx` into `target` from the `config.json` and `model.safetensors` in `model`.

    Inputs: `ids` (B, T) int32 padded at the end, `lengths` (B,) int32, `pool` (B, 1, T) float32, the weight of
    each position in the sentence vector, and in int8 `mask` (B, T) int32, 1 where there is a token.  Output:
    `pooled` (B, 1, width) float32.
    """
    onnx = require("onnx", extra="cpu")
    config = read_config(model)
    onnx.save(Builder(onnx, config, read_weights(model), precision).model(), str(target / GRAPH))


def read_weights(model: Path) -> dict[str, np.ndarray]:
    """The model's tensors as float32, without the prefix of the bare network."""
    return {name.removeprefix("bert."): array for name, array in read_tensors(model / WEIGHTS).items()}


def read_config(model: Path) -> dict[str, Any]:
    """The model's config.json; raises `Unmet` for a shape that this graph does not have."""
    path = model / "config.json"
    if not path.is_file():
        raise Unmet(f"{model} is no encoder: it has no config.json", metadata={"path": model})
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    wanted = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
    for key, value in wanted.items():
        if config.get(key, value) != value:
            raise Unmet(
                f"the encoder in {model} has {key} {config[key]!r}; only {value!r} is known",
                metadata={"path": model, key: config[key]},
            )
    return config


class Builder:
    """Appends nodes in order; tensors are known by their names."""

    def __init__(
        self, onnx: Any, config: Mapping[str, Any], weights: Mapping[str, np.ndarray], precision: Precision = "fp32"
    ) -> None:
        self.onnx, self.config, self.weights, self.precision = onnx, config, weights, precision
        self.epsilon = float(config.get("layer_norm_eps", 1e-12))
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def model(self) -> Any:
        state = self.embed()
        for layer in range(self.config["num_hidden_layers"]):
            state = self.layer(state, f"encoder.layer.{layer}.")
        self.add("MatMul", ["pool", state], "pooled", domain="")
        helper, types = self.onnx.helper, self.onnx.TensorProto
        graph = helper.make_graph(
            self.nodes,
            "encoder",
            [
                helper.make_tensor_value_info("ids", types.INT32, ["batch", "length"]),
                helper.make_tensor_value_info("lengths", types.INT32, ["batch"]),
                helper.make_tensor_value_info("pool", types.FLOAT, ["batch", 1, "length"]),
                *self.mask_input(),
            ],
            [helper.make_tensor_value_info("pooled", types.FLOAT, ["batch", 1, self.config["hidden_size"]])],
            self.constants,
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(_CONTRIB, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    def embed(self) -> str:
        """Word + position + first type, normalised.  The type is folded into the positions: it never changes."""
        positions = self.weight("embeddings.position_embeddings.weight")
        if "embeddings.token_type_embeddings.weight" in self.weights:
            positions = positions + self.weights["embeddings.token_type_embeddings.weight"][0]
        words = self.constant("words", self.weight("embeddings.word_embeddings.weight"))
        inputs = ["ids", "", words, self.constant("positions", positions), "", *self.norm("embeddings.LayerNorm")]
        self.add("EmbedLayerNormalization", inputs, "embedded", "embedded.mask", epsilon=self.epsilon)
        return "embedded"

    def layer(self, state: str, prefix: str, only: str = "") -> str:
        """Attention and MLP, each followed by residual and norm; `only` these positions come out, if it is given.

        Fused operators of ONNX Runtime, which exist for CPU and CUDA: one pass per bias, residual and norm.
        """
        heads = self.config["num_attention_heads"]
        parts = [f"{prefix}attention.self.{part}" for part in ("query", "key", "value")]
        packed = np.concatenate([self.weight(f"{part}.weight") for part in parts]).T
        bias = np.concatenate([self.weight(f"{part}.bias") for part in parts])
        biases = self.constant(f"{prefix}qkv.bias", bias)
        if self.precision == "fp32":
            inputs = [state, self.constant(f"{prefix}qkv", packed), biases, "lengths"]
            mixed = self.add("Attention", inputs, f"{prefix}mixed", num_heads=heads)
        else:
            apart = [f"{prefix}{part}" for part in ("query", "key", "value")]
            self.add("Split", [self.product(state, packed, f"{prefix}qkv")], *apart, domain="", axis=2)
            mixed = self.add("MultiHeadAttention", [*apart, biases, "mask"], f"{prefix}mixed", num_heads=heads)
        if only:
            state, mixed = (
                self.add("Gather", [each, only], f"{each}.chosen", domain="", axis=1) for each in (state, mixed)
            )
        state = self.residual(state, mixed, f"{prefix}attention.output")
        inner = self.matmul(state, f"{prefix}intermediate.dense")
        inner = self.add("BiasGelu", [inner, self.bias(f"{prefix}intermediate.dense")], f"{prefix}gelu")
        return self.residual(state, inner, f"{prefix}output")

    def residual(self, state: str, branch: str, name: str) -> str:
        """norm(state + dense(branch))."""
        projected = self.matmul(branch, f"{name}.dense")
        inputs = [state, projected, *self.norm(f"{name}.LayerNorm"), self.bias(f"{name}.dense")]
        return self.add("SkipLayerNormalization", inputs, f"{name}.state", epsilon=self.epsilon)

    def matmul(self, state: str, name: str) -> str:
        return self.product(state, self.weight(f"{name}.weight").T, name)

    def product(self, state: str, weight: np.ndarray, name: str) -> str:
        """state (…, K) times weight (K, N); in int8 with a scale for each row of the state and each column of it."""
        if self.precision == "fp32":
            return self.exact_product(state, weight, name)
        scales = np.maximum(np.abs(weight).max(axis=0) / 127, _LEAST).astype(np.float32)
        rounded = self.constant(f"{name}.rounded", np.rint(weight / scales).astype(np.int8))
        inverse, scale = self.row_scales(state)
        scaled = self.add("Mul", [state, inverse], f"{name}.scaled", domain="")
        one, middle = self.shared("one", np.float32(1)), self.shared("middle", np.uint8(128))
        whole = self.add("QuantizeLinear", [scaled, one, middle], f"{name}.whole", domain="")
        inputs = [whole, rounded, one, self.constant(f"{name}.scales", scales), middle]
        raw = self.add("MatMulIntegerToFloat", inputs, f"{name}.raw")
        return self.add("Mul", [raw, scale], f"{name}.product", domain="")

    def exact_product(self, state: str, weight: np.ndarray, name: str) -> str:
        return self.add("MatMul", [state, self.constant(f"{name}.weight", weight)], f"{name}.product", domain="")

    def row_scales(self, state: str) -> tuple[str, str]:
        """127 over the largest value of each row, and its inverse."""
        largest = self.add("Abs", [state], f"{state}.sizes", domain="")
        largest = self.add("ReduceMax", [largest], f"{state}.largest", domain="", axes=[-1], keepdims=1)
        largest = self.add("Max", [largest, self.shared("least", _LEAST)], f"{state}.bounded", domain="")
        most, step = self.shared("most", np.float32(127)), self.shared("step", np.float32(1 / 127))
        return (
            self.add("Div", [most, largest], f"{state}.inverse", domain=""),
            self.add("Mul", [largest, step], f"{state}.scale", domain=""),
        )

    def mask_input(self) -> list[Any]:
        """The attention of int8 takes which positions hold tokens, as a mask."""
        if self.precision == "fp32":
            return []
        return [self.onnx.helper.make_tensor_value_info("mask", self.onnx.TensorProto.INT32, ["batch", "length"])]

    def bias(self, name: str) -> str:
        return self.constant(f"{name}.bias", self.weight(f"{name}.bias"))

    def norm(self, name: str) -> tuple[str, str]:
        return (
            self.constant(f"{name}.weight", self.weight(f"{name}.weight")),
            self.constant(f"{name}.bias", self.weight(f"{name}.bias")),
        )

    def weight(self, name: str) -> np.ndarray:
        if name not in self.weights:
            raise ArtifactCorrupt(f"model.safetensors lacks the tensor {name!r}", metadata={"tensor": name})
        return self.weights[name]

    def shared(self, name: str, value: np.generic) -> str:
        """A number that several nodes use."""
        if not any(each.name == name for each in self.constants):
            self.constant(name, np.asarray(value))
        return name

    def constant(self, name: str, array: np.ndarray) -> str:
        self.constants.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def add(self, kind: str, inputs: Sequence[str], *outputs: str, domain: str = _CONTRIB, **attributes: Any) -> str:
        """Append a node and return its first output."""
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, outputs, domain=domain, **attributes))
        return outputs[0]
