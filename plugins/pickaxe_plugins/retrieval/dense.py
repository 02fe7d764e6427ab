"""Retrieval by sentence embeddings: one vector a document, the nearest ones found exactly or by a graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Literal

import numpy as np
from pydantic import Field

import pickaxe
from pickaxe import Artifact, Call, Example, InputField, Item, Items, Method, Progress, SearchResults
from pickaxe.artifact import ArtifactWriter
from pickaxe.data import HitTable
from pickaxe.hooks import hookimpl
from pickaxe.index import (
    ApproximateIndex,
    DenseIndex,
    Documents,
    DocumentWriter,
    VectorWriter,
    batched,
    check_model,
    check_params,
    record_model,
    write_graph,
)
from pickaxe.index.dense import VECTORS

BATCH = 1024
"""Documents that are embedded in one go."""

BAKED_IN = ("similarity", "document_prefix")


class Params(pickaxe.Params):
    encoder: str = Field("encoder", min_length=1, description="Sentence encoder: alias, name or path.")
    precision: Literal["fp32", "int8"] = Field(
        "fp32", description="Of the encoder's products, on a CPU: as it is, or in 8 bits, in about half the time."
    )
    similarity: Literal["cosine", "dot"] = Field(
        "cosine", description="What a hit's score is: the cosine of the two vectors, or their inner product."
    )
    query_prefix: str = Field("", description="Put before each query, for encoders trained with one.")
    document_prefix: str = Field("", description="Put before each document, for encoders trained with one.")
    approximate: bool = Field(
        False, description="Build a graph of near neighbours, and search it instead of all vectors."
    )
    effort: int = Field(
        128, ge=1, description="Candidates that an approximate search takes from the graph, at least k: more find more."
    )


class Dense(Method[Params]):
    """Nearest documents by sentence embeddings, found exactly or by a graph.

    A document is one vector; what is longer than the encoder reads is cut.  The index can grow: only new documents
    are embedded.
    """

    title = "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks"
    paper = "arXiv:1908.10084"
    version = 1
    Params = Params
    reads = (
        InputField("text", "text", "The document, or the question."),
        InputField("title", "text", "The document's title; kept for what comes after the search.", required=False),
    )
    grows = True
    cost = "One encoder call per document, once, and per query; a matrix product of queries and documents."
    reproduced = "The first stage of FaQuAD-pt in `chronicles`: all-MiniLM-L6-v2 finds MRR@10 0.460, BM25 0.862."

    @classmethod
    def example(cls) -> Example:
        return Example(
            documents=(
                Item("rain", "The rain in Spain stays mainly in the plain."),
                Item("tea", "Green tea is brewed at about 80 degrees, black tea with boiling water."),
                Item("moon", "The Moon turns once on its axis for every orbit around the Earth."),
            ),
            queries=(Item("q1", "How hot should water for green tea be?"), Item("q2", "Why is one side of Luna dark?")),
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
        params, encoder = self.params, self.host.encoder(self.params.encoder, self.params.precision)
        known = None if base is None else Documents(base)
        vectors = None if base is None else DenseIndex.open(base)
        if base is not None:
            check_model(base, encoder, params.encoder)
            check_params(base, params, BAKED_IN)
        record_model(out, encoder, params.encoder)
        with (
            DocumentWriter(out, ("title",), known, remove) as table,
            VectorWriter(out, encoder.width, vectors, table.kept) as stream,
        ):
            yield Progress("index", len(table))
            for batch in batched(documents, BATCH):
                for document in batch:
                    table.add(document)
                stream.add(self._encoded(batch, params.document_prefix, call), [each.id for each in batch])
                yield Progress("index", len(table))
            out.notes["encoded_texts"] = len(table) - len(table.kept)
        if params.approximate:
            old = ApproximateIndex(vectors, base) if base is not None and vectors is not None else None
            made = np.load(out.file(VECTORS), mmap_mode="r")
            for done in write_graph(out, made, old, table.kept, call):
                yield Progress("graph", done, len(made))

    def _encoded(self, items: Iterable[Item], prefix: str, call: Call) -> np.ndarray:
        """Vectors (n, d), of length 1 when the similarity is the cosine."""
        texts = [prefix + (item.text or "") for item in items]
        encoder = self.host.encoder(self.params.encoder, self.params.precision)
        return encoder.encode(texts, call, normalize=self.params.similarity == "cosine")

    # ------------------------------------------------------------ search

    @cached_property
    def _opened(self) -> tuple[Documents, DenseIndex, ApproximateIndex | None]:
        assert self.artifact is not None  # the handle sees to it
        check_params(self.artifact, self.params, BAKED_IN)
        check_model(self.artifact, self.host.encoder(self.params.encoder, self.params.precision), self.params.encoder)
        index = DenseIndex.open(self.artifact)
        graph = ApproximateIndex(index, self.artifact) if self.params.approximate else None
        return Documents(self.artifact), index, graph

    @hookimpl
    def search(self, queries: Items, k: int, call: Call) -> SearchResults:
        documents, index, graph = self._opened
        usage = {"index_documents": float(len(documents)), "search_encoded_texts": float(len(queries))}
        if not queries:
            return SearchResults((), usage)
        vectors = self._encoded(queries, self.params.query_prefix, call)
        if graph is None:
            rows, scores = index.search(vectors, k, call)
        else:
            rows, scores = graph.search(vectors, k, self.params.effort, call)
        return HitTable.of(
            documents.ids, rows, scores, np.full(len(rows), rows.shape[1]), self.params.similarity, usage
        )
