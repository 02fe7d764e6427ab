"""Tiny random Llama-shaped models written to disk in both formats, and a plain float64 decoder to compare with."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer as Definition
from tokenizers import decoders, models, pre_tokenizers

sys.path.insert(0, str(Path(__file__).parent))

from exporter import Kind, Sizes, export, save

from pickaxe.lm import LM
from pickaxe.models import ModelStore
from pickaxe.session import Runtime

LAYERS, WIDTH, HEADS, KV_HEADS, HEAD, MLP, CONTEXT = 2, 64, 4, 2, 16, 96, 640
END = 256
VOCAB = 258
EPS, BASE = 1e-5, 10_000.0
HF_NAMES = {
    "attn_norm": "input_layernorm.weight",
    "ffn_norm": "post_attention_layernorm.weight",
    "attn_q": "self_attn.q_proj.weight",
    "attn_k": "self_attn.k_proj.weight",
    "attn_v": "self_attn.v_proj.weight",
    "attn_output": "self_attn.o_proj.weight",
    "attn_q_bias": "self_attn.q_proj.bias",
    "attn_k_bias": "self_attn.k_proj.bias",
    "attn_v_bias": "self_attn.v_proj.bias",
    "attn_q_norm": "self_attn.q_norm.weight",
    "attn_k_norm": "self_attn.k_norm.weight",
    "ffn_gate": "mlp.gate_proj.weight",
    "ffn_up": "mlp.up_proj.weight",
    "ffn_down": "mlp.down_proj.weight",
}


@dataclass(frozen=True)
class Reference:
    """The model in float64: one row of ids at a time, the whole attention matrix at once, rotary by halves."""

    family: str
    top: dict[str, np.ndarray]
    layers: list[dict[str, np.ndarray]]

    def logits(self, ids: list[int], positions: np.ndarray | None = None, bias: np.ndarray | None = None) -> np.ndarray:
        """(n, vocab); `bias` (n, n) is added to the scores under the causal mask."""
        n = len(ids)
        positions = np.arange(n) if positions is None else positions
        mask = np.where(np.tri(n, dtype=bool), 0.0, -1e30) + (0 if bias is None else bias)
        x = self.top["embedding"][ids].astype(np.float64)
        for layer in self.layers:
            h = _norm(x, layer["attn_norm"])
            q, k, v = (
                (h @ layer[f"attn_{part}"].T + layer.get(f"attn_{part}_bias", 0)).reshape(n, -1, HEAD) for part in "qkv"
            )
            if "attn_q_norm" in layer:
                q, k = _norm(q, layer["attn_q_norm"]), _norm(k, layer["attn_k_norm"])
            q, k = _rotate(q, positions), _rotate(k, positions)
            k, v = (np.repeat(part, HEADS // KV_HEADS, axis=1) for part in (k, v))
            scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(HEAD) + mask
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            x = x + np.einsum("hqk,khd->qhd", weights, v).reshape(n, -1) @ layer["attn_output"].T
            h = _norm(x, layer["ffn_norm"])
            gate = h @ layer["ffn_gate"].T
            x = x + (gate / (1 + np.exp(-gate)) * (h @ layer["ffn_up"].T)) @ layer["ffn_down"].T
        return _norm(x, self.top["norm"]) @ self.top.get("output", self.top["embedding"]).T

    def logprobs(self, ids: list[int]) -> np.ndarray:
        """(n, vocab) natural log-probabilities."""
        logits = self.logits(ids)
        return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def _norm(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPS) * scale


def _rotate(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    angles = np.asarray(positions)[:, None, None] * BASE ** (-np.arange(0, HEAD, 2) / HEAD)
    first, second = np.split(x, 2, axis=-1)
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)


def make_reference(family: str = "llama", tied: bool = True, seed: int = 0) -> Reference:
    random = np.random.default_rng(seed)

    def matrix(rows: int, columns: int, size: float = 1.2) -> np.ndarray:
        return (random.standard_normal((rows, columns)) * size / np.sqrt(columns)).astype(np.float32)

    def scale(size: int) -> np.ndarray:
        return (1 + 0.2 * random.standard_normal(size)).astype(np.float32)

    inner, shared = HEADS * HEAD, KV_HEADS * HEAD
    layers = []
    for _ in range(LAYERS):
        layer = {
            "attn_norm": scale(WIDTH),
            "attn_q": matrix(inner, WIDTH),
            "attn_k": matrix(shared, WIDTH),
            "attn_v": matrix(shared, WIDTH),
            "attn_output": matrix(WIDTH, inner),
            "ffn_norm": scale(WIDTH),
            "ffn_gate": matrix(MLP, WIDTH),
            "ffn_up": matrix(MLP, WIDTH),
            "ffn_down": matrix(WIDTH, MLP),
        }
        if family == "qwen2":
            sizes = {"q": inner, "k": shared, "v": shared}
            layer |= {f"attn_{part}_bias": matrix(1, size, 4.0)[0] for part, size in sizes.items()}
        if family == "qwen3":
            layer |= {f"attn_{part}_norm": scale(HEAD) for part in "qk"}
        layers.append(layer)
    top = {"embedding": matrix(VOCAB, WIDTH, 8.0), "norm": scale(WIDTH)}
    if not tied:
        top["output"] = matrix(VOCAB, WIDTH, 2.0)
    return Reference(family, top, layers)


def byte_tokens() -> list[str]:
    """One token per byte, then an end token and one merge."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)] + ["<|im_end|>", "zq"]


