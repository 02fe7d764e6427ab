"""`pickaxe fit`: also what a server runs, in a process of its own, for a fit job."""

from __future__ import annotations

import click

from pickaxe_services.cli.door import door, source, tell_skipped
from pickaxe_services.cli.interrupt import running
from pickaxe_services.cli.making import error_line, make, out_option, overwrite_option, progress_option
from pickaxe_services.cli.options import Common, Reading, common, reading


@click.command("fit")
@click.argument("method")
@click.option("--examples", "-e", multiple=True, required=True, metavar="PATH", help="What to learn from.")
@click.option("--validation", multiple=True, metavar="PATH", help="Examples to choose by, not to learn from.")
@click.option("--unlabelled", multiple=True, metavar="PATH", help="Items without labels, for methods that use them.")
@click.option("--init-from", metavar="PATH", help="An artifact to start from.")
@click.option("--role", type=click.Choice(("scorer", "retriever", "reranker", "decoder")), help="Open it in this role.")
@out_option
@overwrite_option
@progress_option
@reading
@common
def command(
    shared: Common,
    method: str,
    examples: tuple[str, ...],
    validation: tuple[str, ...],
    unlabelled: tuple[str, ...],
    init_from: str | None,
    role: str | None,
    out: str,
    overwrite: bool,
    progress: str,
    reading: Reading,
) -> None:
    """Fit METHOD on examples and write an artifact.

    \b
      pickaxe fit zip-fit --examples targets.jsonl --out art
      pickaxe fit preselect --set benchmark_scores='[75.4, 76.3, 81.2]' --examples judged.jsonl --out art

    Stages that finished survive a crash: the same command goes on after them.  With --server the fit runs there as
    a job, and the artifact comes back to --out.
    """
    with error_line(progress), door(shared) as opened, running(shared) as call:
        given = {"examples": examples, "validation": validation, "unlabelled": unlabelled}
        reads = opened.card(method).fit_reads
        parts = {
            name: source(
                paths,
                reading if name == "examples" else reading.part(name),
                () if name == "unlabelled" else reads,
                again=overwrite,
            )
            for name, paths in given.items()
            if paths
        }
        handle = opened.open(method, role)
        start = {} if init_from is None else {"init_from": opened.artifact(init_from)}
        make(
            lambda told: handle.fit(**parts, **start, out=out, overwrite=overwrite, call=call, progress=told),
            f"fit {method}",
            out,
            progress,
            shared,
        )
        for part in parts.values():
            tell_skipped(part, shared)
