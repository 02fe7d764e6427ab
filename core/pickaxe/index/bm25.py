"""BM25 over tokens that the caller cuts: scores of all (word, document) pairs are computed when indexing.

    score(q, d) = Σ over words of q (repeated ones count each time)  idf(t) · tf(t, d)

N documents, df of them with the word; f how often it stands in d; B = k1 (1 − b + b · length of d / mean length):

variant     idf                                      tf
okapi       ln(1 + (N − df + 0.5) / (df + 0.5))      f (k1 + 1) / (f + B)
lucene      the same                                 f / (f + B)
robertson   ln max(1, (N − df + 0.5) / (df + 0.5))   f / (f + B)
atire       ln(N / df)                               f (k1 + 1) / (f + B)

vocabulary.json, lengths.npy (n,), counts.npy (e,) beside the files of `pickaxe.index.sparse`
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from itertools import chain, count, repeat
from typing import Literal

import numpy as np

from pickaxe.artifact import Artifact, ArtifactWriter
from pickaxe.call import Call
from pickaxe.index.sparse import SparseIndex, SparseQueries

Variant = Literal["okapi", "lucene", "robertson", "atire"]

BLOCK = 2_000_000
"""Tokens that are counted at a time."""


class Bm25Index:
    """An index as it lies on disk."""

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact
        self.lengths = artifact.read_array("lengths.npy")
        """Tokens per document, (n,) int32."""
        self.sparse = SparseIndex.open(artifact, len(self.lengths), "bm25")

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        words: list[str] = self._artifact.read_json("vocabulary.json")
        return {word: number for number, word in enumerate(words)}

    @property
    def counts(self) -> np.ndarray:
        """How often the word stands in the document, per posting."""
        return self._artifact.read_array("counts.npy")

    def search(
        self, queries: Sequence[Sequence[str]], k: int, call: Call | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows, scores and counts as `SparseIndex.search` gives them, from the words of each query."""
        words = list(chain.from_iterable(queries))
        numbers = np.fromiter(map(self.vocabulary.get, words, repeat(-1)), np.int32, len(words))
        ends = np.cumsum(np.fromiter(map(len, queries), np.int64, len(queries)))
        known = np.concatenate([[0], np.cumsum(numbers >= 0)])  # how many of the first i words are
        pointers = known[np.concatenate([[0], ends])]
        terms = numbers[numbers >= 0]
        return self.sparse.search(SparseQueries(pointers, terms, np.ones(len(terms), np.float32)), k, call)


class Bm25Writer:
    """Takes the words of document after document, following the `kept` rows of `base`, and writes the index."""

    def __init__(self, base: Bm25Index | None = None, kept: np.ndarray | None = None) -> None:
        self._numbers: defaultdict[str, int] = defaultdict()
        self._lengths = array("i")
        self._tokens = array("i")
        self._first = 0  # the document that `_tokens` starts with
        self._entries: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        if base is not None and kept is not None:
            self._numbers.update(base.vocabulary)
            self._start_from(base, kept)
        self._numbers.default_factory = count(len(self._numbers)).__next__

    def _start_from(self, base: Bm25Index, kept: np.ndarray) -> None:
        """Postings of the rows that stay, renumbered."""
        places = np.full(len(base), -1, np.int32)
        places[kept] = np.arange(len(kept))
        terms, rows = base.sparse.entries()
        stays = places[rows] >= 0
        self._entries.append((terms[stays], places[rows[stays]], np.asarray(base.counts)[stays].astype(np.int32)))
        self._lengths.extend(base.lengths[kept].tolist())
        self._first = len(self._lengths)

    def __len__(self) -> int:
        return len(self._lengths)

    def add(self, words: Sequence[str]) -> None:
        """The words of the next document; none is fine."""
        self._tokens.extend(map(self._numbers.__getitem__, words))
        self._lengths.append(len(words))
        if len(self._tokens) >= BLOCK:
            self._count()

    def _count(self) -> None:
        """Turn the tokens so far into entries (term, row, count)."""
        lengths = np.frombuffer(self._lengths, np.int32)[self._first :]
        rows = np.repeat(np.arange(self._first, len(self)), lengths)
        pairs, counts = np.unique(
            np.frombuffer(self._tokens, np.int32) * np.int64(len(self)) + rows, return_counts=True
        )
        terms, rows = np.divmod(pairs, len(self))
        self._entries.append((terms.astype(np.int32), rows.astype(np.int32), counts.astype(np.int32)))
        self._tokens, self._first = array("i"), len(self)

    def finish(self, out: ArtifactWriter, k1: float, b: float, variant: Variant) -> None:
        """Compute the scores of all postings and write everything down."""
        if self._first < len(self):
            self._count()
        terms, rows, counts = (np.concatenate(part) for part in zip(*self._entries, strict=True))
        order = np.argsort(terms, kind="stable")  # blocks follow each other by rows
        terms, rows, counts = terms[order], rows[order], counts[order]
        lengths = np.array(self._lengths, np.int32)
        df = np.bincount(terms, minlength=len(self._numbers))
        scores = _scores(terms, rows, counts, lengths, df, k1, b, variant)
        indptr = np.concatenate([[0], np.cumsum(df)]).astype(np.int64)
        SparseIndex(scores, rows, indptr, len(self)).write(out, "bm25")
        out.write_array("counts.npy", counts.astype(np.min_scalar_type(int(counts.max(initial=0)))))
        out.write_array("lengths.npy", lengths)
        out.write_json("vocabulary.json", list(self._numbers))
        out.notes |= {"words": len(self._numbers), "mean_length": float(lengths.mean()) if len(lengths) else 0.0}


def _scores(
    terms: np.ndarray,
    rows: np.ndarray,
    counts: np.ndarray,
    lengths: np.ndarray,
    df: np.ndarray,
    k1: float,
    b: float,
    variant: Variant,
) -> np.ndarray:
    """The score of every posting, float32."""
    n = len(lengths)
    odds = (n - df + 0.5) / (df + 0.5)
    if variant == "atire":
        idf = np.log(n / np.maximum(df, 1))
    elif variant == "robertson":
        idf = np.log(np.maximum(odds, 1))
    else:
        idf = np.log1p(odds)
    norm = k1 * (1 - b + b * lengths / max(float(lengths.mean()), 1e-12))
    scale = k1 + 1 if variant in ("okapi", "atire") else 1.0
    found: np.ndarray = (idf[terms] * counts * scale / (counts + norm[rows])).astype(np.float32)
    return found
