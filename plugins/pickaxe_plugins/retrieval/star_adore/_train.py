"""Training by STAR, with hard negatives mined once, and by ADORE, with those of the moment (arXiv:2104.08051)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import pickaxe
from pickaxe import ArtifactWriter, Call, Item, Progress
from pickaxe.errors import InvalidItems, MethodFailed
from pickaxe.extras import require
from pickaxe.index.dense import DenseIndex
from pickaxe.metrics import reciprocal_ranks
from pickaxe_plugins.retrieval.star_adore._data import Queries
from pickaxe_plugins.retrieval.star_adore._losses import adore_losses, lists, pair_masks, star_loss, static_pool
from pickaxe_plugins.retrieval.star_adore._model import Embedder, Inputs
from pickaxe_plugins.train import optimisers, trained
from pickaxe_plugins.train.descent import Loss, Shuffle, Stopping, descend
from pickaxe_plugins.train.trained import Trained

if TYPE_CHECKING:
    from pickaxe.host import Host
    from pickaxe_plugins.retrieval.star_adore import Params, Recipe

TOP = 10
"""Depth of the metrics that are reported."""


@dataclass(frozen=True)
class Task:
    """One fit: the data, and the network as the embedder reads it."""

    params: Params
    host: Host
    out: ArtifactWriter
    call: Call
    documents: list[Item]
    learned: Queries
    checked: Queries | None
    embedder: Embedder
    inputs: Inputs
    """Of `learned` and the documents."""
    exam: Inputs | None
    """Of `checked` and the documents."""

    # ------------------------------------------------------------ stages

    def stage(self, name: str, weights: Any, frozen: Any) -> Generator[Progress, None, Any]:
        """The weights after one stage; `frozen` are those that the documents are embedded with before it.

        A stage that an interrupted fit had finished is read from its file.
        """
        file = self.out.file(f"stage-{name}.safetensors")
        if self.out.done(name):
            return trained.read(file, Trained(weights)).tree
        vectors = self.inputs.embed(self.embedder, frozen, "document")
        run = self._adore(weights, vectors) if name == "adore" else self._star(name, weights, vectors)
        weights = yield from finite(run)
        trained.write(file, Trained(weights))
        self.out.finish(name)
        return weights

    def forget(self) -> None:
        """Remove the files of finished stages, once the artifact has what they hold."""
        for path in self.out.path.glob("stage-*.safetensors"):
            path.unlink()

    def _star(self, name: str, weights: Any, vectors: np.ndarray) -> Generator[Progress, None, Any]:
        pools = self._pools(name, weights, vectors)
        batches = Batches(self.learned, self.params.star.batch, self.call.seed)

        def given(step: int) -> dict[str, Any]:
            rows = batches.rows(step)
            random = pickaxe.generator(self.call.seed, name, step)
            positives = [int(random.choice(self.learned.relevant[row])) for row in rows]
            hard = [int(random.choice(pools[row])) if len(pools[row]) else -1 for row in rows]
            try:
                in_batch, against = pair_masks(positives, hard, [self.learned.relevant[row] for row in rows])
            except ValueError as error:
                raise InvalidItems("examples", f"cannot be learned from: {error}; use a larger batch") from error
            return {
                "queries": self.inputs.given("query", rows),
                "positives": self.inputs.given("document", positives),
                "hard": self.inputs.given("document", [max(row, 0) for row in hard]),
                "in_batch": in_batch,
                "against": against,
            }

        loss = _star_objective(self.embedder)
        return (yield from self._descend(name, self.params.star, loss, weights, given, batches.per_epoch, None))

    def _adore(self, weights: Any, vectors: np.ndarray) -> Generator[Progress, None, Any]:
        """Only the queries' weights learn: the documents' vectors are given to every step as they are."""
        batches = Batches(self.learned, self.params.adore.batch, self.call.seed)
        documents, positives = require("jax", extra="train").numpy.asarray(vectors), self.learned.padded()

        def given(step: int) -> dict[str, Any]:
            rows = batches.rows(step)
            return {
                "queries": self.inputs.given("query", rows),
                "documents": documents,
                "positives": positives[rows],
            }

        loss = _adore_objective(self.embedder, self.params.neg_topk, self.params.metric_cut)
        recipe = self.params.adore
        return (yield from self._descend("adore", recipe, loss, weights, given, batches.per_epoch, vectors))

    def _descend(
        self,
        name: str,
        recipe: Recipe,
        loss: Loss,
        weights: Any,
        given: Callable[[int], Mapping[str, Any]],
        per_epoch: int,
        vectors: np.ndarray | None,
    ) -> Generator[Progress, None, Any]:
        """`vectors` are the documents', where they stay as they are."""
        steps = recipe.epochs * per_epoch
        rate = optimisers.Linear(self.params.rate_of(recipe), steps, round(recipe.warmup * steps))
        kind = optimisers.lamb if recipe.optimizer == "lamb" else optimisers.adamw
        optimiser = kind(rate, decay=recipe.decay, clip=recipe.clip, decayed=optimisers.matrices)
        measure = functools.partial(self.examine, vectors=vectors)
        stopping = Stopping(lambda tree: -measure(tree), per_epoch, self.params.patience) if self.checked else None
        return (yield from descend(
            loss, optimiser, weights, given, steps, self.out, seed=self.call.seed, stage=name,
            checkpoint=self.params.checkpoint, stopping=stopping,
        ))  # fmt: skip

    # ------------------------------------------------------------ negatives and measures

    def _pools(self, name: str, weights: Any, vectors: np.ndarray) -> Any:
        """Per query the documents that its hard negative is drawn from."""
        params, known = self.params, self.learned.relevant
        if name == "star":
            queries = self.inputs.embed(self.embedder, weights, "query")
            return static_pool(queries, DenseIndex(vectors), known, params.hard_topk, params.hard_from)
        if params.warmup_negatives == "random":
            return [Others(len(self.documents), relevant) for relevant in known]
        found = self.host.retriever("bm25").index(self.documents, seed=self.call.seed)
        rows = {item.id: row for row, item in enumerate(self.documents)}
        most = params.hard_topk + params.hard_from + max(map(len, known))
        results = found.search(self.learned.items, most, call=self.call)
        return [
            [row for hit in result[params.hard_from :] if (row := rows[hit.id]) not in relevant][: params.hard_topk]
            for result, relevant in zip(results, known, strict=True)
        ]

    def examine(self, weights: Any, vectors: np.ndarray | None = None) -> float:
        """MRR@10 of the queries to choose by."""
        assert self.checked is not None
        assert self.exam is not None
        if vectors is None:
            vectors = self.exam.embed(self.embedder, weights, "document")
        rows = DenseIndex(vectors).search(self.exam.embed(self.embedder, weights, "query"), TOP)[0]
        right = [np.isin(found, known) for found, known in zip(rows, self.checked.relevant, strict=True)]
        ranks = np.array([1 + int(each.argmax()) if each.any() else 0 for each in right])
        return float(reciprocal_ranks(ranks, TOP).mean())


