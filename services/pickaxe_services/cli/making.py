"""What `fit` and `index` share: telling how far the work is, and what was made."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from pickaxe.artifact import Artifact, finished_stages
from pickaxe.data import Progress
from pickaxe.errors import Cancelled, PickaxeError
from pickaxe.jsonable import jsonable
from pickaxe_services.cli import console
from pickaxe_services.cli.failure import as_record
from pickaxe_services.cli.options import Common

progress_option = click.option(
    "--progress",
    type=click.Choice(("bar", "jsonl", "none")),
    default="bar",
    show_default=True,
    help="jsonl: one JSON object per step on standard output, and a last one with the error if it fails.",
)
out_option = click.option("--out", required=True, metavar="DIR", help="Where the artifact goes.")
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace an artifact that is there.")

OnProgress = Callable[[Progress], None]


@contextmanager
def error_line(progress: str) -> Iterator[None]:
    """With jsonl, a failure is the last line of standard output too."""
    try:
        yield
    except (PickaxeError, KeyboardInterrupt) as error:
        if progress == "jsonl":
            told = error if isinstance(error, PickaxeError) else Cancelled("the process was asked to end")
            console.emit({"error": as_record(told)})
        raise


def make(run: Callable[[OnProgress], Any], text: str, out: str, progress: str, shared: Common) -> None:
    """Run a fit or an index, show its progress, and say what was made."""
    begun = time.monotonic()
    if done := finished_stages(out):
        console.note(
            f"an interrupted run finished {', '.join(done)}; the same request goes on after that", shared.quiet
        )
    if progress == "jsonl":
        run(_line)
        return
    with console.bar(text, shared.quiet or progress == "none") as bar:
        run(lambda step: bar.update(step.step, step.total, f"{text}: {step.stage}", **step.metrics))
    made = Artifact.open(out, verify=False)
    seconds = time.monotonic() - begun
    if shared.json:
        console.emit({"artifact": out, "digest": made.digest, "bytes": made.bytes, "seconds": round(seconds, 3)})
    else:
        console.note(f"{text}: {made.bytes} bytes in {seconds:.1f} s -> {out}", shared.quiet)


def _line(step: Progress) -> None:
    metrics = jsonable(dict(step.metrics))
    console.emit({"stage": step.stage, "step": step.step, "total": step.total, "metrics": metrics})
