"""Losses and gradients of single examples, and what can be had of them without building them.

All take a loss of the form `PerExample`: it maps the weights and a batch of B examples to their B losses, and no
example's loss depends on another example.  For the weight (out, in) of a linear layer, an example's gradient is
G = sum over tokens of s a^T, with a the layer's input and s the loss's slope at its output; `signals` gets every a and
s of a batch in one backward pass, and the rest of this module works on these.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pickaxe.extras import require
from pickaxe_plugins.train.linear import linear

Weights = Mapping[str, Any]
PerExample = Callable[[Any, Mapping[str, Any]], Any]
"""(weights, batch of B examples) -> losses (B,)."""

BLOCK = 2**22
"""Random signs that are held at a time: 16 MiB of them as float32."""


class Signal(NamedTuple):
    """What passed a linear layer: `inputs` (B, T, in) and `slopes` (B, T, out) of the loss at its outputs."""

    inputs: Any
    slopes: Any


Signals = Mapping[str, Signal]
"""By the names of the weights."""


def losses(loss: PerExample, weights: Weights, given: Mapping[str, Any]) -> Any:
    """The losses (B,) of a batch, compiled once for a `loss`."""
    return _compiled_losses(loss)(dict(weights), dict(given))


def gradients(
    loss: PerExample, weights: Weights, given: Mapping[str, Any], names: Sequence[str] | None = None
) -> dict[str, Any]:
    """Every example's gradient of the named weights (all of them by default): name -> (B, *shape).

    For weights of any use in the network.  Takes B times the memory of the weights: see `signals` for less.
    """
    chosen = tuple(weights) if names is None else tuple(names)
    found: dict[str, Any] = _compiled_gradients(loss, chosen)(dict(weights), dict(given))
    return found


def signals(
    loss: PerExample, weights: Weights, given: Mapping[str, Any], names: Sequence[str]
) -> tuple[Any, dict[str, Signal]]:
    """The losses (B,), and each named linear layer's inputs and output slopes, in one backward pass.

    The network must apply these weights through `linear`.  A layer that is applied several times has its tokens in a
    row.  Slopes are 0 at padding; inputs are not.
    """
    found: tuple[Any, dict[str, Signal]] = _compiled_signals(loss, tuple(names))(dict(weights), dict(given))
    return found


# ------------------------------------------------------------ on signals, without the gradients themselves


def weight_gradients(passed: Signals) -> dict[str, np.ndarray]:
    """G of every example: name -> (B, out, in)."""
    return {name: _outer(signal.slopes, signal.inputs) for name, signal in passed.items()}


def inner(passed: Signals, direction: Mapping[str, np.ndarray]) -> np.ndarray:
    """<G, V> (B,) with one matrix V (out, in) for each layer: sum over layers and tokens of s^T V a."""
    total: Any = 0.0
    for name, signal in passed.items():
        slopes, inputs = np.asarray(signal.slopes), np.asarray(signal.inputs)
        total = total + ((inputs @ direction[name].T) * slopes).sum((1, 2), dtype=np.float64)
    return np.asarray(total)


def squared_norms(passed: Signals) -> np.ndarray:
    """|G|^2 (B,), over all layers."""
    total: Any = 0.0
    for signal in passed.values():
        slopes, inputs = np.asarray(signal.slopes), np.asarray(signal.inputs)
        tokens, size = slopes.shape[1], slopes.shape[2] * inputs.shape[2] / (slopes.shape[2] + inputs.shape[2])
        if tokens < size:  # |sum s a^T|^2 = sum over pairs of tokens of (s.s')(a.a')
            squares = (slopes @ slopes.swapaxes(1, 2)) * (inputs @ inputs.swapaxes(1, 2))
        else:
            squares = np.square(_outer(slopes, inputs))
        total = total + squares.sum((1, 2), dtype=np.float64)
    return np.asarray(total)


def gram(left: Signals, right: Signals) -> np.ndarray:
    """<G, G'> (n, m) of every example of one batch with every one of another, over all layers they share."""
    total: Any = 0.0
    for name, signal in left.items():
        other = _outer(right[name].slopes, right[name].inputs)
        own = _outer(signal.slopes, signal.inputs)
        total = total + own.reshape(len(own), -1) @ other.reshape(len(other), -1).T
    return np.asarray(total)


# ------------------------------------------------------------ projection to few dimensions


def project(passed: Signals, dimensions: int, seed: int) -> np.ndarray:
    """Every example's gradient over all layers, (B, dimensions) float32, under random signs / sqrt(dimensions).

    Inner products stay the same in expectation.  Signs depend on (seed, layer name, place) alone, and are drawn a block
    of rows at a time, for which alone the gradients are built.
    """
    return _projected(
        {name: (signal.slopes.shape[2], signal.inputs.shape[2]) for name, signal in passed.items()},
        lambda name, rows: _outer(passed[name].slopes[:, :, rows], passed[name].inputs),
        dimensions,
        seed,
    )


