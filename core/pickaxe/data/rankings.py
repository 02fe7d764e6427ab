"""What retrievers and rerankers return."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from pickaxe.data.items import Json
from pickaxe.data.scores import Timings


@dataclass(frozen=True, slots=True)
class Span:
    """Characters [start, end) of a document's text."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Hit:
    """One found document; `columns` holds further numbers, e.g. the scores of each stage."""

    id: str
    score: float
    columns: Mapping[str, float] = field(default_factory=dict)
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True)
class SearchResults:
    """Hits per query, best first, and what the call used (model calls, tokens, seconds by stage …)."""

    results: tuple[tuple[Hit, ...], ...]
    usage: Mapping[str, float] = field(default_factory=dict)
    timings: Timings | None = None

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, row: int) -> tuple[Hit, ...]:
        return self.results[row]

    def __iter__(self) -> Iterator[tuple[Hit, ...]]:
        return iter(self.results)

    @property
    def ids(self) -> list[list[str]]:
        """Ids of the hits of each query."""
        return [[hit.id for hit in hits] for hits in self.results]

    @property
    def scores(self) -> list[list[float]]:
        """Their scores."""
        return [[hit.score for hit in hits] for hits in self.results]


class HitTable(SearchResults):
    """The same from arrays; hits are made when they are first looked at, which takes longer than a fast search."""

    @classmethod
    def of(
        cls,
        ids: Sequence[str],
        rows: np.ndarray,
        scores: np.ndarray,
        counts: np.ndarray,
        column: str,
        usage: Mapping[str, float],
    ) -> HitTable:
        """`rows` (q, k) are places in `ids`, best first, with `scores` (q, k); the first `counts` (q,) of each count.

        `column` names the score among a hit's columns.
        """
        made = cls((), usage)
        del made.__dict__["results"]  # made when it is asked for
        made.__dict__["_parts"] = (ids, rows, scores, counts, column)
        return made

    def __len__(self) -> int:
        parts = self.__dict__.get("_parts")  # none in a copy that `dataclasses.replace` made
        return len(self.results) if parts is None else len(parts[1])

    @cached_property
    def results(self) -> tuple[tuple[Hit, ...], ...]:
        ids, rows, scores, counts, column = self.__dict__["_parts"]
        return tuple(
            tuple(Hit(ids[row], score, {column: score}) for row, score in zip(found[:count], values, strict=False))
            for found, values, count in zip(rows.tolist(), scores.tolist(), counts.tolist(), strict=True)
        )

    @property
    def ids(self) -> list[list[str]]:
        if "_parts" not in self.__dict__:
            return super().ids
        ids, rows, _, counts, _ = self.__dict__["_parts"]
        return [[ids[row] for row in found[:count]] for found, count in _rows(rows, counts)]

    @property
    def scores(self) -> list[list[float]]:
        if "_parts" not in self.__dict__:
            return super().scores
        _, _, scores, counts, _ = self.__dict__["_parts"]
        return [found[:count] for found, count in _rows(scores, counts)]

    def sound(self, k: int) -> bool:
        """Whether the arrays show at most k hits per query, none twice, in order of falling scores that are numbers."""
        if "_parts" not in self.__dict__:
            return False
        _, rows, scores, counts, _ = self.__dict__["_parts"]
        counted = np.arange(rows.shape[1]) < counts[:, None]
        if (counts > k).any() or np.isnan(scores[counted]).any():
            return False
        if (counted[:, 1:] & (scores[:, 1:] > scores[:, :-1])).any():
            return False
        places = np.sort(np.where(counted, rows, -1 - np.arange(rows.shape[1])), axis=1)
        return not (places[:, 1:] == places[:, :-1]).any()


def _rows(table: np.ndarray, counts: np.ndarray) -> Iterator[tuple[list[Any], int]]:
    return zip(table.tolist(), counts.tolist(), strict=True)


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate's place: its index in the given sequence, its id and score."""

    index: int
    id: str
    score: float


@dataclass(frozen=True)
class Ranking:
    """Candidates best first.  When fewer than asked are returned, `cut` says why.

    `scores` keeps one number per *given* candidate (NaN where the method gave none); `record` is a JSON-able
    report of the run, `usage` its counters.
    """

    ranked: tuple[Ranked, ...]
    scores: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    cut: str = ""
    usage: Mapping[str, float] = field(default_factory=dict)
    record: Mapping[str, Json] = field(default_factory=dict)
    timings: Timings | None = None

    def __len__(self) -> int:
        return len(self.ranked)

    def __iter__(self) -> Iterator[Ranked]:
        return iter(self.ranked)

    def __getitem__(self, row: int) -> Ranked:
        return self.ranked[row]

    @property
    def ids(self) -> list[str]:
        return [entry.id for entry in self.ranked]
