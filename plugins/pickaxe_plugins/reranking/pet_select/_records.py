"""From examples to tasks: queries, which techniques solved them at what price, and how complex the solutions are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pickaxe import Item
from pickaxe.errors import InvalidItems
from pickaxe.randomness import generator
from pickaxe_plugins.reranking.pet_select._complexity import Bounds, complexity
from pickaxe_plugins.reranking.pet_select._routing import rank


@dataclass(frozen=True)
class Tasks:
    """n tasks with T techniques each."""

    ids: list[str]
    texts: list[str]
    techniques: list[str]
    passed: np.ndarray
    """(n, T) float32 of 0 and 1."""
    tokens: np.ndarray
    """(n, T)."""
    best: np.ndarray
    """(n,): index of the technique that ranks first."""
    complexity: np.ndarray
    """(n,) in [0, 1]."""
    bounds: Bounds | None

    def split(self, share: float, seed: int) -> tuple[Tasks, Tasks]:
        """The tasks to learn from, and a random share to measure with."""
        order = generator(seed, "held out").permutation(len(self.ids))
        count = round(share * len(order))
        return self._part(np.sort(order[count:])), self._part(np.sort(order[:count]))

    def _part(self, rows: np.ndarray) -> Tasks:
        return replace(
            self,
            ids=[self.ids[row] for row in rows],
            texts=[self.texts[row] for row in rows],
            passed=self.passed[rows],
            tokens=self.tokens[rows],
            best=self.best[rows],
            complexity=self.complexity[rows],
        )


def read(
    examples: Iterable[Item], weights: Sequence[float], like: Tasks | None, where: str
) -> tuple[Tasks, dict[str, str]]:
    """The tasks, and those that were skipped: id -> why their code does not parse.

    Complexity is scaled by the bounds of `like`, which also names the techniques, or of the examples themselves.
    Raises `InvalidItems` naming the example for anything else that is wrong.
    """
    names: list[str] = [] if like is None else like.techniques
    kept: list[Item] = []
    rows: list[tuple[list[float], list[float], int]] = []
    values: list[tuple[float, ...]] = []
    skipped: dict[str, str] = {}
    for place, item in enumerate(examples):
        at = f"{where}[{place}]"
        record = _record(item, names, at)
        # By name: a mapping's own order does not survive every way in.
        names = names or sorted(_struct(item, "passed", at))
        try:
            measured = _measured(item, at)
        except _Unparsed as error:
            skipped[item.id] = str(error)
            continue
        kept.append(item)
        rows.append(record or _record(item, names, at))
        values.append(measured)
    if not kept:
        raise InvalidItems(where, f"hold no task to learn from ({len(skipped)} could not be parsed)")
    if len({len(each) for each in values}) > 1:
        raise InvalidItems(where, "have code or complexity: give the same for all of them")
    table = np.array(values)
    given = table.shape[1] == 1
    if like is not None and given != (like.bounds is None):
        raise InvalidItems(where, "give complexity where the examples give code, or the other way round")
    bounds = None if given else Bounds.of(table) if like is None else like.bounds
    combined = table[:, 0] if bounds is None else bounds.combined(table, weights)
    return (
        Tasks(
            [item.id for item in kept],
            [item.text or "" for item in kept],
            names,
            np.array([each[0] for each in rows], np.float32),
            np.array([each[1] for each in rows], float),
            np.array([each[2] for each in rows], np.int64),
            combined,
            bounds,
        ),
        skipped,
    )


class _Unparsed(Exception):
    """Code that is not Python."""


def _measured(item: Item, at: str) -> tuple[float, ...]:
    code, given = item.get("code"), item.get("complexity")
    if code is not None:
        try:
            return complexity(str(code))
        except InvalidItems as error:
            raise _Unparsed(error.violations[0].description) from error
    if not isinstance(given, (int, float)) or not 0 <= given <= 1:
        raise InvalidItems(f"{at}.fields.complexity", f"is {given!r}: give code, or a number from 0 to 1")
    return (float(given),)


def _struct(item: Item, name: str, at: str) -> Mapping[str, Any]:
    found = item.get(name)
    if not isinstance(found, dict) or not found:
        raise InvalidItems(f"{at}.fields.{name}", "is empty: name at least one technique")
    return found


def _record(item: Item, names: Sequence[str], at: str) -> tuple[list[float], list[float], int]:
    """Success and tokens in the order of the techniques, and the best one's index."""
    passed, tokens = _struct(item, "passed", at), _struct(item, "tokens", at)
    names = list(names) or sorted(passed)
    for field, found in (("passed", passed), ("tokens", tokens)):
        if set(found) != set(names):
            raise InvalidItems(
                f"{at}.fields.{field}", f"names {sorted(found)}, the first example {sorted(names)} (item {item.id!r})"
            )
    wrong = [name for name in names if passed[name] not in (0, 1)]
    if wrong:
        raise InvalidItems(f"{at}.fields.passed", f"of {wrong[0]} is {passed[wrong[0]]!r}: must be true or false")
    wrong = [name for name in names if not _positive(tokens[name])]
    if wrong:
        raise InvalidItems(f"{at}.fields.tokens", f"of {wrong[0]} are {tokens[wrong[0]]!r}: must be above 0")
    ranked = rank({name: passed[name] for name in names}, {name: tokens[name] for name in names})
    return [float(passed[name]) for name in names], [float(tokens[name]) for name in names], names.index(ranked[0][0])


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0
