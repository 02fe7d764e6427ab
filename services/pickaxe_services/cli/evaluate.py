"""`pickaxe evaluate`: how good a TREC run is by judgments."""

from __future__ import annotations

import click

from pickaxe.evaluation import DEFAULT, evaluate, means
from pickaxe.metrics import read_run
from pickaxe_services.cli import console
from pickaxe_services.cli.trec import read_qrels


@click.command("evaluate")
@click.option(
    "--run", "runs", multiple=True, required=True, metavar="FILE", help="A TREC run; may be given several times."
)
@click.option("--qrels", required=True, metavar="FILE", help="TREC judgments: query 0 document grade.")
@click.option(
    "--metrics", default=" ".join(DEFAULT), show_default=True, metavar="NAMES", help="Measures of ir-measures."
)
@click.option("--by-query", is_flag=True, help="A line of JSON per run and query, too.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON per run instead of a table.")
def command(runs: tuple[str, ...], qrels: str, metrics: str, by_query: bool, as_json: bool) -> None:
    """Measure runs of `search --run` or `rerank --out-run` against judgments.

    \b
      pickaxe evaluate --run bm25.trec --run better.trec --qrels qrels.txt
      pickaxe evaluate --run out.trec --qrels qrels.txt --metrics 'nDCG@10 AP R@1000' --json

    Every judged query counts: one that a run lacks has found nothing.
    """
    names = metrics.split()
    judged = read_qrels(qrels)
    rows = []
    for path in runs:
        values = evaluate(read_run(path), judged, names)
        average = means(values)
        rows.append((path, *(f"{average[name]:.4f}" for name in names)))
        if by_query:
            for query in sorted(judged):
                console.emit({"run": path, "query": query, **{name: values[name].get(query, 0.0) for name in names}})
        if as_json:
            console.emit({"run": path, "queries": len(judged), **average})
    if not as_json:
        console.table(("run", *names), rows)
