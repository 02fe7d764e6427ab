"""Tasks of a judged run and deployment plans, read from items; result files of evalplus."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from pickaxe import InputField, Item
from pickaxe.errors import InvalidItems
from pickaxe_plugins.decoding._resampling import Counts, Stakes
from pickaxe_plugins.decoding._two_types import Plan, Types

ALL = "all"
"""The group of items that name none."""

RUN_FIELDS = (
    InputField("verifier", "tensor", "Whether each sample passes the verifier: (n,) bool.", False),
    InputField("truth", "tensor", "Whether each sample is correct: (n,) bool.", False),
    InputField("base_status", "texts", "Instead of verifier: evalplus's status of each sample.", False),
    InputField("plus_status", "texts", "Instead of truth: evalplus's status with its further tests.", False),
    InputField("n", "int64", "Samples, where only counts are given.", False),
    InputField("v", "int64", "Samples that pass the verifier.", False),
    InputField("g", "int64", "Samples that pass it and are correct.", False),
    InputField("u", "int64", "Correct samples.", False),
    InputField("group", "text", "Model; curves, limits and best numbers of attempts are per group.", False),
    InputField("task", "text", "Name that one task has in all groups, for comparing groups.", False),
)

PLAN_FIELDS = (
    InputField("r", "tensor", "Plans: correctness per sample of each type of task, (J,).", False),
    InputField("prior", "tensor", "Plans: share of each type, (J,), adding up to 1.", False),
    InputField("completeness", "float64", "Plans: P(pass | correct); 1 if not given.", False),
    InputField("soundness", "float64", "Plans: P(reject | wrong); 1 if not given.", False),
    InputField("value_correct", "float64", "Plans: instead of the parameter.", False),
    InputField("value_false_positive", "float64", "Plans: instead of the parameter.", False),
    InputField("cost", "float64", "Plans: cost per attempt, instead of the parameter.", False),
    InputField("max_attempts", "int64", "Plans: instead of the parameter.", False),
)

_COUNTS = ("n", "v", "g", "u")
_PAIRS = (("verifier", "truth"), ("base_status", "plus_status"))


@dataclass(frozen=True)
class Run:
    """The tasks of one group: `rows` are their places among all items, `tasks` their names across groups, or ""."""

    group: str
    rows: np.ndarray
    ids: np.ndarray
    tasks: np.ndarray
    counts: Counts


def read_runs(items: Sequence[Item], where: str) -> list[Run]:
    """The groups of a run in order of their names; raises `InvalidItems` naming item and field."""
    members: dict[str, list[int]] = {}
    counts = []
    for row, item in enumerate(items):
        counts.append(_Place(item, f"{where}[{row}]").counts())
        members.setdefault(str(item.fields.get("group", ALL)), []).append(row)
    numbers = np.array(counts, np.int64).reshape(-1, len(_COUNTS))
    runs = []
    for group, rows in sorted(members.items()):
        ids = np.array([items[row].id for row in rows], object)
        tasks = np.array([items[row].fields.get("task", "") for row in rows], object)
        runs.append(Run(group, np.array(rows), ids, tasks, Counts(*numbers[rows].T)))
    return runs


def read_plan(item: Item, row: int, stakes: Stakes, max_attempts: int) -> Plan:
    """The deployment plan in an item's fields; what it does not say is as given."""
    place = _Place(item, f"items[{row}]")
    r, prior = place.shares("r"), place.shares("prior")
    if len(r) != len(prior):
        place.refuse("prior", f"has {len(prior)} types, r has {len(r)}")
    if abs(prior.sum() - 1) > 1e-6:
        place.refuse("prior", f"adds up to {prior.sum():g}; must be 1")
    completeness = place.number("completeness", 1.0, 0, 1)
    soundness = place.number("soundness", 1.0, 0, 1)
    correct = place.number("value_correct", stakes.correct, 0)
    if correct == 0:
        place.refuse("value_correct", "is 0; must be above 0")
    wrong = place.number("value_false_positive", stakes.wrong, top=0)
    attempt = place.number("cost", stakes.attempt, 0)
    top = int(place.number("max_attempts", max_attempts, 1, MOST_ATTEMPTS))
    return Plan(Types(prior, r, completeness, soundness), Stakes(correct, wrong, attempt), top)


MOST_ATTEMPTS = 1_000_000
"""Longest curve: the most attempts that anything here can be asked about."""


