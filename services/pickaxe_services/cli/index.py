"""`pickaxe index`: also what a server runs, in a process of its own, for an index job."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pickaxe.errors import InvalidItems
from pickaxe_services.cli.door import door, source, tell_skipped
from pickaxe_services.cli.interrupt import running
from pickaxe_services.cli.making import error_line, make, out_option, overwrite_option, progress_option
from pickaxe_services.cli.options import Common, Reading, common, reading


@click.command("index")
@click.argument("method")
@click.option("--input", "--documents", "-i", "inputs", multiple=True, metavar="PATH", help="The documents.")
@click.option("--base", metavar="PATH", help="An index to start from: its documents are in the new one too.")
@click.option(
    "--remove-ids",
    metavar="FILE",
    help="Ids of documents that leave the --base: one a line, or a JSON list in a .json.",
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
    base: str | None,
    remove_ids: str | None,
    out: str,
    overwrite: bool,
    progress: str,
    reading: Reading,
) -> None:
    """Index documents for the retriever METHOD; ids must be unique.

    \b
      pickaxe index chronicles --input docs.jsonl --out idx
      pickaxe index chronicles --set mode=bm25 --input docs/ --out idx
      pickaxe index bm25 --base idx --input new.jsonl --remove-ids gone.txt --out idx2

    A fitted artifact given with --artifact goes into the index.  With --base a new index is written, and the old one
    stays as it is; with --out of the same name and --overwrite the new one takes its place.

    With --server the documents are indexed there as a job, and the index comes back to --out.
    """
    if not inputs and base is None:
        raise click.UsageError("give --input, or --base and --remove-ids")
    with error_line(progress), door(shared) as opened, running(shared) as call:
        handle = opened.open(method, "retriever")
        documents = source(inputs, reading, opened.card(method).reads, again=overwrite) if inputs else None
        start = {} if base is None else {"base": opened.artifact(base)}
        gone = {} if remove_ids is None else {"remove": read_ids(remove_ids)}
        make(
            lambda told: handle.index(
                documents or (), out=out, **start, **gone, overwrite=overwrite, call=call, progress=told
            ),
            f"index {method}",
            out,
            progress,
            shared,
        )
        if documents is not None:
            tell_skipped(documents, shared)


def read_ids(path: str) -> list[str]:
    """One id a line without the blanks around it, or a JSON list of strings in a file that ends in .json."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        found = json.loads(text) if path.endswith(".json") else [line.strip() for line in text.splitlines()]
    except (OSError, ValueError) as error:
        raise InvalidItems("--remove-ids", f"{path} cannot be read: {error}") from error
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise InvalidItems("--remove-ids", f"{path} holds no list of strings")
    return [each for each in found if each or path.endswith(".json")]
