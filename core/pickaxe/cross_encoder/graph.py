"""The ONNX graph of a BERT that reads two texts at once and ends in a classifier (arXiv:1901.04085)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from pickaxe.encoder import graph
from pickaxe.errors import Unmet
from pickaxe.extras import require

VERSION = 1
GRAPH = "cross-encoder.onnx"

WORDS = "embeddings.word_embeddings.weight"

Pool = Literal["cls", "mean", "pooler"]


def build(model: Path, target: Path, words: Path | None = None, precision: graph.Precision = "fp32") -> None:
    """Write `cross-encoder.onnx` into `target` from the `config.json` and `model.safetensors` in `model`.

    `words` is the model whose word embeddings it shares, if it has none of its own.
    Inputs: `ids` and `segments` (B, T) int32 padded at the end, `lengths` (B,) int32; for mean pooling `pool`
    (B, 1, T) float32, the weight of each position; in int8 `mask` (B, T) int32, 1 where there is a token.
    Output: `logits` (B, outputs) float32.
    """
    onnx = require("onnx", extra="cpu")
    config = graph.read_config(model)
    weights = graph.read_weights(model)
    if words is not None:
        weights[WORDS] = graph.read_weights(words)[WORDS]
    builder = PairBuilder(onnx, config, weights, pooling(config, weights, model), precision)
    onnx.save(builder.model(), str(target / GRAPH))


def pooling(config: Mapping[str, Any], weights: Mapping[str, np.ndarray], model: Path) -> Pool:
    """What the classifier reads: `pickaxe_head.pool` of config.json, else the pooler where there is one.

    Raises `Unmet` for a model without classifier.
    """
    if "classifier.weight" not in weights:
        raise Unmet(
            f"the model in {model} has no classifier.weight: it is an encoder, not a cross-encoder",
            metadata={"path": model},
        )
    said: Pool = config.get("pickaxe_head", {}).get("pool") or ("pooler" if "pooler.dense.weight" in weights else "cls")
    if said not in get_args(Pool):
        raise Unmet(
            f"the cross-encoder in {model} pools by {said!r}; known are {', '.join(get_args(Pool))}",
            metadata={"path": model, "pool": said},
        )
    return said


class PairBuilder(graph.Builder):
    """The encoder's graph with segments and a head."""

    def __init__(
        self,
        onnx: Any,
        config: Mapping[str, Any],
        weights: Mapping[str, np.ndarray],
        pool: Pool,
        precision: graph.Precision = "fp32",
    ) -> None:
        super().__init__(onnx, config, weights, precision)
        self.pool = pool

    def model(self) -> Any:
        helper, types = self.onnx.helper, self.onnx.TensorProto
        state = self.embed()
        last = self.config["num_hidden_layers"] - 1
        # Nothing but the first position is read of the last layer, unless all are averaged.
        first = "" if self.pool == "mean" else self.constant("first", np.zeros(1, np.int64))
        for layer in range(last + 1):
            state = self.layer(state, f"encoder.layer.{layer}.", first if layer == last else "")
        self.head(state)
        inputs = [
            helper.make_tensor_value_info("ids", types.INT32, ["batch", "length"]),
            helper.make_tensor_value_info("segments", types.INT32, ["batch", "length"]),
            helper.make_tensor_value_info("lengths", types.INT32, ["batch"]),
            *self.mask_input(),
        ]
        if self.pool == "mean":
            inputs.append(helper.make_tensor_value_info("pool", types.FLOAT, ["batch", 1, "length"]))
        outputs = len(self.weight("classifier.weight"))
        logits = helper.make_tensor_value_info("logits", types.FLOAT, ["batch", outputs])
        made = helper.make_graph(self.nodes, "cross-encoder", inputs, [logits], self.constants)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(graph._CONTRIB, 1)]
        return helper.make_model(made, opset_imports=opsets, ir_version=8)

    def embed(self) -> str:
        """Word + position + segment, normalised."""
        names = ("word_embeddings", "position_embeddings", "token_type_embeddings")
        tables = [self.constant(name, self.weight(f"embeddings.{name}.weight")) for name in names]
        inputs = ["ids", "segments", *tables, *self.norm("embeddings.LayerNorm")]
        self.add("EmbedLayerNormalization", inputs, "embedded", "embedded.mask", epsilon=self.epsilon)
        return "embedded"

    def head(self, state: str) -> None:
        """(B, 1 or T, width) to `logits`."""
        if self.pool == "mean":
            state = self.add("MatMul", ["pool", state], "pooled", domain="")
        if self.pool == "pooler":
            state = self.add("Tanh", [self.dense(state, "pooler.dense")], "pooled", domain="")
        axis = self.constant("positions.axis", np.ones(1, np.int64))
        self.add("Squeeze", [self.dense(state, "classifier"), axis], "logits", domain="")

    def dense(self, state: str, name: str) -> str:
        product = self.exact_product(state, self.weight(f"{name}.weight").T, name)
        return self.add("Add", [product, self.bias(name)], f"{name}.sum", domain="")
