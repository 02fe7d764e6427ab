"""Checks for rerankers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pickaxe.data import Item, Ranking
from pickaxe.testing.check import check, require
from pickaxe.testing.subject import ODD_TEXTS, Subject, with_text


def _reranker(subject: Subject) -> bool:
    return "reranker" in subject.roles


def _texts(subject: Subject) -> bool:
    return _reranker(subject) and subject.reads("text", "text")


def _query(subject: Subject) -> Item:
    query = subject.example.query
    assert query is not None  # anyrole.example says so in words
    return query


@check(_reranker, wire=True)
def subset(subject: Subject) -> None:
    """The ranking holds given candidates only, each at most once, and a score for each that it holds."""
    ranking: Ranking = subject.outcome("reranker")
    given = [candidate.id for candidate in subject.example.candidates]
    require(ranking.ids, "the ranking is empty")
    require(len(set(ranking.ids)) == len(ranking), f"a candidate comes twice: {ranking.ids}")
    require(set(ranking.ids) <= set(given), f"never given: {sorted(set(ranking.ids) - set(given))}")
    require(all(given[entry.index] == entry.id for entry in ranking), "an index does not belong to its id")
    require(len(ranking.scores) == len(given), f"{len(ranking.scores)} scores for {len(given)} candidates")
    require(not any(np.isnan(entry.score) for entry in ranking), "a ranked candidate has score NaN")


@check(_reranker, wire=True)
def top_n(subject: Subject) -> None:
    """`top_n` limits how many come back; fewer come only with a reason in `cut`."""
    handle, given = subject.handle("reranker"), subject.example
    n = len(given.candidates)
    for wanted in {1, max(1, n - 1), n + 100}:
        ranking = handle.rerank(_query(subject), given.candidates, wanted)
        require(len(ranking) <= min(wanted, n), f"top_n={wanted} gives {len(ranking)} of {n}")
        require(len(ranking) == min(wanted, n) or ranking.cut, f"top_n={wanted} gives {len(ranking)} without a reason")


@check(_reranker, wire=True)
def order(subject: Subject) -> None:
    """The order in which candidates come does not decide; candidates with equal scores may swap."""
    ranking: Ranking = subject.outcome("reranker")
    backwards = subject.handle("reranker").rerank(_query(subject), subject.example.candidates[::-1])
    require(len(backwards) == len(ranking), f"{len(ranking)} candidates, {len(backwards)} when they come backwards")
    score = {entry.id: entry.score for entry in ranking}
    for place, (one, other) in enumerate(zip(ranking, backwards, strict=True)):
        tied = one.id == other.id or np.isclose(score[one.id], score.get(other.id, np.nan), rtol=1e-5, atol=1e-7)
        require(tied, f"place {place} is {one.id!r}, and {other.id!r} when the candidates come backwards")


@check(_reranker, wire=True)
def one_candidate(subject: Subject) -> None:
    """A single candidate comes back; none give an empty ranking."""
    handle, candidate = subject.handle("reranker"), subject.example.candidates[0]
    found = handle.rerank(_query(subject), [candidate]).ids
    require(found == [candidate.id], f"the only candidate {candidate.id!r} became {found}")
    require(len(handle.rerank(_query(subject), [])) == 0, "a ranking of no candidates is not empty")


@check(_texts, wire=True)
def odd_text(subject: Subject) -> None:
    """Empty and odd texts are ranked like any other."""
    given, handle = subject.example, subject.handle("reranker")
    odd = [replace(with_text(given.candidates[0], text), id=f"odd-{row}")
           for row, text in enumerate(("", *ODD_TEXTS.values()))]  # fmt: skip
    ranking = handle.rerank(_query(subject), [*odd, *given.candidates[1:]])
    require(len(ranking) or ranking.cut, "nothing is ranked, and no reason given")
