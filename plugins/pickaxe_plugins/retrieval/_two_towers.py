"""What retrievers of two towers share: documents become vectors once, and a query's highest inner products win."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from typing import TypeVar

import numpy as np

import pickaxe
from pickaxe import Artifact, Call, Hit, Item, Items, Method, Progress, SearchResults
from pickaxe.artifact import ArtifactWriter
from pickaxe.errors import ArtifactMismatch
from pickaxe.hooks import hookimpl
from pickaxe.index import Documents, DocumentWriter, VectorWriter, batched, check_model, record_model
from pickaxe.index.dense import DenseIndex
from pickaxe_plugins.retrieval import _towers
from pickaxe_plugins.retrieval._towers import Side, Tower

BATCH = 1024
"""Documents that are embedded in one go."""

P = TypeVar("P", bound=pickaxe.Params)


class TwoTowers(Method[P]):
    """A retriever that says which tower reads what; indexing, growing and searching are here."""

    def tower(self, side: Side, source: Artifact | None) -> Tower:
        """The tower of one side by an artifact of fit or an index, or without any."""
        raise NotImplementedError

    def text(self, item: Item, side: Side) -> str:
        """What a tower reads of an item."""
        return item.text or ""

    def vectors(self, items: Sequence[Item], side: Side, tower: Tower, call: Call, start: int = 0) -> np.ndarray:
        """(n, d) float32 of the items, which are those from `start` on of what was given."""
        return tower.encode([self.text(item, side) for item in items], call)

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
        source = base or self.artifact
        tower, asking = self.tower("document", source), self.tower("query", source)
        if base is not None and self.artifact is not None:
            check_model(base, self.tower("query", self.artifact), self.artifact.path.name, "query tower")
        if source is not None:
            _towers.copy(source, out)
        record_model(out, tower, "document tower", "document tower")
        record_model(out, asking, "query tower", "query tower")
        known = None if base is None else Documents(base)
        old = None if base is None else DenseIndex.open(base)
        with DocumentWriter(out, ("title",), known, remove) as table:
            yield Progress("index", len(table))
            groups = batched(documents, BATCH)
            first = next(groups, [])
            vectors = self.vectors(first, "document", tower, call) if first else None
            width = vectors.shape[1] if vectors is not None else old.width if old is not None else 1
            with VectorWriter(out, width, old, table.kept) as stream:
                for group in chain([first] if first else [], groups):
                    if vectors is None:
                        start = len(table) - len(table.kept)
                        vectors = self.vectors(group, "document", tower, call, start)
                    for document in group:
                        table.add(document)
                    stream.add(vectors, [each.id for each in group])
                    vectors = None
                    yield Progress("index", len(table))
            out.notes["encoded_texts"] = len(table) - len(table.kept)

    # ------------------------------------------------------------ search

    @cached_property
    def _opened(self) -> tuple[Documents, DenseIndex, Tower]:
        assert self.artifact is not None  # the handle sees to it
        tower = self.tower("query", self.artifact)
        check_model(self.artifact, tower, "the one of these parameters", "query tower")
        return Documents(self.artifact), DenseIndex.open(self.artifact), tower

    @hookimpl
    def search(self, queries: Items, k: int, call: Call) -> SearchResults:
        documents, index, tower = self._opened
        usage = {"index_documents": float(len(documents)), "search_encoded_texts": float(len(queries))}
        if not queries:
            return SearchResults((), usage)
        vectors = self.vectors(queries, "query", tower, call)
        if vectors.shape[1] != index.width:
            raise ArtifactMismatch(f"queries have vectors of width {vectors.shape[1]}, documents of {index.width}")
        rows, scores = index.search(vectors, k, call)
        return SearchResults(
            tuple(
                tuple(Hit(documents.ids[row], score, {"dot": score}) for row, score in zip(found, values, strict=True))
                for found, values in zip(rows.tolist(), scores.tolist(), strict=True)
            ),
            usage,
        )
