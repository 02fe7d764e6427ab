"""How time and memory grow with the corpus: `python -m benchmarks.growth [METHOD ...]`.

Every method at every size runs in a process of its own, which first runs at a hundred items, so that loading and
compiling do not count.  Rows are appended to DIR/rows.jsonl: started again, finished points are skipped.  All methods
run at their smallest size before any runs at the next.  The table is printed, and the plots are in DIR/growth.html;
`--write docs/growth.md` runs nothing and puts the table of the rows so far into that page.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import click

from benchmarks._growth_clock import Clock
from benchmarks._growth_inputs import anew
from benchmarks._growth_kinds import Growth
from benchmarks._growth_retrievers import RETRIEVERS
from benchmarks._growth_scorers import SCORERS
from benchmarks._growth_table import Row, markdown, page, write

METHODS: dict[str, Growth] = {**SCORERS, **RETRIEVERS}
WARM = 100
LONG_ENOUGH, MOST_RUNS = 0.5, 5
"""Stages that took less seconds than that together are run again."""
HOPELESS = 2.0
"""A point is not tried if the smaller one, grown in proportion, is so many times over the limit."""


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(sorted(METHODS)), metavar="[METHOD]...")
@click.option("--sizes", default="", help="Sizes for all methods in place of each one's own, such as 100,1000.")
@click.option("--limit", default=120.0, show_default=True, help="Seconds a point may take, its inputs included.")
@click.option("--output", type=click.Path(path_type=Path), default="bench-output/growth", show_default=True)
@click.option("--write", "target", type=click.Path(path_type=Path), help="Put the table of the rows into this page.")
@click.option("--only", type=(str, int), hidden=True, help="Run this point here and print its row.")
def main(
    names: tuple[str, ...], sizes: str, limit: float, output: Path, target: Path | None, only: tuple[str, int] | None
) -> None:
    """Measure all methods, or those NAMED, at growing sizes."""
    if only:
        print(json.dumps(measure(*only)))
        return
    rows = read(output / "rows.jsonl")
    if target:
        write(target, markdown(METHODS, rows))
        return
    chosen = {name: METHODS[name] for name in names or METHODS}
    planned = {name: tuple(map(int, sizes.split(","))) if sizes else growth.sizes for name, growth in chosen.items()}
    output.mkdir(parents=True, exist_ok=True)
    failed = run(planned, rows, limit, output)
    print(markdown(chosen, rows))
    page(chosen, rows).write(output / "growth.html")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


# ---------------------------------------------------------------- one point


def measure(name: str, size: int) -> Row:
    """The row of a point, measured in this process; short stages several times."""
    growth = METHODS[name]
    clock, begun = Clock(), time.perf_counter()
    once(growth, min(WARM, size), Clock())
    for _ in range(MOST_RUNS):
        once(growth, size, clock)
        if clock.wall > LONG_ENOUGH or time.perf_counter() - begun > 10 * LONG_ENOUGH:
            break
    return {"method": name, "size": size, "stages": clock.stages(), "cores": len(os.sched_getaffinity(0))}


def once(growth: Growth, size: int, clock: Clock) -> None:
    anew()
    with tempfile.TemporaryDirectory() as folder:
        growth.run(size, Path(folder), clock)


# ---------------------------------------------------------------- all points


def run(planned: dict[str, tuple[int, ...]], rows: dict[tuple[str, int], Row], limit: float, output: Path) -> list[str]:
    """Measure what is not in the rows yet; the names of the points that failed."""
    points = list(in_turns(planned))
    failed: list[str] = []
    begun = time.perf_counter()
    with (output / "rows.jsonl").open("a", encoding="utf-8") as stream:
        for place, (name, size) in enumerate(points, 1):
            known = rows.get((name, size))
            if known and ("stages" in known or known["limit"] >= limit):
                continue
            row = expected(name, size, planned[name], rows, limit) or attempt(name, size, limit, output)
            told = tell(row)
            print(f"[{place}/{len(points)}, {time.perf_counter() - begun:.0f} s] {name} at {size:,}: {told}",
                  file=sys.stderr, flush=True)  # fmt: skip
            if "failed" in row:
                failed.append(f"{name} at {size:,}")
                continue
            rows[name, size] = row
            stream.write(json.dumps(row) + "\n")
            stream.flush()
    return failed


def in_turns(planned: dict[str, tuple[int, ...]]) -> Iterator[tuple[str, int]]:
    """All methods at their first size, then all at their second …"""
    for level in zip_longest(*planned.values()):
        yield from ((name, size) for name, size in zip(planned, level, strict=True) if size is not None)


def expected(
    name: str, size: int, sizes: tuple[int, ...], rows: dict[tuple[str, int], Row], limit: float
) -> Row | None:
    """The row of a point that need not be tried, by the sizes below it."""
    smaller = [known for each in sizes if each < size and (known := rows.get((name, each)))]
    if not smaller:
        return None
    before = max(smaller, key=lambda row: int(row["size"]))
    if "stopped" in before:
        return stopped(name, size, limit, before["stopped"])
    seconds = sum(stage["wall"] for stage in before["stages"].values()) * size / before["size"]
    if seconds > HOPELESS * limit:
        return stopped(name, size, limit, f"{size:,} would take some {seconds:.0f} s, the limit is {limit:.0f} s")
    return None


def stopped(name: str, size: int, limit: float, why: str) -> Row:
    return {"method": name, "size": size, "stopped": why, "limit": limit}


def attempt(name: str, size: int, limit: float, output: Path) -> Row:
    """The row of a point that a fresh process measures."""
    command = [sys.executable, "-m", "benchmarks.growth", "--only", name, str(size)]
    with tempfile.TemporaryDirectory(prefix="growth-") as scratch:
        given = {"TMPDIR": scratch, "JAX_COMPILATION_CACHE_DIR": str((output / "compiled").absolute()),
                 "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}  # fmt: skip
        try:
            done = subprocess.run(command, env=os.environ | given, capture_output=True, text=True, timeout=limit)
        except subprocess.TimeoutExpired:
            return stopped(name, size, limit, f"{size:,} takes more than {limit:.0f} s")
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return {"failed": f"{said[-1] if said else ''} (exit status {done.returncode})"}
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def tell(row: Row) -> str:
    if "stages" not in row:
        return f"failed: {row['failed']}" if "failed" in row else f"left out: {row['stopped']}"
    stages: dict[str, Any] = row["stages"]
    taken = ", ".join(f"{stage} {each['wall']:.3g} s" for stage, each in stages.items())
    return f"{taken}, {max(each['memory'] for each in stages.values()):.0f} MiB"


def read(path: Path) -> dict[tuple[str, int], Row]:
    """Rows by method and size, the last of each; a torn last line is cut off."""
    if not path.exists():
        return {}
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole, encoding="utf-8")
    return {(row["method"], row["size"]): row for row in map(json.loads, whole.splitlines())}


if __name__ == "__main__":
    main()
