"""Local probing: the reference loss after one optimiser step on a single sequence (arXiv:2406.06046)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pickaxe.extras import require
from pickaxe_plugins.train import llama, optimisers
from pickaxe_plugins.train.loop import Text

Weights = Mapping[str, Any]
Network = Callable[[Weights, Any, Any], Any]
"""(weights, ids (B, T), places (B, K)) -> logits (B, K, V) of the token that follows each place."""
Precision = Literal["float32", "float64"]
ROWS = 32
"""Reference sequences that are read at a time."""
GRAIN = 16
"""Arrays are padded to multiples of it, so that few shapes are compiled."""


@dataclass(frozen=True, slots=True)
class State:
    """What is probed: the weights, and Adam's moments after `count` steps."""

    weights: Mapping[str, np.ndarray]
    first: Mapping[str, np.ndarray]
    second: Mapping[str, np.ndarray]
    count: int

    @classmethod
    def fresh(cls, weights: Mapping[str, np.ndarray]) -> State:
        """Before the first step."""
        zeros = {name: np.zeros_like(array) for name, array in weights.items()}
        return cls(weights, zeros, zeros, 0)


@dataclass(frozen=True, slots=True)
class Step:
    """The one step: AdamW in PyTorch's form, after clipping."""

    rate: float
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    decay: float = 0.1
    clip: float = 1.0

    def optimiser(self) -> Any:
        return optimisers.adamw(self.rate, betas=self.betas, eps=self.eps, decay=self.decay, clip=self.clip)


@functools.lru_cache(maxsize=4)
def decoder(architecture: Any) -> Network:
    """A Llama-shaped network as the probes need it."""

    def network(weights: Weights, ids: Any, places: Any) -> Any:
        import jax.numpy as jnp

        hidden = llama.hidden_states(weights, architecture, ids)
        return llama.logits(weights, jnp.take_along_axis(hidden, places[..., None], 1))

    return network


