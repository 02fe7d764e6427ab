"""A Llama-shaped decoder in JAX: the same network that `pickaxe.lm` runs, in a form that can be trained.

Weights are a flat dictionary by the names of `pickaxe.lm.weights.TensorSource`, float32, linear ones (out, in).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import pickaxe
from pickaxe.errors import Unmet
from pickaxe.extras import require
from pickaxe.lm.weights import Architecture, TensorSource, safetensors_name
from pickaxe_plugins.train.linear import linear

Weights = Mapping[str, Any]
KeyValue = tuple[Any, Any]
"""Keys and values of one layer."""


def shapes(architecture: Architecture) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor's name and shape."""
    a = architecture
    yield "embedding", (a.vocab, a.width)
    yield "norm", (a.width,)
    if not a.tied:
        yield "output", (a.vocab, a.width)
    queries, keys = a.heads * a.head_size, a.kv_heads * a.head_size
    layer: dict[str, tuple[int, ...]] = {"attention_norm": (a.width,), "mlp_norm": (a.width,)}
    layer |= {"q": (queries, a.width), "k": (keys, a.width), "v": (keys, a.width), "o": (a.width, queries)}
    layer |= {"gate": (a.mlp, a.width), "up": (a.mlp, a.width), "down": (a.width, a.mlp)}
    if a.qkv_bias:
        layer |= {"q_bias": (queries,), "k_bias": (keys,), "v_bias": (keys,)}
    if a.qk_norm:
        layer |= {"q_norm": (a.head_size,), "k_norm": (a.head_size,)}
    for index in range(a.layers):
        yield from ((f"layers.{index}.{name}", shape) for name, shape in layer.items())


def initial(architecture: Architecture, seed: int) -> dict[str, np.ndarray]:
    """Normal weights of variance 1 / width read, those that write to the residual stream 1 / (2 layers) of it."""
    weights: dict[str, np.ndarray] = {}
    for name, shape in shapes(architecture):
        part = name.rpartition(".")[2]
        if len(shape) == 1:
            weights[name] = np.full(shape, 0.0 if part.endswith("bias") else 1.0, np.float32)
            continue
        scale = (shape[1] * (2 * architecture.layers if part in ("o", "down") else 1)) ** -0.5
        weights[name] = (scale * pickaxe.generator(seed, "weights", name).standard_normal(shape)).astype(np.float32)
    return weights


def load(architecture: Architecture, tensors: TensorSource) -> dict[str, np.ndarray]:
    """The weights of a model on disk, to be trained further."""
    if architecture.rope_factors:
        raise Unmet("a model with scaled rotary frequencies cannot be trained further: choose another base")
    return {name: np.array(tensors.tensor(name)) for name, _ in shapes(architecture)}


def hidden_states(weights: Weights, architecture: Architecture, ids: Any, noise: Any = 0.0) -> Any:
    """float32 (B, T, width) after the last norm, for ids (B, T); `noise` is added to the embeddings.

    Attention is causal: padding on the right changes nothing before it.
    """
    return read(weights, architecture, ids, noise=noise)[0]


