"""Queries and results, read from the items of `interp-extrap` and checked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pickaxe import Call, Host, Item
from pickaxe.errors import InvalidItems, Violation
from pickaxe_plugins.evaluation.interp_extrap import _similarity


@dataclass(frozen=True)
class Queries:
    """Queries of one side, their unit vectors (n, d), judgments and labels where given."""

    ids: list[str]
    vectors: np.ndarray
    qrels: dict[str, dict[str, int]]
    labels: list[dict[str, str]]


def queries(items: Iterable[Item], where: str, model: str, host: Host, call: Call) -> Queries:
    """Raises `InvalidItems` naming what cannot be used."""
    given = list(items)
    if not given:
        raise InvalidItems(where, f"is empty: give the {'training' if where == 'examples' else 'test'} queries")
    wrong: list[Violation] = []
    seen: set[str] = set()
    for row, item in enumerate(given):
        if item.id in seen:
            wrong.append(Violation(f"{where}[{row}].id", f"{item.id!r} is there twice"))
        seen.add(item.id)
        for name, grade in _struct(item, "relevant").items():
            if isinstance(grade, bool) or not isinstance(grade, (int, np.integer)):
                wrong.append(Violation(f"{where}[{row}].fields.relevant.{name}", f"is {grade!r}, wanted a whole grade"))
    if wrong:
        raise InvalidItems(wrong)
    qrels = {item.id: {str(name): int(grade) for name, grade in _struct(item, "relevant").items()} for item in given}
    labels = [{str(kind): str(value) for kind, value in _struct(item, "labels").items()} for item in given]
    vectors = _similarity.unit(_vectors(given, where, model, host, call))
    return Queries([item.id for item in given], vectors, {query: of for query, of in qrels.items() if of}, labels)


def _struct(item: Item, name: str) -> dict[str, Any]:
    value = item.get(name)
    return value if isinstance(value, dict) else {}


def _vectors(given: Sequence[Item], where: str, model: str, host: Host, call: Call) -> np.ndarray:
    have = [item.get("embedding") is not None for item in given]
    if not any(have):
        for row, item in enumerate(given):
            if not item.text:
                raise InvalidItems(f"{where}[{row}].text", f"is missing, and so is embedding (item {item.id!r})")
        return host.encoder(model).encode([item.text or "" for item in given], call)
    rows: list[np.ndarray] = []
    for row, item in enumerate(given):
        value = item.get("embedding")
        place = f"{where}[{row}].fields.embedding"
        if value is None:
            raise InvalidItems(place, f"is missing, other queries have one (item {item.id!r})")
        vector = np.asarray(value)
        if vector.ndim != 1 or vector.dtype.kind not in "fiu" or not np.isfinite(vector).all() or not vector.any():
            raise InvalidItems(place, f"must be finite numbers, (d,), not all 0 (item {item.id!r})")
        if rows and vector.shape != rows[0].shape:
            raise InvalidItems(place, f"has shape {vector.shape}, the first has {rows[0].shape} (item {item.id!r})")
        rows.append(vector)
    return np.stack(rows)


@dataclass(frozen=True)
class Results:
    """The metric of each system, fold and test query, and where each item stands."""

    systems: list[str]
    metric: np.ndarray
    """(systems, F, n_test), NaN where there is no item."""
    system_of: np.ndarray
    fold_of: np.ndarray
    query_of: np.ndarray


def results(items: Sequence[Item], ids: Sequence[str], folds: int) -> Results:
    """Raises `InvalidItems` naming unknown queries, folds that do not exist or lack, repeats and missing numbers."""
    places = {query: at for at, query in enumerate(ids)}
    systems = list(dict.fromkeys(str(item.get("system") or "system") for item in items))
    numbers = {system: at for at, system in enumerate(systems)}
    metric = np.full((len(systems), folds, len(ids)), np.nan)
    of = np.zeros((3, len(items)), np.int64)
    wrong: list[Violation] = []
    for row, item in enumerate(items):
        place, fold, query = f"items[{row}].fields", _int(item.get("fold")), str(item.get("query"))
        value = item.get("metric")
        if not 0 <= fold < folds:
            wrong.append(Violation(f"{place}.fold", f"is {fold}, folds are 0 to {folds - 1} (item {item.id!r})"))
        elif query not in places:
            wrong.append(Violation(f"{place}.query", f"{query!r} is no test query of the splits (item {item.id!r})"))
        elif not isinstance(value, (int, float, np.number)) or not np.isfinite(value):
            wrong.append(
                Violation(f"{place}.metric", f"is {value}: leave queries out that have none (item {item.id!r})")
            )
        else:
            at = numbers[str(item.get("system") or "system")], fold, places[query]
            if np.isfinite(metric[at]):
                wrong.append(Violation(f"items[{row}]", f"repeats fold {fold} and query {query!r} (item {item.id!r})"))
            metric[at], of[:, row] = float(value), at
    for system, there in zip(systems, np.isfinite(metric).any(axis=2), strict=True):
        if not wrong and not there.all():
            lost = ", ".join(map(str, np.flatnonzero(~there)))
            wrong.append(Violation("items", f"of system {system!r} lack fold {lost}: train and test it too"))
    if wrong:
        raise InvalidItems(wrong)
    return Results(systems, metric, *of)


def _int(value: object) -> int:
    return int(value) if isinstance(value, (int, np.integer)) and not isinstance(value, bool) else -1
