"""The usual layout of a decoder exported to ONNX: where its graph lies, what it takes, what it gives."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pickaxe.errors import InvalidParams, ModelMissing, Unmet
from pickaxe.extras import require
from pickaxe.lm.graph import Precision
from pickaxe.lm.weights import Architecture

_NAMES = ("model*.onnx", "decoder_model_merged*.onnx")
_SUFFIXES: Mapping[str, Precision] = {
    "fp16": "fp16",
    "q4": "int4",
    "q4f16": "int4",
    "bnb4": "int4",
    "int8": "int8",
    "uint8": "int8",
    "quantized": "int8",
}
"""`model_<suffix>.onnx` → its precision, by custom; a name without one of these says nothing."""
_PAST = re.compile(r"past_key_values\.(\d+)\.(key|value)")
_PRESENT = re.compile(r"present(?:_key_values)?\.(\d+)\.(key|value)")
_KEEP = ("num_logits_to_keep", "logits_to_keep")
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "seq_length", "max_seq_len")
_EIGHT_BITS = ("MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul", "DequantizeLinear")
REMEDY = "export it again for generation with past keys and values, or give its GGUF file or safetensors checkpoint"


@dataclass(frozen=True)
class Layout:
    """What a graph takes and gives, read from the graph itself."""

    layers: int
    kv_heads: int
    head_size: int
    vocab: int
    half: bool
    """Keys and values in float16."""
    precision: Precision
    past: tuple[str, ...]
    """Inputs: key and value of layer 0, key and value of layer 1, …"""
    present: tuple[str, ...]
    """Outputs in the same order."""
    positions: bool
    """Takes `position_ids`."""
    branch: bool
    """Takes `use_cache_branch`: two graphs merged into one, for the first tokens and for those on top of a past."""
    keep: str
    """Name of the input that says how many of the last positions get logits; or empty."""


@dataclass(frozen=True, slots=True)
class ExportedArchitecture(Architecture):
    """Of a graph that keeps its rotary embedding, if it has one, to itself."""

    def inverse_frequencies(self) -> np.ndarray:
        raise Unmet(
            "this model is an exported ONNX graph, which does not say how it turns its keys: keys before rotary cannot "
            "be had from it. Open the model's GGUF file or safetensors checkpoint instead",
            metadata={"missing": "rotary embedding"},
        )


# ---------------------------------------------------------------- the file


def find_export(path: Path, precision: str = "auto", prefer_half: bool = False) -> Path | None:
    """The graph to open for this model: None where `path` holds no export, or has weights that are read directly.

    Of several graphs it is the one of that precision, as their names say; for `auto`, a float16 one if
    `prefer_half`, else the one without a suffix, else the first by name.
    """
    if path.suffix == ".onnx" and path.is_file():
        found = [path]
    elif path.is_dir() and not any(path.glob("*.safetensors")) and not any(path.glob("*.gguf")):
        found = [file for place in (path, path / "onnx") for name in _NAMES for file in sorted(place.glob(name))]
    else:
        return None
    by_name = {file: _SUFFIXES.get(file.stem.rpartition("_")[2]) for file in found}
    if len(found) < 2:
        return next(iter(found), None)
    if precision == "auto":
        first = [file for file, kind in by_name.items() if prefer_half and kind == "fp16"]
        return next(iter([*first, *(file for file, kind in by_name.items() if kind is None), *found]))
    named = [file for file, kind in by_name.items() if kind == precision]
    return next(iter([*named, *(file for file, kind in by_name.items() if kind is None), *found]))


def model_folder(graph: Path) -> Path:
    """Where config.json and tokenizer.json lie: beside the graph, or beside the folder `onnx` that it is in."""
    return graph.parent.parent if graph.parent.name == "onnx" else graph.parent


def check_precision(graph: Path, stored: Precision, wanted: str) -> None:
    """Raise `InvalidParams` unless a graph with these weights will do."""
    if wanted not in ("auto", stored):
        raise InvalidParams(
            "precision",
            f"is {wanted!r}, but {graph.name} holds {stored} weights, and an exported graph runs as it is stored: use "
            f"auto or {stored}, put a graph of that precision beside it, or open the GGUF file or checkpoint",
        )


# ---------------------------------------------------------------- its contents


def read_layout(graph: Path) -> tuple[Layout, list[Path]]:
    """The layout of a graph file, and the files that hold it; raises `ModelMissing` or `Unmet` with what is wrong."""
    onnx = require("onnx", extra="cpu")
    try:
        model = onnx.load(str(graph), load_external_data=False)
    except Exception as error:  # protobuf's kinds of error differ by implementation
        raise _broken(graph, str(error)) from error
    if not model.graph.output:
        raise _broken(graph, "it has no outputs")
    graphs = list(_graphs(model.graph))
    places = {
        entry.value
        for each in graphs
        for tensor in each.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    files = [graph, *(graph.parent / place for place in sorted(places))]
    for file in files[1:]:
        if not file.is_file():
            raise _broken(graph, f"its weights are in {file.name}, which is not there")
    return _described(onnx, graph, model.graph, graphs), files


def _described(onnx: Any, path: Path, graph: Any, graphs: Sequence[Any]) -> Layout:
    inputs, outputs = ({value.name: value.type.tensor_type for value in side} for side in (graph.input, graph.output))
    for tensor in graph.initializer:  # old exports list their weights as inputs too
        inputs.pop(tensor.name, None)
    past, present = _numbered(_PAST, inputs), _numbered(_PRESENT, outputs)
    if not past:
        raise _refused(path, "no inputs past_key_values.N.key and past_key_values.N.value")
    layers = 1 + max(layer for layer, _ in past)
    pairs = [(layer, kind) for layer in range(layers) for kind in ("key", "value")]
    for side, found in (("input past_key_values", past), ("output present", present)):
        for layer, kind in pairs:
            if (layer, kind) not in found:
                raise _refused(path, f"no {side}.{layer}.{kind}")
    for name in ("input_ids", "attention_mask"):
        if name not in inputs:
            raise _refused(path, f"no input {name}")
    if "logits" not in outputs:
        raise _refused(path, f"no output logits (its outputs are {', '.join(list(outputs)[:3])}…)")
    keep = next((name for name in _KEEP if name in inputs), "")
    known = {"input_ids", "attention_mask", "position_ids", "use_cache_branch", keep, *past.values()}
    if others := sorted(set(inputs) - known):
        raise _refused(path, f"inputs that only its exporter knows how to fill: {', '.join(others)}")
    shape = [dim.dim_value for dim in inputs[past[0, "key"]].shape.dim]
    if len(shape) != 4:
        raise _refused(path, f"past keys of {len(shape)} axes instead of (batch, heads, tokens, head size)")
    vocab = [dim.dim_value for dim in outputs["logits"].shape.dim][-1:]
    half = inputs[past[0, "key"]].elem_type == onnx.TensorProto.FLOAT16
    if not half and inputs[past[0, "key"]].elem_type != onnx.TensorProto.FLOAT:
        raise _refused(path, "past keys that are neither float32 nor float16")
    return Layout(
        layers=layers,
        kv_heads=shape[1],
        head_size=shape[3],
        vocab=vocab[0] if vocab else 0,
        half=half,
        precision=_precision(graphs, half),
        past=tuple(past[pair] for pair in pairs),
        present=tuple(present[pair] for pair in pairs),
        positions="position_ids" in inputs,
        branch="use_cache_branch" in inputs,
        keep=keep,
    )


def read_architecture(graph: Path, layout: Layout) -> ExportedArchitecture:
    """From config.json, and from the graph where it says more."""
    path = model_folder(graph) / "config.json"
    if not path.is_file():
        raise ModelMissing(f"{path} is missing: put the export's config.json there", metadata={"path": path})
    config = json.loads(path.read_text(encoding="utf-8"))

    def fact(*names: str) -> int:
        value = next((config[name] for name in names if config.get(name)), 0)
        return int(value)

    heads = fact("num_attention_heads", "n_head", "num_heads")
    width = fact("hidden_size", "n_embd", "d_model")
    found = {
        "kv_heads": layout.kv_heads or fact("num_key_value_heads") or heads,
        "head_size": layout.head_size or fact("head_dim") or (width // heads if heads else 0),
        "vocab": layout.vocab or fact("vocab_size"),
        "context": fact(*_CONTEXT_KEYS),
    }
    for name, value in found.items():
        if not value:
            key = {"context": _CONTEXT_KEYS[0], "vocab": "vocab_size"}.get(name, "num_attention_heads or hidden_size")
            raise Unmet(f"{path} does not say {key}, nor does the graph: add it", metadata={"path": path, "key": key})
    return ExportedArchitecture(
        layers=layout.layers,
        width=width,
        heads=heads or found["kv_heads"],
        kv_heads=found["kv_heads"],
        head_size=found["head_size"],
        mlp=fact("intermediate_size"),
        vocab=found["vocab"],
        context=found["context"],
    )


def _numbered(pattern: re.Pattern[str], values: Mapping[str, Any]) -> dict[tuple[int, str], str]:
    matches = ((pattern.fullmatch(name), name) for name in values)
    return {(int(match[1]), match[2]): name for match, name in matches if match}


def _graphs(graph: Any) -> Iterator[Any]:
    """This graph and those inside it: a merged export is one `If`."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _precision(graphs: Sequence[Any], half: bool) -> Precision:
    """Of the weights, by the operators that read them."""
    for graph in graphs:
        for node in graph.node:
            if node.op_type == "MatMulNBits":
                bits = next((attribute.i for attribute in node.attribute if attribute.name == "bits"), 4)
                return "int4" if bits == 4 else "int8"
            if node.op_type == "MatMulBnb4":
                return "int4"
            if node.op_type in _EIGHT_BITS:
                return "int8"
    return "fp16" if half else "fp32"


def _broken(graph: Path, what: str) -> ModelMissing:
    return ModelMissing(
        f"{graph} is not a whole ONNX graph ({what}): copy the export's files again", metadata={"path": graph}
    )


def _refused(graph: Path, what: str) -> Unmet:
    return Unmet(
        f"{graph.name} has {what}: it is not a decoder in the usual layout. {REMEDY[0].upper()}{REMEDY[1:]}",
        metadata={"path": graph, "missing": what},
    )
