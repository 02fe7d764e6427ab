"""What scorers return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pickaxe.data.declarations import Column
from pickaxe.data.items import Json


@dataclass(frozen=True, slots=True)
class Flag:
    """A soft failure: item `index` got no or a doubtful result, and why."""

    index: int
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Segment:
    """A scored stretch of one item's text: characters [start, end)."""

    start: int
    end: int
    score: float


@dataclass(frozen=True)
class Groups:
    """The same kind of table as the per-item columns, one row per group."""

    keys: tuple[str, ...]
    columns: Mapping[str, np.ndarray]
    schema: tuple[Column, ...] = ()


@dataclass(frozen=True)
class Timings:
    """Where the time of a served call went, in seconds, and how many items of other callers shared the run."""

    queued: float = 0.0
    ran: float = 0.0
    batched_with: int = 0


@dataclass(frozen=True)
class Scores:
    """The result of a scorer: typed per-item columns, and what belongs to groups or to the whole run.

    `columns` maps names to arrays of length n, the primary column first.
    """

    columns: Mapping[str, np.ndarray]
    groups: Groups | None = None
    summary: Mapping[str, Json] = field(default_factory=dict)
    flags: tuple[Flag, ...] = ()
    segments: tuple[tuple[Segment, ...], ...] = ()
    schema: tuple[Column, ...] = ()
    """The declared columns; filled in by the handle, methods leave it empty."""
    timings: Timings | None = None

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    @property
    def primary(self) -> np.ndarray:
        """The first column: higher means pick it."""
        return next(iter(self.columns.values()))

    def rows(self, start: int, stop: int) -> Scores:
        """The same result for items [start, stop) only; groups and summary stay with the whole run."""
        return replace(
            self,
            columns={name: values[start:stop] for name, values in self.columns.items()},
            flags=tuple(replace(flag, index=flag.index - start) for flag in self.flags if start <= flag.index < stop),
            segments=self.segments[start:stop],
            groups=None,
            summary={},
        )

    @staticmethod
    def concatenate(parts: Sequence[Scores]) -> Scores:
        """Per-item results of consecutive parts as one; at least one part."""
        if len(parts) == 1:
            return parts[0]
        flags: list[Flag] = []
        segments: list[tuple[Segment, ...]] = []
        start = 0
        for part in parts:
            flags += [replace(flag, index=flag.index + start) for flag in part.flags]
            segments += part.segments or [()] * len(part)
            start += len(part)
        columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns}
        return replace(
            parts[0],
            columns=columns,
            flags=tuple(flags),
            segments=tuple(segments) if any(segments) else (),
            groups=None,
            summary={},
        )
