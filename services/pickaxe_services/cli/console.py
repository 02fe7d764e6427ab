"""What people see: tables, notes and progress bars.  Rich is imported only for a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
    """A progress bar that may be invisible."""

    def __init__(self, progress: Any = None, task: Any = None) -> None:
        self._progress, self._task = progress, task

    def update(self, done: float, total: float | None = None, text: str | None = None, **numbers: object) -> None:
        """Move to `done`; `total` None or 0: unknown."""
        if self._progress is not None:
            extra = " ".join(f"{name} {_short(value)}" for name, value in numbers.items())
            changed = {} if text is None else {"text": text}
            self._progress.update(self._task, completed=done, total=total or None, extra=extra, **changed)


@contextmanager
def bar(text: str, quiet: bool = False) -> Iterator[Bar]:
    """A progress bar on standard error, when that is a terminal and nobody wants quiet."""
    if quiet or not sys.stderr.isatty():
        yield Bar()
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
        yield Bar(shown, shown.add_task(text, total=None, text=text, extra=""))


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
