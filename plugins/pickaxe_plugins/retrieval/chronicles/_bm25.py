"""BM25 as one sparse matrix of ready-made scores, multiplied with all queries at once.

    idf(t) = ln(1 + (N - df + 0.5) / (df + 0.5))        score(t, d) = idf f (k1 + 1) / (f + k1 (1 - b + b L / mean L))

f is how often t stands in d, L the length of d in words.  Words are numbered in alphabetic order, so that sums
are added in the same order, and are the same bits, whatever order the documents come in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pickaxe.extras import require


@dataclass(frozen=True)
class Bm25:
    """Scores of every (word, passage) pair that occurs: a (words, passages) matrix in compressed rows."""

    vocabulary: Mapping[str, int]
    passages: int
    data: np.ndarray
    indices: np.ndarray
    indptr: np.ndarray

    @classmethod
    def build(cls, tokens: Sequence[np.ndarray], words: Sequence[str], k1: float, b: float) -> Bm25:
        """From each passage's word numbers (positions in `words`, in any order)."""
        order = np.argsort(np.array(words, dtype=object), kind="stable") if len(words) else np.empty(0, np.int64)
        renumber = np.empty(len(words), np.int64)
        renumber[order] = np.arange(len(words))
        lengths = np.array([len(each) for each in tokens], np.int64)
        passage = np.repeat(np.arange(len(tokens)), lengths)
        word = renumber[np.concatenate(tokens)] if len(words) else np.empty(0, np.int64)
        pairs, frequency = np.unique(word * len(tokens) + passage, return_counts=True)
        word, passage = np.divmod(pairs, max(len(tokens), 1))
        containing = np.bincount(word, minlength=len(words))
        idf = np.log1p((len(tokens) - containing + 0.5) / (containing + 0.5))
        relative = lengths / max(lengths.mean(), 1e-12) if len(tokens) else lengths
        saturation = frequency + k1 * (1 - b + b * relative[passage])
        return cls(
            vocabulary={words[old]: new for new, old in enumerate(order)},
            passages=len(tokens),
            data=(idf[word] * frequency * (k1 + 1) / saturation).astype(np.float32),
            indices=passage.astype(np.int32),
            indptr=np.concatenate([[0], np.cumsum(containing)]),
        )

    @cached_property
    def _matrix(self) -> Any:
        sparse = require("scipy.sparse", extra="retrieval")
        return sparse.csr_array((self.data, self.indices, self.indptr), shape=(len(self.vocabulary), self.passages))

    def scores(self, queries: Sequence[Sequence[str]]) -> np.ndarray:
        """(queries, passages) float32; repeated words of a query count each time, unknown ones not at all."""
        sparse = require("scipy.sparse", extra="retrieval")
        known = [[self.vocabulary[word] for word in query if word in self.vocabulary] for query in queries]
        columns = np.array([word for query in known for word in query], np.int64)
        indptr = np.concatenate([[0], np.cumsum([len(query) for query in known])]).astype(np.int64)
        counts = sparse.csr_array(
            (np.ones(len(columns), np.float32), columns, indptr), shape=(len(queries), len(self.vocabulary))
        )
        counts.sum_duplicates()
        return np.asarray((counts @ self._matrix).toarray(), np.float32)
