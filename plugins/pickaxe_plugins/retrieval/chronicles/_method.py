"""Retrieval as studied in The Chronicles of RAG (arXiv:2401.07883): BM25, dense, custom, hybrid, reranked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import pydantic
from pydantic import Field

import pickaxe
from pickaxe import Call, Example, Hit, InputField, Item, Items, Method, MethodRef, Progress, SearchResults, Span
from pickaxe.artifact import Artifact, ArtifactWriter
from pickaxe.errors import InvalidItems, Unmet
from pickaxe.hooks import hookimpl
from pickaxe.index import check_model, check_params, record_model
from pickaxe.index.dense import finite
from pickaxe_plugins.retrieval._fusion import best, reciprocal_rank_fusion
from pickaxe_plugins.retrieval._windows import stop_words, words
from pickaxe_plugins.retrieval.chronicles._customise import Epoch, Pairs, labelled_pairs, normalised, train
from pickaxe_plugins.retrieval.chronicles._index import IndexBuilder, OpenIndex

if TYPE_CHECKING:
    from pickaxe.encoder import Encoder

BLOCK = 4_000_000
"""Scores held at once: queries are taken in blocks of so many (query, window) pairs."""

BAKED_IN = ("chunk_size", "stride", "k1", "b", "language", "encoder")


class Params(pickaxe.Params):
    mode: Literal["bm25", "dense", "custom", "hybrid"] = Field(
        "bm25",
        description="First stage: BM25, cosine of embeddings, cosine after the fitted matrix W, or BM25 and cosine "
        "(after W where one was fitted) fused by reciprocal ranks.",
    )
    chunk_size: int = Field(1000, ge=1, description="Words per window.")
    stride: int | None = Field(
        None, ge=1, description="Words from one window's start to the next's, at most chunk_size; null: chunk_size."
    )
    k1: float = Field(1.5, ge=0, allow_inf_nan=False, description="BM25: how slowly repeated words saturate.")
    b: float = Field(0.75, ge=0, le=1, description="BM25: how much long windows are marked down.")
    language: Literal["pt", "en"] | None = Field(
        None, description="Drop the stop words of this language in BM25; null keeps every word."
    )
    encoder: str = Field("encoder", min_length=1, description="Sentence encoder: alias, name or path.")
    rrf_k: float = Field(60, gt=0, allow_inf_nan=False, description="Constant of reciprocal rank fusion.")
    depth: int = Field(50, ge=1, description="Documents that each first stage hands on to fusion and reranking.")
    reranker: MethodRef | None = Field(None, description="Reranker of the first stage's `depth` best; null: none.")
    lr: float = Field(0.001, gt=0, allow_inf_nan=False, description="W: Adam's step size.")
    epochs: int = Field(50, ge=1, description="W: passes over the pairs.")
    dropout: float = Field(0.2, ge=0, lt=1, description="W: share of embedding entries set to 0 in training.")
    matrix_dim: int | None = Field(None, ge=1, description="W: columns; null: as many as the embedding has.")
    negatives: Literal["random", "hard"] = Field(
        "random", description="W: other texts paired with a question: drawn at random, or those of highest cosine."
    )
    negatives_per_query: int = Field(16, ge=1, description="W: how many of them per question.")
    negative_target: Literal[0, -1] = Field(0, description="W: the cosine wanted of a negative pair.")
    batch_size: int = Field(2048, ge=1, description="W: pairs per step.")
    validation_share: float = Field(
        0.2, gt=0, lt=1, description="W: share of the examples kept to choose the epoch, when no validation is given."
    )

    @pydantic.model_validator(mode="after")
    def _no_gaps(self) -> Params:
        if self.stride is not None and self.stride > self.chunk_size:
            raise ValueError(
                f"stride {self.stride} is larger than chunk_size {self.chunk_size}: words between windows would be lost"
            )
        return self


class Chronicles(Method[Params]):
    """BM25, dense, custom or hybrid retrieval over windows of words, with an optional reranker.

    Hits are documents; a document's score is that of its best window, whose characters are the hit's span.  `fit`
    learns the matrix W of mode "custom" from questions and their gold texts.
    """

    title = "The Chronicles of RAG: The Retriever, the Chunk and the Generator"
    paper = "arXiv:2401.07883"
    version = 1
    Params = Params
    reads = (
        InputField("text", "text", "The document, or the question."),
        InputField("title", "text", "The document's title; handed to the reranker.", required=False),
    )
    fit_reads = (
        InputField("text", "text", "The question."),
        InputField("gold", "text", "The text that answers it."),
    )
    fitted = "optional"
    grows = True
    stages = ("embed", "train")
    cost = "BM25: one sparse product per block of queries; dense: one encoder call per window and query."
    reproduced = (
        "On FaQuAD-pt, the paper's corpus being under copyright: BM25 MRR@10 0.862, all-MiniLM-L6-v2 0.460; "
        "W learned on half of the questions lifts the other from 0.459 to 0.53."
    )

    @classmethod
    def example(cls) -> Example:
        documents = (
            Item("rain", "The rain in Spain stays mainly in the plain."),
            Item("tea", "Green tea is brewed at about 80 degrees, black tea with boiling water."),
            Item("moon", "The Moon turns once on its axis for every orbit around the Earth."),
        )
        asked = ("Does it rain in the hills?", "When is water too hot for tea?", "Why do we see one side of the Moon?")
        return Example(
            params={"epochs": 3},
            documents=documents,
            examples=tuple(
                Item(f"q{row}", question, {"gold": documents[row].text or ""}) for row, question in enumerate(asked)
            ),
            queries=(Item("q1", "How hot should water for green tea be?"), Item("q2", "Where does the rain stay?")),
        )

    # ------------------------------------------------------------ index

    @hookimpl
    def index(
        self,
        documents: Iterable[Item],
        out: ArtifactWriter,
        base: Artifact | None,
        remove: frozenset[str],
        call: Call,
    ) -> Iterator[Progress]:
        params = self.params
        encoder = None if params.mode == "bm25" else self.host.encoder(params.encoder)
        if base is not None:
            check_params(base, params, BAKED_IN)
        grown = None if base is None else OpenIndex(base)
        matrix = None if self.artifact is None else self.artifact.read_array("matrix.npy")
        if matrix is None and grown is not None and grown.has_matrix:
            matrix = grown.matrix
        if params.mode == "custom" and matrix is None:
            raise Unmet(
                "mode='custom' needs a fitted W: call fit(examples) first, then index with the handle it returns"
            )
        if encoder is not None:
            if base is not None and grown is not None and grown.has_embeddings:
                check_model(base, encoder, params.encoder)
            record_model(out, encoder, params.encoder)
        builder = IndexBuilder(
            out,
            params.chunk_size,
            params.stride or params.chunk_size,
            stop_words(params.language),
            sparse=params.mode in ("bm25", "hybrid"),
            encoder=encoder,
            call=call,
        )
        yield from builder.add(documents, grown, remove)
        builder.finish(params.k1, params.b)
        if matrix is not None:
            out.write_array("matrix.npy", matrix)

    # ------------------------------------------------------------ search

    @cached_property
    def _opened(self) -> OpenIndex:
        assert self.artifact is not None  # the handle sees to it
        check_params(self.artifact, self.params, BAKED_IN)
        return OpenIndex(self.artifact)

    @cached_property
    def _encoder(self) -> Encoder:
        """The encoder of the queries, which must be that of the windows."""
        assert self.artifact is not None
        encoder = self.host.encoder(self.params.encoder)
        check_model(self.artifact, encoder, self.params.encoder)
        return encoder

    @hookimpl
    def search(self, queries: Items, k: int, call: Call) -> SearchResults:
        index, params = self._opened, self.params
        usage = _Usage(index.notes)
        step = max(1, BLOCK // len(index.spans))
        results: list[tuple[Hit, ...]] = []
        for start in range(0, len(queries), step):
            call.check()
            block = queries[start : start + step]
            stages = self._stages(block, usage, call)
            for row, query in enumerate(block):
                found = self._first_stage([stage.of(row) for stage in stages], k)
                if params.reranker is not None:
                    found = self._reranked(query, found, k, usage, call)
                results.append(tuple(found[:k]))
        return SearchResults(tuple(results), usage.counters)

    def _stages(self, queries: Items, usage: _Usage, call: Call) -> list[_Stage]:
        index, mode = self._opened, self.params.mode
        texts = queries.texts()
        stages = []
        if mode in ("bm25", "hybrid"):
            dropped = stop_words(self.params.language)
            runs = [[word for word in words(text) if word not in dropped] for text in texts]
            scores = index.bm25.scores(runs)
            stages.append(_Stage("bm25", scores, index.per_document(scores), floor=0.0))
        if mode != "bm25":
            custom = mode == "custom" or (mode == "hybrid" and index.has_matrix)
            documents = index.customised if custom else index.plain
            vectors = finite(self._encoder.encode(texts, call), queries.ids, "queries")
            usage.add("search_encoded_texts", len(texts))
            if custom:
                vectors = vectors @ index.matrix
            scores = normalised(vectors).astype(np.float32) @ documents.T
            stages.append(_Stage("cosine", scores, index.per_document(scores), floor=-np.inf))
        return stages

    def _first_stage(self, stages: Sequence[_Stage], k: int) -> list[Hit]:
        index, params = self._opened, self.params
        deep = params.reranker is not None or params.mode == "hybrid"
        depth = max(k, params.depth) if deep else k
        lists = [best(stage.documents, depth, index.rank, stage.floor) for stage in stages]
        if params.mode == "hybrid":
            fused = reciprocal_rank_fusion([index.rank[rows].tolist() for rows in lists], params.rrf_k)
            scored = [(int(index.by_rank[rank]), score) for rank, score in fused]
        else:
            scored = [(int(row), float(stages[0].documents[row])) for row in lists[0]]
        hits = []
        for document, score in scored[:depth]:
            columns = {stage.name: float(stage.documents[document]) for stage in stages}
            if params.mode == "hybrid":
                columns["rrf"] = score
            windows = dict.fromkeys(
                index.best_window(document, stage.windows)
                for stage in stages
                if stage.documents[document] > stage.floor
            )
            spans = tuple(Span(int(index.spans[window, 0]), int(index.spans[window, 1])) for window in windows)
            hits.append(Hit(index.ids[document], score, columns, spans))
        return hits

    def _reranked(self, query: Item, hits: Sequence[Hit], k: int, usage: _Usage, call: Call) -> list[Hit]:
        """The reranker's order of the hits' best windows; the place decides, so the score is 1 / place."""
        assert self.params.reranker is not None
        if not hits:
            return []
        table = self._opened.table
        candidates = [_window(table.record(table.row_of(hit.id)), hit.spans[0]) for hit in hits]
        ranking = self.host.reranker(self.params.reranker).rerank(query, candidates, min(k, len(hits)), call=call)
        usage.add("search_reranks", 1)
        for name, value in ranking.usage.items():
            usage.add(f"rerank_{name}", value)
        return [
            Hit(entry.id, 1 / place, {**hits[entry.index].columns, "rerank": entry.score}, hits[entry.index].spans)
            for place, entry in enumerate(ranking, 1)
        ]

    # ------------------------------------------------------------ fit

    @hookimpl
    def fit(
        self, examples: Iterable[Item], validation: Iterable[Item] | None, out: ArtifactWriter, call: Call
    ) -> Iterator[Progress]:
        yield Progress("embed", 0, 1)
        training, checking = self._pairs(list(examples), None if validation is None else list(validation), call)
        yield Progress("embed", 1, 1)
        params = self.params
        chosen: Epoch | None = None
        history: list[dict[str, float | None]] = []
        for epoch in train(
            training, checking, matrix_dim=params.matrix_dim, lr=params.lr, epochs=params.epochs,
            dropout=params.dropout, batch=params.batch_size, seed=call.seed,
        ):  # fmt: skip
            call.check()
            loss = epoch.loss if epoch.number else None
            history.append({"epoch": epoch.number, "loss": loss, "validation_accuracy": epoch.accuracy})
            if chosen is None or epoch.accuracy > chosen.accuracy:
                chosen = epoch
            if epoch.number:
                metrics = {"loss": epoch.loss, "validation_accuracy": epoch.accuracy}
                yield Progress("train", epoch.number, params.epochs, metrics)
        assert chosen is not None
        out.write_array("matrix.npy", chosen.matrix.astype(np.float32))
        out.write_json("history.json", history)
        out.notes |= {
            "epoch": chosen.number,
            "validation_accuracy": chosen.accuracy,
            "validation_accuracy_before": history[0]["validation_accuracy"],
            "training_pairs": len(training),
            "validation_pairs": len(checking),
            "encoder": params.encoder,
            "seed": call.seed,
        }

    def _pairs(self, examples: list[Item], validation: list[Item] | None, call: Call) -> tuple[Pairs, Pairs]:
        """Training and validation pairs; the pool of texts for negatives is every gold text."""
        params = self.params
        if validation is None:
            order = pickaxe.generator(call.seed, "chronicles", "split").permutation(len(examples))
            held = max(1, round(params.validation_share * len(examples)))
            examples, validation = [examples[row] for row in order[held:]], [examples[row] for row in order[:held]]
        everyone = [*examples, *validation]
        pool = {text: row for row, text in enumerate(dict.fromkeys(str(item.get("gold")) for item in everyone))}
        if not examples or not validation or len(pool) < 2:
            raise InvalidItems(
                "examples",
                "are too few: W needs questions to train on, others to choose by, and two different gold texts",
            )
        encoder = self.host.encoder(params.encoder)
        documents = finite(encoder.encode(list(pool), call), [text[:40] for text in pool], "gold")
        queries = finite(encoder.encode(Items(everyone).texts(), call), Items(everyone).ids, "examples")
        gold = np.array([pool[str(item.get("gold"))] for item in everyone])
        halves = (slice(0, len(examples)), "training"), (slice(len(examples), None), "validation")
        training, checking = (
            labelled_pairs(
                queries[rows], documents, gold[rows], negatives=params.negatives_per_query,
                hard=params.negatives == "hard", negative_target=params.negative_target, seed=call.seed, key=key,
            )
            for rows, key in halves
        )  # fmt: skip
        return training, checking


@dataclass(frozen=True)
class _Stage:
    """One first stage's scores by window and by document; documents not above `floor` were not found."""

    name: str
    windows: np.ndarray
    documents: np.ndarray
    floor: float

    def of(self, row: int) -> _Stage:
        """The stage for one query of the block."""
        return _Stage(self.name, self.windows[row], self.documents[row], self.floor)


class _Usage:
    """Counters of one search, beside those of the index it searches."""

    def __init__(self, notes: dict[str, int]) -> None:
        self.counters: dict[str, float] = {
            f"index_{name}": float(notes[name]) for name in ("documents", "windows", "encoded_texts")
        }

    def add(self, name: str, value: float) -> None:
        self.counters[name] = self.counters.get(name, 0.0) + value


def _window(record: Mapping[str, str], span: Span) -> Item:
    """A window of a stored document, for the reranker."""
    title = record.get("title")
    return Item(record["id"], record["text"][span.start : span.end], {"title": title} if title else {})
