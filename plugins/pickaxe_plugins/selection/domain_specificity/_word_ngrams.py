"""Interpolated n-gram models of words, as sorted arrays that a batch of texts is looked up in at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from pickaxe_plugins.selection._text_units import pieces, split

PRIOR = 0.5
"""Added to every word's count, that of the unknown word included."""
RUN = 1 << 20
"""Words of one text that are looked up at once."""
_SHIFT = np.uint64(32)


class Vocabulary:
    """Words by number; words outside share the number after the last."""

    def __init__(self, words: Sequence[str] = ()) -> None:
        self._numbers: dict[str, int] = dict(zip(words, count()))

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def words(self) -> list[str]:
        return list(self._numbers)

    def add(self, text: str) -> np.ndarray:
        """The numbers of the text's words, (n,) int64; new ones are taken in."""
        numbers, found = self._numbers, list(_words(text))
        numbers.update(zip([word for word in dict.fromkeys(found) if word not in numbers], count(len(numbers))))
        return np.fromiter(map(numbers.__getitem__, found), np.int64, len(found))

    def read(self, text: str) -> np.ndarray:
        """The numbers of the text's words, (n,) int64."""
        get, unknown = self._numbers.get, len(self._numbers)
        return np.fromiter((get(word, unknown) for word in _words(text)), np.int64)


def _words(text: str) -> Iterator[str]:
    for piece in pieces(text):
        yield from split(piece.lower())


@dataclass(frozen=True)
class Grams:
    """All n-grams of one size: the row of the (n - 1)-gram before, shifted, and the last word, ascending."""

    keys: np.ndarray
    """uint64 (m,)."""
    counts: np.ndarray
    """int64 (m,)."""
    totals: np.ndarray
    """int64, one per (n - 1)-gram: how often any word followed it."""

    def rows(self, keys: np.ndarray) -> np.ndarray:
        """The row of each key; -1 for those that were never met."""
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        found: np.ndarray = np.where(self.keys[at] == keys, at, -1)
        return found


class NgramModel:
    """p_n(w | h) = weight c(hw) / c(h) + (1 - weight) p_{n-1}(w | h'), and p_{n-1}(w | h') where h was never met.

    p_1 is the add-1/2 estimate over the vocabulary and one unknown word.  The first words of a text have shorter
    histories.
    """

    def __init__(self, words: np.ndarray, grams: Sequence[Grams], weight: float) -> None:
        """`words` are the counts of the vocabulary, (V,)."""
        self.words, self.grams, self._weight = words, tuple(grams), weight
        padded = np.append(words, 0) + PRIOR
        self._single = padded / padded.sum()

    @classmethod
    def counted(cls, texts: Sequence[np.ndarray], vocabulary: int, order: int, weight: float) -> NgramModel:
        """The model of texts given as word numbers below `vocabulary`."""
        ids, places = joined(texts)
        grams, rows, previous = [], ids, vocabulary
        for size in range(2, order + 1):
            ends = np.flatnonzero(places >= size - 1)
            keys, inverse, counts = np.unique(_keys(rows[ends - 1], ids[ends]), return_inverse=True, return_counts=True)
            before = (keys >> _SHIFT).astype(np.int64)
            totals = np.bincount(before, counts, previous).astype(np.int64)
            grams.append(Grams(keys, counts.astype(np.int64), totals))
            rows = np.full(len(ids), -1, np.int64)
            rows[ends] = inverse
            previous = len(keys)
        return cls(np.bincount(ids, minlength=vocabulary), grams, weight)

    def log_probs(self, ids: np.ndarray, places: np.ndarray) -> np.ndarray:
        """float64 (n,): of each word given those before it in its text, for the result of `joined`."""
        chances, rows = self._single[ids], np.where(ids < len(self.words), ids, -1)
        for size, grams in enumerate(self.grams, 2):
            next_rows = np.full(len(ids), -1, np.int64)
            ends = np.flatnonzero(places >= size - 1)
            ends = ends[rows[ends - 1] >= 0]
            totals = grams.totals[rows[ends - 1]]
            ends, totals = ends[totals > 0], totals[totals > 0]
            if len(ends):
                # The unknown word's number is that of no n-gram, so it is not found.
                found = grams.rows(_keys(rows[ends - 1], ids[ends]))
                shares = np.where(found >= 0, grams.counts[found], 0) / totals
                chances[ends] = self._weight * shares + (1 - self._weight) * chances[ends]
                next_rows[ends] = found
            rows = next_rows
        logs: np.ndarray = np.log(chances)
        return logs

    def nats(self, ids: np.ndarray) -> float:
        """-sum of `log_probs` of one text, however long, in the memory of `RUN` words."""
        before, found = len(self.grams), 0.0
        for start in range(0, len(ids), RUN):
            run = ids[max(0, start - before) : start + RUN]
            logs = self.log_probs(run, np.arange(len(run)))
            found -= float(logs[min(start, before) :].sum())
        return found

    def arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        """Everything to keep, by names that `from_arrays` knows."""
        yield "words", self.words
        for size, grams in enumerate(self.grams, 2):
            yield f"{size}-keys", grams.keys
            yield f"{size}-counts", grams.counts
            yield f"{size}-totals", grams.totals

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], order: int, weight: float) -> NgramModel:
        parts = ("keys", "counts", "totals")
        grams = [Grams(*(np.asarray(arrays[f"{size}-{part}"]) for part in parts)) for size in range(2, order + 1)]
        return cls(np.asarray(arrays["words"]), grams, weight)


def names(order: int) -> list[str]:
    """The names of the arrays of a model of that order."""
    return ["words", *(f"{size}-{part}" for size in range(2, order + 1) for part in ("keys", "counts", "totals"))]


def joined(texts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """All word numbers in one array, and the place of each in its text."""
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    ids = np.concatenate(texts) if len(texts) else np.zeros(0, np.int64)
    starts = np.cumsum(lengths) - lengths
    return ids, np.arange(len(ids)) - np.repeat(starts, lengths)


def _keys(rows: np.ndarray, words: np.ndarray) -> np.ndarray:
    keys: np.ndarray = (rows.astype(np.uint64) << _SHIFT) | words.astype(np.uint64)
    return keys
