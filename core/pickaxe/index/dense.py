"""Exact search over dense vectors: blocks of a matrix product, of which the best so far are kept.

vectors.npy   (n, d) float32, memory-mapped
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

import numpy as np

from pickaxe.artifact import Artifact, ArtifactWriter
from pickaxe.call import Call
from pickaxe.errors import InvalidItems, InvalidParams, Violation
from pickaxe.index.arrays import ArrayStream

VECTORS = "vectors.npy"
QUERY_BLOCK = 256
DOCUMENT_BLOCK = 16384
"""Queries and documents whose products are held at once: 16 MB of scores."""
FEW = 4
"""So many queries are multiplied on one core."""
CROWD = 4
"""A block with more than this many times k candidates per query is thinned by a partition first."""


def finite(vectors: np.ndarray, ids: Sequence[str], what: str) -> np.ndarray:
    """The vectors (n, d) as float32; raises `InvalidItems` naming each id whose vector is not all finite."""
    checked = np.ascontiguousarray(vectors, np.float32)
    bad = np.flatnonzero(~np.isfinite(checked).all(axis=1))
    if len(bad):
        raise InvalidItems(
            [Violation(f"{what}[{row}]", f"has a vector that is not finite (item {ids[row]!r})") for row in bad[:20]]
        )
    return checked


class VectorWriter:
    """Writes vectors as they come, after the `kept` rows of `base`.  A context manager."""

    def __init__(
        self,
        out: ArtifactWriter,
        width: int,
        base: DenseIndex | None = None,
        kept: np.ndarray | None = None,
        name: str = VECTORS,
    ) -> None:
        if base is not None and base.width != width:
            raise InvalidParams("base", f"has vectors of width {base.width}, new ones have {width}")
        self._width = width
        self._stream = ArrayStream(out.file(name), np.float32, width)
        if base is not None and kept is not None:
            self._stream.copy(base.vectors, kept)

    def add(self, vectors: np.ndarray, ids: Sequence[str]) -> None:
        """The vectors (n, d) of the next documents; raises `InvalidItems` naming those with NaN or infinity."""
        checked = finite(vectors, ids, "documents")
        if checked.shape != (len(ids), self._width):
            raise InvalidItems("documents", f"have vectors of shape {checked.shape}, wanted {(len(ids), self._width)}")
        self._stream.write(checked)

    def __enter__(self) -> VectorWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()


class DenseIndex:
    """Vectors and how to find those with the highest inner product; unit vectors make that the cosine."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors
        """(n, d) float32."""

    @classmethod
    def open(cls, artifact: Artifact, name: str = VECTORS) -> DenseIndex:
        return cls(artifact.read_array(name))

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def width(self) -> int:
        return int(self.vectors.shape[1])

    def search(self, queries: np.ndarray, k: int, call: Call | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Rows (q, min(k, n)) int64 and products float32 of the best documents, best first; ties to the lower row.

        Exact.  Memory stays below a few blocks of scores whatever the sizes.  Raises `InvalidItems` for queries
        that are not finite.
        """
        wanted = finite(queries, [str(row) for row in range(len(queries))], "queries")
        k = min(k, len(self))
        rows = np.empty((len(wanted), k), np.int64)
        scores = np.empty((len(wanted), k), np.float32)
        for start in range(0, len(wanted), QUERY_BLOCK):
            block = slice(start, start + QUERY_BLOCK)
            rows[block], scores[block] = self._search(wanted[block], k, call)
        return rows, scores

    def _search(self, queries: np.ndarray, k: int, call: Call | None) -> tuple[np.ndarray, np.ndarray]:
        best = Best(len(queries), k)
        for start in range(0, len(self), DOCUMENT_BLOCK):
            if call is not None:
                call.check()
            best.offer(_products(queries, self.vectors[start : start + DOCUMENT_BLOCK]), start)
        return best.rows, best.scores


def _products(queries: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """(q, n).  BLAS wakes its threads even for one query, which takes longer than the product where cores are busy."""
    if len(queries) > FEW:
        whole: np.ndarray = queries @ vectors.T
        return whole
    return np.stack([np.einsum("nd,d->n", vectors, query) for query in queries])


class Best:
    """The k best of the scores offered so far, per query; blocks must come in the order of their rows."""

    def __init__(self, queries: int, k: int) -> None:
        self.rows = np.empty((queries, 0), np.int64)
        self.scores = np.empty((queries, 0), np.float32)
        self._k = k

    def offer(self, scores: np.ndarray, start: int) -> None:
        """Scores (q, m) of the rows from `start` on.  A later row never drives out an earlier equal one."""
        n, k = len(scores), self._k
        full = self.scores.shape[1] == k
        better = scores > self.scores[:, -1:] if full and k else np.ones(scores.shape, bool)
        if k < scores.shape[1] and np.count_nonzero(better) > CROWD * k * n:
            better &= scores >= np.partition(scores, -k, axis=1)[:, -k, None]
        query, column = np.nonzero(better)
        if not len(query):
            return
        held = self.scores.shape[1]
        everyone = np.concatenate([np.repeat(np.arange(n), held), query])
        rows = np.concatenate([self.rows.ravel(), column + start])
        found = np.concatenate([self.scores.ravel(), scores[query, column]])
        order = np.lexsort((rows, -found, everyone))
        firsts = np.searchsorted(everyone[order], np.arange(n))
        chosen = order[firsts[:, None] + np.arange(min(k, held + scores.shape[1]))]
        self.rows, self.scores = rows[chosen], found[chosen]
