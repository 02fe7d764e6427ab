"""Words that a passage does not have and its questions will: what a masked language model says at the first token."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pickaxe import Call
from pickaxe.artifact import ArtifactWriter
from pickaxe.cross_encoder.graph import WORDS
from pickaxe.encoder.graph import read_weights
from pickaxe.encoder.states import StateEncoder
from pickaxe.errors import Unmet
from pickaxe.extras import require

FILE = "expander.safetensors"
MARKER = 1
"""What stands in the place of the first special token of a passage: [unused0] of BERT's vocabulary."""
READ = 128
"""Most tokens of a passage that the expander reads."""
HEAD = tuple(
    f"cls.predictions.{part}"
    for part in (
        "transform.dense.weight",
        "transform.dense.bias",
        "transform.LayerNorm.weight",
        "transform.LayerNorm.bias",
        "bias",
    )
)


def framed(tokens: Sequence[int], ends: tuple[int, int], limit: int = READ) -> list[int]:
    """A passage's ids as the expander reads them."""
    return [MARKER, *tokens[: limit - 2], ends[1]]


def survivors(
    logits: np.ndarray, passage: Sequence[int], unlikely: np.ndarray, m: int, official_order: bool = False
) -> list[int]:
    """The `m` likeliest ids of `logits` (vocab,) without those of the passage and the `unlikely` ones (a mask).

    By falling likelihood, or, as the official code has it, by id.
    """
    likeliest = np.argsort(-logits, kind="stable")[:m]
    there = set(passage)
    found = [index for index in likeliest.tolist() if index not in there and not unlikely[index]]
    return sorted(found) if official_order else found


class Expander:
    """An encoder and the head of a masked language model on its first state."""

    def __init__(self, states: StateEncoder, head: Mapping[str, np.ndarray], words: np.ndarray, eps: float = 1e-12):
        """`words` (vocab, d) are the word embeddings, which the head ends in."""
        self.states, self._head, self._words, self._eps = states, dict(head), words, eps

    @classmethod
    def of_model(cls, states: StateEncoder, model: Path) -> Expander:
        """From a masked language model's folder."""
        weights = read_weights(model)
        missing = [name for name in HEAD if name not in weights]
        if missing:
            raise Unmet(
                f"the model in {model} is no masked language model: it lacks {missing[0]}",
                metadata={"path": model, "tensor": missing[0]},
            )
        return cls(states, {name: weights[name] for name in HEAD}, weights[WORDS])

    @classmethod
    def of_head(cls, states: StateEncoder, model: Path, file: Path) -> Expander:
        """The head that `fit` trained and wrote into a file, on the base encoder in `model`."""
        head = require("safetensors.numpy", extra="cpu").load_file(str(file))
        return cls(states, head, read_weights(model)[WORDS])

    def logits(self, rows: Sequence[Sequence[int]], call: Call | None = None) -> np.ndarray:
        """(n, vocab) float32 of framed passages."""
        firsts = np.empty((len(rows), self.states.width), np.float32)
        for row, states in self.states.states(rows, call):
            firsts[row] = states[0]
        dense, bias, scale, shift, last = (self._head[name] for name in HEAD)
        x = firsts @ dense.T + bias
        x = x * 0.5 * (1 + _erf(x / np.float32(math.sqrt(2))))
        centred = x - x.mean(1, keepdims=True)
        x = centred / np.sqrt((centred * centred).mean(1, keepdims=True) + self._eps) * scale + shift
        found: np.ndarray = (x @ self._words.T + last).astype(np.float32)
        return found


def _erf(x: np.ndarray) -> np.ndarray:
    """The error function, one number at a time: there are few of them."""
    return np.fromiter(map(math.erf, x.ravel().tolist()), np.float32, x.size).reshape(x.shape)


def write_head(out: ArtifactWriter, head: Mapping[str, np.ndarray]) -> None:
    stored = {name: np.ascontiguousarray(head[name], np.float32) for name in HEAD}
    require("safetensors.numpy", extra="cpu").save_file(stored, str(out.file(FILE)))
