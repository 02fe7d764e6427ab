"""What `pickaxe compare` finds out in each role: agreement between every two methods, and quality where it is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from pickaxe import answers
from pickaxe.call import Call
from pickaxe.comparison import (
    Statistic,
    auc_statistic,
    best,
    kendall,
    mean_statistic,
    overlap,
    rank_biased_overlap,
    spearman,
    spearman_statistic,
)
from pickaxe.data import Item, Prompt
from pickaxe.errors import InvalidItems
from pickaxe.evaluation import evaluate
from pickaxe.metrics import Qrels
from pickaxe_services.cli import decode, search
from pickaxe_services.cli.entrants import Entrant, Meter, Ran
from pickaxe_services.cli.rerank import Question
from pickaxe_services.cli.score import scored

Ranked = Mapping[str, Sequence[tuple[str, float]]]
"""query → (document, score), best first."""
Agreement = tuple[tuple[str, str, dict[str, float]], ...]
"""(label, label, measure → value) of every two methods."""


@dataclass(frozen=True)
class Findings:
    """`compared` of `given` items, queries or prompts were compared, `judged` of them with a known answer."""

    given: int
    compared: int
    agreement: Agreement
    statistics: Mapping[str, Mapping[str, Statistic]]
    judged: int = 0


# ---------------------------------------------------------------- scorers


def score(items: Sequence[Item], call: Call) -> Callable[[Any, Entrant, Meter], np.ndarray]:
    """Runs a scorer: its primary column [n] as float64, turned so that higher is better."""

    def work(handle: Any, entrant: Entrant, meter: Meter) -> np.ndarray:
        with meter.timing():
            parts = [scores for _, scores in scored(handle, entrant.card, iter(items), call)]
        primary = parts[0].schema[0]
        if primary.dtype == "str":
            raise InvalidItems(entrant.label, f"cannot be compared: its first column {primary.name!r} is text")
        values = np.concatenate([np.asarray(part.columns[primary.name], np.float64) for part in parts])
        return -values if primary.direction == "lower" else values

    return work


def compare_scores(ran: Sequence[Ran[np.ndarray]], labels: np.ndarray | None, k: int | None) -> Findings:
    """Rank correlations and overlap at k (a tenth of the items unless given) of items that all give a value.

    With `labels` (NaN: unknown): the area under the ROC curve where they are 0 and 1, else Spearman's correlation.
    """
    common = ~np.any([np.isnan(each.result) for each in ran], axis=0)
    count = int(common.sum())
    if not count:
        raise InvalidItems("--on", "has no item to which all the methods give a value")
    kept = {each.label: each.result[common] for each in ran}
    for label, values in kept.items():
        if np.all(values == values[0]):
            raise InvalidItems(label, f"gives all {count} common items the value {values[0]:g}: there is no order")
    k = k or math.ceil(count / 10)
    top = {label: best(values, k) for label, values in kept.items()}
    agreement = tuple(
        (a, b, {
            "spearman": spearman(kept[a], kept[b]),
            "kendall": kendall(kept[a], kept[b]),
            f"overlap@{k}": overlap(top[a], top[b], k),
        })
        for a, b in combinations(kept, 2)
    )  # fmt: skip
    if labels is None:
        return Findings(len(common), count, agreement, {})
    known = labels[common]
    judged = ~np.isnan(known)
    known = known[judged]
    if len(np.unique(known)) < 2:
        raise InvalidItems("--label", "has the same value, or none, in all common items: nothing to judge by")
    binary = bool(np.isin(known, (0, 1)).all())
    measure = {
        label: auc_statistic(values[judged], known == 1) if binary else spearman_statistic(values[judged], known)
        for label, values in kept.items()
    }
    return Findings(len(common), count, agreement, {"auc" if binary else "correlation": measure}, len(known))


def labels_of(items: Sequence[Item], name: str) -> np.ndarray:
    """The field of every item as a number, truth values as 0 and 1; NaN where it is absent."""
    values = np.full(len(items), np.nan)
    for row, item in enumerate(items):
        value = item.get(name)
        if value is None:
            continue
        if not isinstance(value, (bool, int, float)):
            raise InvalidItems(f"{item.id}.{name}", f"is {value!r}, wanted a number or a truth value (--label)")
        values[row] = value
    if np.isnan(values).all():
        raise InvalidItems(name, "is in no item (--label)")
    return values


# ---------------------------------------------------------------- retrievers and rerankers


def retrieve(queries: Sequence[Item], k: int, call: Call) -> Callable[[Any, Entrant, Meter], Ranked]:
    """Runs a retriever."""

    def work(handle: Any, entrant: Entrant, meter: Meter) -> Ranked:
        found: dict[str, list[tuple[str, float]]] = {}
        for start in range(0, len(queries), search.BATCH):
            part = queries[start : start + search.BATCH]
            with meter.timing():
                results = handle.search(part, k, call=call)
            meter.count(results.usage)
            for query, hits in zip(part, results, strict=True):
                found[query.id] = [(hit.id, hit.score) for hit in hits]
        return found

    return work


def rerank(questions: Sequence[Question], call: Call) -> Callable[[Any, Entrant, Meter], Ranked]:
    """Runs a reranker over all candidates of every query."""

    def work(handle: Any, entrant: Entrant, meter: Meter) -> Ranked:
        found: dict[str, list[tuple[str, float]]] = {}
        for query, candidates in questions:
            with meter.timing():
                ranking = handle.rerank(query, candidates, 0, call=call)
            meter.count(ranking.usage)
            found[query.id] = [(each.id, each.score) for each in ranking]
        return found

    return work


@dataclass(frozen=True)
class Judgments:
    """What is relevant, and the measures of ir-measures to judge by."""

    qrels: Qrels
    measures: Sequence[str]


def compare_rankings(ran: Sequence[Ran[Ranked]], judgments: Judgments | None, k: int) -> Findings:
    """Overlap at k and rank-biased overlap, means over the queries where either finds anything.

    With judgments: the measures, over the queries among those asked that have a relevant document.
    """
    runs = {
        each.label: {query: [document for document, _ in found] for query, found in each.result.items()} for each in ran
    }
    queries = list(runs[ran[0].label])
    agreement = tuple(
        (a, b, {
            f"overlap@{k}": _mean(overlap(runs[a][query], runs[b][query], k) for query in queries),
            "rbo": _mean(rank_biased_overlap(runs[a][query], runs[b][query]) for query in queries),
        })
        for a, b in combinations(runs, 2)
    )  # fmt: skip
    compared = sum(any(run[query] for run in runs.values()) for query in queries)
    if not compared:
        raise InvalidItems("--on", "has no query for which any of the methods finds something")
    if judgments is None:
        return Findings(len(queries), compared, agreement, {})
    asked = {query: judgments.qrels.get(query, {}) for query in queries}
    asked = {query: grades for query, grades in asked.items() if any(grade > 0 for grade in grades.values())}
    if not asked:
        raise InvalidItems("--qrels", "has no relevant document for any of the queries")
    values = {label: evaluate(run, asked, judgments.measures) for label, run in runs.items()}
    statistics = {
        name: {
            label: mean_statistic(np.array([values[label][name].get(query, 0.0) for query in asked])) for label in runs
        }
        for name in judgments.measures
    }
    return Findings(len(queries), compared, agreement, statistics, len(asked))


# ---------------------------------------------------------------- decoders


def continue_prompts(prompts: Sequence[Prompt], call: Call) -> Callable[[Any, Entrant, Meter], list[str]]:
    """Runs a decoder: the text of every prompt's first choice."""

    def work(handle: Any, entrant: Entrant, meter: Meter) -> list[str]:
        texts: list[str] = []
        for start in range(0, len(prompts), decode.BATCH):
            part = prompts[start : start + decode.BATCH]
            with meter.timing():
                written = list(handle.complete(part, call=call))
            first = {each.prompt: each.text for each in written if each.choice == 0}
            texts += [first.get(row, "") for row in range(len(part))]
            for each in written:
                meter.count({"tokens": float(len(each.token_ids)), **each.usage})
        return texts

    return work


