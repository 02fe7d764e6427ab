"""The two kinds of graphs behind a cross-encoder: those built here, and those that others exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pickaxe.encoder import graph as bert
from pickaxe.errors import Unmet
from pickaxe.extras import require

if TYPE_CHECKING:
    from pickaxe.call import Call
    from pickaxe.session import Runtime

EXPORTED_TOKENS = 512
"""Longest pair of an exported graph whose config.json is not there to tell."""


class BertNetwork:
    """The graph that `pickaxe.cross_encoder.graph` builds."""

    def __init__(
        self, runtime: Runtime, model: Path, graph: Path, words: Path | None = None, precision: str = "fp32"
    ) -> None:
        config = bert.read_config(model)
        self._session = runtime.open(graph)
        self.is_cuda = runtime.is_cuda
        with require("safetensors", extra="cpu").safe_open(str(model / bert.WEIGHTS), "np") as tensors:
            self.outputs = int(tensors.get_slice("classifier.bias").get_shape()[0])
        positions = int(config["max_position_embeddings"])
        self.max_tokens = min(positions, _read(model / "sentence_bert_config.json").get("max_seq_length") or positions)
        self.files: tuple[Path, ...] = tuple(each / bert.WEIGHTS for each in (model, words) if each is not None)
        head = json.dumps(config.get("pickaxe_head", {}), sort_keys=True)
        self.name = head if precision == "fp32" else f"{head} {precision}"

    def run(self, ids: np.ndarray, segments: np.ndarray, lengths: np.ndarray, call: Call | None) -> np.ndarray:
        feeds = {"ids": ids, "segments": segments, "lengths": lengths}
        used = np.arange(ids.shape[1]) < lengths[:, None]
        if "mask" in self._session.inputs:
            feeds["mask"] = used.astype(np.int32)
        if "pool" in self._session.inputs:
            feeds["pool"] = np.where(used, 1 / lengths[:, None], 0).astype(np.float32)[:, None, :]
        logits: np.ndarray = self._session.run(feeds, call=call)[0]
        return logits


class ExportedNetwork:
    """A graph with inputs `input_ids`, `attention_mask` and perhaps `token_type_ids`."""

    outputs = 0

    def __init__(self, runtime: Runtime, graph: Path) -> None:
        self._session = runtime.open(graph)
        self.is_cuda = runtime.is_cuda
        known = {"input_ids", "attention_mask", "token_type_ids"}
        if "input_ids" not in self._session.inputs or set(self._session.inputs) - known:
            raise Unmet(
                f"{graph} takes {', '.join(self._session.inputs)}; a cross-encoder takes {', '.join(sorted(known))}",
                metadata={"path": graph},
            )
        config = next((_read(each / "config.json") for each in graph.parents if (each / "config.json").is_file()), {})
        self.max_tokens = int(config.get("max_position_embeddings") or EXPORTED_TOKENS)
        self._padding = int(config.get("pad_token_id") or 0)
        if config.get("model_type") in ("roberta", "xlm-roberta", "camembert"):
            self.max_tokens -= self._padding + 1  # their positions start after that of the padding
        self.files: tuple[Path, ...] = (graph, *sorted(graph.parent.glob(f"{graph.name}*data")))
        self.name = "exported"

    def run(self, ids: np.ndarray, segments: np.ndarray, lengths: np.ndarray, call: Call | None) -> np.ndarray:
        used = np.arange(ids.shape[1]) < lengths[:, None]
        feeds = {
            "input_ids": np.where(used, ids, self._padding),
            "attention_mask": used,
            "token_type_ids": segments,
        }
        wanted = {name: feeds[name].astype(np.int64) for name in self._session.inputs}
        logits = np.asarray(self._session.run(wanted, call=call)[0], np.float32)
        return logits.reshape(len(ids), -1)


def exported(model: Path) -> Path | None:
    """The ONNX file that a path means, or None when it holds weights to build a graph from."""
    if model.is_file() and model.suffix == ".onnx":
        return model
    places = (model / "model.onnx", model / "onnx" / "model.onnx")
    own = (model / bert.WEIGHTS).is_file()
    return None if own else next((each for each in places if each.is_file()), None)


def _read(path: Path) -> dict[str, int]:
    content: dict[str, int] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return content
