"""Arithmetic of half-open ranges [start, end) of many questions at once, as int64 arrays.

Questions, or corpora, are told apart by laying them behind each other on one line, `Line.at` apart: ranges of two of
them never touch, so one sort serves all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

PAIRS_AT_ONCE = 4_000_000
"""Pairs of reference and chunk that are looked at together."""


@dataclass(frozen=True)
class Ranges:
    """Ranges [start, end), each belonging to the `owner` (a question or a corpus) of that number; all (n,)."""

    owner: np.ndarray
    start: np.ndarray
    end: np.ndarray

    def __len__(self) -> int:
        return len(self.owner)

    @property
    def lengths(self) -> np.ndarray:
        return self.end - self.start

    def __getitem__(self, rows: np.ndarray) -> Ranges:
        return Ranges(self.owner[rows], self.start[rows], self.end[rows])

    def owned_by(self, owner: np.ndarray) -> Ranges:
        return Ranges(owner, self.start, self.end)

    def sums(self, owners: int) -> np.ndarray:
        """(owners,): the total length of each owner's ranges; where they overlap they count more than once."""
        return totals(self.owner, self.lengths, owners)


def totals(owner: np.ndarray, values: np.ndarray, owners: int) -> np.ndarray:
    """(owners,) int64: sums of whole numbers by owner, without rounding."""
    found = np.zeros(owners, np.int64)
    np.add.at(found, owner, values)
    return found


def joined(parts: list[Ranges]) -> Ranges:
    return Ranges(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("owner", "start", "end")))


class Cover:
    """The union of ranges, owner by owner: disjoint stretches in order, and how much of a range they hold."""

    def __init__(self, ranges: Ranges, reach: int) -> None:
        """`reach` is at least the largest end of any range that will be asked about."""
        self._step = reach + 2
        start, end = self._line(ranges.owner, ranges.start), self._line(ranges.owner, ranges.end)
        order = np.argsort(start, kind="stable")
        start, furthest = start[order], np.maximum.accumulate(end[order])
        first = np.ones(len(start), bool)
        first[1:] = start[1:] > furthest[:-1]
        last = np.roll(first, -1)
        self._start, self._end = start[first], furthest[last]
        self._held = np.concatenate([[0], np.cumsum(self._end - self._start)])

    def _line(self, owner: np.ndarray, position: np.ndarray) -> np.ndarray:
        return owner * self._step + position

    @cached_property
    def ranges(self) -> Ranges:
        owner = self._start // self._step
        return Ranges(owner, self._start - owner * self._step, self._end - owner * self._step)

    def held(self, ranges: Ranges) -> np.ndarray:
        """(n,): how much of each range is covered."""
        return self._before(ranges.owner, ranges.end) - self._before(ranges.owner, ranges.start)

    def _before(self, owner: np.ndarray, position: np.ndarray) -> np.ndarray:
        """How much is covered before a position."""
        point = self._line(owner, position)
        stretches = np.searchsorted(self._start, point)
        if not len(self._start):
            return np.zeros(len(point), np.int64)
        behind = np.maximum(self._end[stretches - 1] - point, 0)
        return self._held[stretches] - np.where(stretches > 0, behind, 0)

    def touched(self, ranges: Ranges) -> np.ndarray:
        """(n,) bool: whether a range meets the cover, if only at a border."""
        start, end = self._line(ranges.owner, ranges.start), self._line(ranges.owner, ranges.end)
        place = np.searchsorted(self._end, start)
        there = place < len(self._start)
        return there & (np.append(self._start, 0)[np.where(there, place, -1)] <= end)


class Chunking:
    """All chunks of corpora, found by the references they meet.

    Chunks are kept in layers of similar length, each sorted by start: those that can meet a reference are then
    neighbours in their layer, also where chunks overlap or lie inside each other.
    """

    def __init__(self, chunks: Ranges, reach: int, touching: bool) -> None:
        self.chunks = chunks
        self._step, self._touching = 4 * (reach + 2), touching  # room for the longest look back
        layer = np.frexp(chunks.lengths.astype(np.float64))[1]  # lengths below 2^layer
        line = chunks.owner * self._step + chunks.start
        self._layers = []
        for each in np.unique(layer):
            rows = np.flatnonzero(layer == each)
            rows = rows[np.argsort(line[rows], kind="stable")]
            self._layers.append((1 << int(each), rows, line[rows]))

    def met(self, references: Ranges, question: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(questions, chunks): each pair of a question and a chunk that meets one of its references, once.

        `references` are owned by corpora, `question` (n,) says whose each is; questions rise.
        """
        found = [self._met_in(layer, references, question) for layer in self._layers]
        keys = np.unique(np.concatenate([np.empty(0, np.int64), *found]))
        return keys // max(len(self.chunks), 1), keys % max(len(self.chunks), 1)

    def _met_in(
        self, layer: tuple[int, np.ndarray, np.ndarray], references: Ranges, question: np.ndarray
    ) -> np.ndarray:
        longest, rows, line = layer
        base = references.owner * self._step
        first = np.searchsorted(line, base + references.start - longest)
        last = np.searchsorted(line, base + references.end, "right")
        counts = last - first
        keys = []
        for part in _blocks(counts, PAIRS_AT_ONCE):
            number = counts[part]
            reference = np.repeat(np.arange(part.start, part.stop), number)
            within = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
            chunk = rows[np.repeat(first[part], number) + within]
            low = np.maximum(self.chunks.start[chunk], references.start[reference])
            high = np.minimum(self.chunks.end[chunk], references.end[reference])
            meets = self.chunks.owner[chunk] == references.owner[reference]
            meets &= low <= high if self._touching else low < high
            keys.append(np.unique(question[reference[meets]] * len(self.chunks) + chunk[meets]))
        return np.concatenate([np.empty(0, np.int64), *keys])


def _blocks(counts: np.ndarray, most: int) -> list[slice]:
    """Consecutive slices whose counts add up to about `most` each."""
    if not len(counts):
        return []
    place = (np.cumsum(counts) - counts) // most
    edges = np.flatnonzero(np.diff(place)) + 1
    return [slice(int(a), int(b)) for a, b in zip([0, *edges], [*edges, len(counts)], strict=True)]
