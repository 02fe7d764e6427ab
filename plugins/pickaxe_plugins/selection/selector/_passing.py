"""Passing items through stages: all at once, or looking at parts of a stream first and deciding at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pickaxe import Call, Item
from pickaxe_plugins.selection.selector._funnel import BEFORE, KEPT, Funnel
from pickaxe_plugins.selection.selector._spec import Params
from pickaxe_plugins.selection.selector._stages import Features, Memory, Runner

Supply = Callable[[int, np.ndarray], Features]
"""(stage, rows that reached it) → their features."""


@dataclass
class Passed:
    """What became of n items on their way."""

    counts: np.ndarray
    """int64 (n,): how often each is used."""
    dropped_by: np.ndarray
    """int64 (n,): the stage, -1 for kept items, -2 for texts that no stage saw."""
    reasons: np.ndarray
    """object (n,): why; "" for kept items."""
    priority: np.ndarray
    """float64 (n,): by the last stage with a utility; 0 without one, -inf for dropped items."""
    values: dict[str, np.ndarray]
    """Stage → float64 (n,): its utility, NaN where it was not computed."""
    warnings: list[str] = field(default_factory=list)

    @property
    def alive(self) -> np.ndarray:
        return np.flatnonzero(self.counts > 0)

    @classmethod
    def beginning(cls, n: int) -> Passed:
        none = np.full(n, "", object)
        return cls(np.ones(n, np.int64), np.full(n, KEPT, np.int64), none, np.zeros(n), {})

    def drop(self, rows: np.ndarray, stage: int, reasons: object) -> None:
        self.counts[rows] = 0
        self.dropped_by[rows] = stage
        self.reasons[rows] = reasons
        self.priority[rows] = -np.inf


class Supplier:
    """Features of items at hand, computed for those that reach a stage; keeps the texts that stages edit."""

    def __init__(self, runner: Runner, items: Iterable[Item], call: Call) -> None:
        self.items = list(items)
        self._runner, self._call, self._memory = runner, call, Memory()

    def __call__(self, stage: int, rows: np.ndarray) -> Features:
        reached = [self.items[row] for row in rows]
        features, edited = self._runner.features(stage, reached, self._call, self._memory)
        if edited is not None:
            for row, text in zip(rows.tolist(), edited, strict=True):
                self.items[row] = replace(self.items[row], text=text)
        return features


def through(runner: Runner, passed: Passed, supply: Supply, stages: range, seed: int) -> Passed:
    """Send what is left through these stages."""
    for row in stages:
        alive = passed.alive
        outcome = runner.decide(row, supply(row, alive), seed)
        stage = runner.stages[row]
        gone = outcome.counts == 0
        if stage.scored:
            values = np.full(len(passed.counts), np.nan)
            values[alive] = outcome.values
            passed.values[stage.name] = values
            passed.priority[alive] = np.where(np.isnan(outcome.priority), 0.0, outcome.priority)
        passed.counts[alive] *= outcome.counts
        passed.drop(alive[gone], row, outcome.reasons[gone])
        wanted = getattr(stage.mechanism, "k", None)
        if wanted is not None and wanted > len(alive):
            passed.warnings.append(f"Stage {stage.name} asks for {wanted} items, and only {len(alive)} reached it.")
        total = getattr(stage.mechanism, "total", 0)
        if total > (reached := int(outcome.counts.sum())):
            passed.warnings.append(f"Stage {stage.name} asks for {total} uses, and its caps allow {reached}.")
    return passed


def screened(items: Sequence[Item], limit: int | None) -> Passed:
    """All items, without the blank and the overlong ones."""
    passed = Passed.beginning(len(items))
    for row, item in enumerate(items):
        text = item.text or ""
        if not text or text.isspace():
            passed.drop(np.array([row]), BEFORE, "empty")
        elif limit is not None and len(text) > limit:
            passed.drop(np.array([row]), BEFORE, "too_long")
    return passed


@dataclass
class Part:
    """What is known of a part of the stream once its item-wise leading stages are passed."""

    size: int
    rows: np.ndarray
    """int64 (m,): places in the part of the items that are left."""
    features: Features
    """`stage/feature` of them for the later stages; `characters` and `group` for the report."""
    funnel: Funnel


def look(runner: Runner, params: Params, items: Sequence[Item], call: Call) -> Part:
    """Pass the leading stages, and gather what the later ones have to know; texts of no further use can go."""
    supply = Supplier(runner, items, call)
    passed = through(runner, screened(items, params.max_characters), supply, range(runner.leading), call.seed)
    alive = passed.alive
    features: Features = {
        "characters": np.array([len(items[row].text or "") for row in alive], np.int64),
        "group": np.array([group_of(items[row], params.by) for row in alive], str),
    }
    for row in range(runner.leading, len(runner.stages)):
        for name, array in supply(row, alive).items():
            features[f"{row}/{name}"] = array.astype(str) if array.dtype == object else array
    funnel = Funnel(params.examples)
    for row in np.flatnonzero(passed.counts == 0).tolist():
        tell(funnel, items[row], int(passed.dropped_by[row]), str(passed.reasons[row]), params.by)
    return Part(len(items), alive, features, funnel)


def group_of(item: Item, by: str) -> str:
    value = item.get(by) if by else None
    return "" if value is None else str(value)


def tell(funnel: Funnel, item: Item, stage: int, reason: str, by: str, uses: int = 0) -> None:
    text = item.text or ""
    if funnel.add(stage, reason, len(text), group_of(item, by), uses):
        funnel.show(stage, reason, item.id, text)


def settle(runner: Runner, features: Features, n: int, seed: int) -> Passed:
    """Pass the other stages: the features of all n items that `look` left, from every part in order."""

    def supply(stage: int, rows: np.ndarray) -> Features:
        mark = f"{stage}/"
        return {name.removeprefix(mark): array[rows] for name, array in features.items() if name.startswith(mark)}

    if not n:  # parts without a survivor have no features
        return Passed.beginning(0)
    return through(runner, Passed.beginning(n), supply, range(runner.leading, len(runner.stages)), seed)
