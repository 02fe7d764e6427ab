"""Training of two towers by a softmax over the batch, with masked language modelling beside it (arXiv:2002.03932)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import pickaxe
from pickaxe import ArtifactWriter, Progress
from pickaxe.extras import require
from pickaxe_plugins.retrieval._towers import headed
from pickaxe_plugins.train import bert
from pickaxe_plugins.train.descent import Loss
from pickaxe_plugins.train.pairs import Encoded, batch

MASKED_SHARE = 0.15
"""Share of tokens that a masked language model has to say: 80 % of them masked, 10 % replaced, 10 % left."""


def in_batch_loss(queries: Any, documents: Any, same: Any) -> Any:
    """Mean of -log softmax of the own document's product over the batch's, for vectors (B, d).

    `same` (B, B) is true where a column is the row's own document once more: those do not count.
    """
    jax = require("jax", extra="train")
    scores = jax.numpy.where(same, -jax.numpy.inf, queries @ documents.T)
    return -jax.numpy.diag(jax.nn.log_softmax(scores)).mean()


def duplicates(documents: Sequence[Any]) -> np.ndarray:
    """(B, B): whether another row has the same document."""
    numbers = np.unique(np.array([repr(each) for each in documents]), return_inverse=True)[1]
    return (numbers[:, None] == numbers) & ~np.eye(len(documents), dtype=bool)


@dataclass(frozen=True, slots=True)
class Towers:
    """How a step reads both sides.  Hashable."""

    config: bert.Config
    shared: bool
    dropout: float = 0.0
    chunk: int | None = None
    """Texts embedded at once, whose states are computed again for the gradient; null: the whole batch."""

    def weights(self, tree: Any, side: str) -> Any:
        return tree["both" if self.shared else side]

    def embed(self, tree: Any, side: str, given: Mapping[str, Any], key: Any) -> Any:
        """(B, dim)."""
        jax = require("jax", extra="train")
        weights = self.weights(tree, side)

        def vectors(given: Mapping[str, Any], key: Any) -> Any:
            used = key if self.dropout else None
            return headed(weights, bert.embed(weights, self.config, given, dropout=self.dropout, key=used))

        size = len(given["ids"])
        if self.chunk is None or size <= self.chunk:
            return vectors(given, key)
        # Only the vectors of a chunk are kept; its states are computed again when the gradient passes.
        parts = {name: array.reshape(-1, self.chunk, *array.shape[1:]) for name, array in given.items()}
        keys = jax.random.split(key, size // self.chunk)
        made = jax.lax.map(lambda part: jax.checkpoint(vectors)(*part), (parts, keys))
        return made.reshape(size, -1)


@functools.lru_cache(maxsize=8)
def objective(towers: Towers, contrast: bool, mlm: bool) -> Loss:
    """The loss of a step: over the batch's pairs, over its masked tokens, or the sum of both."""

    def loss(tree: Any, given: Mapping[str, Any], key: Any) -> tuple[Any, Mapping[str, Any]]:
        jax = require("jax", extra="train")
        keys = jax.random.split(key, 4)
        value, told = 0.0, {}
        if contrast:
            queries, documents = (
                towers.embed(tree, side, given[side], keys[place]) for place, side in enumerate(("query", "document"))
            )
            told["softmax"] = in_batch_loss(queries, documents, given["same"])
            value = value + told["softmax"]
        if mlm:
            sides = ("document",) if towers.shared else ("query", "document")
            told["mlm"] = sum(
                masked_loss(towers.weights(tree, side), towers.config, given[f"masked {side}"]) for side in sides
            )
            value = value + told["mlm"]
        return value, told

    return loss


def masked_loss(weights: Any, config: bert.Config, given: Mapping[str, Any]) -> Any:
    """Mean of -log p of the tokens at `places` (B, M), of which `shares` (B, M) count."""
    jax = require("jax", extra="train")
    hidden = bert.hidden_states(weights, config, given["ids"], given["lengths"])
    rows = jax.numpy.take_along_axis(hidden, given["places"][..., None], 1)
    logprobs = jax.nn.log_softmax(bert.mlm_logits(weights, config, rows))
    own = jax.numpy.take_along_axis(logprobs, given["targets"][..., None], -1)[..., 0]
    return -(given["shares"] * own).sum()


def masked(rows: Sequence[Encoded], mask: int, vocab: int, random: np.random.Generator) -> dict[str, np.ndarray]:
    """The batch with 15 % of the tokens between the framing ones hidden, and what they were."""
    given = batch(rows)
    ids = given["ids"].copy()
    most = max(1, round(MASKED_SHARE * ids.shape[1]))
    places, shares = np.zeros((len(rows), most), np.int32), np.zeros((len(rows), most), np.float32)
    for row, length in enumerate(given["lengths"].tolist()):
        inner = length - 2
        count = min(most, max(1, round(MASKED_SHARE * inner))) if inner > 0 else 0
        places[row, :count] = 1 + random.permutation(inner)[:count]
        shares[row, :count] = 1
    targets = np.take_along_axis(ids, places, 1)
    luck = random.random(places.shape)
    hidden = np.where(luck < 0.8, mask, np.where(luck < 0.9, random.integers(0, vocab, places.shape), targets))
    for row in range(len(rows)):
        here = shares[row] > 0
        ids[row, places[row, here]] = hidden[row, here]
    return {"ids": ids, "lengths": given["lengths"], "places": places, "targets": targets,
            "shares": shares / max(1.0, float(shares.sum()))}  # fmt: skip


def staged(
    out: ArtifactWriter, name: str, tree: Any, run: Callable[[], Generator[Progress, None, Any]]
) -> Generator[Progress, None, Any]:
    """The tree after a stage, which an interrupted fit that had finished it reads from its file."""
    from pickaxe_plugins.train import trained
    from pickaxe_plugins.train.trained import Trained

    file = out.file(f"stage-{name}.safetensors")
    if out.done(name):
        return trained.read(file, Trained(tree)).tree
    tree = yield from run()
    trained.write(file, Trained(tree))
    out.finish(name)
    return tree


def fresh(config: bert.Config, dim: int, seed: int, side: str) -> dict[str, np.ndarray]:
    """A linear head for vectors of length `dim`, to go with an encoder's weights."""
    draws = pickaxe.generator(seed, "head", side).standard_normal((dim, config.width))
    return {"head.weight": (0.02 * draws).astype(np.float32), "head.bias": np.zeros(dim, np.float32)}
