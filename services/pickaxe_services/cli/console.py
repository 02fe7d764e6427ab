"""What people see: tables, notes and progress bars.  Rich is imported only for a terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str = "") -> None:
    """A table on standard output: drawn on a terminal, aligned columns elsewhere."""
    cells = [[str(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        drawn = Table(*columns, title=title or None, title_justify="left", header_style="bold", box=None)
        for row in cells:
            drawn.add_row(*map(Text, row))
        Console().print(drawn)
        return
    if title:
        print(title)
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for row in (list(columns), *cells):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def emit(value: Any) -> None:
    """One line of JSON on standard output."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def note(text: str, quiet: bool = False) -> None:
    """A remark on standard error."""
    if not quiet:
        print(text, file=sys.stderr)


class Bar:
    """Shows how far a long work is; this one shows nothing."""

    def update(self, done: float, total: float | None = None, text: str | None = None, **numbers: object) -> None:
        """Move to `done`; `total` None or 0: unknown."""


class _Drawn(Bar):
    """A bar on a terminal."""

    def __init__(self, progress: Any, text: str) -> None:
        self._progress = progress
        self._task = progress.add_task(text, total=None, text=text, extra="")

    def update(self, done: float, total: float | None = None, text: str | None = None, **numbers: object) -> None:
        changed = {} if text is None else {"text": text}
        self._progress.update(self._task, completed=done, total=total or None, extra=_told(numbers), **changed)


class _Lines(Bar):
    """A line on standard error every half minute, for logs."""

    SECONDS = 30.0

    def __init__(self, text: str) -> None:
        self._text = text
        self._start = self._last = time.monotonic()

    def update(self, done: float, total: float | None = None, text: str | None = None, **numbers: object) -> None:
        now = time.monotonic()
        if now - self._last < self.SECONDS:
            return
        self._last = now
        share = f" {100 * done / total:.0f}%," if total else ""
        line = f"{text or self._text}:{share} {timedelta(seconds=round(now - self._start))} {_told(numbers)}"
        print(line.rstrip(), file=sys.stderr, flush=True)


@contextmanager
def bar(text: str, quiet: bool = False) -> Iterator[Bar]:
    """How far the work in the block is, on standard error: a bar on a terminal, a line now and then elsewhere."""
    if quiet:
        yield Bar()
        return
    if not sys.stderr.isatty():
        yield _Lines(text)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    shown = Progress(
        TextColumn("{task.fields[text]}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[extra]}"),
        console=Console(stderr=True),
        transient=True,
    )
    with shown:
        yield _Drawn(shown, text)


def _told(numbers: Mapping[str, object]) -> str:
    return " ".join(f"{name} {_short(value)}" for name, value in numbers.items())


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def fields(values: Mapping[str, object], title: str = "") -> None:
    """Names and values, one pair a line; empty values are left out."""
    shown = [(name, value) for name, value in values.items() if value not in ("", None, (), [])]
    if title:
        print(title)
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        print(f"{name.ljust(width)}  {value}")
