"""Scorers: check the items, call the method, check and type the columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from pickaxe.call import Call
from pickaxe.data import Column, Flag, Groups, Items, Scores
from pickaxe.errors import MethodFailed
from pickaxe.handle.base import ItemLike, MethodHandle, as_item
from pickaxe.jsonable import jsonable
from pickaxe.opened import Opened

BATCH = 1024
"""Items per hook call of item-scope methods, at every door: equal batches give equal bits."""

_DTYPES: Mapping[str, type[Any]] = {
    "float32": np.float32,
    "float64": np.float64,
    "int64": np.int64,
    "bool": np.bool_,
    "str": np.str_,
}


class ScorerHandle(MethodHandle):
    """A scorer: `score` for what fits into memory, `stream` for what does not."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns that `score` returns, primary first."""
        with self.opened.guard():
            return self.opened.method.declared_columns()

    def score(
        self,
        items: Iterable[ItemLike],
        *,
        timeout: float | None = None,
        seed: int = 0,
        call: Call | None = None,
    ) -> Scores:
        """One row per item.  Raises `InvalidItems`, `ArtifactMismatch`, `MethodFailed` …"""
        checked = self.check_items(items)
        call = call or Call(timeout=timeout, seed=seed)
        if self.opened.method.scope != "item":
            return self._score(checked, call)
        parts = [self._score(checked[row : row + BATCH], call) for row in range(0, len(checked), BATCH)]
        if not parts:
            self._ready_to_answer()
            return self._empty()
        return Scores.concatenate(parts) if len(parts) > 1 else parts[0]

    def stream(
        self,
        items: Iterable[ItemLike],
        *,
        batch: int = BATCH,
        timeout: float | None = None,
        seed: int = 0,
        call: Call | None = None,
    ) -> Iterator[Scores]:
        """Results for consecutive stretches of any number of items, in constant memory for item scope.

        Methods of group or pool scope see all items at once and answer with one result.
        """
        call = call or Call(timeout=timeout, seed=seed)
        numbered = (as_item(value, str(row)) for row, value in enumerate(items))
        if self.opened.method.scope != "item":
            yield self._score(self.check_items(Items(numbered)), call)
            return
        self._ready_to_answer()  # also where there are no items
        start = 0
        while part := tuple(islice(numbered, batch)):
            yield self._score(self.check_items(Items(part), start=start), call)
            start += len(part)

    def _score(self, items: Items, call: Call) -> Scores:
        self._ready_to_answer()
        call.check()
        result = self.opened.call("score", items=items, call=call)
        call.check()
        with self.opened.guard():
            return checked_scores(self.opened, result, self.columns, len(items))

    def _empty(self) -> Scores:
        columns = self.columns
        return Scores({each.name: np.empty(0, _DTYPES[each.dtype]) for each in columns}, schema=columns)


def checked_scores(opened: Opened, result: object, columns: tuple[Column, ...], n: int) -> Scores:
    """The result with columns in declared order and dtype; raises `MethodFailed` for anything else."""
    if not isinstance(result, Scores):
        raise opened.nonsense(f"score returned {type(result).__name__}, wanted Scores")
    if set(result.columns) != {each.name for each in columns}:
        raise opened.nonsense(f"columns {sorted(result.columns)}, declared are {sorted(each.name for each in columns)}")
    typed = {each.name: _typed(opened, each, result.columns[each.name], n) for each in columns}
    if result.segments and len(result.segments) != n:
        raise opened.nonsense(f"segments for {len(result.segments)} of {n} items")
    for flag in result.flags:
        if not (isinstance(flag, Flag) and 0 <= flag.index < n):
            raise opened.nonsense(f"flag {flag!r} names none of {n} items")
    if opened.method.scope == "item" and (result.summary or result.groups is not None):
        raise opened.nonsense("a summary or groups, which an item-scope method cannot have: it sees parts of a run")
    return replace(
        result,
        columns=typed,
        groups=_typed_groups(opened, result.groups),
        summary=_summary(opened, result.summary),
        schema=columns,
    )


def _summary(opened: Opened, given: Mapping[str, Any]) -> dict[str, Any]:
    """The summary as JSON; its answer and figures must be what a report can show."""
    from pickaxe.report.figure import explained

    summary: dict[str, Any] = jsonable(dict(given))
    try:
        explained(summary)
    except MethodFailed as error:
        raise opened.nonsense(f"a summary that no report can show: {error.message}") from None
    return summary


def _typed(opened: Opened, column: Column, values: object, n: int) -> np.ndarray:
    array = np.asarray(values)
    if array.shape != (n,):
        raise opened.nonsense(f"column {column.name!r} has shape {array.shape}, wanted ({n},)")
    kinds = {"float32": "fiub", "float64": "fiub", "int64": "iu", "bool": "b", "str": "UO"}[column.dtype]
    if n and array.dtype.kind not in kinds:
        raise opened.nonsense(f"column {column.name!r} has dtype {array.dtype}, declared is {column.dtype}")
    typed = array.astype(_DTYPES[column.dtype], copy=False)
    if typed.dtype.kind == "f" and not column.nullable and np.isnan(typed).any():
        row = int(np.flatnonzero(np.isnan(typed))[0])
        raise opened.nonsense(f"column {column.name!r} is NaN in row {row} but not declared nullable")
    return typed


def _typed_groups(opened: Opened, groups: Groups | None) -> Groups | None:
    if groups is None:
        return None
    schema = groups.schema or tuple(Column(name, "") for name in groups.columns)
    if {each.name for each in schema} != set(groups.columns):
        raise opened.nonsense(f"group columns {sorted(groups.columns)} differ from their schema")
    typed = {each.name: _typed(opened, each, groups.columns[each.name], len(groups.keys)) for each in schema}
    return Groups(tuple(str(key) for key in groups.keys), typed, schema)
