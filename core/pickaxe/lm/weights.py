"""Model files: GGUF and safetensors checkpoints of the Llama family behind one description and one reader."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pickaxe.errors import ModelMissing, Unmet
from pickaxe.extras import require
from pickaxe.models.quantise import dequantise


@dataclass(frozen=True, slots=True)
class Architecture:
    """A Llama-shaped decoder: RMSNorm, rotary attention with shared key/value heads, gated SiLU MLP."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_size: int
    mlp: int
    vocab: int
    context: int
    eps: float = 1e-5
    rope_base: float = 10_000.0
    rope_interleaved: bool = False
    """Rotary pairs are neighbours (GGUF's permuted Llama matrices) instead of the two halves of a head."""
    rope_factors: tuple[float, ...] = ()
    """Divisors of the rotary frequencies, `head_size / 2` of them; empty: none."""
    tied: bool = False
    """The output matrix is the embedding."""
    qkv_bias: bool = False
    qk_norm: bool = False

    def inverse_frequencies(self) -> np.ndarray:
        """Rotary angle per position of each of the `head_size / 2` pairs, float64."""
        exponents = np.arange(0, self.head_size, 2, dtype=np.float64) / self.head_size
        frequencies = self.rope_base**-exponents
        return frequencies / np.asarray(self.rope_factors) if self.rope_factors else frequencies

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class TensorSource(Protocol):
    """Gives a model's tensors as float32, linear weights as (out, in).

    Names: `embedding`, `norm`, `output`, and per layer `layers.<i>.` with `attention_norm`, `q`, `k`, `v`, `o`,
    `q_bias`, `k_bias`, `v_bias`, `q_norm`, `k_norm`, `mlp_norm`, `gate`, `up`, `down`.
    """

    def tensor(self, name: str) -> np.ndarray: ...


@dataclass(frozen=True)
class Checkpoint:
    """One model on disk: what it is, how to read it, and the digest that caches are keyed by."""

    architecture: Architecture
    tensors: TensorSource
    digest: str
    bits: float
    """Per weight of the layers, as stored: 16, 8.5 for GGUF's Q8_0, 5 for its Q4_1 …"""


def open_checkpoint(path: Path) -> Checkpoint:
    """Read the description of a `.gguf` file, or of a directory with one or with safetensors and config.json."""
    if path.is_dir():
        if (path / "config.json").is_file():
            return _open_safetensors(path)
        found = sorted(path.glob("*.gguf"))
        if len(found) != 1:
            raise ModelMissing(
                f"{path} holds {len(found)} .gguf files and no config.json: name a directory with safetensors and "
                "config.json, one .gguf file, or an exported decoder (model.onnx, config.json, tokenizer.json)",
                metadata={"path": path},
            )
        path = found[0]
    if path.suffix != ".gguf" or not path.is_file():
        raise ModelMissing(f"{path} is not a .gguf file or a model directory", metadata={"path": path})
    return _open_gguf(path)


