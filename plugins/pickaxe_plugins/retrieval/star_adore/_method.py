"""STAR and ADORE: dense retrieval trained against the documents that it wrongly puts first (arXiv:2104.08051)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

import pickaxe
from pickaxe import Artifact, Call, Example, InputField, Item, Progress
from pickaxe.artifact import ArtifactWriter
from pickaxe.errors import ArtifactMismatch, InvalidItems, InvalidParams, Violation
from pickaxe.hooks import hookimpl
from pickaxe_plugins.retrieval import _towers
from pickaxe_plugins.retrieval._towers import Side, Tower
from pickaxe_plugins.retrieval._two_towers import TwoTowers

if TYPE_CHECKING:
    from pickaxe_plugins.retrieval.star_adore._data import Queries
    from pickaxe_plugins.retrieval.star_adore._model import Inputs

RATES = {"star": 1e-4, "adore": 5e-6}
HEAD_RATES = {"star": 3e-3, "adore": 1e-2}
"""Learning rates that are not given: of whole encoders as published, and of a head alone."""


class Recipe(pickaxe.Params):
    """How a stage is trained: on a linear schedule with warm-up."""

    epochs: int = Field(default=6, ge=1, description="How often each query is used.")
    batch: int = Field(default=32, ge=1, description="Queries of one step.")
    rate: float | None = Field(default=None, gt=0, description="Highest learning rate; null: by stage and network.")
    optimizer: Literal["lamb", "adamw"] = Field(default="adamw", description="Optimiser.")
    warmup: float = Field(default=0.1, ge=0, le=1, description="Share of the steps until the highest rate.")
    decay: float = Field(default=0.01, ge=0, description="Weight decay of matrices.")
    clip: float = Field(default=1.0, gt=0, description="Largest norm of a gradient.")


class StarRecipe(Recipe):
    """That of warm-up and STAR."""

    epochs: int = Field(default=20, ge=1, description="How often each query is used.")
    batch: int = Field(default=256, ge=1, description="Queries of one step, which share their negatives.")
    optimizer: Literal["lamb", "adamw"] = Field(default="lamb", description="Optimiser.")


class Params(pickaxe.Params):
    stage: Literal["warmup", "star", "adore", "star+adore"] = Field("adore", description="fit: what is trained.")
    base: str | None = Field(
        "encoder", min_length=1, description="Encoder: alias, name or path; null: all items bring an `embedding`."
    )
    head_only: bool = Field(True, description="fit: train a matrix for queries alone, on the encoder as it is.")
    head_scale: float = Field(1.0, gt=0, description="fit: the matrix begins as the identity times this.")
    hard_topk: int = Field(200, ge=1, le=1000, description="fit, star: best wrong documents that one is drawn from.")
    hard_from: int = Field(0, ge=0, description="fit, star: ranks that are left out before them; they may be right.")
    neg_topk: int = Field(200, ge=2, le=2000, description="fit, adore: documents that every step retrieves.")
    metric_cut: int | None = Field(None, ge=1, description="fit, adore: 1/rank counts as 0 beyond this rank.")
    warmup_negatives: Literal["random", "bm25"] = Field("random", description="fit, warmup: where negatives are from.")
    star: StarRecipe = Field(StarRecipe(), description="fit: how warmup and star are trained.")
    adore: Recipe = Field(Recipe(), description="fit: how adore is trained.")
    dropout: float = Field(0.1, ge=0, lt=1, description="fit: share of activations dropped, of a whole encoder.")
    patience: int = Field(3, ge=0, description="fit: epochs without a gain on `validation` until a stage ends; 0: all.")
    checkpoint: int = Field(200, ge=1, description="fit: steps between the points at which an interrupted fit resumes.")
    query_len: int = Field(64, ge=2, le=512, description="Tokens of a query; longer ones are cut.")
    doc_len: int = Field(256, ge=2, le=512, description="Tokens of a document; longer ones are cut.")

    def rate_of(self, recipe: Recipe) -> float:
        """The learning rate of a stage's recipe."""
        rates = HEAD_RATES if self.head_only else RATES
        return recipe.rate or rates["star" if isinstance(recipe, StarRecipe) else "adore"]


