"""`pickaxe compare`: several methods on the same input, their agreement, cost and quality."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import click

from pickaxe import evaluation
from pickaxe.call import Call
from pickaxe.data import Sampling
from pickaxe.durable import write_durably
from pickaxe.errors import AlreadyExists, InvalidItems
from pickaxe.extras import require
from pickaxe.io.prompts import prompt_of
from pickaxe.metrics import read_run
from pickaxe_services.cli import console, contests
from pickaxe_services.cli.compared import Compared, answer, page, tables
from pickaxe_services.cli.decode import prompt_check
from pickaxe_services.cli.door import source, tell_skipped
from pickaxe_services.cli.entrants import ROLES, Entrant, Ran, common_role, entrants, run_all
from pickaxe_services.cli.interrupt import running
from pickaxe_services.cli.options import Common, Reading, common, reading
from pickaxe_services.cli.rerank import embedded, of_run
from pickaxe_services.cli.trec import read_qrels, trec_lines


@dataclass(frozen=True)
class _Asked:
    """What the options of the command ask for."""

    on: tuple[str, ...]
    k: int | None
    label: str | None
    qrels: str | None
    metrics: str | None
    reference: str | None
    run: str | None
    candidates: tuple[str, ...]
    run_dir: Path | None
    sampling: Sampling
    chat: bool
    reading: Reading

    def allow(self, role: str) -> None:
        """Raise `click.UsageError` for an option that does nothing in this role."""
        rankings = role in ("retriever", "reranker")
        wrong = {
            "--label": self.label is not None and role != "scorer",
            "--qrels": self.qrels is not None and not rankings,
            "--run-dir": self.run_dir is not None and not rankings,
            "--reference": self.reference is not None and role != "decoder",
            "-k": self.k is not None and role == "decoder",
            "--run and --candidates": bool(self.run or self.candidates) and role != "reranker",
        }
        if given := [name for name, found in wrong.items() if found]:
            raise click.UsageError(f"{given[0]} says nothing about {role}s")
        if self.metrics is not None and self.qrels is None:
            raise click.UsageError("--metrics needs --qrels to measure by")
        if bool(self.run) != bool(self.candidates):
            raise click.UsageError("give --run and --candidates together; --on then has the queries")

    @property
    def depth(self) -> int:
        """Of overlap and of the measures of rankings."""
        return self.k or 10

    @cached_property
    def judgments(self) -> contests.Judgments | None:
        """Read and checked before any method runs."""
        if self.qrels is None:
            return None
        measures = tuple(dict.fromkeys((self.metrics or f"nDCG@{self.depth} RR@{self.depth} R@{self.depth}").split()))
        evaluation.check(measures)
        return contests.Judgments(read_qrels(self.qrels), measures)


@click.command("compare")
@click.argument("methods", nargs=-1, required=True)
@click.option("--on", multiple=True, required=True, metavar="PATH", help="Items, queries or prompts; or -.")
@click.option(
    "--role", type=click.Choice(ROLES), help="What to compare the methods as; otherwise what all of them are."
)
@click.option("-k", type=click.IntRange(min=1), help="Depth of overlap and of measures; 10, or a tenth of the items.")
@click.option("--label", metavar="FIELD", help="Scorers: the field that scores should agree with.")
@click.option("--qrels", metavar="FILE", help="Retrievers and rerankers: TREC judgments.")
@click.option("--metrics", metavar="NAMES", help="With --qrels: measures of ir-measures instead of nDCG, RR, R at k.")
@click.option("--reference", metavar="FIELD", help="Decoders: the field with the right answer, or a list of them.")
@click.option("--run", metavar="FILE", help="Rerankers: a TREC run; candidates of each query, found in --candidates.")
@click.option("--candidates", multiple=True, metavar="PATH", help="Rerankers: documents of the --run.")
@click.option(
    "--run-dir", type=click.Path(path_type=Path, file_okay=False), help="Write LABEL.trec of each method here."
)
@click.option("--chat", is_flag=True, help="Decoders: bare texts are messages of a user.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Decoders: most tokens per prompt.")
@click.option("--temperature", type=click.FloatRange(min=0), help="Decoders: 0 is greedy.")
@click.option("--draws", type=click.IntRange(min=1), default=1000, show_default=True, help="Draws of the bootstrap.")
@click.option(
    "--level", type=click.FloatRange(0, 1, True, True), default=0.95, show_default=True, help="Level of intervals."
)
@click.option("--output", "-o", "out", type=click.Path(path_type=Path, dir_okay=False), help="Write it all as JSON.")
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), help="Write a page of HTML.")
@click.option("--overwrite", is_flag=True, help="Replace outputs that are there.")
@reading
@common
def command(
    shared: Common,
    methods: tuple[str, ...],
    role: str | None,
    draws: int,
    level: float,
    out: Path | None,
    report: Path | None,
    overwrite: bool,
    max_tokens: int | None,
    temperature: float | None,
    **given: Any,
) -> None:
    """Run METHODS on the same input and compare them.

    \b
      pickaxe compare min-k-prob zip-fit@art --on corpus.jsonl --label good --report report.html
      pickaxe compare a=min-k-prob b=min-k-prob --set b.ratio=0.5 --on corpus.jsonl
      pickaxe compare bm=chronicles@idx two=chronicles@idx2 --on topics.jsonl --qrels qrels.txt
      pickaxe compare bm=chronicles@idx two=chronicles@idx2 --on topics.jsonl --qrels qrels.txt --metrics 'AP R@100'

    A method is given as [LABEL=]METHOD[@ARTIFACT]; --set LABEL.KEY=VALUE sets its parameters, and --artifact serves
    those that name none.
    """
    asked = _Asked(sampling=Sampling(max_tokens, temperature), **given)
    compared = entrants(methods, shared)
    role = common_role(compared, role)
    asked.allow(role)
    runs = {} if asked.run_dir is None else {each.label: asked.run_dir / f"{each.label}.trec" for each in compared}
    for path in (*runs.values(), *([out] if out else [])):
        if path.exists() and not overwrite:
            raise AlreadyExists(f"{str(path)!r} exists: name another, or give --overwrite", metadata={"path": path})
    for library in ("matplotlib", "jinja2") if report is not None else ():
        require(library, extra="plot")
    with running(shared) as call:
        ran, findings = _CONTESTS[role](compared, shared, asked, call)
    done = Compared.of(role, ran, findings, asked.on, shared.seed, draws, level)
    if out is not None:
        write_durably(out, json.dumps(done.as_json(), indent=1, ensure_ascii=False).encode() + b"\n")
    if report is not None:
        page(done).write(report)
    _show(done, shared)
    for each in ran if runs else ():
        lines = [trec_lines(query, found, each.label) for query, found in each.result.items()]
        runs[each.label].parent.mkdir(parents=True, exist_ok=True)
        write_durably(runs[each.label], b"".join(lines))


def _show(done: Compared, shared: Common) -> None:
    if shared.json:
        console.emit(done.as_json())
        return
    for table in tables(done):
        console.table(table.columns, [[text for text, _ in row] for row in table.shown], title=table.caption)
        print()
    for sentence in answer(done):
        print(sentence)


_Outcome = tuple[list[Ran[Any]], contests.Findings]


def _scorers(compared: Sequence[Entrant], shared: Common, asked: _Asked, call: Call) -> _Outcome:
    reads = tuple(dict.fromkeys(field for each in compared for field in each.card.reads))
    read = source(asked.on, asked.reading, reads, once=True)
    items = list(read)
    _require(items, "items")
    tell_skipped(read, shared)
    labels = None if asked.label is None else contests.labels_of(items, asked.label)
    ran = run_all(compared, shared, "scorer", call, contests.score(items, call))
    return list(ran), contests.compare_scores(ran, labels, asked.k)


def _retrievers(compared: Sequence[Entrant], shared: Common, asked: _Asked, call: Call) -> _Outcome:
    read = source(asked.on, asked.reading, once=True)
    queries = list(read)
    _require(queries, "queries")
    tell_skipped(read, shared)
    _unique(each.id for each in queries)
    judgments = asked.judgments
    ran = run_all(compared, shared, "retriever", call, contests.retrieve(queries, asked.depth, call))
    return list(ran), contests.compare_rankings(ran, judgments, asked.depth)


def _rerankers(compared: Sequence[Entrant], shared: Common, asked: _Asked, call: Call) -> _Outcome:
    read = source(asked.on, asked.reading, once=True)
    if asked.run:
        documents = source(asked.candidates, asked.reading.part("candidates"))
        questions = list(of_run(read_run(asked.run), read, documents))
    else:
        questions = list(embedded(read))
    _require(questions, "queries")
    tell_skipped(read, shared)
    _unique(query.id for query, _ in questions)
    judgments = asked.judgments
    ran = run_all(compared, shared, "reranker", call, contests.rerank(questions, call))
    return list(ran), contests.compare_rankings(ran, judgments, asked.depth)


def _decoders(compared: Sequence[Entrant], shared: Common, asked: _Asked, call: Call) -> _Outcome:
    read = source(asked.on, asked.reading, check=prompt_check(asked.sampling, asked.chat), once=True)
    records = list(read.records())
    _require(records, "prompts")
    tell_skipped(read, shared)
    prompts = [prompt_of(each.item, each.where, asked.sampling, asked.chat) for each in records]
    items = [each.item for each in records]
    references = None if asked.reference is None else contests.references_of(items, asked.reference)
    ran = run_all(compared, shared, "decoder", call, contests.continue_prompts(prompts, call))
    return list(ran), contests.compare_texts(ran, references)


_CONTESTS = {"scorer": _scorers, "retriever": _retrievers, "reranker": _rerankers, "decoder": _decoders}


def _require(found: Sequence[Any], what: str) -> None:
    if not found:
        raise InvalidItems("--on", f"has no {what}")


def _unique(ids: Iterable[str]) -> None:
    met: set[str] = set()
    for each in ids:
        if each in met:
            raise InvalidItems(f"query {each!r}", "is there more than once: rankings are told apart by query id")
        met.add(each)