class Batches:
    """Rows of queries for each step, every step as many; the last one of an epoch takes the first ones again."""

    def __init__(self, queries: Queries, size: int, seed: int) -> None:
        self._size = min(size, len(queries.items))
        self._shuffle = Shuffle(len(queries.items), self._size, seed)
        self.per_epoch = self._shuffle.per_epoch

    def rows(self, step: int) -> np.ndarray:
        rows = self._shuffle.rows(step)
        first = self._shuffle.rows(step - step % self.per_epoch)
        return np.concatenate([rows, first[: self._size - len(rows)]])


class Others:
    """All documents but the relevant ones, as a sequence that holds none of them."""

    def __init__(self, count: int, relevant: tuple[int, ...]) -> None:
        self._relevant, self._count = sorted(relevant), count

    def __len__(self) -> int:
        return self._count - len(self._relevant)

    def __getitem__(self, place: int) -> int:
        if not 0 <= place < len(self):
            raise IndexError(place)
        for row in self._relevant:
            place += place >= row
        return place


def finite(run: Generator[Progress, None, Any]) -> Generator[Progress, None, Any]:
    """The same training, which ends with `MethodFailed` at the first loss that is not finite."""
    while True:
        try:
            progress = next(run)
        except StopIteration as end:
            return end.value
        if not np.isfinite(progress.metrics["loss"]):
            raise MethodFailed(
                f"the loss of {progress.stage} is {progress.metrics['loss']} at step {progress.step}: lower its rate",
                metadata={"stage": progress.stage, "step": progress.step},
            )
        yield progress


@functools.lru_cache(maxsize=4)
def _star_objective(embedder: Embedder) -> Loss:
    def loss(weights: Any, given: Mapping[str, Any], key: Any) -> tuple[Any, Mapping[str, Any]]:
        jax = require("jax", extra="train")
        keys = jax.random.split(key, 3)
        queries = embedder.query(weights, given["queries"], keys[0])
        positives = embedder.document(weights, given["positives"], keys[1])
        hard = embedder.document(weights, given["hard"], keys[2])
        return star_loss(queries, positives, hard, given["in_batch"], given["against"]), {}

    return loss


@functools.lru_cache(maxsize=4)
def _adore_objective(embedder: Embedder, topk: int, metric_cut: int | None) -> Loss:
    def loss(weights: Any, given: Mapping[str, Any], key: Any) -> tuple[Any, Mapping[str, Any]]:
        jax = require("jax", extra="train")
        jnp = jax.numpy
        documents, positives = given["documents"], given["positives"]
        queries = embedder.query(weights, given["queries"], key)
        found = lists(jax.lax.stop_gradient(queries), documents, positives, topk)
        top = min(TOP, found.ids.shape[1])
        ahead = found.listed & (found.ranks <= top)
        best = jnp.where(ahead, 1 / found.ranks, 0).max(1)
        told = {f"mrr@{TOP}": best.mean(), f"recall@{TOP}": (ahead.sum(1) / (positives >= 0).sum(1)).mean()}
        return adore_losses(queries, documents, positives, found, metric_cut).mean(), told

    return loss