def compare_texts(ran: Sequence[Ran[list[str]]], references: Sequence[Sequence[str]] | None) -> Findings:
    """Share of equal answers and their mean token F1; with `references` (accepted answers of each prompt, empty:
    unknown) the same against the best-fitting one."""
    texts = {each.label: each.result for each in ran}
    count = len(ran[0].result)
    measures = {"exact_match": answers.exact_match, "token_f1": answers.token_f1}
    agreement = tuple(
        (a, b, {name: _mean(map(measure, texts[a], texts[b])) for name, measure in measures.items()})
        for a, b in combinations(texts, 2)
    )
    if references is None:
        return Findings(count, count, agreement, {})
    known = [row for row, accepted in enumerate(references) if accepted]
    statistics = {
        name: {
            label: mean_statistic(
                np.array([max(measure(given[row], right) for right in references[row]) for row in known])
            )
            for label, given in texts.items()
        }
        for name, measure in measures.items()
    }
    return Findings(count, count, agreement, statistics, len(known))


def references_of(items: Sequence[Item], name: str) -> list[list[str]]:
    """The accepted answers of every item: a text or a list of texts; none where the field is absent."""
    found = []
    for item in items:
        value = item.get(name)
        if isinstance(value, Mapping):
            value = value.get(name, value)
        accepted = [] if value is None else [value] if isinstance(value, (str, int, float)) else value
        if not isinstance(accepted, (list, tuple)) or not all(isinstance(each, (str, int, float)) for each in accepted):
            raise InvalidItems(f"{item.id}.{name}", "is neither a text nor a list of texts (--reference)")
        found.append([str(each) for each in accepted])
    if not any(found):
        raise InvalidItems(name, "is in no item (--reference)")
    return found


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan
