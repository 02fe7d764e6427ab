"""S2L: a balanced choice over clusters of loss trajectories of a small model (arXiv 2403.07384)."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

import pickaxe
from pickaxe import (
    ArtifactWriter,
    Call,
    Column,
    Example,
    Flag,
    InputField,
    Item,
    Items,
    Method,
    Progress,
    Scores,
)
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe.hooks import hookimpl
from pickaxe.kmeans import assign, kmeans
from pickaxe.randomness import generator
from pickaxe_plugins.selection.s2l import _proxy
from pickaxe_plugins.selection.s2l._balance import answer_loss, cluster_quotas, order, quotas, thinned
from pickaxe_plugins.train.settings import Net, Recipe

__all__ = ["S2L", "Params", "answer_loss", "cluster_quotas", "quotas", "thinned"]

_ABOUT, _IDS, _RANKS, _LABELS = "about.json", "ids.json", "ranks.npy", "labels.npy"
_TRAJECTORIES, _CENTROIDS, _SOURCES = "trajectories.npy", "centroids.npy", "centroid_sources.npy"


class Params(pickaxe.Params):
    """Parameters of `s2l`."""

    budget: float = Field(
        0.1,
        gt=0,
        description="How many items `selected` marks; below 1, their share of the pool.  A new one needs no new fit.",
    )
    clusters: int = Field(100, ge=1, description="Fit: clusters of a source, at most one for each of its items.")
    iterations: int = Field(20, ge=1, description="Fit: rounds of k-means.")
    min_cluster: int = Field(3, ge=1, description="Fit: clusters with fewer members come last.")
    keep_checkpoints: int | None = Field(
        None, ge=1, description="Fit: thin trajectories to every floor(T / this)-th point; null: all points."
    )
    use_source: bool = Field(True, description="Fit: cluster and balance each `source` apart.")
    nan_policy: Literal["zero", "drop"] = Field(
        "zero", description="A missing loss: zero, as the paper's code has it, or drop the item from the pool."
    )
    checkpoints: int = Field(8, ge=1, description="Fit: points of the proxy's training at which losses are taken.")
    proxy: Net = Field(Net(layers=4, width=128), description="Fit: the proxy that is trained where losses are absent.")
    recipe: Recipe = Field(Recipe(epochs=3, batch=32, warmup=20), description="Fit: how the proxy is trained.")

    @field_validator("budget")
    @classmethod
    def _share_or_count(cls, budget: float) -> float:
        if budget > 1 and budget != int(budget):
            raise ValueError("is a share below 1 or a whole number of items")
        return budget


class S2L(Method[Params]):
    """Pick a balanced subset of fine-tuning data: equally many items from each kind of loss trajectory.

    Items whose losses fall alike while a small model trains teach a large one alike.  `fit` clusters trajectories
    (field `losses`, or a proxy trained on `prompt` and `answer`); clusters, and sources, then give equal shares.
    """

    title = "SmallToLarge (S2L): Scalable Data Selection by Summarizing Training Trajectories of Small Models"
    paper = "arXiv:2403.07384"
    version = 1
    Params = Params
    scope = "item"
    reads = (
        InputField("losses", "tensor", "Losses at the checkpoints, (T,); not needed for items of the pool.", False),
        InputField("source", "text", "Name of the data set.", False),
    )
    fit_reads = (
        InputField("losses", "tensor", "Losses at the checkpoints, (T,), NaN where missing.", False),
        InputField("prompt", "text", "What is asked, where there are no losses.", False),
        InputField("answer", "text", "What is answered: only its tokens count.", False),
        InputField("source", "text", "Name of the data set.", False),
    )
    columns = (
        Column("priority", "1 - rank / n: the best n items are a balanced choice of n; 0: not of the pool", "float64"),
        Column("selected", "1: among the budget", "int64"),
        Column("cluster", "nearest cluster of its source; -1: none", "int64", "", "none"),
        Column("distance", "Euclidean distance to the cluster's centroid", "float64", "nats", "lower", True),
        Column("loss_first", "loss at the first checkpoint", "float64", "nats", "none", True),
        Column("loss_last", "loss at the last checkpoint", "float64", "nats", "none", True),
    )
    fitted = "required"
    stages = ("read", "train", "cluster")
    cost = (
        "Fit: T passes of the proxy over the data and its training, or nothing where losses are given; k-means of "
        "20 n K T.  Memory: 4 n T bytes."
    )
    reproduced = "Quotas of the authors' loop for every budget, exactly; three shapes of trajectories are told apart."

    @classmethod
    def example(cls) -> Example:
        """Items whose losses fall fast, slowly or late."""
        rng = np.random.default_rng(0)
        shapes = np.array([[2.0, 1.0, 0.5, 0.3], [2.0, 1.9, 1.8, 1.7], [2.0, 2.0, 1.9, 0.5]])
        pool = tuple(
            Item(f"i{row:02}", fields={"losses": shapes[row % 3] + rng.normal(0, 0.02, 4)}) for row in range(24)
        )
        return Example({"clusters": 3, "budget": 6}, pool[:8], examples=pool)

    # ------------------------------------------------------------ fit

    @hookimpl
    def fit(self, examples: Iterable[Item], out: ArtifactWriter, call: Call) -> Iterator[Progress]:
        params = self.params
        items = _sorted(examples)
        yield Progress("read", len(items), len(items), {"memory_mib": 8 * len(items) * params.checkpoints / 2**20})
        losses = yield from self._losses(items, out, call)
        whole = np.isfinite(losses).all(axis=1)
        out.notes |= {"items": len(items), "missing": int((~whole).sum()), "checkpoints": losses.shape[1]}
        if params.nan_policy == "drop":
            items, losses = [item for item, keep in zip(items, whole, strict=True) if keep], losses[whole]
            if not items:
                raise InvalidItems("examples", "have no item without a missing loss")
        losses = np.nan_to_num(losses)
        names = list(dict.fromkeys(_source(item, params.use_source) for item in items))
        place = {name: at for at, name in enumerate(names)}
        sources = np.array([place[_source(item, params.use_source)] for item in items])
        labels = yield from self._clustered(losses, sources, names, out, call)
        out.write_json(_IDS, [item.id for item in items])
        out.write_array(_TRAJECTORIES, losses)
        out.write_array(_LABELS, labels)
        out.write_array(_RANKS, order(sources, labels, params.min_cluster, call.seed))
        sizes = np.bincount(labels).tolist()
        out.write_json(_ABOUT, {"sources": names, "sizes": sizes, "nan_policy": params.nan_policy, "n": len(items)})
        _proxy.cleared(out)

    def _losses(self, items: Sequence[Item], out: ArtifactWriter, call: Call) -> Generator[Progress, None, np.ndarray]:
        """(n, T) float32, NaN where missing."""
        params = self.params
        if all(item.get("losses") is None for item in items):
            for row, item in enumerate(items):
                for name in ("prompt", "answer"):
                    if item.get(name) is None:
                        raise InvalidItems(
                            f"examples[{row}].fields.{name}", f"is missing, and so is losses (item {item.id!r})"
                        )
            found = yield from _proxy.trajectories(items, params.proxy, params.recipe, params.checkpoints, out, call)
        else:
            found = _given(items, "examples", None)
        if params.keep_checkpoints is None:
            return found
        return found[:, thinned(found.shape[1], params.keep_checkpoints)]

    def _clustered(
        self, losses: np.ndarray, sources: np.ndarray, names: Sequence[str], out: ArtifactWriter, call: Call
    ) -> Generator[Progress, None, np.ndarray]:
        """Labels over all sources; writes the centroids."""
        labels, centroids, owners = np.empty(len(losses), np.int64), list[np.ndarray](), list[int]()
        objectives = []
        for at, name in enumerate(names):
            rows = np.flatnonzero(sources == at)
            rng = generator(call.seed, "s2l", "k-means", name)
            found = kmeans(losses[rows], self.params.clusters, self.params.iterations, rng, call)
            labels[rows] = found.labels + len(owners)
            centroids.append(found.centroids)
            owners += [at] * len(found.centroids)
            objectives.append(list(found.objective))
            yield Progress("cluster", at + 1, len(names), {"objective": found.objective[-1]})
        out.write_array(_CENTROIDS, np.concatenate(centroids))
        out.write_array(_SOURCES, np.array(owners, np.int64))
        out.notes["objective"] = dict(zip(names, objectives, strict=True))
        return labels

    # ------------------------------------------------------------ score

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        pool, budget = self._pool, self._budget()
        rows = np.array([pool.place.get(item.id, -1) for item in items], np.int64)
        inside = rows >= 0
        losses = self._trajectories(items, rows)
        flags = [Flag(int(row), "not-in-pool", "its priority is 0") for row in np.flatnonzero(~inside)]
        missing = ~np.isfinite(losses).all(axis=1)
        flags += [Flag(int(row), "missing-loss", "a loss is NaN") for row in np.flatnonzero(missing)]
        if pool.about["nan_policy"] == "zero":
            losses, missing = np.nan_to_num(losses), np.zeros(len(losses), bool)
        cluster, distance = np.full(len(items), -1), np.full(len(items), np.nan)
        for name, where in _by_source(items, ~missing, pool.about["sources"]).items():
            of = np.arange(len(pool.owners)) if name is None else np.flatnonzero(pool.owners == name)
            labels, squared = assign(losses[where], pool.centroids[of], call)
            cluster[where], distance[where] = of[labels], np.sqrt(squared)
        ranks = np.where(inside, pool.ranks[rows], pool.about["n"])
        return Scores(
            {
                "priority": 1 - ranks / pool.about["n"],
                "selected": (ranks < budget).astype(np.int64),
                "cluster": cluster,
                "distance": distance,
                "loss_first": losses[:, 0],
                "loss_last": losses[:, -1],
            },
            flags=tuple(flags),
        )

    def _budget(self) -> int:
        n, wanted = self._pool.about["n"], self.params.budget
        if wanted < 1:
            return max(1, round(wanted * n))
        if wanted > n:
            raise InvalidParams("budget", f"is {wanted:g}, the pool has {n} items")
        return int(wanted)

    def _trajectories(self, items: Items, rows: np.ndarray) -> np.ndarray:
        """Given losses, else those of the pool."""
        pool = self._pool
        found = np.empty((len(items), pool.trajectories.shape[1]), np.float64)
        for row, item in enumerate(items):
            if item.get("losses") is not None:
                found[row] = _given([item], "items", found.shape[1], row)[0]
            elif rows[row] >= 0:
                found[row] = pool.trajectories[rows[row]]
            else:
                raise InvalidItems(
                    f"items[{row}].fields.losses", f"is missing and item {item.id!r} is not one of the pool"
                )
        return found

    @cached_property
    def _pool(self) -> _Pool:
        assert self.artifact is not None  # the handle sees to it: `fitted` is "required"
        return _Pool(self.artifact)


class _Pool:
    """What a fit left behind."""

    def __init__(self, artifact: pickaxe.Artifact) -> None:
        self.about: dict[str, Any] = artifact.read_json(_ABOUT)
        self.place: dict[str, int] = {id: row for row, id in enumerate(artifact.read_json(_IDS))}
        self.ranks = np.array(artifact.read_array(_RANKS))
        self.trajectories = artifact.read_array(_TRAJECTORIES)
        self.centroids, self.owners = (np.array(artifact.read_array(each)) for each in (_CENTROIDS, _SOURCES))


def _sorted(examples: Iterable[Item]) -> list[Item]:
    """By id, so that the choice does not depend on their order; raises `InvalidItems` for none and repeated ids."""
    items = sorted(examples, key=lambda item: item.id)
    if not items:
        raise InvalidItems("examples", "are empty: give the pool")
    for before, item in pairwise(items):
        if before.id == item.id:
            raise InvalidItems("examples", f"have two items with id {item.id!r}; ids name the chosen ones")
    return items


def _source(item: Item, use: bool) -> str:
    value = item.get("source") if use else None
    return value if isinstance(value, str) else ""


def _given(items: Sequence[Item], where: str, length: int | None, first: int = 0) -> np.ndarray:
    """(n, T) float32 of the field `losses`; raises `InvalidItems` naming what is wrong."""
    rows = []
    for row, item in enumerate(items, first):
        value, place = item.get("losses"), f"{where}[{row}].fields.losses"
        if value is None:
            raise InvalidItems(place, f"is missing, other items have them (item {item.id!r})")
        losses = np.asarray(value)
        if losses.ndim != 1 or not losses.size or losses.dtype.kind not in "fiu":
            raise InvalidItems(place, f"must be numbers, (T,) with T at least 1 (item {item.id!r})")
        if np.isinf(losses).any() or (losses < 0).any():
            raise InvalidItems(place, f"must be finite or NaN, and not negative (item {item.id!r})")
        if length not in (None, len(losses)):
            raise InvalidItems(place, f"has {len(losses)} checkpoints, others have {length} (item {item.id!r})")
        length = len(losses)
        rows.append(losses.astype(np.float32))
    return np.stack(rows)


def _by_source(items: Items, usable: np.ndarray, names: Sequence[str]) -> dict[int | None, np.ndarray]:
    """Rows of each source of the pool; None: of sources that it does not know, which are near any cluster."""
    place = {name: at for at, name in enumerate(names)}
    found: dict[int | None, list[int]] = {}
    for row in np.flatnonzero(usable):
        name = _source(items[int(row)], True)
        found.setdefault(0 if len(names) == 1 else place.get(name), []).append(int(row))
    return {key: np.array(rows) for key, rows in found.items()}
