"""Retrieval by the words that query and document share, weighed by BM25."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Literal

from pydantic import Field

import pickaxe
from pickaxe import Artifact, Call, Example, InputField, Item, Items, Method, Progress, SearchResults
from pickaxe.artifact import ArtifactWriter
from pickaxe.data import HitTable
from pickaxe.hooks import hookimpl
from pickaxe.index import Bm25Index, Bm25Writer, Documents, DocumentWriter, batched, check_params
from pickaxe.index.bm25 import Variant
from pickaxe_plugins.retrieval._windows import stop_words, words

BATCH = 4096
"""Documents between two steps of progress."""

BAKED_IN = ("k1", "b", "variant", "language")


class Params(pickaxe.Params):
    k1: float = Field(1.5, ge=0, allow_inf_nan=False, description="How slowly repeated words saturate.")
    b: float = Field(0.75, ge=0, le=1, description="How much long documents are marked down.")
    variant: Variant = Field("okapi", description="The formula: okapi, lucene, robertson or atire.")
    language: Literal["pt", "en"] | None = Field(
        None, description="Drop the stop words of this language; null keeps every word."
    )


class Bm25(Method[Params]):
    """Documents that share words with the query, by BM25.

    Found are only documents with a word of the query.  The index can grow; scores are then those of an index of all
    documents that it holds.
    """

    title = "The Probabilistic Relevance Framework: BM25 and Beyond"
    paper = "doi:10.1561/1500000019"
    version = 1
    Params = Params
    reads = (
        InputField("text", "text", "The document, or the question."),
        InputField("title", "text", "The document's title; kept for what comes after the search.", required=False),
    )
    grows = True
    cost = "A pass over the documents; a search adds up ready-made scores of the query's words."
    reproduced = "The same numbers as bm25s and as `chronicles` in mode bm25 (MRR@10 0.862 on FaQuAD-pt)."

    @classmethod
    def example(cls) -> Example:
        return Example(
            documents=(
                Item("rain", "The rain in Spain stays mainly in the plain."),
                Item("tea", "Green tea is brewed at about 80 degrees, black tea with boiling water."),
                Item("moon", "The Moon turns once on its axis for every orbit around the Earth."),
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
        if base is not None:
            check_params(base, params, BAKED_IN)
        with DocumentWriter(out, ("title",), None if base is None else Documents(base), remove) as table:
            writer = Bm25Writer(None if base is None else Bm25Index(base), table.kept)
            yield Progress("index", len(table))
            for batch in batched(documents, BATCH):
                call.check()
                for document in batch:
                    table.add(document)
                    writer.add(self._words(document))
                yield Progress("index", len(table))
        writer.finish(out, params.k1, params.b, params.variant)

    @cached_property
    def _dropped(self) -> frozenset[str]:
        return stop_words(self.params.language)

    def _words(self, item: Item) -> list[str]:
        every = words(item.text or "")
        return [word for word in every if word not in self._dropped] if self._dropped else every

    # ------------------------------------------------------------ search

    @cached_property
    def _opened(self) -> tuple[Documents, Bm25Index]:
        assert self.artifact is not None  # the handle sees to it
        check_params(self.artifact, self.params, BAKED_IN)
        return Documents(self.artifact), Bm25Index(self.artifact)

    @hookimpl
    def search(self, queries: Items, k: int, call: Call) -> SearchResults:
        documents, index = self._opened
        rows, scores, counts = index.search([self._words(query) for query in queries], k, call)
        return HitTable.of(documents.ids, rows, scores, counts, "bm25", {"index_documents": float(len(documents))})