def write_safetensors(reference: Reference, folder: Path) -> Path:
    folder.mkdir()
    tensors = {"model.embed_tokens.weight": reference.top["embedding"], "model.norm.weight": reference.top["norm"]}
    if "output" in reference.top:
        tensors["lm_head.weight"] = reference.top["output"]
    for index, layer in enumerate(reference.layers):
        tensors |= {f"model.layers.{index}.{HF_NAMES[name]}": value for name, value in layer.items()}
    save_file(tensors, str(folder / "model.safetensors"))
    config = {
        "model_type": reference.family,
        "hidden_size": WIDTH,
        "intermediate_size": MLP,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD,
        "rms_norm_eps": EPS,
        "rope_theta": BASE,
        "max_position_embeddings": CONTEXT,
        "hidden_act": "silu",
    }
    (folder / "config.json").write_text(json.dumps(config))
    definition = Definition(models.BPE(vocab={token: i for i, token in enumerate(byte_tokens())}, merges=[("z", "q")]))
    definition.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    definition.decoder = decoders.ByteLevel()
    definition.add_special_tokens(["<|im_end|>"])
    definition.save(str(folder / "tokenizer.json"))
    return folder


def write_gguf(reference: Reference, path: Path) -> Path:
    family = reference.family
    writer = gguf.GGUFWriter(str(path), family)
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD)
    writer.add_layer_norm_rms_eps(EPS)
    writer.add_rope_freq_base(BASE)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(byte_tokens())
    writer.add_token_types([1] * 256 + [3, 1])
    writer.add_token_merges(["z q"])
    writer.add_eos_token_id(END)
    writer.add_tensor("token_embd.weight", reference.top["embedding"])
    writer.add_tensor("output_norm.weight", reference.top["norm"])
    if "output" in reference.top:
        writer.add_tensor("output.weight", reference.top["output"])
    for index, layer in enumerate(reference.layers):
        for name, value in layer.items():
            stored = _interleave(value) if family == "llama" and name in ("attn_q", "attn_k") else value
            suffix = name.removesuffix("_bias") + ".bias" if name.endswith("_bias") else f"{name}.weight"
            writer.add_tensor(f"blk.{index}.{suffix}", stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _interleave(matrix: np.ndarray) -> np.ndarray:
    """Rows of each head reordered so that the two halves alternate, as GGUF stores Llama's q and k."""
    halves = matrix.reshape(-1, 2, HEAD // 2, matrix.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(matrix.shape))


def _write_export(reference: Reference, folder: Path, kind: Kind | None = None, name: str = "model.onnx") -> Path:
    """The folder that an exporter would leave for this model."""
    kind = kind or Kind()
    checkpoint = write_safetensors(reference, folder.with_name(f"{folder.name}-checkpoint"))
    sizes = Sizes(HEADS, KV_HEADS, HEAD, CONTEXT, EPS, BASE)
    save(export(reference.top, reference.layers, sizes, kind), folder / name, external=kind.external)
    for file in ("config.json", "tokenizer.json"):
        shutil.copy(checkpoint / file, folder / file)
    return folder


Opener = Callable[..., LM]


@pytest.fixture(scope="session")
def runtime() -> Runtime:
    return Runtime("cpu", threads=2)


@pytest.fixture(scope="session")
def open_tiny(tmp_path_factory: pytest.TempPathFactory, runtime: Runtime) -> Opener:
    """`open_tiny(reference, kind, precision)` writes the model and opens it."""

    def opened(
        reference: Reference, kind: str = "safetensors", precision: str = "fp32", layers: int | None = None
    ) -> LM:
        folder = tmp_path_factory.mktemp("tiny")
        write = write_gguf if kind == "gguf" else write_safetensors
        path = write(reference, folder / ("model.gguf" if kind == "gguf" else "model"))
        return LM.open(ModelStore(folder / "models"), runtime, str(path), precision, layers)

    return opened


@pytest.fixture(scope="session")
def open_export(tmp_path_factory: pytest.TempPathFactory, runtime: Runtime) -> Opener:
    """`open_export(reference, kind, precision)` exports the model to ONNX and opens that."""

    def opened(
        reference: Reference, kind: Kind | None = None, precision: str = "auto", layers: int | None = None
    ) -> LM:
        folder = tmp_path_factory.mktemp("exported")
        path = _write_export(reference, folder / "model", kind)
        return LM.open(ModelStore(folder / "models"), runtime, str(path), precision, layers)

    return opened


@pytest.fixture(scope="session")
def write_export() -> Callable[..., Path]:
    return _write_export


@pytest.fixture(scope="session")
def write_checkpoint() -> Callable[..., Path]:
    return write_safetensors


@pytest.fixture(scope="session")
def reference() -> Reference:
    return make_reference()


@pytest.fixture(scope="session")
def tiny(reference: Reference, open_tiny: Opener) -> LM:
    return open_tiny(reference)


@pytest.fixture(scope="session")
def reference_of() -> Callable[..., Reference]:
    return make_reference


@pytest.fixture(scope="session")
def smollm(runtime: Runtime) -> LM:
    """The real model, as `pickaxe models pull lm` puts it."""
    return LM.open(ModelStore(), runtime, "lm")