def read(
    weights: Weights,
    architecture: Architecture,
    ids: Any,
    *,
    noise: Any = 0.0,
    given: Sequence[KeyValue] | None = None,
) -> tuple[Any, list[KeyValue]]:
    """Hidden states as `hidden_states` has them, and every layer's keys and values (B, T, kv_heads, head_size).

    Keys are those that the layer projects: before its key norm, where it has one, and before rotary.  With `given`,
    keys and values of that form for every layer, they are read in place of the model's own: the token at t sees
    those up to t, and the queries and all else are the model's.
    """
    import jax
    import jax.numpy as jnp

    rows, length = ids.shape
    angles = np.arange(length)[:, None] * architecture.inverse_frequencies()
    turn = np.cos(angles).astype(np.float32)[:, None], np.sin(angles).astype(np.float32)[:, None]

    def project(x: Any, layer: str, part: str) -> Any:
        y = linear(weights[layer + part], x)
        if architecture.qkv_bias:
            y = y + weights[layer + part + "_bias"]
        return y.reshape(rows, length, -1, architecture.head_size)

    def attend(x: Any, index: int) -> tuple[Any, KeyValue]:
        layer = f"layers.{index}."
        q = project(x, layer, "q")
        k, v = (project(x, layer, "k"), project(x, layer, "v")) if given is None else given[index]
        normed = normed_keys(weights, architecture, index, k)
        if architecture.qk_norm:
            q = _norm(q, weights[layer + "q_norm"], architecture)
        q, turned = (_rotate(part, *turn, architecture.rope_interleaved) for part in (q, normed))
        attended = jax.nn.dot_product_attention(q, turned, v, is_causal=True)
        return linear(weights[layer + "o"], attended.reshape(rows, length, -1)), (k, v)

    x = jnp.asarray(weights["embedding"])[ids] + noise
    seen: list[KeyValue] = []
    for index in range(architecture.layers):
        layer = f"layers.{index}."
        attended, pair = attend(_norm(x, weights[layer + "attention_norm"], architecture), index)
        x = x + attended
        seen.append(pair)
        h = _norm(x, weights[layer + "mlp_norm"], architecture)
        gated = jax.nn.silu(linear(weights[layer + "gate"], h)) * linear(weights[layer + "up"], h)
        x = x + linear(weights[layer + "down"], gated)
    return _norm(jnp.asarray(x), weights["norm"], architecture), seen


def normed_keys(weights: Weights, architecture: Architecture, layer: int, keys: Any) -> Any:
    """Projected keys (…, head_size) of a layer as its key norm leaves them: the same where it has none."""
    if not architecture.qk_norm:
        return keys
    return _norm(keys, weights[f"layers.{layer}.k_norm"], architecture)


def logits(weights: Weights, hidden: Any) -> Any:
    """(…, width) -> (…, vocab)."""
    return hidden @ weights.get("output", weights["embedding"]).T


def _norm(x: Any, scale: Any, architecture: Architecture) -> Any:
    return x * ((x * x).mean(-1, keepdims=True) + architecture.eps) ** -0.5 * scale


def _rotate(x: Any, cosine: Any, sine: Any, interleaved: bool) -> Any:
    """Heads (B, T, H, head_size) turned by their positions; pairs are the two halves, or neighbours."""
    import jax.numpy as jnp

    first, second = (x[..., 0::2], x[..., 1::2]) if interleaved else jnp.split(x, 2, axis=-1)
    turned = first * cosine - second * sine, second * cosine + first * sine
    return jnp.stack(turned, -1).reshape(x.shape) if interleaved else jnp.concatenate(turned, -1)


def save(weights: Weights, architecture: Architecture, folder: Path) -> None:
    """Write `model.safetensors` and `config.json`, which `pickaxe.lm` and other Llama readers open."""
    stored = {safetensors_name(name): np.ascontiguousarray(array) for name, array in weights.items()}
    require("safetensors.numpy", extra="cpu").save_file(stored, str(folder / "model.safetensors"))
    config = {
        "model_type": _family(architecture),
        "hidden_size": architecture.width,
        "intermediate_size": architecture.mlp,
        "num_hidden_layers": architecture.layers,
        "num_attention_heads": architecture.heads,
        "num_key_value_heads": architecture.kv_heads,
        "head_dim": architecture.head_size,
        "vocab_size": architecture.vocab,
        "rms_norm_eps": architecture.eps,
        "rope_theta": architecture.rope_base,
        "rope_interleaved": architecture.rope_interleaved,
        "max_position_embeddings": architecture.context,
        "tie_word_embeddings": architecture.tied,
        "hidden_act": "silu",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")


def _family(architecture: Architecture) -> str:
    if architecture.qk_norm:
        return "qwen3"
    return "qwen2" if architecture.qkv_bias else "llama"