def file_digest(paths: list[Path]) -> str:
    """sha256 over the files' contents, in the given order."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


# ---------------------------------------------------------------- GGUF

_GGUF_NAMES = {
    "attention_norm": "attn_norm.weight",
    "q": "attn_q.weight",
    "k": "attn_k.weight",
    "v": "attn_v.weight",
    "o": "attn_output.weight",
    "q_bias": "attn_q.bias",
    "k_bias": "attn_k.bias",
    "v_bias": "attn_v.bias",
    "q_norm": "attn_q_norm.weight",
    "k_norm": "attn_k_norm.weight",
    "mlp_norm": "ffn_norm.weight",
    "gate": "ffn_gate.weight",
    "up": "ffn_up.weight",
    "down": "ffn_down.weight",
}
_GGUF_TOP = {"embedding": "token_embd.weight", "norm": "output_norm.weight", "output": "output.weight"}
_GGUF_FAMILIES = ("llama", "mistral3", "qwen2", "qwen3")


class _GgufTensors:
    def __init__(self, tensors: Mapping[str, Any]) -> None:
        self._tensors = tensors

    def tensor(self, name: str) -> np.ndarray:
        gguf = require("gguf", extra="cpu")
        if name.startswith("layers."):
            _, layer, part = name.split(".")
            stored = self._tensors[f"blk.{layer}.{_GGUF_NAMES[part]}"]
        else:
            stored = self._tensors[_GGUF_TOP[name]]
        return np.ascontiguousarray(gguf.dequantize(stored.data, stored.tensor_type), dtype=np.float32)


def _open_gguf(path: Path) -> Checkpoint:
    gguf = require("gguf", extra="cpu")
    reader = gguf.GGUFReader(str(path))
    fields = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("tokenizer.")}
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    family = str(fields.get("general.architecture"))
    if family not in _GGUF_FAMILIES or f"{family}.expert_count" in fields:
        kind = family if family not in _GGUF_FAMILIES else f"{family} with experts"
        raise _unsupported(path, f"architecture {kind!r}")
    scaling = fields.get(f"{family}.rope.scaling.type", "none")
    factors: tuple[float, ...] = ()
    if "rope_freqs.weight" in tensors:
        factors = tuple(float(value) for value in tensors["rope_freqs.weight"].data)
    elif scaling == "linear":
        size = int(fields[f"{family}.rope.dimension_count"]) // 2
        factors = (float(fields[f"{family}.rope.scaling.factor"]),) * size
    elif scaling != "none":
        raise _unsupported(path, f"rotary scaling {scaling!r}")
    heads = int(fields[f"{family}.attention.head_count"])
    width = int(fields[f"{family}.embedding_length"])
    head_size = int(fields.get(f"{family}.attention.key_length", width // heads))
    if int(fields.get(f"{family}.rope.dimension_count", head_size)) != head_size:
        raise _unsupported(path, "rotary embedding on a part of each head")
    context = int(fields[f"{family}.context_length"])
    architecture = Architecture(
        layers=int(fields[f"{family}.block_count"]),
        width=width,
        heads=heads,
        kv_heads=int(fields.get(f"{family}.attention.head_count_kv", heads)),
        head_size=head_size,
        mlp=int(fields[f"{family}.feed_forward_length"]),
        vocab=int(tensors["token_embd.weight"].shape[1]),
        context=min(context, int(fields.get(f"{family}.attention.sliding_window", context))),
        eps=float(fields[f"{family}.attention.layer_norm_rms_epsilon"]),
        rope_base=float(fields.get(f"{family}.rope.freq_base", 10_000.0)),
        rope_interleaved=family in ("llama", "mistral3"),
        rope_factors=factors,
        tied="output.weight" not in tensors,
        qkv_bias="blk.0.attn_q.bias" in tensors,
        qk_norm="blk.0.attn_q_norm.weight" in tensors,
    )
    layer = tensors["blk.0.ffn_down.weight"]
    bits = 8.0 * layer.data.nbytes / int(np.prod(layer.shape))
    return Checkpoint(architecture, _GgufTensors(tensors), file_digest([path]), bits)


# ---------------------------------------------------------------- safetensors

_HF_NAMES = {
    "attention_norm": "input_layernorm.weight",
    "q": "self_attn.q_proj.weight",
    "k": "self_attn.k_proj.weight",
    "v": "self_attn.v_proj.weight",
    "o": "self_attn.o_proj.weight",
    "q_bias": "self_attn.q_proj.bias",
    "k_bias": "self_attn.k_proj.bias",
    "v_bias": "self_attn.v_proj.bias",
    "q_norm": "self_attn.q_norm.weight",
    "k_norm": "self_attn.k_norm.weight",
    "mlp_norm": "post_attention_layernorm.weight",
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight",
}
_HF_TOP = {"embedding": "model.embed_tokens.weight", "norm": "model.norm.weight", "output": "lm_head.weight"}
_HF_FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I8": "<i1"}


def safetensors_name(name: str) -> str:
    """The name in a safetensors checkpoint of a `TensorSource` name."""
    if name.startswith("layers."):
        _, layer, part = name.split(".")
        return f"model.layers.{layer}.{_HF_NAMES[part]}"
    return _HF_TOP[name]


class _SafetensorsFiles:
    """Tensors of one or several safetensors files, memory-mapped.

    bfloat16 is widened by hand (NumPy has none); 8-bit tensors are those of `pickaxe.models.quantise`.
    """

    def __init__(self, paths: list[Path]) -> None:
        self._where: dict[str, tuple[Path, int, str, tuple[int, ...]]] = {}
        for path in paths:
            with path.open("rb") as stream:
                size = int.from_bytes(stream.read(8), "little")
                header = json.loads(stream.read(size))
            for name, entry in header.items():
                if name != "__metadata__":
                    start = 8 + size + entry["data_offsets"][0]
                    self._where[name] = (path, start, entry["dtype"], tuple(entry["shape"]))

    def stored(self, name: str) -> tuple[Path, int, str, tuple[int, ...]] | None:
        """Where the tensor (or its 8-bit form) of this stored name lies: file, offset, dtype, shape."""
        return self._where.get(name) or self._where.get(f"{name}.q8")

    def bits(self, name: str) -> float:
        """Bits per weight of the tensor of this stored name."""
        where = self.stored(name)
        return 8.0 * np.dtype(_DTYPES.get(where[2], "<f4") if where else "<f4").itemsize

    def __contains__(self, name: str) -> bool:
        return self.stored(safetensors_name(name)) is not None

    def tensor(self, name: str) -> np.ndarray:
        stored = safetensors_name(name)
        if f"{stored}.q8" in self._where:
            return dequantise(self._read(f"{stored}.q8"), self._read(f"{stored}.scale"))
        return self._read(stored).astype(np.float32, copy=False)

    def _read(self, stored: str) -> np.ndarray:
        path, start, dtype, shape = self._where[stored]
        if dtype not in _DTYPES:
            raise _unsupported(path, f"{stored} stored as {dtype}")
        raw = np.memmap(path, _DTYPES[dtype], "r", start, (math.prod(shape),)).reshape(shape)
        return (raw.astype("<u4") << 16).view("<f4") if dtype == "BF16" else np.asarray(raw)


def _open_safetensors(path: Path) -> Checkpoint:
    config = json.loads((path / "config.json").read_text())
    paths = sorted(path.glob("*.safetensors"))
    if not paths:
        raise ModelMissing(
            f"{path} has a config.json but no .safetensors file, and no model.onnx either", metadata={"path": path}
        )
    tensors = _SafetensorsFiles(paths)
    family = str(config.get("model_type"))
    if family not in _HF_FAMILIES:
        raise _unsupported(path, f"model_type {family!r}")
    if config.get("hidden_act", "silu") != "silu":
        raise _unsupported(path, f"activation {config['hidden_act']!r}")
    if config.get("mlp_bias") or tensors.stored("model.layers.0.self_attn.o_proj.bias"):
        raise _unsupported(path, "biases in the MLP or the attention output")
    heads = int(config["num_attention_heads"])
    head_size = int(config.get("head_dim") or config["hidden_size"] // heads)
    context = int(config["max_position_embeddings"])
    window = config.get("sliding_window") if config.get("use_sliding_window", family == "mistral") else None
    base, factors = _rope(path, config, head_size)
    architecture = Architecture(
        layers=int(config["num_hidden_layers"]),
        width=int(config["hidden_size"]),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads", heads)),
        head_size=head_size,
        mlp=int(config["intermediate_size"]),
        vocab=_rows(tensors, path, "model.embed_tokens.weight"),
        context=min(context, int(window or context)),
        eps=float(config.get("rms_norm_eps", 1e-6)),
        rope_base=base,
        rope_interleaved=bool(config.get("rope_interleaved", False)),
        rope_factors=factors,
        tied="output" not in tensors,
        qkv_bias="layers.0.q_bias" in tensors,
        qk_norm="layers.0.q_norm" in tensors,
    )
    digest = file_digest([path / "config.json", *paths])
    return Checkpoint(architecture, tensors, digest, tensors.bits("model.layers.0.mlp.down_proj.weight"))


def _rows(tensors: _SafetensorsFiles, path: Path, name: str) -> int:
    where = tensors.stored(name)
    if where is None:
        raise _unsupported(path, f"no tensor {name}")
    return where[3][0]


def _rope(path: Path, config: Mapping[str, Any], head_size: int) -> tuple[float, tuple[float, ...]]:
    """Rotary base and frequency divisors; the `llama3` rule is that of Llama 3.1 (arXiv 2407.21783)."""
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    base = float(scaling.get("rope_theta") or config.get("rope_theta", 10_000.0))
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return base, ()
    if kind == "linear":
        return base, (float(scaling["factor"]),) * (head_size // 2)
    if kind != "llama3":
        raise _unsupported(path, f"rotary scaling {kind!r}")
    wavelengths = 2 * np.pi * base ** (np.arange(0, head_size, 2) / head_size)
    low, high, factor = scaling["low_freq_factor"], scaling["high_freq_factor"], scaling["factor"]
    share = (scaling["original_max_position_embeddings"] / wavelengths - low) / (high - low)
    share = np.clip(share, 0.0, 1.0)
    return base, tuple(float(value) for value in 1.0 / ((1 - share) / factor + share))


def _unsupported(path: Path, what: str) -> Unmet:
    return Unmet(
        f"{path.name} has {what}, which the language-model runtime does not know: it runs Llama, Mistral, Qwen2, "
        "Qwen2.5, Qwen3 and SmolLM2 in GGUF or safetensors",
        metadata={"path": path, "missing": what},
    )