def project_matrices(matrices: Mapping[str, np.ndarray], dimensions: int, seed: int) -> np.ndarray:
    """The same of matrices that are there: name -> (B, out, in)."""
    shapes = {name: (array.shape[1], array.shape[2]) for name, array in matrices.items()}
    return _projected(shapes, lambda name, rows: matrices[name][:, rows], dimensions, seed)


def _projected(
    shapes: Mapping[str, tuple[int, int]],
    rows_of: Callable[[str, slice], np.ndarray],
    dimensions: int,
    seed: int,
) -> np.ndarray:
    total: Any = np.float32(0)
    for name in sorted(shapes):
        for rows, signs in _signs(name, shapes[name], dimensions, seed):
            block = rows_of(name, rows)
            total = total + block.reshape(len(block), -1).astype(np.float32) @ signs
    return np.asarray(total / np.float32(np.sqrt(dimensions)))


def _signs(name: str, shape: tuple[int, int], dimensions: int, seed: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Rows of a matrix of that shape, and the signs (rows * in, dimensions) of its entries."""
    import pickaxe

    count, width = shape
    step = max(1, BLOCK // (width * dimensions))
    bytes_ = -(-dimensions // 8)
    for start in range(0, count, step):
        rows = slice(start, min(start + step, count))
        size = (rows.stop - start) * width
        drawn = [
            pickaxe.generator(seed, "signs", name, row).bytes(width * bytes_) for row in range(rows.start, rows.stop)
        ]
        bits = np.unpackbits(np.frombuffer(b"".join(drawn), np.uint8).reshape(size, bytes_), axis=1, count=dimensions)
        yield rows, 2 * bits.astype(np.float32) - 1


# ------------------------------------------------------------ compiled


def _outer(slopes: Any, inputs: Any) -> np.ndarray:
    """(B, T, out), (B, T, in) -> (B, out, in)."""
    return np.asarray(slopes).swapaxes(1, 2) @ np.asarray(inputs)


@functools.lru_cache(maxsize=8)
def _compiled_losses(loss: PerExample) -> Callable[..., Any]:
    compiled: Callable[..., Any] = require("jax", extra="train").jit(loss)
    return compiled


@functools.lru_cache(maxsize=8)
def _compiled_gradients(loss: PerExample, names: tuple[str, ...]) -> Callable[..., Any]:
    jax = require("jax", extra="train")

    def one(weights: Weights, row: Mapping[str, Any]) -> Any:
        alone = {name: value[None] for name, value in row.items()}
        return jax.grad(lambda chosen: loss({**weights, **chosen}, alone)[0])({name: weights[name] for name in names})

    compiled: Callable[..., Any] = jax.jit(jax.vmap(one, in_axes=(None, 0)))
    return compiled


@functools.lru_cache(maxsize=8)
def _compiled_signals(loss: PerExample, names: tuple[str, ...]) -> Callable[..., Any]:
    jax = require("jax", extra="train")
    jnp = jax.numpy

    def run(weights: Weights, given: Mapping[str, Any]) -> tuple[Any, dict[str, Signal]]:
        def watched(shifts: Mapping[str, Sequence[Any]] | None) -> tuple[Any, Any]:
            layers = {name: _Watched(weights[name], None if shifts is None else shifts[name]) for name in names}
            each = loss({**weights, **layers}, given)
            inputs = {name: layer.inputs for name, layer in layers.items()}
            return each.sum(), (each, inputs, {name: layer.outputs for name, layer in layers.items()})

        _, (_, _, outputs) = jax.eval_shape(lambda: watched(None))
        zeros = {name: [jnp.zeros(each.shape, each.dtype) for each in outputs[name]] for name in names}
        slopes, (each, inputs, _) = jax.grad(watched, has_aux=True)(zeros)
        return each, {name: Signal(_in_a_row(inputs[name]), _in_a_row(slopes[name])) for name in names}

    def _in_a_row(parts: Sequence[Any]) -> Any:
        return jnp.concatenate([part.reshape(len(part), -1, part.shape[-1]) for part in parts], axis=1)

    compiled: Callable[..., Any] = jax.jit(run)
    return compiled


class _Watched:
    """A linear layer that keeps what it is given, and whose outputs are shifted so that their slopes can be had."""

    def __init__(self, weight: Any, shifts: Sequence[Any] | None) -> None:
        self._weight, self._shifts = weight, shifts
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []

    def __call__(self, x: Any) -> Any:
        y = linear(self._weight, x)
        if self._shifts is not None:
            y = y + self._shifts[len(self.inputs)]
        self.inputs.append(x)
        self.outputs.append(y)
        return y
