"""`pickaxe select`: the records of a data set that a score column puts first, unchanged."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from pickaxe.data import Column
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe.io.files import STDIN
from pickaxe.io.readers import Source
from pickaxe.io.resume import Output, output
from pickaxe.io.selection import Rule, pick
from pickaxe_services.cli import console
from pickaxe_services.cli.door import door, require_role, source, tell_skipped
from pickaxe_services.cli.interrupt import running
from pickaxe_services.cli.options import Common, Reading, common, reading
from pickaxe_services.cli.score import scored
from pickaxe_services.cli.select_output import Job, encoding_of, with_end

CHUNK = 1024


@click.command("select")
@click.argument("method", required=False)
@click.option("--input", "-i", "inputs", multiple=True, required=True, metavar="PATH", help="The data set.")
@click.option("--scores", metavar="FILE", help="Scores made earlier by `pickaxe score` of the same input.")
@click.option("--output", "-o", "out", default="-", show_default=True, metavar="PATH", help="Where the records go.")
@click.option("--column", metavar="NAME", help="The column to go by; otherwise the first one.")
@click.option("--top", type=click.IntRange(min=0), metavar="N", help="Pick the best N.")
@click.option("--fraction", type=float, metavar="Q", help="Pick the best share Q of all, e.g. 0.1.")
@click.option("--threshold", type=float, metavar="T", help="Pick all that reach T.")
@click.option("--quantile", type=float, metavar="Q", help="Pick all that reach the quantile Q, e.g. 0.9.")
@click.option("--lowest", is_flag=True, help="Low is good, whatever the column's direction.")
@click.option("--highest", is_flag=True, help="High is good, whatever the column's direction.")
@click.option("--pipeline", type=click.Path(path_type=Path, dir_okay=False), help="Stages in YAML, for `selector`.")
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), help="Of a pipeline: a page of HTML.")
@click.option("--workers", type=click.IntRange(min=0), default=0, help="Of a pipeline: processes; 0: one per core.")
@click.option("--progress", type=click.Choice(("bar", "jsonl")), default="bar", help="Of a pipeline: how to show it.")
@click.option("--restart", is_flag=True, help="Of a pipeline: drop an unfinished run instead of going on with it.")
@click.option("--ids-only", is_flag=True, help="Write ids, one a line, instead of records.")
@click.option("--overwrite", is_flag=True, help="Replace an output that is there.")
@reading
@common
def command(
    shared: Common,
    method: str | None,
    inputs: tuple[str, ...],
    scores: str | None,
    out: str,
    column: str | None,
    top: int | None,
    fraction: float | None,
    threshold: float | None,
    quantile: float | None,
    lowest: bool,
    highest: bool,
    pipeline: Path | None,
    report: Path | None,
    workers: int,
    progress: str,
    restart: bool,
    ids_only: bool,
    overwrite: bool,
    reading: Reading,
) -> None:
    """Keep the records that METHOD (or a file of --scores) puts first, in the order of the input.

    \b
      pickaxe select zip-fit --artifact art --input corpus.jsonl --fraction 0.1 --output picked.jsonl
      pickaxe select --scores scores.jsonl --input corpus.jsonl --top 1000 --output picked.jsonl

    Records are written as they stand in the input.  Equal scores go by position: the earlier record first.

    With --pipeline, the stages of a file decide instead: utilities of any scorers, thresholds, quotas, draws and
    deduplication, in constant memory.  A run that was killed goes on when the same command is given again.

    \b
      pickaxe select --pipeline pipeline.yaml -i 'corpus/*.jsonl.gz' -o kept.jsonl.zst --report funnel.html
    """
    if pipeline is not None:
        _run_pipeline(
            Job(pipeline, inputs, out, report, ids_only, overwrite, restart, workers, progress),
            shared,
            reading,
            [method, scores, column, top, fraction, threshold, quantile],
            lowest or highest,
        )
        return
    if report is not None or workers or restart or progress != "bar":
        raise click.UsageError("--report, --workers, --restart and --progress belong to --pipeline")
    if (method is None) == (scores is None):
        raise click.UsageError("name either a METHOD or a file of --scores")
    if lowest and highest:
        raise click.UsageError("give --lowest or --highest, not both")
    direction = "lower" if lowest else "higher" if highest else None
    given = {"top": top, "fraction": fraction, "threshold": threshold, "quantile": quantile}
    kind, amount = _one(given)
    if scores is not None:
        items = source(inputs, reading)
        values = _from_file(scores, items, column)
        rule = Rule(kind, amount, direction == "lower")  # type: ignore[arg-type]
        chosen = pick(values, rule)
    else:
        assert method is not None
        with door(shared) as opened, running(shared) as call:
            card = opened.card(method)
            require_role(card, "scorer")
            handle = opened.open(method, "scorer")
            items = source(inputs, reading, card.reads)
            wanted = _column(handle.columns, column)
            rule = Rule(kind, amount, _lowest(wanted, direction))  # type: ignore[arg-type]
            records = (record.item for record in items.records())
            parts = scored(handle, card, records, call)
            chosen = pick((value for _, part in parts for value in part[wanted.name].tolist()), rule)
    written = _write(items, chosen, out, ids_only, overwrite)
    _tell(items, written, out, shared)


def _run_pipeline(job: Job, shared: Common, reading: Reading, other: list[Any], directed: bool) -> None:
    if directed or any(each is not None for each in other):
        raise click.UsageError("--pipeline says itself what is picked: give no METHOD, --scores or rule beside it")
    if shared.server is not None:
        raise click.UsageError("--pipeline runs here: leave out --server")
    from pickaxe_services.cli.pipeline import run

    run(job, shared, reading)


def _one(given: dict[str, float | None]) -> tuple[str, float]:
    named = [(name, value) for name, value in given.items() if value is not None]
    if len(named) != 1:
        raise click.UsageError("give exactly one of --top, --fraction, --threshold and --quantile")
    return named[0]


def _column(columns: tuple[Column, ...], name: str | None) -> Column:
    found = {each.name: each for each in columns}
    chosen = columns[0] if name is None else found.get(name)
    if chosen is None:
        raise InvalidParams("--column", f"there is no column {name!r}; there are {', '.join(found)}")
    if chosen.dtype == "str":
        raise InvalidParams("--column", f"{chosen.name!r} holds text, which has no order to pick by")
    return chosen


def _lowest(column: Column, direction: str | None) -> bool:
    wanted = direction or column.direction
    if wanted == "none":
        raise InvalidParams("--column", f"{column.name!r} has no good end: say --highest or --lowest")
    return wanted == "lower"


def _from_file(path: str, items: Source, column: str | None) -> Iterator[float]:
    """The column of a file that `pickaxe score` wrote for the same items; raises when it is of others."""
    rows = iter(Source(path))
    for item in items:
        row = next(rows, None)
        if row is None or row.id != item.id:
            found = "ends before it" if row is None else f"has {row.id!r} there"
            raise InvalidItems(path, f"is not of this input: it should have item {item.id!r} and {found}")
        name = column or next((name for name in row.fields if name != "flag"), "")
        yield _number(row.get(name), f"{path}: item {row.id!r}, column {name!r}")
    if (extra := next(rows, None)) is not None:
        raise InvalidItems(path, f"is not of this input: it goes on with item {extra.id!r}")


def _number(value: Any, where: str) -> float:
    """A cell as a number; an absent one is none, and infinities are spelled out in JSON."""
    if value is None:
        return math.nan
    if isinstance(value, (bool, int, float)):
        return value
    if value in ("Infinity", "-Infinity"):
        return float(value)
    raise InvalidItems(where, "is not a number")


def _write(items: Source, chosen: list[int], out: str, ids_only: bool, overwrite: bool) -> int:
    encode = encoding_of(items, out, ids_only)
    left = iter(chosen)
    following = next(left, None)
    with output(out, encode, overwrite=overwrite) as file:
        chunk: list[bytes] = []
        for row, record in enumerate(items.records()):
            if row == 0 and not ids_only:
                chunk += items.headers
            if row == following:
                chunk.append(with_end(record.item.id.encode() if ids_only else record.original))
                following = next(left, None)
            if len(chunk) >= CHUNK:
                _flush(file, chunk)
            if following is None:
                break
        _flush(file, chunk)
    return len(chosen)


def _flush(file: Output, chunk: list[bytes]) -> None:
    if chunk:
        file.append_raw(b"".join(chunk))
        chunk.clear()


def _tell(items: Source, written: int, out: str, shared: Common) -> None:
    tell_skipped(items, shared)
    if out == STDIN:
        return
    if shared.json:
        print(json.dumps({"output": out, "selected": written, "skipped": items.skipped}))
    else:
        console.note(f"selected {written} records -> {out}", shared.quiet)