class Prober:
    """Steps away from one state, again and again; the state itself never changes."""

    def __init__(
        self,
        network: Network,
        state: State,
        step: Step,
        reference: Sequence[Text],
        *,
        reference_batch: int | None = None,
        together: int = 1,
        precision: Precision = "float32",
    ) -> None:
        """The reference loss is the token-mean of every `reference_batch` texts, meaned; None: of all texts.

        `together` probes are stepped side by side, each with a copy of the weights.
        """
        self._precision, self._together = precision, together
        jax, optax = require("jax", extra="train"), require("optax", extra="train")
        with self._scope():
            cast = self._cast
            optimiser = step.optimiser()
            self._weights = cast(state.weights)
            moments = {"mu": cast(state.first), "nu": cast(state.second), "count": jax.numpy.int32(state.count)}
            self._state = optax.tree_utils.tree_set(optimiser.init(self._weights), **moments)
            self._reference = cast(_stacked(token_means(reference, reference_batch)))
            self._loss_of_reference, self._probe = _compiled(network, optimiser, together)

    @property
    def state(self) -> tuple[Any, Any]:
        """Weights and optimiser state."""
        return self._weights, self._state

    def before(self) -> float:
        """The reference loss without a step, in nats."""
        with self._scope():
            return float(self._loss_of_reference(self._weights, self._reference))

    def after(self, texts: Sequence[Text]) -> tuple[np.ndarray, np.ndarray]:
        """(n,) reference losses after a step on each text alone, and the norms of its gradient before clipping."""
        rows, found = token_means(texts, 1, whole=1.0), np.empty((2, len(texts)))
        with self._scope():
            for start in range(0, len(rows), self._together):
                these = rows[start : start + self._together]
                given = packed([*these, *[None] * (self._together - len(these))], _far)
                each = self._cast({name: array[:, None] for name, array in given.items()})
                told = np.stack(self._probe(self._weights, self._state, self._reference, each))
                found[:, start : start + len(these)] = told[:, : len(these)]
        return found[0], found[1]

    def _cast(self, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
        jnp = require("jax", extra="train").numpy
        real = np.dtype(self._precision)
        return {
            name: jnp.asarray(array, real if np.asarray(array).dtype.kind == "f" else None)
            for name, array in arrays.items()
        }

    @contextmanager
    def _scope(self) -> Iterator[None]:
        with require("jax", extra="train").enable_x64(self._precision == "float64"):
            yield


# ---------------------------------------------------------------- batches


@dataclass(frozen=True, slots=True)
class Weighted:
    """Token ids, the places whose followers count, and the share of each in the loss."""

    ids: np.ndarray
    places: np.ndarray
    shares: np.ndarray


def token_means(texts: Sequence[Text], size: int | None, whole: float | None = None) -> list[Weighted]:
    """Every `size` texts (None: all) share one token-mean, of weight `whole`, by default 1 over their number."""
    found: list[Weighted] = []
    size = size or max(1, len(texts))
    groups = [texts[start : start + size] for start in range(0, len(texts), size)]
    for group in groups:
        total = sum(float(text.weights.sum(dtype=np.float64)) for text in group) / (whole or 1 / len(groups))
        for text in group:
            counted = np.flatnonzero(text.weights)
            found.append(Weighted(text.ids, counted - 1, text.weights[counted].astype(np.float64) / total))
    return found


def packed(rows: Sequence[Weighted | None], roomy: Callable[[int], int]) -> dict[str, np.ndarray]:
    """`ids` (B, T) and, for the K tokens that count at most, `places`, `targets` and `shares` (B, K); None: padding."""
    real = [row for row in rows if row is not None]
    width = roomy(max(len(row.ids) for row in real))
    # One more, so that where all tokens but the first count there are as many places as tokens.
    count = roomy(1 + max(len(row.places) for row in real))
    ids = np.zeros((len(rows), width), np.int32)
    places, targets = np.zeros((len(rows), count), np.int32), np.zeros((len(rows), count), np.int32)
    shares = np.zeros((len(rows), count))
    for at, row in enumerate(rows):
        if row is not None:
            ids[at, : len(row.ids)] = row.ids
            places[at, : len(row.places)], targets[at, : len(row.places)] = row.places, row.ids[row.places + 1]
            shares[at, : len(row.places)] = row.shares
    return {"ids": ids, "places": places, "targets": targets, "shares": shares}


def _stacked(rows: Sequence[Weighted]) -> dict[str, np.ndarray]:
    """All rows as (blocks, ROWS or fewer, …)."""
    block = min(ROWS, len(rows))
    given = packed([*rows, *[None] * (-len(rows) % block)], _near)
    return {name: array.reshape(-1, block, array.shape[1]) for name, array in given.items()}


def _near(length: int) -> int:
    """Little padding, for what is read by every probe and compiled once."""
    return GRAIN * -(-length // GRAIN)


def _far(length: int) -> int:
    """Two sizes for every doubling, as compiling for another one takes as long as hundreds of probes."""
    grain = max(GRAIN, 1 << max(0, (length - 1).bit_length() - 2))
    return grain * -(-length // grain)


# ---------------------------------------------------------------- what is compiled


def _loss(network: Network, weights: Weights, given: Mapping[str, Any]) -> Any:
    import jax
    import jax.numpy as jnp

    logprobs = jax.nn.log_softmax(network(weights, given["ids"], given["places"]))
    told = jnp.take_along_axis(logprobs, given["targets"][..., None], -1)[..., 0]
    # Padding is selected away: a probability of 0 there must not turn 0 * inf into NaN.
    return -jnp.where(given["shares"] > 0, given["shares"] * told, 0).sum()


def _summed(network: Network, weights: Weights, blocks: Mapping[str, Any]) -> Any:
    import jax

    return jax.lax.map(lambda block: _loss(network, weights, block), blocks).sum()


@functools.lru_cache(maxsize=4)
def _compiled(network: Network, optimiser: Any, together: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """(weights, reference) -> loss; (weights, state, reference, probes) -> (losses after a step on each, norms)."""
    jax = require("jax", extra="train")

    def probe(weights: Weights, state: Any, reference: Mapping[str, Any], probes: Mapping[str, Any]) -> Any:
        import optax

        def one(given: Mapping[str, Any]) -> Any:
            slopes = jax.grad(lambda each: _loss(network, each, given))(weights)
            change, _ = optimiser.update(slopes, state, weights)
            after = _summed(network, optax.apply_updates(weights, change), reference)
            return after, optax.tree_utils.tree_norm(slopes)

        # One alone goes without vmap, under which a CPU multiplies matrices more slowly.
        return jax.lax.map(one, probes, batch_size=together if together > 1 else None)

    return jax.jit(lambda weights, given: _summed(network, weights, given)), jax.jit(probe)
