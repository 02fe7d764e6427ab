"""Two towers on disk and in use: for queries and for documents an encoder of BERT's shape and a linear head.

towers.json            side → its files' stem, shape, longest input
{stem}.onnx            the encoder, to run          {stem}.safetensors       all weights, to train further
{stem}-head.npy        its head's matrix (out, in), then `-bias`, `-norm-weight`, `-norm-bias` where it has them
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pickaxe.artifact import Artifact, ArtifactWriter
from pickaxe.encoder import graph
from pickaxe.extras import require
from pickaxe.tokenizers import Tokenizer
from pickaxe_plugins.train import bert

if TYPE_CHECKING:
    from pickaxe.call import Call
    from pickaxe.encoder import Encoder
    from pickaxe.host import Host

Side = Literal["query", "document"]
SIDES: tuple[Side, ...] = ("query", "document")
TABLE = "towers.json"
HEAD = {
    "head.weight": "head",
    "head.bias": "head-bias",
    "head.LayerNorm.weight": "head-norm-weight",
    "head.LayerNorm.bias": "head-norm-bias",
}
"""Weights of a head → their files."""
EPS = 1e-5
"""Of the head's layer norm, as PyTorch has it."""
TOKENIZER = "tokenizer"


def headed(weights: Mapping[str, Any], vectors: Any) -> Any:
    """Vectors (…, in) through what there is of a head: a matrix, its bias, a layer norm.  NumPy's or JAX's."""
    if "head.weight" in weights:
        vectors = vectors @ weights["head.weight"].T
    if "head.bias" in weights:
        vectors = vectors + weights["head.bias"]
    if "head.LayerNorm.weight" in weights:
        vectors = bert.norm(weights, "head.LayerNorm", vectors, EPS)
    return vectors


@dataclass(frozen=True)
class Tower:
    """One side in use."""

    encoder: Encoder | None
    """None: only items that bring their vectors can be embedded."""
    head: Mapping[str, np.ndarray]
    max_tokens: int | None = None

    def encode(self, texts: Sequence[str], call: Call) -> np.ndarray:
        """(n, d) float32, in the length that comes."""
        assert self.encoder is not None
        vectors = self.encoder.encode(texts, call, normalize=False, max_tokens=self.max_tokens)
        return np.asarray(headed(self.head, vectors), np.float32)

    @property
    def bare(self) -> Tower:
        """Without the head."""
        return Tower(self.encoder, {}, self.max_tokens)

    @cached_property
    def digest(self) -> str:
        """Equal for two towers exactly when they give the same vectors."""
        digest = hashlib.sha256(f"{self.encoder and self.encoder.digest} {self.max_tokens}".encode())
        for name in sorted(self.head):
            digest.update(name.encode() + np.ascontiguousarray(self.head[name]).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Network:
    """One side in training."""

    config: bert.Config
    weights: Mapping[str, np.ndarray]
    """With those of the head."""
    max_tokens: int


def write(out: ArtifactWriter, sides: Mapping[Side, Network], tokenizer: Tokenizer) -> None:
    """Write both towers; sides whose weights are the same object share their files."""
    onnx = require("onnx", extra="cpu")
    table: dict[str, dict[str, Any]] = {}
    for side, network in sides.items():
        same = next((other for other in SIDES if other in table and sides[other].weights is network.weights), None)
        table[side] = {"stem": same or side, "config": asdict(network.config), "max_tokens": network.max_tokens}
        if same is None:
            _write_network(onnx, out, side, network)
    out.write_json(TABLE, table)
    tokenizer.save(out.path)


def _write_network(onnx: Any, out: ArtifactWriter, stem: str, network: Network) -> None:
    weights = {name: np.ascontiguousarray(array, np.float32) for name, array in network.weights.items()}
    require("safetensors.numpy", extra="cpu").save_file(weights, str(out.file(f"{stem}.safetensors")))
    config = {
        "num_hidden_layers": network.config.layers,
        "num_attention_heads": network.config.heads,
        "hidden_size": network.config.width,
        "layer_norm_eps": network.config.eps,
    }
    onnx.save(graph.Builder(onnx, config, weights).model(), str(out.file(f"{stem}.onnx")))
    write_head(out, stem, weights)


def write_head(out: ArtifactWriter, stem: str, weights: Mapping[str, np.ndarray]) -> None:
    """Write what there is of a head."""
    for name, file in HEAD.items():
        if name in weights:
            out.write_array(f"{stem}-{file}.npy", np.asarray(weights[name], np.float32))


def read_head(artifact: Artifact, stem: str) -> dict[str, np.ndarray]:
    """What there is of a head; empty where there is none."""
    found = {name: f"{stem}-{file}.npy" for name, file in HEAD.items()}
    return {name: np.array(artifact.read_array(file)) for name, file in found.items() if artifact.has(file)}


def networks(artifact: Artifact) -> tuple[dict[Side, Network], Tokenizer]:
    """Both sides, to train further; the same object for both when they share their weights."""
    table = artifact.read_json(TABLE)
    load = require("safetensors.numpy", extra="cpu").load_file
    found: dict[Side, Network] = {}
    for side in SIDES:
        entry = table[side]
        own = entry["stem"] == side
        weights = load(str(artifact.file(f"{side}.safetensors"))) if own else found[entry["stem"]].weights
        found[side] = Network(bert.Config(**entry["config"]), weights, entry["max_tokens"])
    return found, Tokenizer.open(artifact.file("tokenizer.json"))


def opened(artifact: Artifact, side: Side, host: Host) -> Tower:
    """The tower of one side, to run."""
    from pickaxe.encoder import Encoder

    entry = artifact.read_json(TABLE)[side]
    path, config = artifact.file(f"{entry['stem']}.onnx"), entry["config"]
    pooling = "first" if config["pooling"] == "cls" else "mean"
    tokenizer = Tokenizer.open(artifact.file("tokenizer.json"))
    encoder = Encoder(host.session(path), tokenizer, config["width"], config["positions"], pooling, path)
    return Tower(encoder, read_head(artifact, entry["stem"]), entry["max_tokens"])


def copy(artifact: Artifact, out: ArtifactWriter) -> None:
    """What both towers need to run, from one artifact into another."""
    heads = tuple(f"-{file}.npy" for file in HEAD.values())
    for name in artifact.manifest["files"]:
        if name == TABLE or name.endswith((".onnx", *heads)) or name.startswith(TOKENIZER):
            shutil.copyfile(artifact.file(name), out.file(name))
