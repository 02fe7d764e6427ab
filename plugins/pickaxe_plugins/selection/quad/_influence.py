"""The influence of documents on a reference set: cosines of gradients under an inverse curvature (EK-FAC)."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pickaxe import Call, Host
from pickaxe.errors import InvalidItems
from pickaxe.extras import require
from pickaxe.lm.network import tokenizer_of
from pickaxe.lm.weights import Architecture, open_checkpoint
from pickaxe_plugins.train import adapters, gradients, kronecker, llama
from pickaxe_plugins.train.gradients import PerExample, Signal, Signals

Direction = Mapping[str, np.ndarray] | np.ndarray
"""The mean of the references' normalised H^-1 g: a matrix for each layer, or projected (dimensions,)."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What influence depends on, beside the texts."""

    model: str
    layers: str
    window: int
    max_chunks: int | None
    batch: int
    curvature: Literal["ekfac", "kfac"]
    damping: float
    projection_dim: int
    seed: int


class Influence:
    """Gradients of a Llama-shaped model's next-token loss."""

    def __init__(self, host: Host, settings: Settings) -> None:
        require("jax", extra="train")
        path = host.model_path(settings.model)
        checkpoint = open_checkpoint(path)
        self.digest = checkpoint.digest
        self._settings = settings
        self._weights = llama.load(checkpoint.architecture, checkpoint.tensors)
        self._tokenizer = tokenizer_of(host.models, path)
        self._window = min(settings.window, checkpoint.architecture.context)
        linear = {
            name: array
            for name, array in self._weights.items()
            if name.startswith("layers.") and getattr(array, "ndim", 0) == 2
        }
        self.names = adapters.chosen(linear, settings.layers)
        self._loss = next_token_loss(checkpoint.architecture)

    # ------------------------------------------------------------ texts

    def chunks(self, text: str) -> list[list[int]]:
        """A text's token ids in pieces of at most `window`; a piece of one token has no loss, and is left out."""
        ids = self._tokenizer.encode(text)
        pieces = [ids[start : start + self._window] for start in range(0, len(ids), self._window)]
        return [piece for piece in pieces if len(piece) > 1][: self._settings.max_chunks]

    def tokens(self, text: str) -> int:
        return len(self._tokenizer.encode(text))

    # ------------------------------------------------------------ the reference set

    def direction(self, references: Sequence[str], curvature_texts: Sequence[str], call: Call) -> Direction:
        """The direction of the references' first pieces, with factors estimated on those of `curvature_texts`."""
        estimated = self._first_pieces(curvature_texts)
        covariances = kronecker.Covariances()
        for passed, used in self._signals(estimated, call):
            covariances.add(passed, used)
        bases = covariances.bases()
        if self._settings.curvature == "ekfac":
            diagonals = kronecker.Diagonals(bases)
            for passed, _ in self._signals(estimated, call):
                diagonals.add(passed)
            bases = diagonals.bases()
        return self._mean_direction(self._first_pieces(references), bases, call)

    def _first_pieces(self, texts: Sequence[str]) -> list[list[int]]:
        found = [pieces[0] for text in texts if (pieces := self.chunks(text))]
        if not found:
            raise InvalidItems("validation", "holds no text of two tokens or more: influence has nothing to refer to")
        return found

    def _mean_direction(
        self, pieces: Sequence[list[int]], bases: Mapping[str, kronecker.Basis], call: Call
    ) -> Direction:
        settings = self._settings
        total: dict[str, Any] = dict.fromkeys(self.names, 0.0)
        projected: Any = 0.0
        for passed, _ in self._signals(pieces, call):
            towards = kronecker.directions(gradients.weight_gradients(passed), bases, settings.damping)
            if settings.projection_dim:
                flat = gradients.project_matrices(towards, settings.projection_dim, settings.seed)
                projected = projected + _unit(flat).sum(0)
            else:
                total = {name: total[name] + array.sum(0) for name, array in towards.items()}
        if settings.projection_dim:
            return np.asarray(projected / len(pieces))
        return {name: (array / len(pieces)).astype(np.float32) for name, array in total.items()}

    # ------------------------------------------------------------ documents

    def of(self, texts: Sequence[str], direction: Direction, call: Call) -> np.ndarray:
        """(n,) influence of each text: the mean over its pieces, 0 without one."""
        pieces = [(row, piece) for row, text in enumerate(texts) for piece in self.chunks(text)]
        found = [self._cosines(passed, direction) for passed, _ in self._signals([piece for _, piece in pieces], call)]
        scores = np.concatenate(found) if found else np.empty(0)
        return document_scores(np.array([row for row, _ in pieces], np.int64), scores, len(texts))

    def _cosines(self, passed: Signals, direction: Direction) -> np.ndarray:
        if isinstance(direction, np.ndarray):
            flat = gradients.project(passed, len(direction), self._settings.seed)
            return np.asarray(_unit(flat) @ direction, np.float64)
        return cosines(passed, direction)

    def _signals(self, pieces: Sequence[list[int]], call: Call) -> Iterator[tuple[Signals, np.ndarray]]:
        """Signals of the pieces, and which tokens are no padding; batches have few different shapes."""
        size, grain = self._settings.batch, max(1, self._window // 4)
        for start in range(0, len(pieces), size):
            call.check()
            rows = pieces[start : start + size]
            width = grain * -(-max(map(len, rows)) // grain)
            ids, lengths = np.zeros((size, width), np.int32), np.zeros(size, np.int32)
            for place, row in enumerate(rows):
                ids[place, : len(row)], lengths[place] = row, len(row)
            _, passed = gradients.signals(self._loss, self._weights, {"ids": ids, "lengths": lengths}, self.names)
            real = {
                name: Signal(np.asarray(each.inputs)[: len(rows)], np.asarray(each.slopes)[: len(rows)])
                for name, each in passed.items()
            }
            yield real, np.arange(width) < lengths[: len(rows), None]


@functools.lru_cache(maxsize=4)
def next_token_loss(architecture: Architecture) -> PerExample:
    """(B,) mean of -log p(next token) over the tokens of each row of `ids` (B, T) with `lengths` (B,)."""

    def loss(weights: Any, given: Mapping[str, Any]) -> Any:
        import jax
        import jax.numpy as jnp

        ids, lengths = given["ids"], given["lengths"]
        hidden = llama.hidden_states(weights, architecture, ids)[:, :-1]
        logprobs = jax.nn.log_softmax(llama.logits(weights, hidden))
        picked = jnp.take_along_axis(logprobs, ids[:, 1:, None], -1)[..., 0]
        counted = jnp.arange(1, ids.shape[1]) < lengths[:, None]
        return -jnp.where(counted, picked, 0).sum(1) / jnp.maximum(lengths - 1, 1)

    return loss


def cosines(passed: Signals, direction: Mapping[str, np.ndarray]) -> np.ndarray:
    """(B,) inner products of `direction` with the gradients scaled to length 1; 0 for a gradient of 0.

    With a mean of vectors of length 1 these are mean cosines.
    """
    lengths = np.sqrt(np.maximum(gradients.squared_norms(passed), 0))
    products = gradients.inner(passed, direction)
    return np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)


def document_scores(document_of: np.ndarray, scores: np.ndarray, count: int) -> np.ndarray:
    """(count,) mean of the scores of each document's pieces, 0 for a document without one."""
    sums = np.bincount(document_of, scores, count)
    return np.asarray(sums / np.maximum(np.bincount(document_of, minlength=count), 1))


def references_digest(texts: Sequence[str]) -> str:
    """Equal for equal reference sets in equal order."""
    total = hashlib.sha256()
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        total.update(len(raw).to_bytes(8, "little") + raw)
    return total.hexdigest()


def write_direction(direction: Direction, matrices: Path, projected: Path) -> None:
    """Into one of two files, by its kind."""
    if isinstance(direction, np.ndarray):
        np.save(projected, direction)
    else:
        require("safetensors.numpy", extra="cpu").save_file(
            {name: np.ascontiguousarray(array) for name, array in direction.items()}, str(matrices)
        )


def read_direction(matrices: Path, projected: Path) -> Direction:
    """What `write_direction` wrote."""
    if projected.is_file():
        found: np.ndarray = np.load(projected, allow_pickle=False)
        return found
    loaded: dict[str, np.ndarray] = require("safetensors.numpy", extra="cpu").load_file(str(matrices))
    return loaded


def _unit(rows: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
