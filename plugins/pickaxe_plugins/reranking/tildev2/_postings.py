"""The index: for each term the passages that hold it, with a weight each.

postings_data.npy      (e,) float16, float32, uint8 or uint16, term after term
postings_indices.npy   (e,) int32, the passage of each, rising within a term
postings_indptr.npy    (vocabulary + 1,) int64, where each term starts
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from pickaxe import Artifact, Call
from pickaxe.artifact import ArtifactWriter
from pickaxe.index import SparseIndex, SparseQueries
from pickaxe_plugins.reranking.tildev2._terms import Entries, quantised

NAME = "postings"


class Postings:
    """What lies in an index, and what a query's terms score by it."""

    def __init__(self, data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, documents: int, scale: float = 1.0):
        """`scale` turns what is stored into weights."""
        self._index = SparseIndex(data, indices, indptr, documents)
        self.scale = scale

    @classmethod
    def open(cls, artifact: Artifact, documents: int) -> Postings:
        data, indices, indptr = (artifact.read_array(f"{NAME}_{part}.npy") for part in ("data", "indices", "indptr"))
        return cls(data, indices, indptr, documents, float(artifact.notes.get("scale", 1.0)))

    @classmethod
    def of(cls, entries: Entries, vocabulary: int, documents: int, scale: float = 1.0) -> Postings:
        """From entries in any order, whose weights are stored in their type."""
        order = np.lexsort((entries.rows, entries.terms))
        counts = np.bincount(entries.terms, minlength=vocabulary)
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return cls(entries.weights[order], entries.rows[order].astype(np.int32), indptr, documents, scale)

    def write(self, out: ArtifactWriter) -> None:
        self._index.write(out, NAME)
        out.notes |= {"scale": self.scale, "entries": len(self._index.data)}

    def entries(self) -> Entries:
        """Everything that is stored, by term."""
        terms, rows = self._index.entries()
        return Entries(rows, terms, self._index.data)

    def weights(self, term: int, rows: np.ndarray) -> np.ndarray:
        """(n,) float32 of one term in the passages of these rising rows; 0 where it is not."""
        span = slice(int(self._index.indptr[term]), int(self._index.indptr[term + 1]))
        holders = self._index.indices[span]
        if not len(holders):
            return np.zeros(len(rows), np.float32)
        places = np.minimum(np.searchsorted(holders, rows), len(holders) - 1)
        stored = self._index.data[span][places].astype(np.float32) * np.float32(self.scale)
        return np.where(holders[places] == rows, stored, np.float32(0))

    def scores(self, terms: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """(n,) float32: the sum of the terms' weights in the passages of these rows, in any order."""
        order = np.argsort(rows, kind="stable")
        rising, sums = rows[order].astype(np.int32), np.zeros(len(rows), np.float32)
        for term, count in zip(*np.unique(terms, return_counts=True), strict=True):
            sums += np.float32(count) * self.weights(int(term), rising)
        found = np.empty_like(sums)
        found[order] = sums
        return found

    @cached_property
    def _searched(self) -> SparseIndex:
        """With weights that the compiled loop takes: it knows no half precision."""
        index = self._index
        return SparseIndex(index.data.astype(np.float32), index.indices, index.indptr, index.documents)

    def search(
        self, queries: Sequence[np.ndarray], k: int, call: Call | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows, scores and counts as `SparseIndex.search` gives them, from the terms of each query."""
        weighed = [(terms, np.full(len(terms), self.scale, np.float32)) for terms in queries]
        return self._searched.search(SparseQueries.of(weighed), k, call)


def stored(
    entries: Entries, dtype: str, bits: int | None, highest: float | None = None
) -> tuple[Entries, float, float | None]:
    """The entries as they are stored, the scale that turns that into weights, and the highest weight.

    `highest` is that of the index which this one grows from.
    """
    if bits is None:
        return entries._replace(weights=np.minimum(entries.weights, np.finfo(dtype).max).astype(dtype)), 1.0, None
    most = float(entries.weights.max(initial=0)) if highest is None else highest
    scale = most / (2**bits - 1) if most > 0 else 1.0
    return entries._replace(weights=quantised(entries.weights, bits, most)), scale, most
