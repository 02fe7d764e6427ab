"""Masked language models on ONNX Runtime: log-probabilities of tokens whose places hold the mask (arXiv:1810.04805)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pickaxe import Call, Host
from pickaxe.encoder import batches
from pickaxe.encoder.graph import Builder, read_config, read_weights
from pickaxe.errors import Unmet
from pickaxe.extras import require
from pickaxe.tokenizers import Tokenizer

GRAPH = "masked-lm.onnx"
VERSION = 1
"""Grows when the graph changes."""
BATCH_TOKENS = 2048
_HEAD = "cls.predictions.transform"


def build(model: Path, target: Path) -> None:
    """Write the graph: ids (B, T), lengths (B,), places (K,) into B*T and targets (K, 1) -> log_probs (K, 1).

    The vocabulary's softmax is taken at the K places alone.
    """
    onnx, weights = require("onnx", extra="cpu"), read_weights(model)
    if "cls.predictions.bias" not in weights:
        raise Unmet(
            f"the model in {model} has no head for masked words (cls.predictions): name a masked language model, "
            "or use loss=causal or ngram",
            metadata={"path": model},
        )
    onnx.save(_Graph(onnx, read_config(model), weights).model(), str(target / GRAPH))


class _Graph(Builder):
    """The encoder, with BERT's head for words on chosen states."""

    def model(self) -> object:
        state = self.embed()
        for layer in range(self.config["num_hidden_layers"]):
            state = self.layer(state, f"encoder.layer.{layer}.")
        shape = self.constant("flat", np.array([-1, self.config["hidden_size"]], np.int64))
        self.add("Reshape", [state, shape], "states", domain="")
        self.add("Gather", ["states", "places"], "chosen", domain="", axis=0)
        inner = self.add("BiasGelu", [self.matmul("chosen", f"{_HEAD}.dense"), self.bias(f"{_HEAD}.dense")], "inner")
        normed = self.add(
            "LayerNormalization", [inner, *self.norm(f"{_HEAD}.LayerNorm")], "normed", domain="", axis=-1,
            epsilon=self.epsilon,
        )  # fmt: skip
        table = self.constant("decoder", self.weight("embeddings.word_embeddings.weight").T)
        self.add("MatMul", [normed, table], "raw", domain="")
        self.add("Add", ["raw", self.constant("decoder.bias", self.weight("cls.predictions.bias"))], "all", domain="")
        self.add("LogSoftmax", ["all"], "every", domain="", axis=-1)
        self.add("GatherElements", ["every", "targets"], "log_probs", domain="", axis=1)
        helper, types = self.onnx.helper, self.onnx.TensorProto
        inputs = [
            helper.make_tensor_value_info("ids", types.INT32, ["batch", "length"]),
            helper.make_tensor_value_info("lengths", types.INT32, ["batch"]),
            helper.make_tensor_value_info("places", types.INT64, ["masked"]),
            helper.make_tensor_value_info("targets", types.INT64, ["masked", 1]),
        ]
        outputs = [helper.make_tensor_value_info("log_probs", types.FLOAT, ["masked", 1])]
        graph = helper.make_graph(self.nodes, "masked-lm", inputs, outputs, self.constants)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


class MaskedLM:
    """A BERT with its head for masked words."""

    def __init__(self, host: Host, name: str) -> None:
        path = host.model_path(name)
        self.tokenizer = Tokenizer.open(path)
        mask = self.tokenizer.token_to_id("[MASK]")
        if mask is None:
            raise Unmet(f"the tokenizer of model {name!r} has no [MASK]", metadata={"model": name})
        self._mask = mask
        self.max_tokens = int(read_config(path)["max_position_embeddings"])
        """Those around the text included."""
        folder = host.models.converted(name, f"masked-lm-{VERSION}", lambda target: build(path, target))
        self._session = host.runtime.open(folder / GRAPH)

    def log_probs(
        self, ids: Sequence[Sequence[int]], places: Sequence[np.ndarray], call: Call | None = None
    ) -> list[np.ndarray]:
        """Per row float64 (k,): of the ids at those places when all of them hold the mask."""
        found = [np.zeros(0)] * len(ids)
        lengths = np.fromiter(map(len, ids), np.int32, len(ids))
        for batch in batches(lengths, BATCH_TOKENS):
            if call is not None:
                call.check()
            used = np.arange(lengths[batch].max()) < lengths[batch][:, None]
            given = np.zeros(used.shape, np.int32)
            given[used] = np.concatenate([np.asarray(ids[row], np.int32) for row in batch])
            flat = np.concatenate([places[row] + at * used.shape[1] for at, row in enumerate(batch)])
            words = given.reshape(-1)[flat].astype(np.int64)
            given.reshape(-1)[flat] = self._mask
            feeds = {"ids": given, "lengths": lengths[batch], "places": flat, "targets": words[:, None]}
            logs = self._session.run(feeds, call=call)[0][:, 0].astype(np.float64)
            ends = np.cumsum([len(places[row]) for row in batch])[:-1]
            for row, values in zip(batch, np.split(logs, ends), strict=True):
                found[row] = values
        return found
