"""BERT-shaped networks on disk: the folder that `pickaxe.encoder`, the cross-encoder and other BERT readers open.

`config.json`, `model.safetensors` and the tokenizer's files, all flat, so that the folder can be an artifact.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pickaxe.cross_encoder.graph import WORDS
from pickaxe.encoder.graph import read_config, read_weights
from pickaxe.errors import ArtifactCorrupt
from pickaxe.extras import require
from pickaxe_plugins.train.bert import Config, Head, shapes

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "sentence_bert_config.json")
"""What is copied from the model that a trained one came from."""


def load(folder: Path, words: Path | None = None) -> tuple[Config, dict[str, np.ndarray]]:
    """The network in a folder, with the heads that it has; `words` is the model that it has its word embeddings of.

    Raises `Unmet` for a shape that is not BERT's, and `ArtifactCorrupt` when a tensor is missing or misshapen.
    """
    named = read_weights(folder)
    if words is not None:
        named[WORDS] = read_weights(words)[WORDS]
    config = _config(read_config(folder), folder, named)
    found = {name: np.asarray(named[name], np.float32) for name, _ in _expected(config, named)}
    pooler = {name: np.asarray(named[name], np.float32) for name in named if name.startswith("pooler.dense.")}
    return config, {**found, **pooler}


def save(folder: Path, config: Config, weights: Mapping[str, Any], *, like: Path | None = None) -> None:
    """Write `config.json` and `model.safetensors`; with `like`, a model's folder, its tokenizer's files too."""
    prefix = "bert." if config.head is not None or config.mlm else ""
    stored = {}
    for name, array in weights.items():
        own = name.startswith(("classifier.", "cls."))
        stored[name if own else prefix + name] = np.ascontiguousarray(array, np.float32)
    require("safetensors.numpy", extra="cpu").save_file(stored, str(folder / "model.safetensors"))
    (folder / "config.json").write_text(json.dumps(_written(config), indent=1, sort_keys=True) + "\n")
    if like is not None:
        for name in TOKENIZER:
            if (like / name).is_file():
                shutil.copyfile(like / name, folder / name)


def _config(read: Mapping[str, Any], folder: Path, tensors: Mapping[str, np.ndarray]) -> Config:
    head = None
    if "classifier.weight" in tensors:
        said = read.get("pickaxe_head") or {"pool": "pooler" if "pooler.dense.weight" in tensors else "cls"}
        head = Head(said["pool"], len(tensors["classifier.weight"]))
    pooling = folder / "1_Pooling" / "config.json"
    first = pooling.is_file() and json.loads(pooling.read_text(encoding="utf-8")).get("pooling_mode_cls_token")
    return Config(
        layers=int(read["num_hidden_layers"]),
        width=int(read["hidden_size"]),
        heads=int(read["num_attention_heads"]),
        mlp=int(read["intermediate_size"]),
        vocab=len(tensors["embeddings.word_embeddings.weight"]),
        positions=int(read["max_position_embeddings"]),
        types=int(read.get("type_vocab_size", 2)),
        eps=float(read.get("layer_norm_eps", 1e-12)),
        pooling="cls" if first or read.get("pickaxe_pooling") == "cls" else "mean",
        head=head,
        mlm="cls.predictions.bias" in tensors,
    )


def _expected(config: Config, tensors: Mapping[str, np.ndarray]) -> list[tuple[str, tuple[int, ...]]]:
    """The tensors of the network, each checked to be there in its shape."""
    expected = list(shapes(config))
    for name, shape in expected:
        if name not in tensors or tensors[name].shape != shape:
            found = list(tensors[name].shape) if name in tensors else "nothing"
            raise ArtifactCorrupt(
                f"model.safetensors holds {found} as {name!r}, config.json asks for {list(shape)}",
                metadata={"tensor": name},
            )
    return expected


def _written(config: Config) -> dict[str, Any]:
    kind = "BertModel"
    if config.mlm:
        kind = "BertForMaskedLM"
    if config.head is not None:
        kind = "BertForSequenceClassification"
    written: dict[str, Any] = {
        "architectures": [kind],
        "model_type": "bert",
        "hidden_act": "gelu",
        "position_embedding_type": "absolute",
        "hidden_size": config.width,
        "intermediate_size": config.mlp,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "vocab_size": config.vocab,
        "max_position_embeddings": config.positions,
        "type_vocab_size": config.types,
        "layer_norm_eps": config.eps,
        "pickaxe_pooling": config.pooling,
    }
    if config.head is not None:
        written["num_labels"] = config.head.outputs
        written["pickaxe_head"] = {"pool": config.head.pool, "outputs": config.head.outputs}
    return written
