"""The states of single tokens: what a BERT-shaped encoder says before anything is pooled."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pickaxe.artifact import file_digest
from pickaxe.encoder import BATCH_TOKENS, batches, graph
from pickaxe.extras import require
from pickaxe.tokenizers import Tokenizer

if TYPE_CHECKING:
    from pickaxe.call import Call
    from pickaxe.models import ModelStore
    from pickaxe.session import Runtime, Session

VERSION = 1
"""Grows when the graph changes; part of the key under which converted graphs are kept."""

GRAPH = "states.onnx"


class StateEncoder:
    """Last-layer states of token ids.  Safe to use from several threads."""

    def __init__(self, session: Session, tokenizer: Tokenizer, width: int, max_tokens: int, weights: Path) -> None:
        self._session, self._weights = session, weights
        self.tokenizer = tokenizer
        self.width = width
        """d, the length of a state."""
        self.max_tokens = max_tokens
        """Most ids of one row: the positions that the model has."""
        self._batch_tokens = BATCH_TOKENS["cuda" if session.runtime.is_cuda else "cpu"]

    @classmethod
    def open(cls, store: ModelStore, runtime: Runtime, name: str | Path) -> StateEncoder:
        """The model of this alias, name or directory.  The first opening converts it to ONNX and keeps that."""
        model = store.path(name)
        config = graph.read_config(model)
        converted = store.converted(name, f"states-{VERSION}", lambda target: build(model, target))
        positions = int(config["max_position_embeddings"])
        session = runtime.open(converted / GRAPH)
        return cls(session, Tokenizer.open(model), config["hidden_size"], positions, model / graph.WEIGHTS)

    @cached_property
    def digest(self) -> str:
        """Equal for two models exactly when they give the same states: weights and tokens."""
        return hashlib.sha256(f"{file_digest(self._weights)} {self.tokenizer.digest}".encode()).hexdigest()

    def states(self, rows: Sequence[Sequence[int]], call: Call | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """(row, states (n, d) float32) of every row of n >= 1 ids, the longest rows first.

        Ids are taken as they are: what stands around a text is the caller's.
        """
        lengths = np.fromiter(map(len, rows), np.int32, len(rows))
        for batch in batches(lengths, self._batch_tokens):
            if call is not None:
                call.check()
            used = np.arange(lengths[batch].max()) < lengths[batch, None]
            ids = np.zeros(used.shape, np.int32)
            ids[used] = np.concatenate([rows[row] for row in batch])
            found: np.ndarray = self._session.run({"ids": ids, "lengths": lengths[batch]}, call=call)[0]
            for place, row in enumerate(batch.tolist()):
                yield row, found[place, : lengths[row]]


def build(model: Path, target: Path) -> None:
    """Write `states.onnx` into `target` from the `config.json` and `model.safetensors` in `model`.

    Inputs: `ids` (B, T) int32 padded at the end, `lengths` (B,) int32.  Output: `states` (B, T, width) float32.
    """
    onnx = require("onnx", extra="cpu")
    config = graph.read_config(model)
    onnx.save(StateBuilder(onnx, config, graph.read_weights(model)).model(), str(target / GRAPH))


class StateBuilder(graph.Builder):
    """The encoder's graph without its end."""

    def model(self) -> Any:
        helper, types = self.onnx.helper, self.onnx.TensorProto
        state = self.embed()
        for layer in range(self.config["num_hidden_layers"]):
            state = self.layer(state, f"encoder.layer.{layer}.")
        self.add("Identity", [state], "states", domain="")
        inputs = [
            helper.make_tensor_value_info("ids", types.INT32, ["batch", "length"]),
            helper.make_tensor_value_info("lengths", types.INT32, ["batch"]),
        ]
        shape = ["batch", "length", self.config["hidden_size"]]
        outputs = [helper.make_tensor_value_info("states", types.FLOAT, shape)]
        made = helper.make_graph(self.nodes, "states", inputs, outputs, self.constants)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(graph._CONTRIB, 1)]
        return helper.make_model(made, opset_imports=opsets, ir_version=8)
