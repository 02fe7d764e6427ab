"""Does a retriever extrapolate, or does it know the test queries from training?  (arXiv 2204.11447)"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np
from pydantic import Field

import pickaxe
from pickaxe import (
    ArtifactWriter,
    Call,
    Column,
    Example,
    Flag,
    Groups,
    InputField,
    Item,
    Items,
    Method,
    Progress,
    Scores,
)
from pickaxe.errors import ArtifactMismatch, InvalidItems, InvalidParams
from pickaxe.hooks import hookimpl
from pickaxe.randomness import generator
from pickaxe_plugins.evaluation.interp_extrap import _report, _similarity, _splits
from pickaxe_plugins.evaluation.interp_extrap._evaluate import Data, evaluate
from pickaxe_plugins.evaluation.interp_extrap._gap import Gap, measure
from pickaxe_plugins.evaluation.interp_extrap._read import Queries, queries, results
from pickaxe_plugins.evaluation.interp_extrap._splits import Resample, Splits, label_overlap

__all__ = ["Data", "InterpExtrap", "Params", "evaluate", "label_overlap"]

_IDS, _TRAINING, _SIDE, _NEAREST, _ABOUT = "ids.json", "training.npy", "side.npy", "nearest.npy", "about.json"


class Params(pickaxe.Params):
    """Parameters of `interp-extrap`."""

    protocol: Literal["resttest", "restrain", "slice"] = Field(
        "resttest",
        description="resttest: K trainings, each without one bucket of queries; restrain: one training near the test "
        "queries, one far from them; slice: one training, near and far test queries (no extrapolation).",
    )
    k: int = Field(5, ge=2, le=50, description="Buckets of resttest.")
    n_per_query: int = Field(150, ge=1, description="restrain: nearest training queries taken for each test query.")
    extrapolation_sampling: _splits.Sampling = Field(
        "ascending", description="restrain: the least similar first, or random_dissimilar: at random below tau."
    )
    tau: float = Field(0.5, gt=0, lt=1, description="Quantile of similarity for random_dissimilar and slice.")
    centroids: tuple[tuple[float, ...], ...] = Field((), description="resttest: centroids instead of k-means.")
    n_init: int = Field(10, ge=1, le=100, description="Runs of k-means, of which the best counts.")
    balance_size: bool = Field(True, description="restrain: cut the interpolation set when too few others are left.")
    seed: int = Field(0, ge=0, description="Seed of k-means and random_dissimilar.")
    min_overlap: int = Field(
        1, ge=1, description="Shared relevant passages from which a test query counts as overlapped."
    )
    rel_threshold: int = Field(1, ge=1, description="Grade from which a passage is relevant.")
    bootstrap: int = Field(1000, ge=0, le=100_000, description="Resamples of the test queries for intervals; 0: none.")
    model: str = Field("encoder", min_length=1, description="Sentence encoder of queries that come without embedding.")

    @property
    def names(self) -> tuple[str, str]:
        return ("near", "far") if self.protocol == "slice" else ("interpolation", "extrapolation")


def _columns(far: str) -> tuple[Column, ...]:
    return (
        Column(far, f"Mean metric of the item's system in {far}.", "float64", "", "higher", nullable=True),
        Column("nearest_train_similarity", "Cosine to the nearest query of that training.", "float64", "", "none"),
        Column("side", f"1: the item counts as {far}.", "int64", "", "none"),
    )


class InterpExtrap(Method[Params]):
    """Does a retriever extrapolate, or does it know the test queries from training?

    `fit` splits training and test queries by similarity; items are results of systems trained on those parts.
    """

    title = "Evaluating Interpolation and Extrapolation Performance of Neural Retrieval Models"
    paper = "arXiv:2204.11447"
    version = 1
    Params = Params
    scope = "pool"
    reads = (
        InputField("fold", "int64", "Which training, from 0 on."),
        InputField("query", "text", "Id of the test query."),
        InputField("metric", "float64", "What the system reaches on it, e.g. MRR@10."),
        InputField("system", "text", "Name of the retriever.", False),
    )
    fit_reads = (
        InputField("embedding", "tensor", "Vector of the query, (d,); absent: its text is encoded.", False),
        InputField("text", "text", "The query, where there is no embedding.", False),
        InputField("relevant", "struct", "Judgments, passage to grade; for overlap and qrels files.", False),
        InputField("labels", "struct", "Your labels (entity, intent ...), kind to value; for overlap.", False),
    )
    columns = _columns("extrapolation")
    fitted = "required"
    stages = ("read", "split")
    cost = "One product of test and training embeddings in blocks; k-means of 10 runs; scoring takes milliseconds."
    reproduced = "Golden cases, the released splits, the official overlap rule; MetaTool: MRR@10 0.469 near, 0.435 far."

    @classmethod
    def example(cls) -> Example:
        """Sixty training queries and twelve test queries in three directions; two systems."""
        rng = np.random.default_rng(0)
        directions = np.eye(3).repeat(24, axis=0) + rng.normal(0, 0.3, (72, 3))
        made = [Item(f"q{row}", fields={"embedding": vector}) for row, vector in enumerate(directions)]
        test = [item for row, item in enumerate(made) if row % 6 == 0]
        train = [item for row, item in enumerate(made) if row % 6]
        items = tuple(
            Item(
                f"{system} {fold} {item.id}", fields={"fold": fold, "query": item.id, "system": system, "metric": value}
            )
            for system, value in (("dense", 0.4), ("sparse", 0.3))
            for fold in range(3)
            for item in test
        )
        return Example({"k": 3, "bootstrap": 50}, items, True, tuple(train), tuple(test))

    def declared_columns(self) -> tuple[Column, ...]:
        return _columns(self.params.names[1])

    # ------------------------------------------------------------ score

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        names = self.params.names
        columns = {each.name: np.zeros(len(items), each.dtype) for each in self.declared_columns()}
        if not len(items):
            return Scores(columns)
        about, ids, splits = self._splits()
        read = results(items, ids, len(splits.side))
        gaps = [
            measure(name, read.metric[at], splits.side, self.params.bootstrap, generator(call.seed, "queries"), call)
            for at, name in enumerate(read.systems)
        ]
        columns[names[1]] = np.array([each.extrapolation for each in gaps])[read.system_of]
        columns["side"] = splits.side[read.fold_of, read.query_of].astype(np.int64)
        columns["nearest_train_similarity"] = splits.nearest[read.fold_of, read.query_of]
        used = np.isfinite(read.metric).any(axis=0)
        side = np.where(used, splits.side, -1)
        summary = _report.tell(gaps, side, splits.nearest, names) | {"Splits": about}
        flags = _flags(gaps, read.metric, read.system_of, names[1], self.params.protocol == "resttest")
        return Scores(columns, _groups(gaps, names), summary, tuple(flags))

    def _splits(self) -> tuple[dict[str, Any], list[str], Splits]:
        artifact = self.artifact
        assert artifact is not None
        about = artifact.read_json(_ABOUT)
        if about["protocol"] != self.params.protocol:
            raise ArtifactMismatch(
                f"the splits were made with protocol={about['protocol']}, not {self.params.protocol}: fit again",
                metadata={"fitted": about["protocol"], "wanted": self.params.protocol},
            )
        arrays = (np.array(artifact.read_array(name)) for name in (_TRAINING, _SIDE, _NEAREST))
        return about, artifact.read_json(_IDS)["test"], Splits(*arrays)

    # ------------------------------------------------------------ fit

    @hookimpl
    def fit(
        self, examples: Iterable[Item], validation: Iterable[Item] | None, out: ArtifactWriter, call: Call
    ) -> Iterator[Progress]:
        """Split training queries (examples) and test queries (validation)."""
        params = self.params
        train = queries(examples, "examples", params.model, self.host, call)
        test = queries(validation or (), "validation", params.model, self.host, call)
        if train.vectors.shape[1] != test.vectors.shape[1]:
            wide = train.vectors.shape[1], test.vectors.shape[1]
            raise InvalidItems("validation", f"has embeddings of {wide[1]} numbers, examples of {wide[0]}")
        yield Progress("read", 1, 1, {"training": float(len(train.ids)), "test": float(len(test.ids))})
        about: dict[str, Any] = {"protocol": params.protocol, "training queries": len(train.ids)}
        about["test queries"] = len(test.ids)
        splits = self._split(train.vectors, test.vectors, about, call)
        about |= self._overlap(train, test)
        out.write_json(_IDS, {"train": train.ids, "test": test.ids})
        for name, array in ((_TRAINING, splits.training), (_SIDE, splits.side), (_NEAREST, splits.nearest)):
            out.write_array(name, array)
        out.write_json(_ABOUT, about)
        _write_parts(out, train, test, splits, params.names)
        out.notes |= {"folds": len(splits.side), "training": splits.training.sum(axis=1).tolist()}
        yield Progress("split", 1, 1, {"folds": float(len(splits.side))})

    def _split(self, train: np.ndarray, test: np.ndarray, about: dict[str, Any], call: Call) -> Splits:
        params = self.params
        if params.protocol == "slice":
            return _splits.sliced(train, test, params.tau, call)
        if params.protocol == "restrain":
            how = Resample(params.n_per_query, params.extrapolation_sampling, params.tau, params.balance_size)
            splits, similar = _splits.restrain(train, test, how, params.seed, call)
            for name, rows in zip(params.names, splits.training, strict=True):
                about[f"mean highest similarity of the {name} set"] = float(similar[rows].mean())
            about["mean highest similarity of all"] = float(similar.mean())
            return splits
        if params.centroids:
            if len({*map(len, params.centroids), train.shape[1]}) > 1:
                raise InvalidParams("centroids", f"must have {train.shape[1]} numbers each, as the embeddings have")
            centroids = np.array(params.centroids)
            if len(centroids) < 2:
                raise InvalidParams("centroids", "must be two or more")
        else:
            if len(train) < params.k:
                raise InvalidItems(
                    "examples", f"are {len(train)} training queries, fewer than the k={params.k} buckets"
                )
            both = np.concatenate([train, test.astype(train.dtype)])
            centroids = _similarity.spherical_kmeans(both, params.k, params.n_init, params.seed, call)
        return _splits.resttest(train, test, centroids, call)

    def _overlap(self, train: Queries, test: Queries) -> dict[str, float]:
        """Shares of the judged test queries that share relevant passages, or labels, with training queries."""
        params, found = self.params, {}
        judged = sum(any(grade >= params.rel_threshold for grade in of.values()) for of in test.qrels.values())
        if judged and train.qrels:
            for least in sorted({1, 2, params.min_overlap}):
                shared = label_overlap(train.qrels, test.qrels, least, params.rel_threshold)
                found[f"label overlap of {least} or more"] = len(shared) / judged
        labels = _splits.shared_labels(train.labels, test.labels)
        return found | {f"overlap of {kind}": share for kind, share in labels.items()}


def _write_parts(out: ArtifactWriter, train: Queries, test: Queries, splits: Splits, names: tuple[str, str]) -> None:
    """Plain files of every fold: qrels of judged queries, else the ids, one a line."""
    for fold, (rows, side) in enumerate(zip(splits.training, splits.side, strict=True)):
        parts = [("train", train, rows), *((f"{name}.test", test, side == at) for at, name in enumerate(names))]
        for name, of, chosen in parts:
            ids = [of.ids[row] for row in np.flatnonzero(chosen)]
            lines = ids
            if of.qrels:
                lines = [f"{q} 0 {doc} {grade}" for q in ids for doc, grade in of.qrels.get(q, {}).items()]
            kind = "qrels" if of.qrels else "ids"
            out.file(f"fold-{fold}.{name}.{kind}.txt").write_text("".join(f"{line}\n" for line in lines), "utf-8")


def _groups(gaps: list[Gap], names: tuple[str, str]) -> Groups:
    near, far = names
    told = {
        far: ("Mean metric over folds.", [each.extrapolation for each in gaps], "higher"),
        near: ("Mean metric over folds.", [each.interpolation for each in gaps], "higher"),
        "gap": (f"{near} - {far}.", [each.gap for each in gaps], "lower"),
        "gap_low": ("Lower end of its 95% interval over queries.", [each.low for each in gaps], "none"),
        "gap_high": ("Upper end.", [each.high for each in gaps], "none"),
        "relative_gap": (f"gap / {near}.", [each.relative for each in gaps], "lower"),
        "pooled": (f"{far} over queries instead of folds.", [each.pooled for each in gaps], "higher"),
    }
    schema = tuple(Column(name, doc, "float64", "", way, True) for name, (doc, _, way) in told.items())  # type: ignore[arg-type]
    return Groups(tuple(each.system for each in gaps), {name: np.array(v) for name, (_, v, _) in told.items()}, schema)


def _flags(gaps: list[Gap], metric: np.ndarray, system_of: np.ndarray, far: str, buckets: bool) -> Iterator[Flag]:
    for at, (each, values) in enumerate(zip(gaps, metric, strict=True)):
        first = int(np.argmax(system_of == at))
        for fold in np.flatnonzero(np.isnan(each.by_fold[1])) if buckets else ():
            yield Flag(first, "empty-part", f"{each.system}: fold {fold} has no query in {far} and is left out")
        if lost := int(np.isnan(values).any(axis=0).sum()):
            yield Flag(first, "missing-queries", f"{each.system}: {lost} test queries lack a result in some fold")
