"""A BERT-shaped encoder in JAX (arXiv:1810.04805): what `pickaxe.encoder` runs, in a form that can be trained.

Weights are a flat dictionary by the names of `BertModel` without the prefix `bert.`, float32, linear ones (out, in).
Heads are in it too, when there are any: `classifier.*` of a cross-encoder, `cls.predictions.*` of a masked language
model.  `bert_files` reads and writes them; `pairs` makes batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

import pickaxe
from pickaxe.errors import InvalidParams
from pickaxe_plugins.train.linear import linear

Weights = Mapping[str, Any]
Pooling = Literal["mean", "cls"]
MASKED = -1e9
"""What a score of attention to padding is set to."""


@dataclass(frozen=True, slots=True)
class Head:
    """What a cross-encoder puts on the hidden states: a pooled vector through one linear layer."""

    pool: Literal["cls", "mean", "pooler"] = "pooler"
    """The first state, their mean, or the first one through `pooler.dense` and tanh, as BERT has it."""
    outputs: int = 1


@dataclass(frozen=True, slots=True)
class Config:
    """The shape of a network, and what is read from it."""

    layers: int
    width: int
    heads: int
    mlp: int
    vocab: int
    positions: int = 512
    """Most tokens that it reads."""
    types: int = 2
    """Kinds of segments."""
    eps: float = 1e-12
    pooling: Pooling = "mean"
    """How a sentence vector is made."""
    head: Head | None = None
    mlm: bool = False
    """Whether it has the head of a masked language model, whose output matrix is the word embedding."""

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")


def shapes(config: Config) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor's name and shape."""
    width = config.width
    yield "embeddings.word_embeddings.weight", (config.vocab, width)
    yield "embeddings.position_embeddings.weight", (config.positions, width)
    yield "embeddings.token_type_embeddings.weight", (config.types, width)
    yield from _norm_shapes("embeddings.LayerNorm", width)
    for index in range(config.layers):
        layer = f"encoder.layer.{index}."
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            yield from _dense_shapes(f"{layer}attention.{part}", width, width)
        yield from _norm_shapes(f"{layer}attention.output.LayerNorm", width)
        yield from _dense_shapes(f"{layer}intermediate.dense", config.mlp, width)
        yield from _dense_shapes(f"{layer}output.dense", width, config.mlp)
        yield from _norm_shapes(f"{layer}output.LayerNorm", width)
    yield from head_shapes(config)


def head_shapes(config: Config) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Those of the heads."""
    if config.head is not None:
        if config.head.pool == "pooler":
            yield from _dense_shapes("pooler.dense", config.width, config.width)
        yield from _dense_shapes("classifier", config.head.outputs, config.width)
    if config.mlm:
        yield from _dense_shapes("cls.predictions.transform.dense", config.width, config.width)
        yield from _norm_shapes("cls.predictions.transform.LayerNorm", config.width)
        yield "cls.predictions.bias", (config.vocab,)


def initial(config: Config, seed: int, scale: float = 0.02) -> dict[str, np.ndarray]:
    """Normal weights of standard deviation `scale`, biases 0, norms 1."""
    return {name: _fresh(name, shape, seed, scale) for name, shape in shapes(config)}


def with_heads(
    config: Config, weights: Weights, seed: int, *, head: Head | None = None, mlm: bool = False
) -> tuple[Config, dict[str, Any]]:
    """The same network with further heads; tensors that are there already (a pooler) stay, others are fresh."""
    config = replace(config, head=head or config.head, mlm=mlm or config.mlm)
    fresh = {name: _fresh(name, shape, seed, 0.02) for name, shape in head_shapes(config) if name not in weights}
    return config, {**weights, **fresh}


def shortened(config: Config, weights: Weights, layers: int | None) -> tuple[Config, dict[str, Any]]:
    """The same network with only its first layers; None: all of them.  Raises `InvalidParams` when it has fewer."""
    if layers is not None and layers > config.layers:
        raise InvalidParams("layers", f"is {layers}; the base has {config.layers}")
    kept = config.layers if layers is None else layers
    beyond = tuple(f"encoder.layer.{index}." for index in range(kept, config.layers))
    return replace(config, layers=kept), {name: array for name, array in weights.items() if not name.startswith(beyond)}


def hidden_states(
    weights: Weights,
    config: Config,
    ids: Any,
    lengths: Any,
    segments: Any = None,
    *,
    dropout: float = 0.0,
    key: Any = None,
) -> Any:
    """float32 (B, T, width) of the last layer, for ids (B, T) padded at the end and lengths (B,).

    `segments` (B, T) are 0 or 1, all 0 when there are none.  With a `key`, that share of `dropout` is applied where
    BERT does: after the embeddings, to attention and to both outputs of a layer.  Places of padding hold no meaning.
    """
    import jax.numpy as jnp

    length = ids.shape[1]
    drop = _Dropout(dropout if key is not None else 0.0, key)
    used = jnp.arange(length) < jnp.maximum(lengths, 1)[:, None]
    # Frozen weights may be NumPy's, which do not take traced ids.
    words, places, types = (
        jnp.asarray(weights[f"embeddings.{kind}_embeddings.weight"]) for kind in ("word", "position", "token_type")
    )
    x = words[ids] + places[:length]
    x = x + (types[0] if segments is None else types[segments])
    x = drop(norm(weights, "embeddings.LayerNorm", x, config.eps))
    for index in range(config.layers):
        x = _layer(weights, config, f"encoder.layer.{index}.", x, used, drop)
    return x


def pooled(hidden: Any, lengths: Any, pooling: Pooling = "mean") -> Any:
    """(B, width): the mean of the states (B, T, width) over the tokens of each row, or the first state."""
    import jax.numpy as jnp

    if pooling == "cls":
        return hidden[:, 0]
    count = jnp.maximum(lengths, 1)
    used = jnp.arange(hidden.shape[1]) < count[:, None]
    return jnp.where(used[..., None], hidden, 0).sum(1) / count[:, None]


def unit(vectors: Any) -> Any:
    """(…, d) of length 1; the zero vector stays, and so does its gradient."""
    import jax.numpy as jnp

    return vectors / jnp.sqrt(jnp.maximum((vectors * vectors).sum(-1, keepdims=True), 1e-24))


def embed(weights: Weights, config: Config, given: Mapping[str, Any], *, dropout: float = 0.0, key: Any = None) -> Any:
    """Sentence vectors (B, width), not normalised, of a batch with `ids` and `lengths`."""
    hidden = hidden_states(weights, config, given["ids"], given["lengths"], dropout=dropout, key=key)
    return pooled(hidden, given["lengths"], config.pooling)


def scores(weights: Weights, config: Config, given: Mapping[str, Any], *, dropout: float = 0.0, key: Any = None) -> Any:
    """What the head says, (B, outputs), of a batch with `ids`, `lengths` and `segments`."""
    assert config.head is not None, "the network has no head"
    lengths = given["lengths"]
    hidden = hidden_states(
        weights, config, given["ids"], lengths, given.get("segments"), dropout=dropout, key=_child(key, 0)
    )
    state = pooled(hidden, lengths, "mean" if config.head.pool == "mean" else "cls")
    if config.head.pool == "pooler":
        import jax.numpy as jnp

        state = jnp.tanh(dense(weights, "pooler.dense", state))
    drop = _Dropout(dropout if key is not None else 0.0, _child(key, 1))
    return dense(weights, "classifier", drop(state))


def mlm_logits(weights: Weights, config: Config, hidden: Any) -> Any:
    """(…, width) -> (…, vocab), through BERT's transform and the word embeddings."""
    import jax

    x = jax.nn.gelu(dense(weights, "cls.predictions.transform.dense", hidden), approximate=False)
    x = norm(weights, "cls.predictions.transform.LayerNorm", x, config.eps)
    return x @ weights["embeddings.word_embeddings.weight"].T + weights["cls.predictions.bias"]


