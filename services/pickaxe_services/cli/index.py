"""`pickaxe index`: also what a server runs, in a process of its own, for an index job."""

from __future__ import annotations

import click

from pickaxe_services.cli.door import door, running, source, tell_skipped
from pickaxe_services.cli.making import error_line, make, out_option, overwrite_option, progress_option
from pickaxe_services.cli.options import Common, Reading, common, reading


@click.command("index")
@click.argument("method")
@click.option(
    "--input", "--documents", "-i", "inputs", multiple=True, required=True, metavar="PATH", help="The documents."
)
@out_option
@overwrite_option
@progress_option
@reading
@common
def command(
    shared: Common,
    method: str,
    inputs: tuple[str, ...],
    out: str,
    overwrite: bool,
    progress: str,
    reading: Reading,
) -> None:
    """Index documents for the retriever METHOD; ids must be unique.

    \b
      pickaxe index chronicles --input docs.jsonl --out idx
      pickaxe index chronicles --set mode=bm25 --input docs/ --out idx

    A fitted artifact given with --artifact goes into the index.  With --server the documents are indexed there as a
    job, and the index comes back to --out.
    """
    with error_line(progress), door(shared) as opened, running(shared) as call:
        handle = opened.open(method, "retriever")
        documents = source(inputs, reading, opened.card(method).reads, again=overwrite)
        make(
            lambda told: handle.index(documents, out=out, overwrite=overwrite, call=call, progress=told),
            f"index {method}",
            out,
            progress,
            shared,
        )
        tell_skipped(documents, shared)
