"""What retrievers and rerankers return."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

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
