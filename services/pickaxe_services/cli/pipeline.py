"""`pickaxe select --pipeline`: a whole pipeline over a corpus of any size, in two passes and constant memory.

The first pass looks at every record (`looking`), then the stages decide from what it kept, and the second pass writes
the records that stay, as they stand.  Both passes go on after a kill, with the same bytes in the end.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from pickaxe.call import Call
from pickaxe.errors import AlreadyExists, InvalidParams
from pickaxe.extras import require
from pickaxe.io.files import STDIN
from pickaxe.io.readers import Record, Source
from pickaxe.io.resume import Output, beside, output
from pickaxe.io.writers import Encoding
from pickaxe_services.cli import console
from pickaxe_services.cli.door import Door, door, identify, source, tell_skipped
from pickaxe_services.cli.interrupt import running
from pickaxe_services.cli.looking import (
    Looked,
    Setup,
    Streaming,
    first_frame,
    look,
    read_looked,
    records_in,
    request_of,
)
from pickaxe_services.cli.options import Common, Reading
from pickaxe_services.cli.pipeline_file import read_pipeline
from pickaxe_services.cli.select_output import Job, as_line, encoding_of, with_end

METHOD = "selector"
_FLUSH = 1 << 20


def run(job: Job, shared: Common, reading: Reading) -> None:
    shared = replace(shared, params={**read_pipeline(job.pipeline), **shared.params})
    for library in ("matplotlib", "jinja2") if job.report is not None else ():
        require(library, extra="plot")  # better now than after hours of work
    begun = time.monotonic()
    with door(shared) as opened, running(shared) as call:
        card = opened.card(METHOD)
        handle = opened.open(METHOD, "scorer")
        method: Streaming = handle.opened.method
        method.streams()
        aside = beside(Path(job.out), ".quarantine") if job.out != STDIN else None
        again = job.overwrite or job.restart or any(beside(Path(job.out), end).exists() for end in _UNFINISHED)
        items = source(job.inputs, reading, card.reads, quarantine=aside, again=again)
        encode = encoding_of(items, job.out, job.ids_only)
        if method.edits and not job.ids_only and items.formats != {"jsonl"}:
            raise InvalidParams("--input", "must be JSON Lines, because a stage edits texts; or give --ids-only")
        request = _request(opened, shared, job, handle, items, reading)
        if job.out != STDIN and Path(job.out).exists() and not job.overwrite:
            raise AlreadyExists(f"{job.out!r} exists: give --overwrite, or name another output")
        with _looked_at(job, request) as path:
            pace = Pace(job.progress, shared.quiet)
            looked = _look(job, method, items, call, _setup(shared, handle), path, request, pace)
            told = _write(job, method, items, looked, call, encode, request, pace, reading)
    _report(job, method, card, told, items, shared, time.monotonic() - begun)


_UNFINISHED = (".partial", ".looked", ".looked.partial")


def _setup(shared: Common, handle: Any) -> Setup:
    artifact = None if handle.artifact is None else str(handle.artifact.path)
    params = handle.params.model_dump(mode="json")
    return Setup(METHOD, params, artifact, shared.seed, shared.device, shared.resources)


def _request(
    opened: Door, shared: Common, job: Job, handle: Any, items: Source, reading: Reading
) -> dict[str, Any] | None:
    """All that decides about the bytes of the output: the artifacts of every scorer, too."""
    found = identify(opened, shared, opened.card(METHOD), handle, items, reading)
    return None if found is None else {**found, "scorers": handle.opened.host.references, "ids_only": job.ids_only}


def _digest(request: Mapping[str, Any] | None) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


@contextmanager
def _looked_at(job: Job, request: Mapping[str, Any] | None) -> Iterator[Path]:
    """Where the first pass keeps what it found: beside the output while that is unfinished."""
    if job.out == STDIN or request is None:
        with tempfile.TemporaryDirectory(prefix="pickaxe-") as folder:
            yield Path(folder) / "looked"
        return
    path = beside(Path(job.out), ".looked")
    yield path
    path.unlink(missing_ok=True)


# ---------------------------------------------------------------- the passes


def _look(
    job: Job, method: Streaming, items: Source, call: Call, setup: Setup, path: Path,
    request: Mapping[str, Any] | None, pace: Pace,
) -> Looked:  # fmt: skip
    if path.exists() and not job.restart:
        if request_of(path) != _digest(request):
            raise AlreadyExists(
                f"{str(path)!r} belongs to an unfinished run with another pipeline, input or option: run that again, "
                "give --restart to drop it, or name another output",
                metadata={"path": path},
            )
        return read_looked(path, method)
    workers = job.workers or len(os.sched_getaffinity(0))
    with output(path, Encoding(), request=request, overwrite=True, restart=job.restart) as file:
        start = records_in(beside(path, ".partial"), file.done)
        if not file.done:
            file.append_raw(first_frame(method, _digest(request)))
        with pace.stage("looking", items) as told:
            look(items, method, file, call, setup, workers, told, start)
    return read_looked(path, method)


def _write(
    job: Job, method: Streaming, items: Source, looked: Looked, call: Call, encode: Encoding,
    request: Mapping[str, Any] | None, pace: Pace, reading: Reading,
) -> Any:  # fmt: skip
    """Decide, and write what stays; the counts of it all."""
    rows, features = looked.joined()
    passed = method.settle(features, len(rows), call.seed)
    counts = np.zeros(looked.records, np.int64)
    counts[rows] = passed.counts
    wanted = _tally(looked.funnel, passed, rows, features)
    if job.report is not None:
        _show(looked.funnel, wanted, items)
    with output(job.out, encode, request=request, overwrite=job.overwrite, restart=job.restart) as file:
        writer = _Writer(job, method, items, file, call, reading)
        with pace.stage("writing", items) as told:
            writer.run(looked.sizes, counts, told)
    warnings = list(passed.warnings)
    if twice := looked.repeated():
        warnings.append(f"{twice} records have an id that came before.")
    looked.funnel.warnings = warnings
    return looked.funnel


def _tally(
    funnel: Any, passed: Any, rows: np.ndarray, features: Mapping[str, np.ndarray]
) -> dict[int, tuple[int, str]]:
    """Count the fate of what the first pass left; which records are examples of dropped ones."""
    shown: dict[tuple[int, str], int] = defaultdict(int)
    wanted = {}
    table = zip(
        rows.tolist(),
        passed.dropped_by.tolist(),
        passed.reasons.tolist(),
        features.get("characters", rows).tolist(),
        features.get("group", rows).tolist(),
        passed.counts.tolist(),
        strict=True,
    )
    for row, stage, reason, characters, group, uses in table:
        if funnel.add(stage, reason, characters, group, uses) and shown[stage, reason] < funnel.examples:
            shown[stage, reason] += 1
            wanted[row] = stage, reason
    return wanted


def _show(funnel: Any, wanted: Mapping[int, tuple[int, str]], items: Source) -> None:
    """Read the examples up to the last one wanted."""
    if wanted:
        for row, record in enumerate(islice(items.records(), max(wanted) + 1)):
            if row in wanted:
                funnel.show(*wanted[row], record.item.id, record.item.text or "")


class _Writer:
    """The second pass."""

    def __init__(self, job: Job, method: Streaming, items: Source, file: Output, call: Call, reading: Reading) -> None:
        self._ids_only, self._edits = job.ids_only, method.edits and not job.ids_only
        self._method, self._items, self._file, self._call = method, items, file, call
        self._text = reading.text_field

    def run(self, sizes: list[int], counts: np.ndarray, told: Any) -> None:
        """Write part by part; the file is cut and taken up between parts only."""
        file, done = self._file, self._file.done
        place = sum(sizes[:done])
        records = self._items.records(place)
        held: list[bytes] = []
        covered, begun = 0, file.done > 0
        for size in sizes[done:]:
            self._call.check()
            part = list(islice(records, size))
            if part and not begun and not self._ids_only:
                held += map(with_end, self._items.headers)
            begun = begun or bool(part)
            kept = counts[place : place + size]
            held += self._lines([(record, count) for record, count in zip(part, kept.tolist(), strict=True) if count])
            place, covered = place + size, covered + 1
            if sum(map(len, held)) >= _FLUSH:
                file.append_raw(b"".join(held), covered)
                file.sync()
                held, covered = [], 0
            if part:
                told(self._items.meter.read, place)
        if held or not file.done:
            file.append_raw(b"".join(held), covered)
        deque(records, maxlen=0)  # broken records at the end count, too

    def _lines(self, kept: list[tuple[Record, int]]) -> Iterator[bytes]:
        texts = self._method.edited([record.item for record, _ in kept], self._call) if self._edits else []
        for place, (record, count) in enumerate(kept):
            if self._ids_only:
                line = record.item.id.encode("utf-8", "surrogatepass") + b"\n"
            elif self._edits:
                line = as_line({**json.loads(record.original), self._text: texts[place]})
            else:
                line = with_end(record.original)
            yield line * count


# ---------------------------------------------------------------- what people see


class Pace:
    """Progress by bytes read of bytes there are; the time left follows from the pace of this run alone."""

    def __init__(self, form: str, quiet: bool) -> None:
        self._form, self._quiet = form, quiet

    @contextmanager
    def stage(self, name: str, items: Source) -> Iterator[Any]:
        begun, first, last = time.monotonic(), -1, 0.0
        with console.bar(name, self._quiet or self._form == "jsonl") as bar:

            def told(read: int, records: int) -> None:
                nonlocal first, last
                total, now = items.meter.total, time.monotonic()
                first = read if first < 0 else first
                bar.update(read, total, records=records)
                if self._form == "jsonl" and (now - last >= 1 or read == total):
                    last = now
                    speed = (read - first) / (now - begun) if now > begun else 0.0
                    left = round((total - read) / speed, 1) if total and speed else None
                    line = {"stage": name, "read": read, "total": total, "records": records, "seconds_left": left}
                    console.note(json.dumps(line))

            yield told


def _report(job: Job, method: Streaming, card: Any, told: Any, items: Source, shared: Common, seconds: float) -> None:
    summary = method.summary(told, told.warnings)
    if job.report is not None:
        from pickaxe.io.rows import in_order
        from pickaxe.report import Page, Table, explained
        from pickaxe.report.tables import tables

        answer, figures = explained(in_order(summary))
        made = {
            "method": f"{card.name}, version {card.version}",
            "pipeline": json.dumps(shared.params, ensure_ascii=False, sort_keys=True),
            "input": ", ".join(job.inputs),
            "output": job.out,
            "seed": str(shared.seed),
            "broken records left out": str(items.skipped),
            "seconds": f"{seconds:.1f}",
        }
        Page(
            title="Selection: what every stage dropped, and why",
            lead=card.summary,
            answer=tuple(answer),
            figures=tuple(figures),
            tables=tuple(tables(summary)),
            made=(Table("The run", ("what", "value"), tuple(made.items())),),
        ).write(job.report)
    tell_skipped(items, shared)
    if job.out == STDIN:
        return
    if shared.json:
        counts = {"read": told.total, "selected": told.kept, "uses": told.uses, "skipped": items.skipped}
        console.emit({"output": job.out, **counts, "seconds": round(seconds, 3), "funnel": summary["Funnel"]})
    else:
        for line in summary["answer"]:
            console.note(line, shared.quiet)
        console.note(f"selected {told.kept} records in {seconds:.1f} s -> {job.out}", shared.quiet)
