"""The index of `chronicles` on disk: texts, windows, BM25 scores and embeddings in plain files.

documents.jsonl, offsets.npy, ids.json (see `pickaxe.index.documents`; with the titles)
windows.npy       (m, 3) document, start, end (characters)
vocabulary.json, bm25_{data,indices,indptr}.npy             embeddings.npy (m, d) float32, rows of length 1
matrix.npy        the fitted W, if there is one
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from pickaxe import Call, Item, Progress
from pickaxe.artifact import Artifact, ArtifactWriter
from pickaxe.errors import ArtifactMismatch
from pickaxe.index import Documents, DocumentWriter
from pickaxe.index.dense import finite
from pickaxe_plugins.retrieval._windows import chunks, words
from pickaxe_plugins.retrieval.chronicles._bm25 import Bm25
from pickaxe_plugins.retrieval.chronicles._customise import normalised

BATCH = 256
"""Windows that are embedded in one go."""


@dataclass
class IndexBuilder:
    """Reads documents once and writes the index; `sparse` and `encoder` say which parts it gets.

    An index that grows from another takes over the embeddings of the documents that stay.  BM25 is counted anew, as
    every document that comes or goes changes the weights of all words.
    """

    out: ArtifactWriter
    size: int
    stride: int
    stop_words: frozenset[str]
    sparse: bool
    encoder: Any
    call: Call
    _documents: int = 0
    _windows: list[tuple[int, int, int]] = field(default_factory=list)
    _numbers: dict[str, int] = field(default_factory=dict)
    _tokens: list[np.ndarray] = field(default_factory=list)
    _pending: list[tuple[str, str]] = field(default_factory=list)
    _embeddings: list[np.ndarray] = field(default_factory=list)
    _encoded: int = 0

    def add(
        self, documents: Iterable[Item], base: OpenIndex | None = None, remove: frozenset[str] = frozenset()
    ) -> Iterator[Progress]:
        """Take in what stays of `base`, then the documents, embedding their windows batch by batch."""
        with DocumentWriter(self.out, ("title",), None if base is None else base.table, remove) as table:
            if base is not None:
                self._keep(base, table.kept)
            for document in documents:
                table.add(document)
                self._cut(document.id, document.text or "")
                self._documents += 1
                if self._documents % BATCH == 0:
                    self.call.check()
                    self._embed(BATCH)
                    yield Progress("index", self._documents)
        self._embed(1)
        yield Progress("index", self._documents, self._documents)

    def finish(self, k1: float, b: float) -> None:
        """Write everything that is known only after the last document."""
        self.out.write_array("windows.npy", np.array(self._windows, np.int64))
        if self.sparse:
            bm25 = Bm25.build(self._tokens, list(self._numbers), k1, b)
            self.out.write_json("vocabulary.json", sorted(bm25.vocabulary, key=bm25.vocabulary.__getitem__))
            for name in ("data", "indices", "indptr"):
                self.out.write_array(f"bm25_{name}.npy", getattr(bm25, name))
        if self.encoder is not None:
            self.out.write_array("embeddings.npy", np.concatenate(self._embeddings))
        self.out.notes |= {
            "documents": self._documents,
            "windows": len(self._windows),
            "encoded_texts": self._encoded,
        }

    def _keep(self, base: OpenIndex, rows: np.ndarray) -> None:
        for row in rows.tolist():
            self._cut(base.ids[row], base.table.text(row))
            self._documents += 1
        if self.encoder is not None and len(rows):
            self._pending.clear()
            windows = [np.arange(base.starts[row], base.starts[row + 1]) for row in rows]
            self._embeddings.append(base.plain[np.concatenate(windows)])

    def _cut(self, name: str, text: str) -> None:
        found = words(text)
        spans = chunks(text, self.size, self.stride, len(found))
        for row, (start, end) in enumerate(spans):
            self._windows.append((self._documents, start, end))
            if self.encoder is not None:
                self._pending.append((name, text[start:end]))
            if self.sparse:
                first = row * self.stride
                kept = (word for word in found[first : first + self.size] if word not in self.stop_words)
                numbers = [self._numbers.setdefault(word, len(self._numbers)) for word in kept]
                self._tokens.append(np.array(numbers, np.int64))

    def _embed(self, least: int) -> None:
        while len(self._pending) >= least:
            batch, self._pending = self._pending[:BATCH], self._pending[BATCH:]
            names, texts = zip(*batch, strict=True)
            vectors = finite(self.encoder.encode(list(texts), self.call), names, "windows")
            self._embeddings.append(normalised(vectors).astype(np.float32))
            self._encoded += len(batch)


class OpenIndex:
    """An index as it lies on disk; each part is read when it is first used."""

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact
        self.table = Documents(artifact)
        self.ids = self.table.ids
        windows = artifact.read_array("windows.npy")
        self.spans = windows[:, 1:]
        self.starts = np.searchsorted(windows[:, 0], np.arange(len(self.ids) + 1))
        """Windows [starts[i], starts[i + 1]) belong to document i."""
        order = sorted(range(len(self.ids)), key=self.ids.__getitem__)
        self.by_rank = np.array(order)
        """Documents in the order of their ids, which is the order of equal scores."""
        self.rank = np.argsort(self.by_rank)

    @property
    def notes(self) -> dict[str, Any]:
        return dict(self._artifact.notes)

    @cached_property
    def bm25(self) -> Bm25:
        self._require("bm25_data.npy", "BM25 scores")
        names: list[str] = self._artifact.read_json("vocabulary.json")
        data, indices, indptr = (
            self._artifact.read_array(f"bm25_{part}.npy") for part in ("data", "indices", "indptr")
        )
        return Bm25({name: row for row, name in enumerate(names)}, len(self.spans), data, indices, indptr)

    @property
    def has_matrix(self) -> bool:
        return self._artifact.has("matrix.npy")

    @cached_property
    def matrix(self) -> np.ndarray:
        """The fitted W, (d, e) float32."""
        self._require("matrix.npy", "matrix W")
        return self._artifact.read_array("matrix.npy")

    @property
    def has_embeddings(self) -> bool:
        return self._artifact.has("embeddings.npy")

    @cached_property
    def plain(self) -> np.ndarray:
        """(windows, d) float32, rows of length 1."""
        self._require("embeddings.npy", "embeddings")
        return self._artifact.read_array("embeddings.npy")

    @cached_property
    def customised(self) -> np.ndarray:
        """The same after W, rows of length 1 again."""
        return normalised(self.plain @ self.matrix).astype(np.float32)

    def _require(self, file: str, what: str) -> None:
        if not self._artifact.has(file):
            mode = self._artifact.manifest["params"].get("mode")
            raise ArtifactMismatch(
                f"the index {str(self._artifact.path)!r} was made with mode={mode!r} and has no {what}: "
                "index the documents again in the mode you search in",
                metadata={"artifact": self._artifact.path, "wanted": what},
            )

    def per_document(self, scores: np.ndarray) -> np.ndarray:
        """(…, windows) to (…, documents): the best window's score."""
        if len(self.ids) == len(self.spans):
            return scores
        return np.asarray(np.maximum.reduceat(scores, self.starts[:-1], axis=-1))

    def best_window(self, document: int, scores: np.ndarray) -> int:
        """The window of the document with the highest of one query's (windows,) scores."""
        start, end = self.starts[document], self.starts[document + 1]
        return int(start + np.argmax(scores[start:end]))
