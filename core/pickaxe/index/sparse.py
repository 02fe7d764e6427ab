"""Search over sparse vectors: per term the documents that have it, with a weight each.

{name}_data.npy      (e,) float32, the weights, term after term
{name}_indices.npy   (e,) int32, the document of each, rising within a term
{name}_indptr.npy    (terms + 1,) int64, where each term starts
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pickaxe.artifact import Artifact, ArtifactWriter
from pickaxe.call import Call
from pickaxe.errors import InvalidItems, Violation
from pickaxe.threads import shared_out

WORK = 2**22
"""Sums between two looks at whether the call is over: some milliseconds."""
FEW = 8
"""So many queries are answered by NumPy, without waiting for the compiled loop to be loaded."""


@dataclass(frozen=True)
class SparseQueries:
    """Query i has terms[pointers[i] : pointers[i + 1]] with these weights; a term may come again."""

    pointers: np.ndarray
    terms: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, queries: Sequence[tuple[np.ndarray, np.ndarray]]) -> SparseQueries:
        """From (terms, weights) of each query."""
        pointers = np.zeros(len(queries) + 1, np.int64)
        np.cumsum([len(terms) for terms, _ in queries], out=pointers[1:])
        terms = np.concatenate([np.empty(0, np.int32), *(terms for terms, _ in queries)])
        weights = np.concatenate([np.empty(0, np.float32), *(weights for _, weights in queries)])
        return cls(pointers, terms.astype(np.int32), weights.astype(np.float32))

    def __len__(self) -> int:
        return len(self.pointers) - 1

    def part(self, start: int, end: int) -> SparseQueries:
        return SparseQueries(self.pointers[start : end + 1], self.terms, self.weights)


class SparseIndex:
    """Postings and how to find the documents with the highest inner product with a query."""

    def __init__(self, data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, documents: int) -> None:
        self.data, self.indices, self.indptr = _fixed(data), _fixed(indices), _fixed(indptr)
        self.documents = documents

    @classmethod
    def open(cls, artifact: Artifact, documents: int, name: str = "sparse") -> SparseIndex:
        data, indices, indptr = (artifact.read_array(f"{name}_{part}.npy") for part in ("data", "indices", "indptr"))
        return cls(data, indices, indptr, documents)

    @classmethod
    def build(
        cls, terms: np.ndarray, rows: np.ndarray, weights: np.ndarray, vocabulary: int, documents: int
    ) -> SparseIndex:
        """From the entries (term, row, weight) in any order, each (term, row) once.

        Raises `InvalidItems` naming the rows of weights that are not finite or not positive.
        """
        bad = np.flatnonzero(~(np.isfinite(weights) & (weights > 0)))
        if len(bad):
            shown = sorted(set(rows[bad].tolist()))[:20]
            raise InvalidItems(
                [Violation(f"documents[{row}]", "has a weight that is no positive number") for row in shown]
            )
        order = np.lexsort((rows, terms))
        indptr = np.concatenate([[0], np.cumsum(np.bincount(terms, minlength=vocabulary))])
        return cls(weights[order].astype(np.float32), rows[order].astype(np.int32), indptr.astype(np.int64), documents)

    def write(self, out: ArtifactWriter, name: str = "sparse") -> None:
        for part in ("data", "indices", "indptr"):
            out.write_array(f"{name}_{part}.npy", getattr(self, part))

    @property
    def vocabulary(self) -> int:
        """How many terms there are."""
        return len(self.indptr) - 1

    def search(
        self, queries: SparseQueries, k: int, call: Call | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows (q, k) int32 and scores (q, k) float32, best first, of which the first `counts` (q,) are found.

        Exact.  Found are documents with a positive score; ties go to the lower row.  Queries are shared out over the
        cores of this process.
        """
        k = min(k, self.documents)
        rows, scores = np.zeros((len(queries), k), np.int32), np.zeros((len(queries), k), np.float32)
        counts = np.zeros(len(queries), np.int64)
        answer = self._plainly if len(queries) <= FEW else self._compiled
        step = WORK // max(self.documents, 1) + 1

        def work(first: int, end: int) -> None:
            sums = np.empty(self.documents, np.float32)
            for start in range(first, end, step):
                if call is not None:
                    call.check()
                part = slice(start, min(start + step, end))
                answer(queries.part(part.start, part.stop), sums, scores[part], rows[part], counts[part])

        shared_out(work, len(queries), FEW + 1)
        return rows, scores, counts

    def _compiled(
        self, queries: SparseQueries, sums: np.ndarray, scores: np.ndarray, rows: np.ndarray, counts: np.ndarray
    ) -> None:
        from pickaxe.index.sparse_kernel import search

        # Rows are handed over as unsigned: signed ones would each be looked at for counting from the end.
        search(
            queries.pointers, queries.terms, queries.weights, self.data, self.indices.view(np.uint32), self.indptr,
            sums, scores, rows, counts,
        )  # fmt: skip

    def _plainly(
        self, queries: SparseQueries, sums: np.ndarray, scores: np.ndarray, rows: np.ndarray, counts: np.ndarray
    ) -> None:
        """The same sums in the same order, so the same numbers."""
        for query in range(len(queries)):
            sums[:] = 0
            for entry in range(queries.pointers[query], queries.pointers[query + 1]):
                places = self._postings(int(queries.terms[entry]))
                sums[self.indices[places]] += queries.weights[entry] * self.data[places]
            found = np.flatnonzero(sums > 0)
            if len(found) > rows.shape[1]:
                found = found[sums[found] >= np.partition(sums[found], -rows.shape[1])[-rows.shape[1]]]
            found = found[np.lexsort((found, -sums[found]))][: rows.shape[1]]
            rows[query, : len(found)], scores[query, : len(found)] = found, sums[found]
            counts[query] = len(found)

    def _postings(self, term: int) -> slice:
        return slice(int(self.indptr[term]), int(self.indptr[term + 1]))

    def entries(self) -> tuple[np.ndarray, np.ndarray]:
        """Term and row of every posting, in the order of `data`."""
        terms = np.repeat(np.arange(self.vocabulary, dtype=np.int32), np.diff(self.indptr))
        return terms, self.indices


def _fixed(array: np.ndarray) -> np.ndarray:
    """A read-only view: memory-mapped or not, the compiled loop sees one kind of array."""
    view = np.asarray(array).view(np.ndarray)
    view.flags.writeable = False
    return view
