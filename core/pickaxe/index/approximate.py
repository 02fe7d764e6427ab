"""Approximate dense search: a graph of near neighbours (HNSW, arXiv:1603.09320) by the library usearch.

The graph proposes candidates from half-precision copies; their scores are then computed from the vectors themselves, so
a found document has the score that exact search gives it.

hnsw.bin        the graph, memory-mapped by the library      hnsw_keys.npy   (n,) uint64, the graph's key of each row
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from pickaxe.artifact import Artifact, ArtifactWriter
from pickaxe.call import Call
from pickaxe.errors import ArtifactMismatch
from pickaxe.extras import require
from pickaxe.index.dense import DenseIndex, finite
from pickaxe.onnx_runtime import cores, import_onnxruntime

GRAPH, KEYS = "hnsw.bin", "hnsw_keys.npy"
CONNECTIVITY = 16
EXPANSION = 128
"""Neighbours kept per vector, and candidates looked at when one is added."""
BATCH = 1024


class ApproximateIndex:
    """Vectors with a graph over them.  Safe to search from several threads, one of which searches at a time."""

    def __init__(self, dense: DenseIndex, artifact: Artifact) -> None:
        if not artifact.has(GRAPH):
            raise ArtifactMismatch(
                f"the index {str(artifact.path)!r} has no graph for approximate search: index again with "
                "approximate=true, or search exactly with approximate=false",
                metadata={"artifact": artifact.path, "wanted": GRAPH},
            )
        self.dense = dense
        self.keys = artifact.read_array(KEYS)
        self.path = artifact.file(GRAPH)
        self._graph: Any = None
        self._lock = threading.Lock()

    def search(
        self, queries: np.ndarray, k: int, effort: int, call: Call | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows and scores as `DenseIndex.search` gives them, from the `effort` best candidates of the graph.

        Always min(k, n) per query: where the graph proposes fewer, the query is searched exactly.
        """
        wanted = finite(queries, [str(row) for row in range(len(queries))], "queries")
        k, count = min(k, len(self.dense)), min(max(effort, k), len(self.dense))
        rows = np.empty((len(wanted), k), np.int64)
        scores = np.empty((len(wanted), k), np.float32)
        for start in range(0, len(wanted), BATCH):
            if call is not None:
                call.check()
            block = wanted[start : start + BATCH]
            for place, found in enumerate(self._candidates(block, count), start):
                if len(found) < k:
                    exact, values = self.dense.search(wanted[place : place + 1], k, call)
                    rows[place], scores[place] = exact[0], values[0]
                    continue
                products = self.dense.vectors[found] @ wanted[place]
                best = np.lexsort((found, -products))[:k]
                rows[place], scores[place] = found[best], products[best]
        return rows, scores

    def _candidates(self, queries: np.ndarray, count: int) -> Iterator[np.ndarray]:
        """Rows that the graph proposes for each query."""
        with self._lock:
            if self._graph is None:
                self._graph = _usearch().Index.restore(str(self.path), view=True)
            self._graph.expansion_search = count
            matches = self._graph.search(queries, count, threads=cores())
        keys, counts = np.atleast_2d(matches.keys), np.atleast_1d(getattr(matches, "counts", len(matches)))
        for found, size in zip(keys, counts, strict=True):
            yield np.searchsorted(self.keys, found[:size])


def _usearch() -> ModuleType:
    """The library.  ONNX Runtime goes first: a process that loads it after usearch crashes (1.32 after 2.26)."""
    import_onnxruntime()
    return require("usearch.index", extra="retrieval")


def write_graph(
    out: ArtifactWriter,
    vectors: np.ndarray,
    base: ApproximateIndex | None = None,
    kept: np.ndarray | None = None,
    call: Call | None = None,
) -> Iterator[int]:
    """Write the graph over `vectors` (n, d) and yield how many rows are in it.

    The first rows are the `kept` ones of `base`, whose graph is taken over, unless most of them left.
    """
    library = _usearch()
    keys = np.arange(len(vectors), dtype=np.uint64)
    done = 0
    if base is not None and kept is not None and 2 * len(kept) > len(base.keys):
        graph = library.Index.restore(str(base.path))
        graph.expansion_add = EXPANSION
        gone = np.setdiff1d(base.keys, base.keys[kept])
        if len(gone):
            graph.remove(gone)
        done = len(kept)
        keys[:done] = base.keys[kept]
        keys[done:] = np.arange(len(vectors) - done, dtype=np.uint64) + base.keys[-1] + np.uint64(1)
    else:
        graph = library.Index(
            ndim=vectors.shape[1], metric="ip", dtype="f16", connectivity=CONNECTIVITY, expansion_add=EXPANSION
        )
    for start in range(done, len(vectors), BATCH):
        if call is not None:
            call.check()
        part = slice(start, start + BATCH)
        graph.add(keys[part], np.ascontiguousarray(vectors[part]), threads=cores())
        yield min(start + BATCH, len(vectors))
    graph.save(str(out.file(GRAPH)))
    out.write_array(KEYS, keys)
