"""The files of an index of `anncur`: how they are written, grown and read.

embeddings.npy   (n, anchors)                 inverse.npy   (anchors, anchor queries) float64
anchors.jsonl    the anchor documents, which stay when the documents of that name leave
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import cached_property
from typing import Any, Literal

import numpy as np

from pickaxe import Artifact, Call, Item, Items, Progress
from pickaxe.artifact import ArtifactWriter
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe.index import Documents, DocumentWriter, batched
from pickaxe.index.arrays import ArrayStream
from pickaxe.index.documents import TABLE
from pickaxe.randomness import generator
from pickaxe_plugins.retrieval.anncur._cur import Inverse
from pickaxe_plugins.retrieval.anncur._pair_scores import PairScorer

EMBEDDINGS, INVERSE, ANCHORS, SCORES = "embeddings.npy", "inverse.npy", "anchors.jsonl", "scores.npy"
GIVEN = "anchor_scores"
"""Field of a document that holds its scores under the anchor queries."""
BLOCK = 1024
"""Documents that are scored, or embedded, in one go."""
MOST_ANCHORS = 100


class CurIndex:
    """A finished index."""

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact
        self.documents = Documents(artifact)

    @cached_property
    def embeddings(self) -> np.ndarray:
        return self._artifact.read_array(EMBEDDINGS)

    @cached_property
    def inverse(self) -> np.ndarray:
        return np.array(self._artifact.read_array(INVERSE))

    @cached_property
    def anchors(self) -> Items:
        lines = self._artifact.file(ANCHORS).read_bytes().splitlines()
        return Items(_item(json.loads(line.decode("utf-8", "surrogatepass"))) for line in lines)

    @cached_property
    def anchor_rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Places of the anchors that are documents still, and the documents' rows."""
        found = [(place, row) for place, anchor in enumerate(self.anchors) if (row := self.find(anchor)) is not None]
        places, rows = zip(*found, strict=True) if found else ((), ())
        return np.array(places, np.int64), np.array(rows, np.int64)

    def find(self, item: Item) -> int | None:
        """The row of the document with this id and text."""
        row = self._rows.get(item.id)
        return row if row is not None and self.documents.text(row) == (item.text or "") else None

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.documents.ids)}

    def approximate(self, scores: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """(q, n) approximate scores, from those of the anchors (q, anchors); of all documents, or of these rows."""
        embeddings = self.embeddings if rows is None else self.embeddings[rows]
        return np.asarray(scores, embeddings.dtype) @ embeddings.T


def _item(record: dict[str, Any]) -> Item:
    return Item(record.pop("id"), record.pop("text"), record)


class Builder:
    """Writes an index.  With `known` its anchors and its inverse hold, and documents in it are not scored again."""

    def __init__(
        self,
        out: ArtifactWriter,
        scorer: PairScorer,
        queries: Sequence[str],
        known: CurIndex | None,
        precision: Literal["float32", "float64"],
        call: Call,
    ) -> None:
        self._out, self._scorer, self._call = out, scorer, call
        self._queries = [Item(f"anchor-query-{row}", text) for row, text in enumerate(queries)]
        self._dtype = np.dtype(precision)
        self._fields = tuple(dict.fromkeys(("title", *scorer.fields)))
        self._width = known.inverse.shape[1] if known is not None else len(queries) or None
        self._calls = 0

    # ------------------------------------------------------------ with anchors that are there

    def grow(
        self, documents: Iterable[Item], known: CurIndex, base: CurIndex | None, remove: frozenset[str]
    ) -> Iterator[Progress]:
        """The documents after those of `base` that stay."""
        inverse = Inverse(known.inverse, 0, 0)
        stream = ArrayStream(self._out.file(EMBEDDINGS), self._dtype.type, len(known.anchors))
        before = None if base is None else base.documents
        with closing(stream), DocumentWriter(self._out, self._fields, before, remove) as table:
            if base is not None:
                stream.copy(base.embeddings, table.kept)
            yield Progress("scores", len(table))
            for batch in batched(documents, BLOCK):
                for document in batch:
                    table.add(document)
                stream.write(self._embedded(batch, known, inverse))
                yield Progress("scores", len(table))
        self._finish(known.inverse, [_record(anchor) for anchor in known.anchors])

    def _embedded(self, batch: list[Item], known: CurIndex, inverse: Inverse) -> np.ndarray:
        found = np.array([-1 if (row := known.find(item)) is None else row for item in batch])
        made = np.empty((len(batch), len(known.anchors)), self._dtype)
        made[found >= 0] = known.embeddings[found[found >= 0]]
        new = np.flatnonzero(found < 0)
        if len(new):
            made[new] = inverse.embed(self._columns([batch[place] for place in new]))
        return made

    # ------------------------------------------------------------ from nothing

    def build(
        self, documents: Iterable[Item], anchors: int | None, given: Sequence[str], rcond: float
    ) -> Iterator[Progress]:
        """Score all documents, choose anchors (`given` ids, or `anchors` of them at random), and embed all."""
        stream: ArrayStream | None = None
        ids: list[str] = []
        try:
            with DocumentWriter(self._out, self._fields) as table:
                yield Progress("scores", 0)
                for batch in batched(documents, BLOCK):
                    for document in batch:
                        table.add(document)
                        ids.append(document.id)
                    columns = self._columns(batch)
                    stream = stream or ArrayStream(self._out.file(SCORES), np.float64, columns.shape[1])
                    stream.write(columns)
                    yield Progress("scores", len(table))
        finally:
            if stream is not None:
                stream.close()
        rows = self._chosen(ids, anchors, given)
        scores = np.load(self._out.file(SCORES), mmap_mode="r")
        inverse = Inverse.of(scores[rows].T, rcond)
        self._out.notes |= {"rank": inverse.rank, "condition": inverse.condition, "warnings": _warned(scores, rows)}
        yield from self._embed(scores, inverse, len(rows))
        del scores
        self._out.file(SCORES).unlink()
        self._finish(inverse.matrix, self._records(rows))

    def _embed(self, scores: np.ndarray, inverse: Inverse, anchors: int) -> Iterator[Progress]:
        with closing(ArrayStream(self._out.file(EMBEDDINGS), self._dtype.type, anchors)) as stream:
            for start in range(0, len(scores), BLOCK):
                self._call.check()
                stream.write(inverse.embed(scores[start : start + BLOCK]))
                yield Progress("embed", min(start + BLOCK, len(scores)), len(scores))

    def _chosen(self, ids: list[str], anchors: int | None, given: Sequence[str]) -> np.ndarray:
        """Rows of the anchors, rising."""
        if given:
            rows = {name: row for row, name in enumerate(ids)}
            if unknown := [name for name in given if name not in rows]:
                raise InvalidParams("anchor_ids", f"names {unknown[0]!r}, which is no document of {len(ids)}")
            return np.sort([rows[name] for name in given])
        count = anchors or max(1, min(MOST_ANCHORS, len(ids) // 2))
        if count > len(ids):
            raise InvalidParams("anchors", f"are {count}, of only {len(ids)} documents")
        draw = generator(self._call.seed, "anncur", "anchors")
        return np.sort(draw.choice(len(ids), count, replace=False))

    def _records(self, rows: np.ndarray) -> list[bytes]:
        """The anchors' lines of the table."""
        wanted = set(rows.tolist())
        with self._out.file(TABLE).open("rb") as table:
            return [line for row, line in enumerate(table) if row in wanted]

    # ------------------------------------------------------------ both

    def _columns(self, documents: list[Item]) -> np.ndarray:
        """(n, anchor queries) scores of the documents: those that they carry, or the scorer's."""
        carried = [document for document in documents if document.get(GIVEN) is not None]
        if carried or not self._queries:
            return np.stack([self._carried(document) for document in documents])
        columns = np.empty((len(documents), len(self._queries)))
        for place, query in enumerate(self._queries):
            self._call.check()
            columns[:, place] = self._scorer.score(query, documents, self._call)
            self._calls += len(documents)
        return columns

    def _carried(self, document: Item) -> np.ndarray:
        value = document.get(GIVEN)
        where = f"documents.fields.{GIVEN}"
        if value is None and not self._queries:
            raise InvalidParams("anchor_queries", f"is empty, and document {document.id!r} carries no {GIVEN}")
        column = np.asarray([] if value is None else value, np.float64)
        if self._width is None:
            self._width = column.size
        if column.shape != (self._width,) or not self._width:
            raise InvalidItems(where, f"has shape {column.shape}, wanted ({self._width},) (item {document.id!r})")
        if not np.isfinite(column).all():
            raise InvalidItems(where, f"holds a score that is not finite (item {document.id!r})")
        return column

    def _finish(self, inverse: np.ndarray, anchors: list[bytes]) -> None:
        self._out.write_array(INVERSE, inverse)
        self._out.file(ANCHORS).write_bytes(b"".join(anchors))
        self._out.notes |= {
            "anchors": inverse.shape[0],
            "anchor_queries": inverse.shape[1],
            "model_calls": self._calls,
        }


def _record(item: Item) -> bytes:
    record = {"id": item.id, "text": item.text or "", **item.fields}
    return json.dumps(record, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


def _warned(scores: np.ndarray, rows: np.ndarray) -> list[str]:
    """What makes approximations poor, said and noted."""
    if scores.shape[1] >= 2 * len(rows):
        return []
    told = (
        f"anncur: {scores.shape[1]} anchor queries for {len(rows)} anchors: fewer than two for each make the inverse "
        "unstable; give more queries, fewer anchors or a larger rcond"
    )
    warnings.warn(told, stacklevel=2)
    return [told]
