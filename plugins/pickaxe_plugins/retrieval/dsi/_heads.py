"""What turns hidden states into logits of identifier tokens; one code for NumPy, which searches, and JAX, which trains.

The plain head is a matrix W (V, H).  Prefix-aware weight adaptation (PAWA) adds to it, at every step, a matrix that
a small decoder makes from the tokens said so far; it does not know the query.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from pickaxe import generator

LAYERS, WIDTH = 4, 32
"""Of the decoder that adapts the head."""

Arrays = Mapping[str, Any]


def logits(hidden: Any, head: Any, adapted: Any | None = None, scale: float = 1.0) -> Any:
    """(…, V) = (hidden (…, H) * scale) (W^T + A) for W (V, H) and A (…, H, V)."""
    scaled = hidden * scale
    plain = scaled @ head.T
    return plain if adapted is None else plain + (scaled[..., None, :] @ adapted)[..., 0, :]


def log_softmax(values: Any, xp: ModuleType = np) -> Any:
    """Over the last axis."""
    shifted = values - values.max(-1, keepdims=True)
    return shifted - xp.log(xp.exp(shifted).sum(-1, keepdims=True))


def initial(vocabulary: int, width: int, longest: int, pawa: bool, seed: int) -> dict[str, np.ndarray]:
    """A new head, and with `pawa` a decoder that begins by adding nothing."""

    def normal(name: str, *shape: int) -> np.ndarray:
        drawn = generator(seed, "head", name).standard_normal(shape)
        return np.asarray(drawn * shape[-1] ** -0.5, np.float32)

    found = {"head": normal("head", vocabulary, width)}
    if not pawa:
        return found
    found |= {name: normal(name, count, WIDTH) for name, count in
              (("tokens", vocabulary + 1), ("places", longest), ("memory", 1))}  # fmt: skip
    for layer in range(LAYERS):
        for name, out, into in (("qkv", 3 * WIDTH, WIDTH), ("o", WIDTH, WIDTH), ("memory", WIDTH, WIDTH),
                                ("up", 4 * WIDTH, WIDTH), ("down", WIDTH, 4 * WIDTH)):  # fmt: skip
            found[f"{layer}.{name}"] = normal(f"{layer}.{name}", out, into)
    return found | {"out": np.zeros((vocabulary * width, WIDTH), np.float32)}


def adaptation(weights: Arrays, prefixes: Any, xp: ModuleType = np) -> Any | None:
    """A (n, L + 1, H, V) after each beginning of prefixes (n, L) of tokens, the empty one first; None without PAWA.

    Layers attend to what was said before, then to the one learned memory vector: attention to a single vector is
    that vector, through a matrix.
    """
    if "out" not in weights:
        return None
    count, length = prefixes.shape[0], prefixes.shape[1] + 1
    begin = xp.full((count, 1), len(weights["tokens"]) - 1)
    x = weights["tokens"][xp.concatenate([begin, prefixes], 1)] + weights["places"][:length]
    unseen = xp.asarray(np.triu(np.full((length, length), -1e9, np.float32), 1))
    for layer in range(LAYERS):
        q, k, v = xp.split(_norm(x, xp) @ weights[f"{layer}.qkv"].T, 3, -1)
        scores = q @ xp.swapaxes(k, -1, -2) * WIDTH**-0.5 + unseen
        x = x + (xp.exp(log_softmax(scores, xp)) @ v) @ weights[f"{layer}.o"].T
        x = x + weights["memory"] @ weights[f"{layer}.memory"].T
        x = x + xp.maximum(_norm(x, xp) @ weights[f"{layer}.up"].T, 0) @ weights[f"{layer}.down"].T
    width = weights["head"].shape[1]
    return (_norm(x, xp) @ weights["out"].T).reshape(count, length, width, -1)


def _norm(x: Any, xp: ModuleType) -> Any:
    return x / xp.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)
