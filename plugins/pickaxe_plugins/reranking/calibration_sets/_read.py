"""From items to the candidates of each document, checked, and their aggregates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pickaxe import Item
from pickaxe.errors import InvalidItems, Violation
from pickaxe_plugins.reranking.calibration_sets._strategies import Pool
from pickaxe_plugins.reranking.calibration_sets._text import fragments, rouge, words

Normalisers = Mapping[str, tuple[float, float]]
"""Metric -> mean and standard deviation."""

COMPUTED = {"rouge1": "reference", "rouge2": "reference", "coverage": "source", "density": "source"}
"""Metrics that are computed when an item has none -> the text that they need."""
DEFAULT = {"relevance": ("rouge1", "rouge2"), "faithfulness": ("coverage", "density")}


@dataclass(frozen=True)
class Candidates:
    """All candidates of a call, in the order of the items; NaN where an item has no value."""

    items: Sequence[Item]
    metrics: tuple[str, ...]
    values: np.ndarray
    """(n, metrics) float64."""
    sample_idx: np.ndarray
    likelihood: np.ndarray
    density: np.ndarray
    own: np.ndarray
    positive: np.ndarray
    """bool; meaningful for faithfulness."""
    reference: np.ndarray
    """bool: the candidate is the reference itself."""

    def groups(self) -> dict[str, list[int]]:
        """Group -> its rows."""
        found: dict[str, list[int]] = {}
        for row, item in enumerate(self.items):
            found.setdefault(str(item.get("group")), []).append(row)
        return found

    def normalisers(self) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation of each metric over these candidates, whatever their order."""
        found = {}
        for name, column in zip(self.metrics, self.values.T.tolist(), strict=True):
            mean = math.fsum(column) / len(column)
            found[name] = mean, math.sqrt(math.fsum((value - mean) ** 2 for value in column) / len(column))
        return found

    def aggregate(self, normalisers: Normalisers) -> np.ndarray:
        """Mean z-score of the metrics, (n,); a metric without spread adds 0."""
        total = np.zeros(len(self.items))
        if not self.items:
            return total
        for name, column in zip(self.metrics, self.values.T, strict=True):
            mean, deviation = normalisers[name]
            if deviation > 0:
                total += (column - mean) / deviation
        return total / len(self.metrics)

    def pool(self, rows: Sequence[int], aggregate: np.ndarray) -> Pool:
        at = list(rows)
        return Pool(
            aggregate[at],
            [self.items[row].text or "" for row in at],
            self.sample_idx[at],
            self.likelihood[at],
            self.density[at],
            self.own[at],
        )


def read(items: Sequence[Item], target: str, chosen: Sequence[str], where: str) -> Candidates:
    """The candidates of the items; raises `InvalidItems` naming every value that is missing or not finite."""
    metrics = tuple(chosen) or _found_metrics(items) or DEFAULT[target]
    wrong: list[Violation] = []
    values = np.array([[_metric(item, row, name, where, wrong) for name in metrics] for row, item in enumerate(items)])
    signs = [item.get("sign") for item in items]
    for row, sign in enumerate(signs):
        if target == "faithfulness" and sign not in ("positive", "negative"):
            wrong.append(Violation(f"{where}[{row}].fields.sign", f"is {sign!r}: must be positive or negative"))
    numbers = {name: _numbers(items, name, where, wrong) for name in ("sample_idx", "likelihood", "density")}
    if wrong:
        raise InvalidItems(wrong)
    density = numbers["density"]
    for row in np.flatnonzero(np.isnan(density)).tolist():
        if items[row].get("source") is not None:
            density[row] = _computed(items[row], "density")
    return Candidates(
        items,
        metrics,
        values.reshape(len(items), len(metrics)),
        numbers["sample_idx"],
        numbers["likelihood"],
        density,
        np.array([item.get("own") is not False for item in items], bool),
        np.array([sign == "positive" for sign in signs], bool),
        np.array([bool(item.get("is_reference")) for item in items], bool),
    )


def _found_metrics(items: Sequence[Item]) -> tuple[str, ...]:
    names: set[str] = set()
    for item in items:
        given = item.get("metrics")
        names |= set(given) if isinstance(given, dict) else set()
    return tuple(sorted(names))


def _metric(item: Item, row: int, name: str, where: str, wrong: list[Violation]) -> float:
    given = item.get("metrics")
    value = given.get(name) if isinstance(given, dict) else None
    place = f"{where}[{row}].fields.metrics.{name}"
    if value is None and name in COMPUTED:
        if item.get(COMPUTED[name]) is not None:
            return _computed(item, name)
        wrong.append(Violation(place, f"is missing, and so is the {COMPUTED[name]} to compute it (item {item.id!r})"))
    elif value is None:
        wrong.append(Violation(place, f"is missing (item {item.id!r})"))
    elif isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        wrong.append(Violation(place, f"is {value!r}: must be a finite number (item {item.id!r})"))
    else:
        return float(value)
    return math.nan


def _computed(item: Item, name: str) -> float:
    candidate, other = words(item.text or ""), words(str(item.get(COMPUTED[name])))
    if name.startswith("rouge"):
        return rouge(candidate, other, int(name[-1]))
    found: float = getattr(fragments(candidate, other), name)
    return found


def _numbers(items: Sequence[Item], name: str, where: str, wrong: list[Violation]) -> np.ndarray:
    found = np.full(len(items), np.nan)
    for row, item in enumerate(items):
        value = item.get(name)
        if value is None:
            continue
        assert isinstance(value, (int, float))  # the declared kinds
        if not math.isfinite(value):
            wrong.append(Violation(f"{where}[{row}].fields.{name}", f"is {value}: must be finite"))
        found[row] = value
    return found
