"""Checks for retrievers."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

from pickaxe.data import SearchResults
from pickaxe.testing.check import check, require
from pickaxe.testing.plain import same
from pickaxe.testing.subject import ODD_TEXTS, Subject, answer, with_text


def _retriever(subject: Subject) -> bool:
    return "retriever" in subject.roles


def _texts(subject: Subject) -> bool:
    return _retriever(subject) and subject.reads("text", "text")


def _trainable(subject: Subject) -> bool:
    return _retriever(subject) and subject.trainable


def _indexed(subject: Subject, artifact: str | None = None) -> Path:
    """A new index of the example's documents."""
    out = subject.scratch()
    for _ in subject.open("retriever", artifact or subject.fitted()).indexing(subject.example.documents, out):
        pass
    return out


@check(_retriever)
def index_moves(subject: Subject) -> None:
    """An index can be moved: nothing in it points to where it was made."""
    made = _indexed(subject)
    moved = subject.scratch()
    shutil.move(made, moved)
    found = answer(subject.open("retriever", str(moved)), "retriever", subject.example)
    same(subject.outcome("retriever"), found, "a moved index gives other hits")


@check(_retriever)
def index_again(subject: Subject) -> None:
    """Indexing the same documents again gives the same hits."""
    found = answer(subject.open("retriever", str(_indexed(subject))), "retriever", subject.example)
    same(subject.outcome("retriever"), found, "a second index gives other hits")


@check(_retriever)
def index_progress(subject: Subject) -> None:
    """Indexing reports progress that never goes back, and takes documents that can be read only once."""
    handle = subject.open("retriever", subject.fitted())
    out = subject.scratch()
    steps: dict[str, int] = {}
    for step in handle.indexing(iter(subject.example.documents), out):
        require(step.step >= steps.get(step.stage, 0), f"stage {step.stage!r} goes back to step {step.step}")
        require(not step.total or step.step <= step.total, f"stage {step.stage!r} is at {step.step} of {step.total}")
        steps[step.stage] = step.step
    require(steps, "index reports no progress")
    found = answer(subject.open("retriever", str(out)), "retriever", subject.example)
    same(subject.outcome("retriever"), found, "documents that can be read only once give other hits")


@check(_retriever)
def index_cancel(subject: Subject) -> None:
    """An index that is given up leaves nothing where it would have been."""
    out = subject.scratch()
    running = subject.open("retriever", subject.fitted()).indexing(subject.example.documents, out)
    next(running)
    running.close()
    require(not out.exists(), "an index that was given up is there")


@check(_retriever, wire=True)
def large_k(subject: Subject) -> None:
    """Asking for more hits than there are documents gives what there is."""
    handle, given = subject.handle("retriever"), subject.example
    n = len(given.documents)
    found: SearchResults = handle.search(given.queries, n + 100)
    require(all(len(hits) <= n for hits in found), f"more hits than the {n} documents")
    for all_hits, hits in zip(found, handle.search(given.queries, 1), strict=True):
        require(len(hits) <= 1, "k=1 gives several hits")
        require(bool(hits) == bool(all_hits), "whether there is a hit depends on k")


@check(_retriever, wire=True)
def falling_scores(subject: Subject) -> None:
    """Hits come best first."""
    for row, hits in enumerate(subject.outcome("retriever")):
        falling = all(one.score >= other.score for one, other in pairwise(hits))
        require(falling, f"the scores of query {row} rise: {[hit.score for hit in hits]}")


@check(_retriever, wire=True)
def known_ids(subject: Subject) -> None:
    """Hits are documents of the index, each at most once."""
    known = {document.id for document in subject.example.documents}
    results: Any = subject.outcome("retriever")
    require(any(len(hits) for hits in results), "the example's queries find nothing")
    for row, hits in enumerate(results):
        ids = [hit.id for hit in hits]
        require(len(set(ids)) == len(ids), f"query {row} has an id twice: {ids}")
        require(set(ids) <= known, f"query {row} has ids that were never indexed: {sorted(set(ids) - known)}")


@check(_retriever, wire=True)
def no_queries(subject: Subject) -> None:
    """No queries give no results."""
    require(len(subject.handle("retriever").search([], 3)) == 0, "results came back for no queries")


@check(_retriever, wire=True)
def queries_apart(subject: Subject) -> None:
    """A query's hits do not depend on the other queries of the call."""
    handle, given = subject.handle("retriever"), subject.example
    for row, query in enumerate(given.queries):
        alone = handle.search([query], len(given.documents))
        ids = [hit.id for hit in subject.outcome("retriever")[row]]
        require(
            [hit.id for hit in alone[0]] == ids, f"query {row} alone finds {[hit.id for hit in alone[0]]}, not {ids}"
        )


@check(_texts, wire=True)
def odd_text(subject: Subject) -> None:
    """Empty and odd queries are answered like any other."""
    query = subject.example.queries[0]
    odd = [with_text(query, text) for text in ("", *ODD_TEXTS.values())]
    found = subject.handle("retriever").search(odd, 3)
    require(len(found) == len(odd), "not every query has a result")


@check(_texts)
def odd_documents(subject: Subject) -> None:
    """Empty and odd documents can be indexed beside others."""
    from dataclasses import replace

    given = subject.example
    odd = [replace(with_text(given.documents[0], text), id=f"odd-{row}")
           for row, text in enumerate(("", *ODD_TEXTS.values()))]  # fmt: skip
    out = subject.scratch()
    for _ in subject.open("retriever", subject.fitted()).indexing([*given.documents, *odd], out):
        pass
    subject.open("retriever", str(out)).search(given.queries, 3)


@check(_trainable)
def fit_index_search(subject: Subject) -> None:
    """A fitted artifact goes into the index, and the index answers without it."""
    fitted = subject.fit()
    index = _indexed(subject, fitted)
    shutil.rmtree(fitted)
    found = answer(subject.open("retriever", str(index)), "retriever", subject.example)
    require(len(found) == len(subject.example.queries), "the index of a fitted retriever does not answer")
