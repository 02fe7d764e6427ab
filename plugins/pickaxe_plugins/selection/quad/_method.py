"""Quad: influential documents from many clusters, found by a bandit that probes a few of each (arXiv:2409.16986)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

import pickaxe
from pickaxe import Artifact, ArtifactWriter, Call, Column, Example, InputField, Item, Items, Method, Progress, Scores
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe.hooks import hookimpl
from pickaxe.kmeans import assign
from pickaxe.randomness import generator
from pickaxe_plugins.selection._embeddings import EMBEDDING, TEXT, Embedder, unit_rows
from pickaxe_plugins.selection.quad import _influence
from pickaxe_plugins.selection.quad._influence import Direction, Influence, Settings
from pickaxe_plugins.selection.quad._pool import SCRATCH, Clusters, Reader, Rows, clustered, text_of
from pickaxe_plugins.selection.quad._select import PROBES, Outcome, Rounds, Rules

CLUSTER = InputField("cluster", "text", "Name of the item's cluster; absent: clusters are found.", False)
INFLUENCE = InputField("influence", "float64", "Influence of the item; absent: a model measures it.", False)
TOKENS = InputField("tokens", "int64", "Tokens of the item, for a budget in tokens; absent: counted.", False)

_ABOUT, _IDS, _CLUSTERS, _LOG = "about.json", "ids.json", "clusters.json", "rounds.json"
_MATRICES, _PROJECTED = "direction.safetensors", "direction.npy"
Quantile = Annotated[str, Field(pattern=r"^quantile:(0(\.\d+)?|1(\.0+)?)$")]


class Params(pickaxe.Params):
    """Parameters of `quad`."""

    k: int | None = Field(None, ge=1, description="Clusters that k-means makes; null: the root of the pool's size.")
    neighbour_threshold: float = Field(
        0.2, ge=0, description="Clusters nearer than this cosine distance share rewards; 0: none do."
    )
    alpha: float = Field(0.002, ge=0, description="Weight of what is unknown about a cluster; 0: greedy.")
    tau: float | Quantile = Field(
        0.002, description='Influence above which a batch is accepted; "quantile:q": of the first round\'s probes.'
    )
    arms_per_round: int | None = Field(
        None, ge=1, description="Clusters probed in a round, at most k; null: 50, or all when there are fewer."
    )
    probe_size: int = Field(10, ge=1, description="Documents of a batch whose influence is measured.")
    batch_size: int | None = Field(
        None, ge=1, description="Documents accepted together; null: an eighth of the mean cluster, at least one."
    )
    budget: int | None = Field(None, ge=1, description="Stop when so much is accepted; null: after max_rounds.")
    budget_unit: Literal["documents", "tokens"] = Field("documents", description="What the budget counts.")
    max_rounds: int = Field(200, ge=1, description="Most rounds.")
    model: str = Field("draft", min_length=1, description="Llama-shaped model whose gradients say the influence.")
    layers: str = Field(
        r"\.(q|k|v|o|gate|up|down)$",
        description="Regular expression that finds the linear layers whose gradients count.",
    )
    window: int = Field(
        256, ge=2, description="Tokens of a piece of a document; it has the mean of its pieces' scores."
    )
    max_chunks: int | None = Field(8, ge=1, description="Only so many first pieces of a document; null: all.")
    batch: int = Field(4, ge=1, description="Pieces of one backward pass.")
    curvature: Literal["ekfac", "kfac"] = Field("ekfac", description="The inverse curvature: EK-FAC, or plain K-FAC.")
    curvature_from: Literal["reference", "pool"] = Field(
        "reference", description="Texts on which the curvature is estimated."
    )
    curvature_sample: int = Field(
        256, ge=1, description="Most texts for the curvature, from the pool drawn by the seed."
    )
    damping: float = Field(1e-3, gt=0, description="What is added to the curvature before it is inverted.")
    projection_dim: int = Field(
        0, ge=0, description="Gradients are projected to so many random dimensions (the paper: 8192); 0: never."
    )
    encoder: str = Field("encoder", min_length=1, description="Sentence encoder of items without embedding.")
    projection_seed: int = Field(0, ge=0, description="Seed of the projection.")
    compat: bool = Field(
        False, description="As the authors' code: probes at taken x probe_size, and each cluster's first documents."
    )


class Quad(Method[Params]):
    """Select documents that lower a reference loss, from many clusters, with few gradients.

    `fit` clusters the pool and plays a bandit: a round probes some documents of the clusters of highest score, and
    accepts a batch where their mean influence on the reference (validation) exceeds tau.
    """

    title = "Harnessing Diversity for Important Data Selection in Pretraining Large Language Models"
    paper = "arXiv:2409.16986"
    version = 1
    Params = Params
    scope = "item"
    reads = (EMBEDDING, TEXT, CLUSTER)
    fit_reads = (EMBEDDING, TEXT, CLUSTER, INFLUENCE, TOKENS)
    columns = (
        Column("cluster_score", "mean reward of the item's cluster plus what is unknown about it", "float64"),
        Column("selected", "1 for items of the pool that are selected", "int64"),
        Column("cluster_reward", "mean reward of the item's cluster", "float64"),
        Column("influence", "influence of the item, where it was probed", "float64", nullable=True),
        Column("cluster", "name of the item's cluster", "str", direction="none"),
    )
    fitted = "required"
    stages = ("read", "cluster", "reference", "select")
    cost = (
        "Fit: k-means, then rounds x arms x probe_size backward passes; the bandit itself takes under a second for 200 "
        "rounds over 10,000 clusters.  Scoring: one product with the centres."
    )
    reproduced = (
        "The authors' bandit and EK-FAC, exactly (golden cases); with simulated rewards the bandit's pulls have a mean "
        "influence of 0.0026 against 0.0000 of random ones, and touch more clusters than greedy ones."
    )

    @classmethod
    def example(cls) -> Example:
        """Three clusters, of which the first has influence; the items bring it, so no model is needed."""
        rng = np.random.default_rng(0)
        pool = tuple(
            Item(
                f"{name}{row}",
                fields={
                    "embedding": (np.eye(4)[place] + rng.normal(0, 0.05, 4)).astype(np.float32),
                    "influence": float(level + rng.normal(0, 0.001)),
                },
            )
            for place, (name, level) in enumerate([("good", 0.02), ("fair", 0.004), ("bad", -0.02)])
            for row in range(12)
        )
        params = {"k": 3, "probe_size": 2, "batch_size": 3, "arms_per_round": 2, "max_rounds": 6, "budget": 12}
        return Example(params, (pool[0], pool[12], pool[24]), True, pool)

    # ------------------------------------------------------------ fit

    @hookimpl
    def fit(
        self,
        examples: Iterable[Item],
        validation: Iterable[Item] | None,
        init_from: Artifact | None,
        out: ArtifactWriter,
        call: Call,
    ) -> Iterator[Progress]:
        """Cluster the pool (examples), take the gradients of the reference (validation), and play the bandit."""
        params = self.params
        embedder = Embedder(self.host, params.encoder, unit=True)
        reader = Reader(out, embedder, params.neighbour_threshold > 0, self._counter())
        rows = yield from reader.read(examples, call)
        need = {"items": float(len(rows.ids)), "disk_mib": len(rows.ids) * rows.width * 4 / 2**20}
        yield Progress("cluster", 0, 1, need)
        rng = generator(call.seed, "quad", "clusters")
        clusters = clustered(out, rows, params.k, params.neighbour_threshold, rng, call)
        rules = self._rules(clusters)
        yield Progress("cluster", 1, 1, {"clusters": float(len(clusters.names))})
        measure = None if rows.influence else _Measured(self, rows, out, call)
        if measure is not None:
            yield Progress("reference", 0, 1)
            measure.prepare(validation, init_from)
            yield Progress("reference", 1, 1)
        given = np.array(rows.influence)
        amounts = np.array(rows.amounts) if rows.amounts else np.ones(len(rows.ids), np.int64)
        rounds = Rounds(clusters, amounts, rules, measure.of if measure else lambda at: given[list(at)], out)
        outcome = yield from rounds.run()
        if rows.influence:
            outcome.influence = given
        self._write(out, rows, clusters, outcome, rounds.enough, measure.about if measure else {})
        for name in (*SCRATCH, PROBES):
            out.file(name).unlink(missing_ok=True)

    def _counter(self) -> Any:
        """What counts an item's tokens; None when the budget does not."""
        if self.params.budget_unit == "documents":
            return None
        from pickaxe.lm.network import tokenizer_of
        from pickaxe.tokenizers import Tokenizer

        tokenizer: list[Tokenizer] = []

        def tokens(item: Item, place: str) -> int:
            given = item.get("tokens")
            if isinstance(given, (int, np.integer)) and given >= 0:
                return int(given)
            if given is not None or item.text is None:
                raise InvalidItems(f"{place}.fields.tokens", f"a count or a text is needed (item {item.id!r})")
            if not tokenizer:
                tokenizer.append(tokenizer_of(self.host.models, self.host.model_path(self.params.model)))
            return len(tokenizer[0].encode(item.text))

        return tokens

    def _rules(self, clusters: Clusters) -> Rules:
        params, k = self.params, len(clusters.names)
        arms = min(50, k) if params.arms_per_round is None else params.arms_per_round
        if arms > k:
            raise InvalidParams("arms_per_round", f"is {arms}, there are {k} clusters")
        batch = params.batch_size or max(1, len(clusters.labels) // (8 * k))
        probe = min(params.probe_size, batch)
        return Rules(params.alpha, params.tau, arms, probe, batch, params.max_rounds, params.budget, params.compat)

    def _write(
        self, out: ArtifactWriter, rows: Rows, clusters: Clusters, outcome: Outcome, enough: bool, about: dict[str, Any]
    ) -> None:
        bandit = outcome.bandit
        exhausted = not enough and not bandit.eligible.any()
        notes = {
            "rounds": bandit.rounds,
            "selected": int(outcome.picked.sum()),
            "amount": outcome.amount,
            "exhausted": exhausted,
            "tau": bandit.tau,
            "batch_size": bandit.batch,
            "probed": 0 if rows.influence else int(np.isfinite(outcome.influence).sum()),
        }
        out.write_json(_ABOUT, {**notes, **about, "encoder": self.params.encoder, "width": rows.width})
        out.write_json(_IDS, rows.ids)
        out.write_json(_LOG, outcome.log)
        state = zip(
            clusters.names, bandit.sizes, bandit.taken, bandit.accepted, bandit.rewards, bandit.counts, bandit.means,
            bandit.scores, ~bandit.eligible, strict=True,
        )  # fmt: skip
        keys = ("name", "size", "taken", "accepted", "rewards", "counts", "mean_reward", "score", "retired")
        columns = (np.asarray(each).tolist() for each in zip(*state, strict=True))
        out.write_json(_CLUSTERS, dict(zip(keys, columns, strict=True)))
        out.write_array("picked.npy", outcome.picked)
        out.write_array("influence.npy", outcome.influence)
        near = clusters.neighbours
        for name, array in (("starts", near.starts), ("indices", near.indices), ("shares", near.shares)):
            out.write_array(f"neighbour_{name}.npy", array)
        out.notes |= notes
        if not outcome.picked.any():
            out.notes["warning"] = "nothing was accepted: lower tau, or give a batch_size that clusters can fill"

    def influence_settings(self) -> Settings:
        """What the measured influence depends on."""
        params = self.params
        return Settings(
            model=params.model,
            layers=params.layers,
            window=params.window,
            max_chunks=params.max_chunks,
            batch=params.batch,
            curvature=params.curvature,
            damping=params.damping,
            projection_dim=params.projection_dim,
            seed=params.projection_seed,
        )

    # ------------------------------------------------------------ score

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        fitted = self._fitted
        rows = [fitted.row_of.get(item.id) for item in items]
        labels = self._labels(items, rows, call)
        inside = np.array([row is not None for row in rows], bool)
        at = np.array([row for row in rows if row is not None], np.int64)
        selected, influence = np.zeros(len(rows), np.int64), np.full(len(rows), np.nan)
        selected[inside], influence[inside] = fitted.picked[at], fitted.influence[at]
        return Scores(
            {
                "cluster_score": fitted.scores[labels],
                "selected": selected,
                "cluster_reward": fitted.means[labels],
                "influence": influence,
                "cluster": np.array([fitted.names[label] for label in labels], np.str_),
            }
        )

    def _labels(self, items: Sequence[Item], rows: Sequence[int | None], call: Call) -> np.ndarray:
        """The clusters: of the pool's items as fitted, of others by name, else the nearest one."""
        fitted = self._fitted
        labels = np.array([-1 if row is None else fitted.labels[row] for row in rows], np.int64)
        for place, item in enumerate(items):
            if labels[place] < 0 and item.get("cluster") is not None:
                labels[place] = fitted.number_of.get(str(item.get("cluster")), -1)
        others = np.flatnonzero(labels < 0)
        if not len(others):
            return labels
        if fitted.centres is None:
            raise InvalidItems(
                f"items[{others[0]}]",
                f"is not of the pool, and its cluster not among the fitted ones (item {items[int(others[0])].id!r})",
            )
        width = fitted.centres.shape[1]
        for place in others.tolist():
            embedder = Embedder(self.host, fitted.encoder, unit=False, width=width)
            if items[place].get("embedding") is not None:
                vector = embedder.rows([items[place]], "items", call, place)
                labels[place] = assign(unit_rows(vector, "items", [items[place]], place), fitted.centres, call)[0][0]
        texts = [place for place in others.tolist() if labels[place] < 0]
        if texts:
            embedder = Embedder(self.host, fitted.encoder, unit=True, width=width)
            for place in texts:
                if items[place].text is None:
                    raise InvalidItems(f"items[{place}]", f"has neither embedding nor text (item {items[place].id!r})")
            vectors = embedder.rows([items[place] for place in texts], "items", call)
            labels[texts] = assign(vectors, fitted.centres, call)[0]
        return labels

    @cached_property
    def _fitted(self) -> _Fitted:
        assert self.artifact is not None  # the handle sees to it: `fitted` is "required"
        return _Fitted(self.artifact)


class _Fitted:
    """What scoring needs of an artifact."""

    def __init__(self, artifact: Artifact) -> None:
        clusters = artifact.read_json(_CLUSTERS)
        self.encoder: str = artifact.read_json(_ABOUT)["encoder"]
        self.names: list[str] = clusters["name"]
        self.number_of = {name: number for number, name in enumerate(self.names)}
        self.scores, self.means = np.array(clusters["score"], float), np.array(clusters["mean_reward"], float)
        self.row_of = {each: row for row, each in enumerate(artifact.read_json(_IDS))}
        self.labels, self.picked = artifact.read_array("labels.npy"), artifact.read_array("picked.npy")
        self.influence = artifact.read_array("influence.npy")
        self.centres = np.array(artifact.read_array("centres.npy")) if artifact.has("centres.npy") else None


class _Measured:
    """Influence by a model's gradients."""

    def __init__(self, method: Quad, rows: Rows, out: ArtifactWriter, call: Call) -> None:
        self._params, self._rows, self._out, self._call = method.params, rows, out, call
        self._influence = Influence(method.host, method.influence_settings())
        settings = method.params.model_dump(
            mode="json",
            include={"layers", "window", "curvature", "curvature_from", "damping", "projection_dim", "projection_seed"},
        )
        self.about: dict[str, Any] = {"model_digest": self._influence.digest, "settings": settings}
        self._direction: Direction = {}

    def prepare(self, validation: Iterable[Item] | None, init_from: Artifact | None) -> None:
        """The direction of the references, or that of an artifact of the same model and settings."""
        texts = Items(validation or ()).texts()
        files = self._out.file(_MATRICES), self._out.file(_PROJECTED)
        if texts:
            self.about["references"] = len(texts)
            self.about["references_digest"] = _influence.references_digest(texts)
        if self._reusable(init_from, bool(texts)):
            assert init_from is not None
            old = init_from.read_json(_ABOUT)
            self.about |= {name: old[name] for name in ("references", "references_digest")}
            self._direction = _influence.read_direction(init_from.path / _MATRICES, init_from.path / _PROJECTED)
        elif self._out.done("reference"):
            self._direction = _influence.read_direction(*files)
        elif texts:
            self._direction = self._influence.direction(texts, self._curvature_texts(texts), self._call)
        else:
            raise InvalidItems("validation", "is empty: give the reference texts as validation items")
        _influence.write_direction(self._direction, *files)
        self._out.finish("reference")

    def _reusable(self, init_from: Artifact | None, given: bool) -> bool:
        if init_from is None or not (init_from.has(_MATRICES) or init_from.has(_PROJECTED)):
            return False
        old = init_from.read_json(_ABOUT)
        same = all(old[name] == self.about[name] for name in ("model_digest", "settings"))
        if not same and not given:
            raise InvalidItems("validation", "is empty, and the artifact to start from is of another model or settings")
        return same and (not given or old["references_digest"] == self.about["references_digest"])

    def _curvature_texts(self, references: Sequence[str]) -> list[str]:
        most = self._params.curvature_sample
        if self._params.curvature_from == "reference":
            return list(references[:most])
        count = len(self._rows.ids)
        drawn = generator(self._call.seed, "quad", "curvature").permutation(count)[:most]
        return [text_of(self._out, self._rows, row) for row in np.sort(drawn).tolist()]

    def of(self, rows: Sequence[int]) -> np.ndarray:
        """Influence of rows of the pool."""
        texts = [text_of(self._out, self._rows, row) for row in rows]
        return self._influence.of(texts, self._direction, self._call)
