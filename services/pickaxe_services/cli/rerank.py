"""`pickaxe rerank`: candidates of one query, or of many."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import click

from pickaxe.data import Item, Ranking
from pickaxe.errors import InvalidItems
from pickaxe.io.items import item_from_json
from pickaxe.io.readers import Source
from pickaxe.io.resume import output
from pickaxe.io.rows import ranking_row
from pickaxe.io.writers import encoding
from pickaxe.metrics import read_run
from pickaxe_services.cli import console
from pickaxe_services.cli.door import door, require_role, source
from pickaxe_services.cli.interrupt import running
from pickaxe_services.cli.options import Common, Reading, common, reading
from pickaxe_services.cli.trec import trec_encoding, trec_lines

Question = tuple[Item, list[Item]]


@click.command("rerank")
@click.argument("method")
@click.option("--query", metavar="TEXT", help="The query, with --candidates.")
@click.option("--candidates", multiple=True, metavar="PATH", help="Files of candidates.")
@click.option("--run", metavar="FILE", help="A TREC run: candidates of each of --queries, found by id in --candidates.")
@click.option("--queries", multiple=True, metavar="PATH", help="Queries of the --run.")
@click.option("--input", "-i", "inputs", multiple=True, metavar="PATH", help='Queries with their own "candidates".')
@click.option("--top", "-n", type=click.IntRange(min=0), default=0, show_default=True, help="Most to return; 0: all.")
@click.option("--output", "-o", "out", default="-", show_default=True, metavar="PATH", help="Where the orders go.")
@click.option("--trec", is_flag=True, help="Write a TREC run: query Q0 document rank score tag.")
@click.option("--out-run", metavar="FILE", help="Write a TREC run to this file, beside the output.")
@click.option("--overwrite", is_flag=True, help="Replace an output that is there.")
@reading
@common
def command(
    shared: Common,
    method: str,
    query: str | None,
    candidates: tuple[str, ...],
    run: str | None,
    queries: tuple[str, ...],
    inputs: tuple[str, ...],
    top: int,
    out: str,
    trec: bool,
    out_run: str | None,
    overwrite: bool,
    reading: Reading,
) -> None:
    """Put candidates into a better order with METHOD.

    \b
      pickaxe rerank fullrank --query 'who built the canal' --candidates hits.jsonl
      pickaxe rerank fullrank --run run.trec --queries topics.jsonl --candidates docs.jsonl --trec -o better.trec
      pickaxe rerank fullrank --input questions.jsonl -o orders.jsonl

    A line of --input is a query: {"id", "text", "candidates": [{"id", "text"}, ...]}, or what search --with-text wrote.
    In the run of --out-run a document's score is 1 / its place: readers of runs go by scores.
    """
    forms = (bool(query and candidates and not (run or queries)), bool(run and queries and candidates), bool(inputs))
    if sum(forms) != 1:
        raise click.UsageError("give --query and --candidates, or --run, --queries and --candidates, or --input")
    with door(shared) as opened, running(shared) as call:
        card = opened.card(method)
        require_role(card, "reranker")
        handle = opened.open(method, "reranker")
        if query:
            questions = iter([(Item("query", query), list(source(candidates, reading)))])
        elif run:
            questions = of_run(read_run(run), source(queries, reading), source(candidates, reading.part("candidates")))
        else:
            questions = embedded(source(inputs, reading, once=True))
        pretty = query is not None and out == "-" and not (shared.json or trec)
        with ExitStack() as stack:
            form = trec_encoding(out) if trec else encoding(out, tables=False)
            file = stack.enter_context(output(out, form, overwrite=overwrite))
            beside = None
            if out_run:
                beside = stack.enter_context(output(out_run, trec_encoding(out_run), overwrite=overwrite))
            for question, found in questions:
                ranking = handle.rerank(question, found, top, call=call)
                if beside is not None:
                    beside.append_raw(trec_lines(question.id, places(ranking), card.name))
                if pretty:
                    _show(question, ranking)
                elif trec:
                    file.append_raw(trec_lines(question.id, [(each.id, each.score) for each in ranking], card.name))
                else:
                    file.append([ranking_row(question.id, ranking)])
    if out != "-":
        console.note(f"reranked for {file.done} queries -> {out}", shared.quiet)


def of_run(run: Mapping[str, list[str]], queries: Source, candidates: Source) -> Iterator[Question]:
    """Queries in their file's order, with the run's documents; only those are kept in memory."""
    wanted = {document for documents in run.values() for document in documents}
    held = {item.id: item for item in candidates if item.id in wanted}
    if missing := sorted(wanted - held.keys()):
        raise InvalidItems("--candidates", f"lacks {len(missing)} documents of the run, e.g. {missing[0]!r}")
    met = set()
    for query in queries:
        met.add(query.id)
        if query.id in run:
            yield query, [held[document] for document in run[query.id]]
    if unknown := sorted(run.keys() - met):
        raise InvalidItems("--queries", f"lacks {len(unknown)} queries of the run, e.g. {unknown[0]!r}")


def embedded(inputs: Source) -> Iterator[Question]:
    """Queries that bring their own candidates."""
    for record in inputs.records():
        item = record.item
        if "hits" in item.fields and "candidates" not in item.fields:
            item = _of_search(item)
        name = f"{record.where}.candidates"
        value = item.fields.get("candidates")
        listed = value.get("candidates") if isinstance(value, Mapping) else value
        if not isinstance(listed, (list, tuple)):
            raise InvalidItems(name, "is missing or no list")
        found = [
            Item(str(row), part) if isinstance(part, str) else item_from_json(part, f"{name}[{row}]", str(row))
            for row, part in enumerate(listed)
        ]
        rest = {key: field for key, field in item.fields.items() if key != "candidates"}
        yield Item(item.id, item.text, rest), found


def _of_search(item: Item) -> Item:
    """A line of `search --with-text`: the query's id stands under "query", its candidates under "hits"."""
    hits: Any = item.fields["hits"]
    rest = {key: value for key, value in item.fields.items() if key not in ("hits", "query")}
    listed = hits.get("hits") if isinstance(hits, Mapping) else hits
    if not isinstance(listed, (list, tuple)) or not all(isinstance(hit, Mapping) and "text" in hit for hit in listed):
        raise InvalidItems("hits", "have no texts: search --with-text writes them")
    told = ("score", "columns", "spans")
    candidates = [{key: value for key, value in hit.items() if key not in told} for hit in listed]
    return Item(str(item.fields.get("query", item.id)), item.text, {**rest, "candidates": {"candidates": candidates}})


def places(ranking: Ranking) -> list[tuple[str, float]]:
    """Ids with scores that fall with the places."""
    return [(each.id, 1 / place) for place, each in enumerate(ranking, 1)]


def _show(query: Item, ranking: Ranking) -> None:
    rows = [(rank, each.id, f"{each.score:.6g}", each.index + 1) for rank, each in enumerate(ranking, 1)]
    console.table(("rank", "id", "score", "was"), rows, title=query.text or "")
    if ranking.cut:
        print(f"cut: {ranking.cut}")
