"""Token lists of documents in an FM-index: which n-grams occur, where, and what may follow them.

The index holds the reversed token lists one after the other, so that putting a symbol before a string of the index is
reading on in the documents (arXiv 2204.10628).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pickaxe.artifact import Artifact, ArtifactWriter
from pickaxe.fm_index import FMIndex


@dataclass(frozen=True, eq=False)
class TokenIndex:
    """`starts` int64 (d + 1,): where documents begin among all tokens; `tokens` (t,): theirs, as they are read."""

    index: FMIndex
    starts: np.ndarray
    tokens: np.ndarray

    @classmethod
    def build(cls, documents: Sequence[Sequence[int]] | Sequence[np.ndarray], step: int = 8) -> TokenIndex:
        """From the tokens of every document, its end token included."""
        starts = np.concatenate([[0], np.cumsum([len(each) for each in documents])]).astype(np.int64)
        tokens = np.concatenate([np.asarray(each, np.int64) for each in documents]) if documents else np.empty(0, int)
        narrow = np.min_scalar_type(int(tokens.max(initial=0)))
        return cls.of(tokens.astype(narrow), starts, step)

    @classmethod
    def of(cls, tokens: np.ndarray, starts: np.ndarray, step: int = 8) -> TokenIndex:
        """From all tokens and where documents begin."""
        lengths = np.diff(starts)
        mirror = np.repeat(starts[:-1] + starts[1:] - 1, lengths) - np.arange(len(tokens))
        # One end token more: the last document too begins behind one, as all others do.
        return cls(FMIndex.build(np.concatenate([tokens[mirror], tokens[-1:]]), step=step), starts, tokens)

    def save(self, out: ArtifactWriter) -> None:
        self.index.save(out)
        out.write_array("starts.npy", self.starts)
        out.write_array("tokens.npy", self.tokens)

    @classmethod
    def open(cls, artifact: Artifact) -> TokenIndex:
        return cls(FMIndex.open(artifact), artifact.read_array("starts.npy"), artifact.read_array("tokens.npy"))

    def __len__(self) -> int:
        """All tokens, |R|."""
        return len(self.tokens)

    def document(self, row: int) -> np.ndarray:
        """The tokens of one document."""
        return self.tokens[self.starts[row] : self.starts[row + 1]]

    # ------------------------------------------------------------ n-grams

    def ranges(self, ngrams: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        """The ranges (m,) of n-grams in the index; empty where one does not occur."""
        return self.index.find([np.asarray(ngram, np.int64)[::-1] for ngram in ngrams])

    def counts(self, ngrams: Sequence[Sequence[int]]) -> np.ndarray:
        """F(n) of each n-gram, int64 (m,)."""
        low, high = self.ranges(ngrams)
        return high - low

    def token_counts(self, size: int) -> np.ndarray:
        """F of every token id below `size`, int64 (size,)."""
        counts = np.zeros(size, np.int64)
        here = self.index.symbols < size
        counts[self.index.symbols[here]] = np.diff(self.index.smaller)[1:][here]
        return counts

    def occurrences(
        self, low: np.ndarray, high: np.ndarray, lengths: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where the n-grams of these ranges and lengths stand: (row of the n-gram, document, first token).

        The first token is -1 for those that begin with the end token before a document; those that reach over the
        end of one in other ways are left out.
        """
        which = np.repeat(np.arange(len(low)), high - low)
        rows = np.arange(len(which)) - np.repeat(np.cumsum(high - low) - (high - low), high - low) + low[which]
        places = self.index.locate(rows)
        which, places = which[places < len(self)], places[places < len(self)]
        document = np.searchsorted(self.starts, places, side="right") - 1
        first = self.starts[document + 1] - places - lengths[which]
        inside = first >= -1
        return which[inside], document[inside], first[inside]

    def following(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What may follow the n-grams of these ranges: (tokens, counts, offsets), sorted by token in each range."""
        symbols, counts, offsets = self.index.preceding(low, high)
        owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        order = np.lexsort((symbols, owner))
        return symbols[order], counts[order], offsets
