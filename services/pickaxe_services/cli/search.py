"""`pickaxe search`: queries against an index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from typing import Any

import click

from pickaxe.data import Hit, Item
from pickaxe.io.items import item_to_json
from pickaxe.io.resume import output
from pickaxe.io.rows import Row, hit_row
from pickaxe.io.writers import encoding
from pickaxe.pipelines import texts_of
from pickaxe_services.cli import console
from pickaxe_services.cli.door import door, require_role, source
from pickaxe_services.cli.interrupt import running
from pickaxe_services.cli.options import Common, Reading, common, reading
from pickaxe_services.cli.trec import trec_encoding, trec_lines

BATCH = 64
"""Queries per call."""


@click.command("search")
@click.argument("method")
@click.option("--query", multiple=True, metavar="TEXT", help="A query; may be given several times.")
@click.option("--queries", multiple=True, metavar="PATH", help="Files of queries.")
@click.option("-k", type=click.IntRange(min=1), default=10, show_default=True, help="Hits per query.")
@click.option("--output", "-o", "out", default="-", show_default=True, metavar="PATH", help="Where the hits go.")
@click.option("--trec", is_flag=True, help="Write a TREC run: query Q0 document rank score tag.")
@click.option("--run", "run", metavar="FILE", help="Write a TREC run to this file, beside the output.")
@click.option("--with-text", is_flag=True, help="Tell the texts of query and hits, for `pickaxe rerank --input -`.")
@click.option("--overwrite", is_flag=True, help="Replace an output that is there.")
@reading
@common
def command(
    shared: Common,
    method: str,
    query: tuple[str, ...],
    queries: tuple[str, ...],
    k: int,
    out: str,
    trec: bool,
    run: str | None,
    with_text: bool,
    overwrite: bool,
    reading: Reading,
) -> None:
    """Search the index --artifact with the retriever METHOD.

    \b
      pickaxe search chronicles --artifact idx --query 'who built the canal' -k 5
      pickaxe search chronicles --artifact idx --queries topics.jsonl --run run.trec -o hits.jsonl
      pickaxe search bm25 --artifact idx --queries topics.jsonl --with-text | pickaxe rerank fullrank --input -

    One line of JSON per query: {"query": id, "hits": [{"id", "score", ...}]}.  For a --query on a terminal, a table.
    """
    if bool(query) == bool(queries):
        raise click.UsageError("give either --query or --queries")
    with door(shared) as opened, running(shared) as call:
        card = opened.card(method)
        require_role(card, "retriever")
        handle = opened.open(method, "retriever")
        asked: Iterator[Item]
        if query:
            asked = (Item(str(row), text) for row, text in enumerate(query, 1))
        else:
            asked = iter(source(queries, reading, once=True))
        pretty = bool(query) and out == "-" and not (shared.json or trec or with_text)
        with ExitStack() as stack:
            form = trec_encoding(out) if trec else encoding(out, tables=False)
            file = stack.enter_context(output(out, form, overwrite=overwrite))
            beside = stack.enter_context(output(run, trec_encoding(run), overwrite=overwrite)) if run else None
            while part := list(islice(asked, BATCH)):
                results = handle.search(part, k, call=call)
                for item, hits in zip(part, results, strict=True):
                    if beside is not None:
                        beside.append_raw(trec_lines(item.id, [(hit.id, hit.score) for hit in hits], card.name))
                    if pretty:
                        _show(item, hits)
                    elif trec:
                        file.append_raw(trec_lines(item.id, [(hit.id, hit.score) for hit in hits], card.name))
                    else:
                        file.append([_with_text(handle, item, hits) if with_text else _row(item, hits)])
    if out != "-":
        console.note(f"searched for {file.done} queries -> {out}", shared.quiet)


def _row(query: Item, hits: Sequence[Hit]) -> Row:
    return {"query": query.id, "hits": [hit_row(hit) for hit in hits]}


def _with_text(handle: Any, query: Item, hits: Sequence[Hit]) -> Row:
    """The same with the texts, which the index keeps."""
    found = texts_of(handle, [hit.id for hit in hits])
    rows = [{**item_to_json(item), **hit_row(hit)} for item, hit in zip(found, hits, strict=True)]
    return {"query": query.id, "text": query.text, "hits": rows}


def _show(query: Item, hits: Sequence[Hit]) -> None:
    names = list(hits[0].columns) if hits else []
    rows = [
        (rank, hit.id, f"{hit.score:.6g}", *(f"{hit.columns.get(name, float('nan')):.6g}" for name in names))
        for rank, hit in enumerate(hits, 1)
    ]
    console.table(("rank", "id", "score", *names), rows, title=query.text or query.id)
