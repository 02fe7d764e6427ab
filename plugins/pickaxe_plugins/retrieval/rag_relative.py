"""The evaluation protocol of The Chronicles of RAG (arXiv:2401.07883): scores relative to a perfect retriever."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

import pickaxe
from pickaxe import (
    Call,
    Column,
    Example,
    Groups,
    Hit,
    InputField,
    Item,
    Items,
    Method,
    MethodRef,
    Scores,
    Span,
    metrics,
)
from pickaxe.answers import exact_match, token_f1
from pickaxe.errors import InvalidItems, Violation
from pickaxe.hooks import hookimpl

WEIGHTS_AT_ONCE = 2_000_000
"""Entries of a block of resampling weights."""


class Params(pickaxe.Params):
    judge: Literal["given", "exact-match", "token-f1"] = Field(
        "given",
        description="Where scores come from: the field `score`, or `answer` compared with `answers` by exact match "
        "or token F1.",
    )
    judge_scorer: MethodRef | None = Field(
        None, description="A scorer whose primary column, in [0, 1], judges instead; null: `judge` does."
    )
    ks: tuple[int, ...] = Field((3, 5, 7, 9), description="Cut-offs of recall.")
    mrr_at: int = Field(10, ge=1, description="Cut-off of the mean reciprocal rank.")
    bootstrap: int = Field(1000, ge=1, description="Resamplings of the questions for the intervals.")
    confidence: float = Field(0.95, gt=0, lt=1, description="Share of resamplings that an interval holds.")

    @field_validator("ks")
    @classmethod
    def _at_least_one(cls, ks: tuple[int, ...]) -> tuple[int, ...]:
        if any(k < 1 for k in ks) or len(set(ks)) < len(ks):
            raise ValueError(f"cut-offs must be at least 1 and differ (got {ks})")
        return ks


@dataclass
class _System:
    """The rows of one system: question → row of the items."""

    name: str
    reference: str
    rows: dict[str, int] = field(default_factory=dict)


class RagRelative(Method[Params]):
    """How much of the score with a perfect retriever each question-answering system keeps.

    relative = mean score / mean score of the reference system over the same questions; degradation = 1 - relative.
    Means are divided, never scores of single questions.  Every item of a system gets the system's values.
    """

    title = "The Chronicles of RAG: The Retriever, the Chunk and the Generator"
    paper = "arXiv:2401.07883"
    version = 1
    Params = Params
    scope = "pool"
    reads = (
        InputField("system", "text", "The system that answered."),
        InputField("reference_system", "text", "The system that answered with the gold chunk in its prompt."),
        InputField("question", "text", "The question's id; without it, the item's place within its system.", False),
        InputField("score", "float64", "The judge's score in [0, 1]; wanted when judge is given.", False),
        InputField("answer", "text", "The system's answer; wanted by the other judges.", False),
        InputField("answers", "texts", "Right answers; wanted by the other judges.", False),
        InputField("rank_of_gold", "int64", "Rank of the gold chunk, 0: not retrieved; absent: no gold chunk.", False),
        InputField("k", "int64", "Chunks in the prompt, for the report.", False),
        InputField("chunk_size", "int64", "Words in a chunk, for the report.", False),
    )
    cost = "One matrix product of resampling weights (draws, questions) and scores (questions, systems)."
    reproduced = "The definitions; the paper's own questions and answers were not published."

    @classmethod
    def example(cls) -> Example:
        scores = {"gold chunk": (1.0, 1.0, 0.5), "bm25": (1.0, 0.5, 0.5), "dense": (0.5, 0.0, 0.5)}
        ranks = {"gold chunk": (1, 1, 1), "bm25": (1, 4, 1), "dense": (2, 0, 3)}
        return Example(
            items=tuple(
                Item(
                    f"{system}/{row}",
                    fields={
                        "system": system, "reference_system": "gold chunk", "question": f"q{row}",
                        "score": score, "rank_of_gold": ranks[system][row],
                    },
                )
                for system, values in scores.items()
                for row, score in enumerate(values)
            ),
            ordered=True,
        )  # fmt: skip

    # ------------------------------------------------------------ columns

    @property
    def _quantities(self) -> dict[str, tuple[str, Literal["higher", "lower"], bool]]:
        """Column → what it is, its direction, whether it may be missing."""
        retrieval = {f"mrr@{self.params.mrr_at}": "Mean reciprocal rank of the gold chunk"}
        retrieval |= {
            f"recall@{k}": f"Share of questions whose gold chunk is among the first {k}" for k in self.params.ks
        }
        return {
            "relative": ("The system's mean score over the reference's", "higher", False),
            "degradation": ("1 - relative", "lower", False),
            "mean_score": ("Mean score of the system's questions", "higher", False),
            **{name: (doc, "higher", True) for name, doc in retrieval.items()},
        }

    def declared_columns(self) -> tuple[Column, ...]:
        columns = []
        for name, (doc, direction, nullable) in self._quantities.items():
            columns.append(Column(name, doc + ".", "float64", "", direction, nullable))
            for end, word in (("low", "Lower"), ("high", "Upper")):
                columns.append(Column(f"{name}_{end}", f"{word} end of its interval.", "float64", "", "none", True))
        return tuple(columns)

    # ------------------------------------------------------------ score

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        scores = self._judged(items, call)
        systems = _systems(items)
        table = {
            name: self._row(system, systems[system.reference], items, scores, call) for name, system in systems.items()
        }
        rows = [table[str(item.get("system"))] for item in items]
        columns = {each.name: np.array([row[each.name] for row in rows]) for each in self.declared_columns()}
        schema = (*self.declared_columns(), *COUNTS)
        groups = Groups(
            tuple(table), {each.name: np.array([row[each.name] for row in table.values()]) for each in schema}, schema
        )
        report = [{"system": name, **row} for name, row in table.items()]
        return Scores(columns, groups, {"systems": report, "bootstrap": self.params.bootstrap, "seed": call.seed})

    def _row(self, system: _System, reference: _System, items: Items, scores: np.ndarray, call: Call) -> dict[str, Any]:
        """The system's line of the report; floats are NaN where there is no value."""
        call.check()
        common = [question for question in system.rows if question in reference.rows]
        mine = np.array([system.rows[question] for question in common], np.int64)
        theirs = np.array([reference.rows[question] for question in common], np.int64)
        if not common or scores[theirs].mean() == 0:
            raise InvalidItems(
                f"reference_system {system.reference!r}",
                f"has mean score 0 over the questions of system {system.name!r}, so nothing can be relative to it"
                if common
                else f"answered none of the questions of system {system.name!r}: name the same questions in both",
            )
        ranks = [items[row].get("rank_of_gold") for row in mine]
        known = np.array([rank is not None for rank in ranks])
        places = np.array([0 if rank is None else rank for rank in ranks])
        found = {f"mrr@{self.params.mrr_at}": metrics.reciprocal_ranks(places, self.params.mrr_at)}
        found |= {f"recall@{k}": metrics.hits(places, k) for k in self.params.ks}
        # One column per sum that any figure needs: resampling then is one product of weights and sums.
        sums = np.column_stack([scores[mine], scores[theirs], np.ones(len(mine)), known, *found.values()])
        whole = self._figures(sums.sum(0, keepdims=True), tuple(found))
        drawn = self._figures(self._resampled(sums, call), tuple(found))
        tail = (1 - self.params.confidence) / 2
        row: dict[str, Any] = {}
        for name, value in whole.items():
            real = drawn[name][~np.isnan(drawn[name])]
            low, high = np.quantile(real, [tail, 1 - tail]) if len(real) else (np.nan, np.nan)
            row |= {name: float(value[0]), f"{name}_low": float(low), f"{name}_high": float(high)}
        return row | {
            "questions": len(mine),
            "excluded": len(system.rows) - len(mine),
            "without_gold_chunk": int((~known).sum()),
            "k": _shared(items, mine, "k"),
            "chunk_size": _shared(items, mine, "chunk_size"),
        }

    def _figures(self, sums: np.ndarray, found: Sequence[str]) -> dict[str, np.ndarray]:
        """Column → values (draws,) from sums (draws, 4 + retrieval metrics); questions without gold chunk sum to 0."""
        mine, theirs, count, known = sums[:, :4].T
        relative = _ratio(mine, theirs)
        figures = {"relative": relative, "degradation": 1 - relative, "mean_score": mine / count}
        return figures | {name: _ratio(sums[:, 4 + column], known) for column, name in enumerate(found)}

    def _resampled(self, sums: np.ndarray, call: Call) -> np.ndarray:
        """(draws, columns): the column sums over questions drawn with replacement.

        Systems with equally many questions get the same draws, so that they are compared on the same questions.
        """
        n = len(sums)
        random = pickaxe.generator(call.seed, "rag-relative", n)
        step = max(1, WEIGHTS_AT_ONCE // n)
        blocks = []
        for start in range(0, self.params.bootstrap, step):
            call.check()
            count = min(step, self.params.bootstrap - start)
            blocks.append(random.multinomial(n, np.full(n, 1 / n), size=count) @ sums)
        return np.concatenate(blocks)

    def _judged(self, items: Items, call: Call) -> np.ndarray:
        """Each item's score, float64 in [0, 1]."""
        judge, scorer = self.params.judge, self.params.judge_scorer
        if scorer is not None:
            scores = np.asarray(self.host.scorer(scorer).score(items, call=call).primary, np.float64)
        elif judge == "given":
            scores = np.asarray(items.column("score"), np.float64)
        else:
            compare = exact_match if judge == "exact-match" else token_f1
            answers, right = items.column("answer"), items.column("answers")
            scores = np.array(
                [
                    max((compare(answer, each) for each in each_right), default=0.0)
                    for answer, each_right in zip(answers, right, strict=True)
                ]
            )
        outside = np.flatnonzero(~((scores >= 0) & (scores <= 1)))
        if len(outside):
            raise InvalidItems(
                Violation(f"items[{row}].score", f"is {scores[row]:g}, wanted 0 to 1 (item {items[row].id!r})")
                for row in outside.tolist()
            )
        return scores


COUNTS = (
    Column("questions", "Questions that count.", "int64", "", "none"),
    Column("excluded", "Questions that the reference system did not answer, left out.", "int64", "", "none"),
    Column("without_gold_chunk", "Questions left out of the retrieval metrics.", "int64", "", "none"),
    Column("k", "Chunks in the prompt, where all items say the same.", "float64", "", "none", True),
    Column("chunk_size", "Words in a chunk, where all items say the same.", "float64", "words", "none", True),
)


def _systems(items: Items) -> dict[str, _System]:
    """Name → rows; raises `InvalidItems` for what cannot be compared."""
    systems: dict[str, _System] = {}
    found = []
    for row, item in enumerate(items):
        name, reference = str(item.get("system")), str(item.get("reference_system"))
        system = systems.setdefault(name, _System(name, reference))
        question = item.get("question")
        key = str(question) if question is not None else f"#{len(system.rows)}"
        if system.reference != reference:
            both = f"{system.reference!r} and {reference!r}"
            found.append(Violation(f"items[{row}].fields.reference_system", f"system {name!r} names {both}"))
        if key in system.rows:
            found.append(Violation(f"items[{row}].fields.question", f"{key!r} of system {name!r} was there before"))
        rank = item.get("rank_of_gold")
        if isinstance(rank, (int, np.integer)) and rank < 0:
            found.append(Violation(f"items[{row}].fields.rank_of_gold", f"is {rank}, wanted 0 (not retrieved) or more"))
        system.rows[key] = row
    for system in systems.values():
        if system.reference not in systems:
            place = f"items[{next(iter(system.rows.values()))}].fields.reference_system"
            found.append(
                Violation(place, f"no item is of system {system.reference!r}: score the reference answers too")
            )
    if found:
        raise InvalidItems(found)
    return systems


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)


def _shared(items: Items, rows: np.ndarray, name: str) -> float:
    values = {items[row].get(name) for row in rows.tolist()}
    value = values.pop() if len(values) == 1 else None
    return float(value) if isinstance(value, (int, float, np.integer)) else float("nan")


def rank_of_gold(hits: Sequence[Hit], document: str, answer: Span) -> int:
    """The rank, from 1, of the hit that is of this document and whose span holds the answer; 0 without one.

    Comparing chunk sizes needs this: what is relevant is the answer's place, not a chunk of one cutting.
    """
    for rank, hit in enumerate(hits, 1):
        if hit.id == document and any(span.start <= answer.start and answer.end <= span.end for span in hit.spans):
            return rank
    return 0