def dense(weights: Weights, name: str, x: Any) -> Any:
    """The linear layer of that name, with its bias."""
    return linear(weights[f"{name}.weight"], x) + weights[f"{name}.bias"]


def norm(weights: Weights, name: str, x: Any, eps: float) -> Any:
    """The layer norm of that name."""
    centred = x - x.mean(-1, keepdims=True)
    scale = ((centred * centred).mean(-1, keepdims=True) + eps) ** -0.5
    return centred * scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _layer(weights: Weights, config: Config, layer: str, x: Any, used: Any, drop: _Dropout) -> Any:
    import jax
    import jax.numpy as jnp

    rows, length = x.shape[:2]
    size = config.width // config.heads
    q, k, v = (
        dense(weights, f"{layer}attention.self.{part}", x).reshape(rows, length, config.heads, size)
        for part in ("query", "key", "value")
    )
    scored = jnp.einsum("bqhd,bkhd->bhqk", q, k) * size**-0.5
    shares = drop(jax.nn.softmax(jnp.where(used[:, None, None, :], scored, MASKED), axis=-1))
    mixed = jnp.einsum("bhqk,bkhd->bqhd", shares, v).reshape(rows, length, config.width)
    attended = drop(dense(weights, f"{layer}attention.output.dense", mixed))
    x = norm(weights, f"{layer}attention.output.LayerNorm", x + attended, config.eps)
    inner = jax.nn.gelu(dense(weights, f"{layer}intermediate.dense", x), approximate=False)
    output = drop(dense(weights, f"{layer}output.dense", inner))
    return norm(weights, f"{layer}output.LayerNorm", x + output, config.eps)


class _Dropout:
    """Drops that share of what it is given, each time by a new key."""

    def __init__(self, rate: float, key: Any) -> None:
        self._rate, self._key, self._times = rate, key, 0

    def __call__(self, x: Any) -> Any:
        if not self._rate:
            return x
        import jax
        import jax.numpy as jnp

        self._times += 1
        kept = jax.random.bernoulli(_child(self._key, self._times), 1 - self._rate, x.shape)
        return jnp.where(kept, x / (1 - self._rate), 0)


def _child(key: Any, number: int) -> Any:
    if key is None:
        return None
    import jax

    return jax.random.fold_in(key, number)


def _fresh(name: str, shape: tuple[int, ...], seed: int, scale: float) -> np.ndarray:
    if name.endswith("bias"):
        return np.zeros(shape, np.float32)
    if "LayerNorm" in name:
        return np.ones(shape, np.float32)
    return (scale * pickaxe.generator(seed, "weights", name).standard_normal(shape)).astype(np.float32)


def _dense_shapes(name: str, outputs: int, inputs: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def _norm_shapes(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)
