"""Running stages: what a stage has to know about each item, and who stays by it.

`features` looks at items, `decide` only at features: a run that streams keeps the features of every item and decides
once it has seen them all, with the result of a run that holds everything in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pickaxe import Call, Host, Item, Items
from pickaxe.data import Column
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe.params import canonical
from pickaxe_plugins.selection.selector import _mechanisms as by
from pickaxe_plugins.selection.selector import _minhash, _rules
from pickaxe_plugins.selection.selector._applying import Pool, apply
from pickaxe_plugins.selection.selector._rules import Utility
from pickaxe_plugins.selection.selector._spec import Combine, Params, Stage, reference

Features = dict[str, np.ndarray]
"""Name → array whose first axis goes over the items.  `values` (n, utilities) and `missing` (n,) are always there."""


@dataclass(frozen=True)
class Outcome:
    counts: np.ndarray
    """int64 (n,): how often each item is used; 0 is dropped."""
    values: np.ndarray
    """float64 (n,): the utility in its own units; NaN where there is none."""
    priority: np.ndarray
    """float64 (n,): the same with the better end up; NaN where there is none."""
    reasons: np.ndarray
    """object (n,): why, for dropped items; "" for others."""


Columns = Mapping[str, np.ndarray]


class Memory:
    """What each scorer last said of which items, for the length of one pass."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[Items, dict[int, int], Columns]] = {}

    def keep(self, key: str, items: Items, columns: Columns) -> None:
        places = {id(item): row for row, item in enumerate(items)}
        self._held[key] = items, places, columns  # the items stay alive, so that no other has the id of one of them

    def recalled(self, key: str, items: Items) -> Columns | None:
        """The columns of these very items, unless one of them is new or was edited since."""
        if key not in self._held:
            return None
        _, places, columns = self._held[key]
        rows = [places.get(id(item), -1) for item in items]
        return None if -1 in rows else {name: values[rows] for name, values in columns.items()}