@dataclass(frozen=True)
class _Place:
    """An item and what it is called."""

    item: Item
    name: str

    def refuse(self, field: str, what: str) -> NoReturn:
        raise InvalidItems(f"{self.name}.fields.{field}", f"{what} (item {self.item.id!r})")

    def counts(self) -> tuple[int, ...]:
        """(n, v, g, u), from samples or as they are said; both, where given, must agree."""
        said = {name: self.item.fields[name] for name in _COUNTS if name in self.item.fields}
        samples = self._samples()
        if samples is None:
            return self._checked(said)
        passed, right = samples
        found = (len(passed), int(passed.sum()), int((passed & right).sum()), int(right.sum()))
        for name, number in zip(_COUNTS, found, strict=True):
            if said.get(name, number) != number:
                self.refuse(name, f"is {said[name]}, but the samples say {number}")
        return found

    def _checked(self, said: Mapping[str, Any]) -> tuple[int, ...]:
        if missing := [name for name in _COUNTS if name not in said]:
            raise InvalidItems(
                self.name,
                f"lacks {', '.join(missing)}: give verifier and truth, base_status and plus_status, or n, v, g and u "
                f"(item {self.item.id!r})",
            )
        n, v, g, u = (int(said[name]) for name in _COUNTS)
        if n < 1:
            self.refuse("n", f"is {n}; give at least one sample")
        for name, number, roof, of in (("v", v, n, "n"), ("u", u, n, "n"), ("g", g, v, "v"), ("g", g, u, "u")):
            if not 0 <= number <= roof:
                self.refuse(name, f"is {number}; must lie between 0 and {of} = {roof}")
        if v - g > n - u:
            self.refuse("v", f"is {v}: {v - g} wrong samples pass, but only {n - u} of n = {n} are wrong")
        return n, v, g, u

    def _samples(self) -> tuple[np.ndarray, np.ndarray] | None:
        for names in _PAIRS:
            given = [name for name in names if name in self.item.fields]
            if len(given) == 1:
                other = next(name for name in names if name not in given)
                self.refuse(other, f"is missing beside {given[0]}")
            if given:
                passed, right = (self._judgements(name) for name in names)
                if len(passed) != len(right):
                    self.refuse(names[1], f"has {len(right)} samples, {names[0]} has {len(passed)}")
                return passed, right
        return None

    def _judgements(self, name: str) -> np.ndarray:
        value = self.item.fields[name]
        if name.endswith("_status"):
            array = np.array([status == "pass" for status in value], np.bool_)  # type: ignore[union-attr]
        else:
            array = np.asarray(value)
            if array.ndim != 1 or not np.isin(array, (0, 1)).all():
                self.refuse(name, f"has shape {array.shape}, wanted true or false for each of (n,) samples")
        if not len(array):
            self.refuse(name, "has no samples: give at least one")
        return array.astype(np.bool_)

    def shares(self, name: str) -> np.ndarray:
        """A field of numbers in [0, 1], (J,) float64."""
        if name not in self.item.fields:
            self.refuse(name, "is missing: a plan needs r and prior")
        array = np.asarray(self.item.fields[name])
        if array.ndim != 1 or not len(array) or array.dtype.kind not in "fiub":
            self.refuse(name, f"has shape {array.shape} of {array.dtype}, wanted a number for each of (J,) types")
        if not ((array >= 0) & (array <= 1)).all():
            self.refuse(name, f"is {array.tolist()}; must lie in [0, 1]")
        return array.astype(np.float64)

    def number(self, name: str, default: float, low: float = -np.inf, top: float = np.inf) -> float:
        value = float(self.item.fields.get(name, default))  # type: ignore[arg-type]
        if not (low <= value <= top and np.isfinite(value)):
            self.refuse(name, f"is {value:g}; must be a number of {low:g} to {top:g}")
        return value


# ---------------------------------------------------------------- evalplus


def read_evalplus(path: str | os.PathLike[str], group: str = "") -> list[Item]:
    """The tasks of an evalplus result file (`…eval_results.json`) as items, in the file's order.

    The base tests are the verifier and the plus tests the truth, as in the paper's code.  `group` names the model;
    ids are `group/task`.  Raises `InvalidItems` when the file is of another form.
    """
    text = Path(path).read_text(encoding="utf-8")
    try:
        tasks = json.loads(text)["eval"]
        return [_evalplus_task(name, samples, group) for name, samples in tasks.items()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidItems(
            os.fspath(path),
            f"is no evalplus result file ({type(error).__name__}: {error}); wanted an object whose eval lists, by "
            "task, samples with base_status and plus_status",
        ) from error


def _evalplus_task(name: str, samples: Sequence[Mapping[str, Any]], group: str) -> Item:
    fields: dict[str, Any] = {"task": name, **({"group": group} if group else {})}
    for field in ("base_status", "plus_status"):
        fields[field] = tuple(_statuses(samples, field))
    return Item(f"{group}/{name}" if group else name, fields=fields)


def _statuses(samples: Sequence[Mapping[str, Any]], field: str) -> Iterator[str]:
    for sample in samples:
        yield str(sample[field])
