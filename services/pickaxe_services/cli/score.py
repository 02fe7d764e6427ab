"""`pickaxe score`: any number of items, in constant memory, durable and resumable where the method allows it."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from pickaxe.call import Call
from pickaxe.data import Column, Item, Scores
from pickaxe.durable import write_durably
from pickaxe.extras import require
from pickaxe.io.readers import Source
from pickaxe.io.resume import Output, beside, output
from pickaxe.io.rows import Row, group_rows, in_order, score_rows
from pickaxe.io.writers import encoding, score_columns
from pickaxe.method import Card
from pickaxe.report import Run, Tally, run_page
from pickaxe_services.cli import console
from pickaxe_services.cli.door import door, identify, require_role, source, tell_skipped
from pickaxe_services.cli.interrupt import running
from pickaxe_services.cli.options import Common, Reading, common, reading


@click.command("score")
@click.argument("method")
@click.option("--input", "-i", "inputs", multiple=True, required=True, metavar="PATH", help="Files, patterns, or -.")
@click.option("--output", "-o", "out", default="-", show_default=True, metavar="PATH", help="Where the rows go.")
@click.option("--summary", type=click.Path(path_type=Path, dir_okay=False), help="Write what belongs to the run here.")
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), help="Write a page of HTML about the run.")
@click.option("--overwrite", is_flag=True, help="Replace a finished output.")
@click.option("--restart", is_flag=True, help="Drop an unfinished run instead of going on with it.")
@reading
@common
def command(
    shared: Common,
    method: str,
    inputs: tuple[str, ...],
    out: str,
    summary: Path | None,
    report: Path | None,
    overwrite: bool,
    restart: bool,
    reading: Reading,
) -> None:
    """Score items with METHOD: one row per item, the id and the method's columns.

    \b
      pickaxe score zip-fit --artifact art --input corpus.jsonl --output scores.jsonl
      pickaxe score min-k-prob --set k=0.3 -i 'shards/*.jsonl.zst' -o scores.parquet
      pickaxe score coverage -i runs.csv -o scores.csv --report report.html
      cat corpus.jsonl | pickaxe score min-k-prob -i - | head

    The output's suffix names its format: .jsonl, .csv or .tsv (each also .gz or .zst) or .parquet.  Methods that
    look at one item at a time read inputs larger than memory, and a run that was killed goes on where it was when
    the same command is given again: the finished file is the same, byte for byte.
    """
    quarantine = beside(Path(out), ".quarantine") if out != "-" else None
    again = overwrite or restart or beside(Path(out), ".partial").exists()
    for library in ("matplotlib", "jinja2") if report is not None else ():
        require(library, extra="plot")  # better now than after hours of scoring
    with door(shared) as opened, running(shared) as call:
        card = opened.card(method)
        require_role(card, "scorer")
        handle = opened.open(method, "scorer")
        items = source(inputs, reading, card.reads, once=True, quarantine=quarantine, again=again)
        request = identify(opened, shared, card, handle, items, reading) if card.scope == "item" else None
        begun = time.monotonic()
        with output(out, encoding(out), request=request, overwrite=overwrite, restart=restart) as file:
            if file.resumed:
                console.note(f"goes on after {file.resumed} items", shared.quiet)
            tally = None if report is None else Tally(handle.columns)
            whole = _write(handle, items, file, call, shared, card, None if file.resumed else tally)
        seconds = time.monotonic() - begun
        if summary is not None:
            write_durably(
                summary,
                json.dumps(_summary(shared, card, file, items, handle.columns, whole), indent=1).encode() + b"\n",
            )
        if report is not None and tally is not None:
            if file.resumed:
                tally.add(_written(out))
            run = Run(card, shared.params, inputs, shared.seed, shared.artifact or "", items.skipped, seconds)
            run_page(run, tally, whole).write(report)
    _tell(file, items, seconds, out, shared)


def scored(handle: Any, card: Card, items: Iterator[Item], call: Call) -> Iterator[tuple[list[str], Scores]]:
    """Ids and scores of consecutive stretches; one stretch for methods that see all items at once."""
    ids: deque[str] = deque()

    def noted() -> Iterator[Item]:
        for item in items:
            ids.append(item.id)
            yield item

    results = handle.stream(noted(), call=call) if card.scope == "item" else iter([handle.score(noted(), call=call)])
    for scores in results:
        yield [ids.popleft() for _ in range(len(scores))], scores


def _write(
    handle: Any, items: Source, file: Output, call: Call, shared: Common, card: Card, tally: Tally | None
) -> Scores | None:
    """Score, write and tally everything; the scores when they came in one stretch, and so have the run's summary."""
    whole: Scores | None = None
    begun = False
    records = items.records(start=file.done)
    with console.bar(f"score {card.name}", shared.quiet or file.path == Path("-")) as bar:
        for ids, scores in scored(handle, card, (record.item for record in records), call):
            if not begun:
                file.begin(score_columns(scores.schema, bool(scores.segments)))
            whole = None if begun or file.resumed else scores
            begun = True
            rows = score_rows(ids, scores)
            file.append(rows)
            if tally is not None:
                tally.add(rows)
            bar.update(items.meter.read, items.meter.total, items=file.done)
    if not begun:
        file.begin(score_columns(handle.columns, False))
    return whole


def _written(out: str) -> Iterator[Row]:
    """The rows of a finished output: those of a run that went on after a stop were not all seen by this process."""
    for item in Source(out):
        yield {"id": item.id, "text": item.text, **item.fields}


def _summary(
    shared: Common, card: Card, file: Output, items: Source, columns: tuple[Column, ...], whole: Scores | None
) -> dict[str, Any]:
    return {
        "method": card.name,
        "version": card.version,
        "params": dict(shared.params),
        "artifact": shared.artifact or "",
        "rows": file.done,
        "skipped": items.skipped,
        "columns": [
            {"name": each.name, "dtype": each.dtype, "unit": each.unit, "direction": each.direction, "doc": each.doc}
            for each in columns
        ],
        "summary": in_order(whole.summary) if whole else {},
        "groups": group_rows(whole) if whole else [],
    }


def _tell(file: Output, items: Source, seconds: float, out: str, shared: Common) -> None:
    made = file.done - file.resumed
    tell_skipped(items, shared)
    if out == "-":
        return
    if shared.json:
        numbers = {"rows": file.done, "resumed": file.resumed, "skipped": items.skipped, "seconds": round(seconds, 3)}
        console.emit({"output": out, **numbers})
    else:
        rate = f", {made / seconds:.0f}/s" if made and seconds > 0 else ""
        console.note(f"scored {made} items in {seconds:.1f} s{rate} -> {out}", shared.quiet)