class Runner:
    """The stages of a pipeline with their scorers opened."""

    def __init__(self, params: Params, host: Host, fitted: Mapping[str, np.ndarray]) -> None:
        self.stages = params.stages
        self._host, self._fitted = host, fitted
        self._handles: dict[str, Any] = {}
        used = [stage.utilities() for stage in self.stages]
        self._columns = [[self._column(row, each) for each in utilities] for row, utilities in enumerate(used)]
        self._signs = [
            np.array([_direction(*pair) for pair in zip(utilities, columns, strict=True)])
            for utilities, columns in zip(used, self._columns, strict=True)
        ]

    def _handle(self, utility: Utility) -> Any:
        key = canonical(reference(utility))
        if key not in self._handles:
            self._handles[key] = self._host.scorer(reference(utility))
        return self._handles[key]

    def _column(self, row: int, utility: Utility) -> Column:
        """The column of a utility; raises `InvalidParams` naming the stage when there is none of that name."""
        if not utility.name:
            return Column(utility.column, "", direction=utility.direction or "higher")
        place = f"stages[{row}] ({self.stages[row].name})"
        columns = {each.name: each for each in self._handle(utility).columns}
        column = columns[utility.column] if utility.column in columns else next(iter(columns.values()))
        if utility.column and utility.column not in columns:
            raise InvalidParams(place, f"{utility.name!r} has no column {utility.column!r}; has {', '.join(columns)}")
        if column.dtype == "str":
            raise InvalidParams(place, f"column {column.name!r} of {utility.name!r} holds text, which has no order")
        if self.stages[row].edit and "text" not in columns:
            raise InvalidParams(place, f"{utility.name!r} makes no `text` that could be the edited one")
        return column

    def whole_pool(self, stage: Stage) -> list[str]:
        """Scorers of the stage that have to see all items at once."""
        return [
            each.name for each in stage.utilities() if each.name and self._handle(each).opened.method.scope != "item"
        ]

    def itemwise(self, row: int) -> bool:
        """Whether an item's fate at this stage hangs on that item alone."""
        stage = self.stages[row]
        if self.whole_pool(stage) or (needs_fit(stage) and stage.name not in self._fitted):
            return False
        return stage.mechanism.itemwise or isinstance(stage.mechanism, _rules.Quantile)

    @cached_property
    def leading(self) -> int:
        """How many stages at the beginning are item-wise."""
        return next((row for row in range(len(self.stages)) if not self.itemwise(row)), len(self.stages))

    # ------------------------------------------------------------ looking at items

    def features(
        self, row: int, items: Sequence[Item], call: Call, memory: Memory
    ) -> tuple[Features, list[str] | None]:
        """All that the stage has to know of these items, and the texts that it edited, if it does.

        `memory` holds what scorers said of the same items at earlier stages, and of these from now on.
        """
        stage, rule = self.stages[row], self.stages[row].mechanism
        scored = self._scored(stage, Items(tuple(items)), call, memory)
        columns = [
            _numbers(each, items) if not each.name else _cells(scored, each, column.name)
            for each, column in zip(stage.utilities(), self._columns[row], strict=True)
        ]
        found: Features = {"values": np.stack(columns, axis=1) if columns else np.zeros((len(items), 0))}
        missing: np.ndarray = np.asarray(np.isnan(found["values"]).any(axis=1))
        own = next((scored[canonical(reference(each))] for each in stage.utilities() if each.name), None)
        if own is not None and "reason" in own and isinstance(rule, _rules.Threshold):
            found["reason"] = own["reason"].astype(object)
        match rule:
            case _rules.TopFraction(by="characters"):
                found["size"] = np.array([len(item.text or "") for item in items], np.float64)
            case _rules.PerGroup() | _rules.Epochs():
                labels = [item.get(rule.group) for item in items]
                missing |= np.array([label is None for label in labels], bool)
                found["group"] = np.array(["" if label is None else str(label) for label in labels], object)
            case _rules.Pareto() | _rules.GumbelTopK():
                found["uniform"] = by.draws(call.seed, stage.name, [item.id for item in items])
            case _rules.ExactDedup():
                joined = b"".join(_minhash.content_hash(item.text or "", rule.normalise) for item in items)
                found["hash"] = np.frombuffer(joined, np.uint64).reshape(len(items), 2)
            case _rules.MinHashDedup():
                found |= _hashed(rule, items, call)
            case _rules.Diverse() | _rules.SemanticDedup():
                found["vector"] = _vectors(rule.embedding, items)
                missing |= np.asarray(~np.isfinite(found["vector"]).all(axis=1))
        if stage.on_missing == "fail" and missing.any():
            lost = items[int(np.flatnonzero(missing)[0])]
            raise InvalidItems(f"item {lost.id!r}", f"has no value for stage {stage.name!r} (on_missing: fail)")
        found["missing"] = missing
        return found, own["text"].tolist() if stage.edit and own is not None else None

    def _scored(self, stage: Stage, items: Items, call: Call, memory: Memory) -> dict[str, Columns]:
        """Scorer → its columns; one that several utilities or stages name runs once."""
        scored: dict[str, Columns] = {}
        for utility in stage.utilities():
            if not utility.name or (key := canonical(reference(utility))) in scored:
                continue
            handle = self._handle(utility)
            found = memory.recalled(key, items) if handle.opened.method.scope == "item" else None
            scored[key] = handle.score(items, call=call).columns if found is None else found
            memory.keep(key, items, scored[key])
        return scored

    # ------------------------------------------------------------ deciding

    def decide(self, row: int, features: Features, seed: int) -> Outcome:
        """Who stays, from the features of all items that reached the stage."""
        stage = self.stages[row]
        values, priority = self._utility(row, features["values"])
        present = ~features["missing"]
        chosen = {name: array[present] for name, array in features.items()}
        order = np.where(np.isnan(priority), 0.0, priority)[present]
        base = self._base(row) if isinstance(stage.mechanism, _rules.Quantile) else None
        kept, why = apply(stage.mechanism, Pool(chosen, values[present], order, seed, stage.name, base))
        counts = np.full(len(values), int(stage.on_missing == "keep"), np.int64)
        counts[present] = kept
        reasons = np.full(len(values), "missing", object)
        reasons[present] = why
        reasons[counts > 0] = ""
        return Outcome(counts, values, priority, reasons)

    def _utility(self, row: int, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(values, priority) of the stage's own utility."""
        stage = self.stages[row]
        if stage.combine is not None:
            fitted = self._fitted.get(stage.name)
            total = _combined(stage.combine, raw * self._signs[row], fitted)
            return total, total
        if stage.utility is None:
            return np.full(len(raw), np.nan), np.full(len(raw), np.nan)
        return raw[:, 0], self._signs[row][0] * raw[:, 0]

    def _base(self, row: int) -> np.ndarray | None:
        """The fitted priorities that a quantile is taken of."""
        combine, fitted = self.stages[row].combine, self._fitted.get(self.stages[row].name)
        if fitted is None:
            return None
        return fitted[:, 0] if combine is None else _combined(combine, fitted, fitted)

    def to_fit(self, row: int, features: Features) -> np.ndarray:
        """What `fit` keeps of each item for the stage: float64 (n, own utilities), the better end up."""
        combine = self.stages[row].combine
        signed = features["values"] * self._signs[row]
        return signed[~features["missing"], : 1 if combine is None else len(combine.terms)]


def needs_fit(stage: Stage) -> bool:
    """Whether the stage compares an item with the pool in a way that `fit` can learn, which makes it item-wise."""
    if stage.combine is not None and stage.combine.normalise != "none":
        return True
    return isinstance(stage.mechanism, _rules.Quantile)


def _combined(combine: Combine, signed: np.ndarray, among: np.ndarray | None) -> np.ndarray:
    total = np.zeros(len(signed))
    for place, term in enumerate(combine.terms):
        values, base = signed[:, place], signed[:, place] if among is None else among[:, place]
        if combine.normalise == "z":
            values = by.z_scores(values, base)
        elif combine.normalise == "rank":
            values = by.rank_shares(values, base)
        total += term.weight * values
    return total


def _direction(utility: Utility, column: Column) -> float:
    return -1.0 if (utility.direction or column.direction) == "lower" else 1.0


def _cells(scored: Mapping[str, Columns], utility: Utility, column: str) -> np.ndarray:
    return scored[canonical(reference(utility))][column].astype(np.float64)


def _numbers(utility: Utility, items: Sequence[Item]) -> np.ndarray:
    """A field of the items as numbers; NaN where an item lacks it.  Raises `InvalidItems` for other values."""
    values = np.full(len(items), np.nan)
    for row, item in enumerate(items):
        value = item.get(utility.column)
        if isinstance(value, (bool, int, float, np.number, np.bool_)):
            values[row] = value
        elif value is not None:
            raise InvalidItems(f"item {item.id!r}", f"has no number in {utility.column!r} but a {type(value).__name__}")
    return values


def _vectors(name: str, items: Sequence[Item]) -> np.ndarray:
    """float32 (n, d); rows of NaN for items without a vector."""
    found = [item.get(name) for item in items]
    given = [np.asarray(each, np.float32).ravel() for each in found if each is not None]
    width = len(given[0]) if given else 0
    rows = np.full((len(items), width), np.nan, np.float32)
    left = iter(given)
    for row, (item, each) in enumerate(zip(items, found, strict=True)):
        if each is None:
            continue
        vector = next(left)
        if len(vector) != width:
            raise InvalidItems(f"item {item.id!r}", f"has {len(vector)} numbers in {name!r}, the first has {width}")
        rows[row] = vector
    return rows


def _hashed(rule: _rules.MinHashDedup, items: Sequence[Item], call: Call) -> Features:
    hasher = _minhash.MinHash(rule.bands, rule.rows, rule.shingle)
    signatures = np.empty((len(items), rule.bands * rule.rows), np.uint32)
    for row, item in enumerate(items):
        call.check()
        signatures[row] = hasher.signature(item.text or "")
    found = {"bands": hasher.band_keys(signatures)}
    return found if rule.verify is None else found | {"signature": signatures}
