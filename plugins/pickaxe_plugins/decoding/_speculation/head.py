"""A draft model with a head for a part of its vocabulary: in one of full width it would spend most of its time."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from pickaxe.errors import InvalidParams, Unmet
from pickaxe.lm.network import OwnNetwork

if TYPE_CHECKING:
    from pickaxe import Call
    from pickaxe.host import Host
    from pickaxe.lm import LM

FORMAT = 1
"""Raised whenever the graph changes."""
SMALL = 2**25
"""Up to so many weights per token, a second thread takes longer to wake than it saves."""


@dataclass(frozen=True)
class NarrowNetwork(OwnNetwork):
    """Reads as the model does, on the same keys and values.  Its states are logits (R, `size`) of the first ids."""

    size: int = 0

    def empty_states(self, count: int) -> np.ndarray:
        return np.empty((count, self.size), np.float32)

    def logits(self, hidden: np.ndarray, call: Call | None = None) -> np.ndarray:
        """The states themselves."""
        return hidden


_opened: WeakKeyDictionary[LM, dict[int, NarrowNetwork]] = WeakKeyDictionary()
_opening = threading.Lock()


def first_tokens(host: Host, name: str, lm: LM, size: int) -> NarrowNetwork:
    """Model `name` with a head for its first `size` ids, body and head in one graph.

    Merged vocabularies list frequent tokens first, so a part of one finds nearly as many tokens in a fraction of
    the time.  Written on first use and kept with what else was made from the model.
    """
    if not isinstance(lm.network, OwnNetwork):
        raise Unmet(f"draft_vocab needs a model's weights, {name!r} is an exported graph: leave it at 0")
    if size > lm.vocab_size:
        raise InvalidParams("draft_vocab", f"is {size}; model {name!r} has {lm.vocab_size} tokens")
    with _opening:
        sizes = _opened.setdefault(lm, {})
        if size not in sizes:
            sizes[size] = _open(host, name, lm.network, size)
        return sizes[size]


def _open(host: Host, name: str, network: OwnNetwork, size: int) -> NarrowNetwork:
    from pickaxe.lm import graph
    from pickaxe.session import Runtime

    architecture = network.architecture

    def build(folder: Path) -> None:
        from pickaxe.lm.weights import open_checkpoint

        tensors = open_checkpoint(host.model_path(name)).tensors
        graph.build_narrow(architecture, tensors, network.precision, folder, size, ragged=network.ragged)

    kind = f"{network.precision}-{'ragged' if network.ragged else 'even'}-first{architecture.layers}"
    folder = host.models.converted(name, f"narrow-{size}-{kind}-{graph.FORMAT}.{FORMAT}", build)
    small = _weights(architecture) + size * architecture.width <= SMALL
    runtime = Runtime("cpu", threads=1) if small and not network.runtime.is_cuda else network.runtime
    return NarrowNetwork(architecture, network.digest, network.precision, folder, runtime, network.ragged, size)


def _weights(architecture: Any) -> int:
    """Numbers that the layers multiply a token with."""
    attention = 2 * (architecture.heads + architecture.kv_heads) * architecture.head_size
    return architecture.layers * architecture.width * (attention + 3 * architecture.mlp)
