"""Ranking quality: nDCG, MRR and recall of runs against judgments, and readers of the TREC text formats.

A run maps each query to its document ids, best first; judgments (qrels) map each query to graded documents, where
a grade above 0 means relevant.  Values are per query; `mean` averages them.  Queries without any relevant document
have no value; queries that the run lacks count as 0.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from pickaxe.errors import InvalidItems, InvalidParams

Run: TypeAlias = Mapping[str, Sequence[str]]
Qrels: TypeAlias = Mapping[str, Mapping[str, int]]


def ndcg(run: Run, qrels: Qrels, k: int = 10) -> dict[str, float]:
    """nDCG@k per query: gain = grade, discount log2(rank + 1), ideal order over all judged documents."""
    values = {}
    for query, grades in _judged(qrels, k):
        ideal = sorted((grade for grade in grades.values() if grade > 0), reverse=True)
        gains = [max(grades.get(document, 0), 0) for document in _top(run, query, k)]
        values[query] = _dcg(gains) / _dcg(ideal[:k])
    return values


def mrr(run: Run, qrels: Qrels, k: int = 10) -> dict[str, float]:
    """Reciprocal rank of the first relevant document among the first k, else 0, per query."""
    values = {}
    for query, grades in _judged(qrels, k):
        found = (rank for rank, document in enumerate(_top(run, query, k), 1) if grades.get(document, 0) > 0)
        values[query] = 1 / next(found, math.inf)
    return values


def recall(run: Run, qrels: Qrels, k: int = 10) -> dict[str, float]:
    """Share of a query's relevant documents that stand among its first k, per query."""
    values = {}
    for query, grades in _judged(qrels, k):
        relevant = {document for document, grade in grades.items() if grade > 0}
        values[query] = len(relevant.intersection(_top(run, query, k))) / len(relevant)
    return values


def mean(values: Mapping[str, float]) -> float:
    """The average over queries; NaN without any."""
    return float(np.mean(list(values.values()))) if values else math.nan


def reciprocal_ranks(ranks: np.ndarray, k: int = 10) -> np.ndarray:
    """The same as `mrr` from ranks of a question's only relevant document (1 = first, 0 = not found); float64."""
    ranks = np.asarray(ranks, np.float64)
    return np.divide(1.0, ranks, out=np.zeros_like(ranks), where=(ranks >= 1) & (ranks <= k))


def hits(ranks: np.ndarray, k: int = 10) -> np.ndarray:
    """The same as `recall` from ranks of a question's only relevant document (1 = first, 0 = not found); float64."""
    ranks = np.asarray(ranks)
    return ((ranks >= 1) & (ranks <= k)).astype(np.float64)


def read_run(path: str | os.PathLike[str]) -> dict[str, list[str]]:
    """A TREC run, `query Q0 document rank score tag` a line: by falling score, equal scores by rank.

    Raises `InvalidItems` for a file that cannot be read, and naming the first line that does not read so or that
    repeats a document of its query.
    """
    rows: dict[str, dict[str, tuple[float, int]]] = {}
    for place, fields in _lines(path, 6):
        query, _, document, rank, score, _ = fields
        row = rows.setdefault(query, {})
        if document in row:
            raise InvalidItems(place, f"holds document {document!r} of query {query!r} again")
        row[document] = (-_number(score, place), int(_number(rank, place)))
    return {query: sorted(row, key=row.__getitem__) for query, row in rows.items()}


def read_qrels(path: str | os.PathLike[str]) -> dict[str, dict[str, int]]:
    """TREC judgments, `query 0 document grade` a line.  Raises `InvalidItems` as `read_run` does."""
    grades: dict[str, dict[str, int]] = {}
    for place, (query, _, document, grade) in _lines(path, 4):
        grades.setdefault(query, {})[document] = int(_number(grade, place))
    return grades


def _judged(qrels: Qrels, k: int) -> Iterator[tuple[str, Mapping[str, int]]]:
    if k < 1:
        raise InvalidParams("k", f"must be at least 1 (got {k})")
    return ((query, grades) for query, grades in qrels.items() if any(grade > 0 for grade in grades.values()))


def _top(run: Run, query: str, k: int) -> Sequence[str]:
    documents = run.get(query, ())[:k]
    if len(set(documents)) < len(documents):
        raise InvalidItems(f"run[{query!r}]", "holds a document more than once")
    return documents


def _dcg(gains: Sequence[int]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))


def _lines(path: str | os.PathLike[str], width: int) -> Iterator[tuple[str, list[str]]]:
    try:
        with open(path, encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                place = f"{os.path.basename(path)}:{number}"
                if fields := line.split():
                    if len(fields) != width:
                        raise InvalidItems(place, f"has {len(fields)} fields, wanted {width}")
                    yield place, fields
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidItems(os.fspath(path), f"cannot be read: {error}") from error


def _number(text: str, place: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidItems(place, f"{text!r} is not a number") from None