class StarAdore(TwoTowers[Params]):
    """Dense retrieval, trained against the documents that it wrongly puts first.

    STAR mines hard negatives once and trains both sides; ADORE leaves the documents' vectors as they are and trains
    the query side on what it retrieves at every step.  Without `fit` it searches with the encoder as it is.
    """

    title = "Optimizing Dense Retrieval Model Training with Hard Negatives"
    paper = "arXiv:2104.08051"
    version = 1
    Params = Params
    reads = (
        InputField("text", "text", "The document, or the question.", False),
        InputField("embedding", "tensor", "Its vector, (d,), in place of the encoder's.", False),
        InputField("title", "text", "The document's title; kept for what comes after the search.", False),
    )
    fit_reads = (
        InputField("text", "text", "The query.", False),
        InputField("embedding", "tensor", "Its vector, (d,), in place of the encoder's.", False),
        InputField("relevant", "texts", "Ids of its relevant documents, which are given as `unlabelled`.", False),
        InputField("positive", "text", "A relevant passage itself, where there are no documents.", False),
    )
    fitted = "optional"
    stages = ("warmup", "star", "adore")
    grows = True
    cost = "One encoder call per document, once, and per query; fit of a head: seconds; of an encoder: hours on a CPU."
    reproduced = "MetaTool, a head on LSA vectors: MRR@10 base 0.420, static 0.404, random 0.441, ADORE 0.465."

    @classmethod
    def example(cls) -> Example:
        documents = (
            Item("rain", "The rain in Spain stays mainly in the plain."),
            Item("tea", "Green tea is brewed at about 80 degrees, black tea with boiling water."),
            Item("moon", "The Moon turns once on its axis for every orbit around the Earth."),
        )
        asked = ("Where does it rain?", "When is water too hot for tea?", "Why do we see one side of the Moon?")
        return Example(
            params={"stage": "star+adore", "star": {"epochs": 1}, "adore": {"epochs": 2, "batch": 2}},
            documents=documents,
            examples=tuple(
                Item(f"q{row}", question, {"positive": documents[row].text or ""}) for row, question in enumerate(asked)
            ),
            queries=(Item("q1", "How hot should water for green tea be?"), Item("q2", "Why is one side of Luna dark?")),
        )

    # ------------------------------------------------------------ towers

    def tower(self, side: Side, source: Artifact | None) -> Tower:
        if source is not None and source.has(_towers.TABLE):
            return _towers.opened(source, side, self.host)
        encoder = None if self.params.base is None else self.host.encoder(self.params.base)
        head = _towers.read_head(source, "query") if source is not None and side == "query" else {}
        return Tower(encoder, head, self.params.query_len if side == "query" else self.params.doc_len)

    def vectors(self, items: Sequence[Item], side: Side, tower: Tower, call: Call, start: int = 0) -> np.ndarray:
        label = "queries" if side == "query" else "documents"
        if self.artifact is not None and self.artifact.has(_towers.TABLE):
            no_vectors(items)
            return base_vectors(items, label, tower, call, start)
        vectors = base_vectors(items, label, tower.bare, call, start)
        head = tower.head.get("head.weight")
        if head is not None and vectors.shape[1] != head.shape[1]:
            raise ArtifactMismatch(f"{label} have vectors of width {vectors.shape[1]}, the head reads {head.shape[1]}")
        return np.asarray(_towers.headed(tower.head, vectors), np.float32)

    # ------------------------------------------------------------ fit

    @hookimpl
    def fit(
        self,
        examples: Iterable[Item],
        validation: Iterable[Item] | None,
        unlabelled: Iterable[Item] | None,
        out: ArtifactWriter,
        init_from: Artifact | None,
        call: Call,
    ) -> Iterator[Progress]:
        from pickaxe_plugins.retrieval.star_adore._data import read

        documents, learned, checked = read(examples, validation, unlabelled)
        train = self._fit_head if self.params.head_only else self._fit_whole
        yield from train(documents, learned, checked, out, init_from, call)
        out.notes |= {
            "stage": self.params.stage,
            "queries": len(learned.items),
            "skipped_queries": learned.skipped,
            "documents": len(documents),
            "seed": call.seed,
        }

    @property
    def _stages(self) -> list[str]:
        return self.params.stage.split("+")

    def _fit_head(
        self, documents: list[Item], learned: Queries, checked: Queries | None, out: ArtifactWriter,
        init_from: Artifact | None, call: Call,
    ) -> Iterator[Progress]:  # fmt: skip
        from pickaxe_plugins.retrieval.star_adore._model import HeadOnly, Inputs
        from pickaxe_plugins.retrieval.star_adore._train import Task

        if init_from is not None and init_from.has(_towers.TABLE):
            raise InvalidParams("head_only", "must be false to go on from a whole encoder")
        asking, reading = self.tower("query", None), self.tower("document", None)
        texts = base_vectors(documents, "documents", reading, call)

        def inputs(queries: Queries, label: str) -> Inputs:
            vectors = base_vectors(queries.items, label, asking, call)
            if vectors.shape[1] != texts.shape[1]:
                raise InvalidItems(label, f"have vectors of width {vectors.shape[1]}, documents of {texts.shape[1]}")
            return Inputs({"query": vectors, "document": texts})

        exam = inputs(checked, "validation") if checked else None
        weights = {"head.weight": self.params.head_scale * np.eye(texts.shape[1], dtype=np.float32)}
        if init_from is not None:
            weights = _towers.read_head(init_from, "query")
        task = Task(self.params, self.host, out, call, documents, learned, checked, HeadOnly(),
                    inputs(learned, "examples"), exam)  # fmt: skip
        for stage in self._stages:
            weights = yield from task.stage(stage, weights, weights)
        _towers.write_head(out, "query", weights)
        task.forget()
        if exam is not None:
            out.notes["validation_mrr@10"] = task.examine(weights)

    def _fit_whole(
        self, documents: list[Item], learned: Queries, checked: Queries | None, out: ArtifactWriter,
        init_from: Artifact | None, call: Call,
    ) -> Iterator[Progress]:  # fmt: skip
        from pickaxe.tokenizers import Tokenizer
        from pickaxe_plugins.retrieval.star_adore._model import Inputs, Whole
        from pickaxe_plugins.retrieval.star_adore._train import Task
        from pickaxe_plugins.train import bert_files
        from pickaxe_plugins.train.pairs import Framing

        params = self.params
        if init_from is not None:
            sides, tokenizer = _towers.networks(init_from)
        elif params.base is not None:
            path = self.host.model_path(params.base)
            config, found = bert_files.load(path)
            whole = _towers.Network(config, {**found, **fresh_head(config.width)}, params.doc_len)
            sides, tokenizer = {"query": whole, "document": whole}, Tokenizer.open(path)
        else:
            raise InvalidParams("base", "must name an encoder to train")
        config = sides["query"].config
        if max(params.query_len, params.doc_len) > config.positions:
            raise InvalidParams("doc_len", f"and query_len may be at most {config.positions} for {params.base!r}")
        no_vectors([*documents, *learned.items, *(checked.items if checked else ())])
        asking, reading = Framing(tokenizer, params.query_len), Framing(tokenizer, params.doc_len)
        texts = reading.texts([item.text or "" for item in documents])

        def inputs(queries: Queries) -> Inputs:
            return Inputs({"query": asking.texts([item.text or "" for item in queries.items]), "document": texts})

        task = Task(params, self.host, out, call, documents, learned, checked, Whole(config, params.dropout),
                    inputs(learned), inputs(checked) if checked else None)  # fmt: skip
        query: Any = sides["query"].weights
        document: Any = sides["document"].weights
        for stage in self._stages:
            query = yield from task.stage(stage, query if stage == "adore" else document, document)
            document = document if stage == "adore" else query
        network = _towers.Network(config, query, params.query_len)
        _towers.write(out, {"query": network, "document": _towers.Network(config, document, params.doc_len)}, tokenizer)
        task.forget()


def base_vectors(items: Sequence[Item], label: str, tower: Tower, call: Call, start: int = 0) -> np.ndarray:
    """(n, d) float32: the `embedding` of each item where it has one, else what the tower says of its text.

    Raises `InvalidItems` naming items that have neither, or not one width.
    """
    own = [item.get("embedding") for item in items]
    texts = [row for row, vector in enumerate(own) if vector is None]
    lacking = [row for row in texts if items[row].text is None or tower.encoder is None]
    if lacking:
        wanted = "a text or an embedding" if tower.encoder is not None else "an embedding, since there is no base"
        raise InvalidItems([Violation(f"{label}[{start + row}]", f"has not {wanted} (item {items[row].id!r})")
                            for row in lacking[:20]])  # fmt: skip
    made = tower.encode([items[row].text or "" for row in texts], call) if texts else None
    first = made[0] if made is not None else np.atleast_1d(np.asarray(own[0]))
    vectors = np.empty((len(items), len(first)), np.float32)
    for row, vector in enumerate(own):
        if vector is None:
            continue
        array = np.asarray(vector, np.float32)
        if array.ndim != 1 or array.shape != first.shape or not np.isfinite(array).all():
            raise InvalidItems(
                f"{label}[{start + row}].fields.embedding",
                f"must be {len(first)} finite numbers, has shape {array.shape} (item {items[row].id!r})",
            )
        vectors[row] = array
    if made is not None:
        vectors[texts] = made
    return vectors


def no_vectors(items: Sequence[Item]) -> None:
    """Raise `InvalidItems` for items with vectors of their own, which a whole encoder does not read."""
    bringing = [item.id for item in items if item.get("embedding") is not None]
    if bringing:
        raise InvalidItems("embedding", f"is read with head_only only (item {bringing[0]!r})")


def fresh_head(width: int) -> dict[str, np.ndarray]:
    """The published head, linear and layer norm, which begins as the identity."""
    return {
        "head.weight": np.eye(width, dtype=np.float32),
        "head.bias": np.zeros(width, np.float32),
        "head.LayerNorm.weight": np.ones(width, np.float32),
        "head.LayerNorm.bias": np.zeros(width, np.float32),
    }
