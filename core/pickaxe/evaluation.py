"""Measures of TREC runs by the library ir-measures, which has far more than `pickaxe.metrics`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pickaxe.errors import InvalidParams
from pickaxe.extras import require
from pickaxe.metrics import Qrels, Run

DEFAULT = ("nDCG@10", "RR@10", "R@100")


def evaluate(run: Run, qrels: Qrels, measures: Sequence[str] = DEFAULT) -> dict[str, dict[str, float]]:
    """measure → query → value, in the notation of ir-measures ("nDCG@10", "AP", "P(rel=2)@5").

    Every judged query has a value: one that the run lacks counts as having found nothing.  The order of the run's
    documents decides.  Raises `InvalidParams` for a measure that does not exist or cannot be computed here.
    """
    library = require("ir_measures", extra="evaluation")
    parsed = {_parsed(library, each): each for each in measures}
    judged = [
        library.Qrel(query, document, grade) for query, grades in qrels.items() for document, grade in grades.items()
    ]
    ranked = [
        library.ScoredDoc(query, document, float(-place))
        for query, documents in run.items()
        for place, document in enumerate(documents)
    ]
    found: dict[str, dict[str, float]] = {each: {} for each in measures}
    try:
        for value in library.iter_calc(list(parsed), judged, ranked):
            found[parsed[value.measure]][value.query_id] = float(value.value)
    except ValueError as error:
        raise InvalidParams("measures", f"cannot be computed: {error}") from error
    return found


def check(measures: Sequence[str]) -> None:
    """Raise `InvalidParams` for a name that is no measure, before anything is run for it."""
    library = require("ir_measures", extra="evaluation")
    for each in measures:
        _parsed(library, each)


def means(values: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """measure → average over queries; NaN without any."""
    return {name: sum(each.values()) / len(each) if each else float("nan") for name, each in values.items()}


def _parsed(library: Any, measure: str) -> Any:
    try:
        found = library.parse_measure(measure)
    except (ValueError, NameError, TypeError) as error:
        raise InvalidParams("measures", f"{measure!r} is none: {error}") from error
    if unknown := sorted(found.params.keys() - found.SUPPORTED_PARAMS.keys()):
        raise InvalidParams("measures", f"{measure!r} is none: there is no {', '.join(unknown)} in it")
    return found
