"""The small networks that the recipe of `languini` trains: a GPT, and a quasi-LSTM whose gates see the input alone."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pickaxe.extras import require
from pickaxe.lm.weights import Architecture
from pickaxe.randomness import generator
from pickaxe_plugins.train import llama
from pickaxe_plugins.train.linear import linear
from pickaxe_plugins.train.settings import Shape

Weights = Mapping[str, Any]
_EPS = 1e-5


@dataclass(frozen=True)
class Gpt:
    """A Llama-shaped decoder; it carries nothing from one window to the next."""

    architecture: Architecture

    def initial(self, seed: int) -> dict[str, np.ndarray]:
        return llama.initial(self.architecture, seed)

    def start(self, rows: int) -> Any:
        """The state of rows of which nothing was read."""
        return np.zeros((0, rows, 0), np.float32)

    def read(self, weights: Weights, ids: Any, state: Any) -> tuple[Any, Any]:
        """(logits (B, T, vocab), state behind them) for ids (B, T) that follow on a state."""
        return llama.logits(weights, llama.hidden_states(weights, self.architecture, ids)), state


@dataclass(frozen=True)
class QuasiLstm:
    """An LSTM without the way from its output back to its gates: they are computed for all positions at once.

    In each layer c_t = f_t c_(t-1) + i_t z_t and h_t = o_t tanh(c_t), where f, i, o (sigmoids) and z (tanh) are linear
    in the layer's normed input; a linear map of h and a gated MLP are added to the residual stream.  The state is c,
    (layers, B, width).
    """

    architecture: Architecture
    """Layers, width, mlp, vocabulary and context; it has no heads."""

    def initial(self, seed: int) -> dict[str, np.ndarray]:
        """Normal weights scaled as the GPT's.  Forget gates begin with memories of 1 to `context` tokens."""
        a = self.architecture
        layer: dict[str, tuple[int, ...]] = {"gates": (4 * a.width, a.width), "o": (a.width, a.width)}
        layer |= {"gate": (a.mlp, a.width), "up": (a.mlp, a.width), "down": (a.width, a.mlp)}
        shapes = {f"layers.{index}.{name}": shape for index in range(a.layers) for name, shape in layer.items()}
        weights = {"norm": np.ones(a.width, np.float32)}
        for name, shape in {"embedding": (a.vocab, a.width), **shapes}.items():
            deep = 2 * a.layers if name.endswith((".o", ".down")) else 1
            drawn = generator(seed, "weights", name).standard_normal(shape)
            weights[name] = ((shape[1] * deep) ** -0.5 * drawn).astype(np.float32)
        for index in range(a.layers):
            forget = np.log(np.linspace(1, a.context, a.width))
            weights[f"layers.{index}.gates_bias"] = np.concatenate([forget, np.zeros(3 * a.width)]).astype(np.float32)
            weights |= {f"layers.{index}.{name}": np.ones(a.width, np.float32) for name in ("norm", "mlp_norm")}
        return weights

    def start(self, rows: int) -> Any:
        return np.zeros((self.architecture.layers, rows, self.architecture.width), np.float32)

    def read(self, weights: Weights, ids: Any, state: Any) -> tuple[Any, Any]:
        jax = require("jax", extra="train")
        x = jax.numpy.asarray(weights["embedding"])[ids]
        behind = []
        for index in range(self.architecture.layers):
            layer = f"layers.{index}."
            read = linear(weights[layer + "gates"], _norm(x, weights[layer + "norm"])) + weights[layer + "gates_bias"]
            forget, admit, show, new = jax.numpy.split(read, 4, axis=-1)
            cells = _cells(jax.nn.sigmoid(forget), jax.nn.sigmoid(admit) * jax.numpy.tanh(new), state[index])
            x = x + linear(weights[layer + "o"], jax.nn.sigmoid(show) * jax.numpy.tanh(cells))
            h = _norm(x, weights[layer + "mlp_norm"])
            gated = jax.nn.silu(linear(weights[layer + "gate"], h)) * linear(weights[layer + "up"], h)
            x = x + linear(weights[layer + "down"], gated)
            behind.append(cells[:, -1])
        return llama.logits(weights, _norm(x, weights["norm"])), jax.numpy.stack(behind)


Net = Gpt | QuasiLstm
"""A network that reads rows of tokens; hashable, so that its step is compiled once."""


def _cells(keep: Any, add: Any, before: Any) -> Any:
    """c_t = keep_t c_(t-1) + add_t for all t (B, T, width), from `before` (B, width).

    One position after the other: on a CPU that is faster than a parallel scan, and compiles in a tenth of the time.
    """
    jax = require("jax", extra="train")
    first = functools.partial(jax.numpy.moveaxis, source=1, destination=0)

    def follow(cell: Any, step: tuple[Any, Any]) -> tuple[Any, Any]:
        cell = step[0] * cell + step[1]
        return cell, cell

    _, cells = jax.lax.scan(follow, before, (first(keep), first(add)))
    return jax.numpy.moveaxis(cells, 0, 1)


def _norm(x: Any, scale: Any) -> Any:
    return x * ((x * x).mean(-1, keepdims=True) + _EPS) ** -0.5 * scale


def network(model: str, shape: Shape, vocab: int, context: int) -> Net:
    """The network of that name, "gpt" or "qlstm", in that shape."""
    architecture = shape.sized(vocab, context)
    return Gpt(architecture) if model == "gpt" else QuasiLstm(architecture)
