"""One problem of a run: its judged samples, read from an item and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import cast

import numpy as np

from pickaxe import Item
from pickaxe.errors import InvalidItems
from pickaxe_plugins.decoding._answers import same
from pickaxe_plugins.decoding._cost import Prices
from pickaxe_plugins.decoding._selection import best_of_n, codes_of, majority, subset_success, weighted_majority

_PRICES = tuple(part.name for part in fields(Prices))


@dataclass(frozen=True)
class Read:
    """How items are read: what they are called in errors, and what holds where they are silent."""

    where: str
    prices: Prices
    group: str


@dataclass(frozen=True)
class Problem:
    """`n` samples of one problem, `c` of them correct.

    `codes` are the samples' answers as numbers; `correct` says which are right; both None without answers.
    """

    id: str
    group: str
    n: int
    c: int
    prices: Prices
    correct: np.ndarray | None = None
    codes: np.ndarray | None = None
    scores: np.ndarray | None = None

    def success(self, rule: str) -> float:
        """1 when the sample that the rule selects is correct, 0 when not, NaN when it cannot select."""
        picked = self._picked(rule)
        return np.nan if picked is None or self.correct is None else float(self.correct[picked])

    def _picked(self, rule: str) -> int | None:
        if rule == "best_of_n":
            return None if self.scores is None else best_of_n(self.scores)
        if self.codes is None:
            return None
        if rule == "majority":
            return majority(self.codes.tolist())
        return None if self.scores is None else weighted_majority(self.codes.tolist(), self.scores.tolist())

    def subset_success(
        self, ks: Sequence[int] | np.ndarray, rounds: int, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """`_selection.subset_success` of these samples, which must have answers."""
        assert self.codes is not None
        assert self.correct is not None
        return subset_success(self.codes, self.correct, self.scores, [int(k) for k in ks], rounds, rng)


def read_problem(item: Item, row: int, read: Read) -> Problem:
    """The problem in an item's fields; raises `InvalidItems` naming the item and the field."""
    place = _Place(item, f"{read.where}[{row}]")
    answers = place.answers()
    correct = place.correct(answers)
    scores = place.scores()
    if correct is None:
        n, c = place.counts()
    else:
        n, c = len(correct), int(correct.sum())
        place.agree(n, c)
    for name, values in (("answers", answers), ("scores", scores)):
        if values is not None and len(values) != n:
            raise place.error(name, f"are {len(values)} for {n} samples")
    codes = None if answers is None or correct is None else codes_of(answers)
    group = item.fields.get("group")
    return Problem(
        item.id, read.group if group is None else str(group), n, c, place.prices(read.prices), correct, codes, scores
    )


@dataclass(frozen=True)
class _Place:
    """An item and what it is called."""

    item: Item
    name: str

    def error(self, field: str, what: str) -> InvalidItems:
        return InvalidItems(f"{self.name}.fields.{field}", f"{what} (item {self.item.id!r})")

    def answers(self) -> list[str] | None:
        answers = cast("Sequence[str] | None", self.item.fields.get("answers"))
        return None if answers is None else [str(answer) for answer in answers]

    def correct(self, answers: Sequence[str] | None) -> np.ndarray | None:
        """The judgement of every sample: as given, or by comparing answers with the reference."""
        given = self.item.fields.get("correct")
        if given is None:
            reference = self.item.fields.get("reference")
            if answers is None or reference is None:
                return None
            known = {answer: same(answer, str(reference)) for answer in set(answers)}
            return self._some(np.array([known[answer] for answer in answers], np.bool_), "answers")
        array = np.asarray(given)
        if array.ndim != 1 or not np.isin(array, (0, 1)).all():
            raise self.error("correct", f"has shape {array.shape}, wanted true or false for each of (n,) samples")
        return self._some(array.astype(np.bool_), "correct")

    def _some(self, values: np.ndarray, field: str) -> np.ndarray:
        if not len(values):
            raise self.error(field, "has no samples: give at least one")
        return values

    def counts(self) -> tuple[int, int]:
        n, c = (cast("int | None", self.item.fields.get(name)) for name in ("n", "c"))
        if n is None or c is None:
            raise InvalidItems(
                self.name,
                f"has neither `correct`, nor `n` and `c`, nor `answers` and `reference` (item {self.item.id!r})",
            )
        if int(n) < 1:
            raise self.error("n", f"is {n}; give at least one sample")
        if not 0 <= int(c) <= int(n):
            raise self.error("c", f"is {c} of n = {n} samples; must lie between 0 and n")
        return int(n), int(c)

    def agree(self, n: int, c: int) -> None:
        """Raise unless `n` and `c`, where given beside the samples, say the same."""
        for name, found in (("n", n), ("c", c)):
            if (said := self.item.fields.get(name)) is not None and said != found:
                raise self.error(name, f"is {said}, but the samples say {found}")

    def scores(self) -> np.ndarray | None:
        given = self.item.fields.get("scores")
        if given is None:
            return None
        array = np.asarray(given)
        if array.ndim != 1 or array.dtype.kind not in "fiub":
            raise self.error("scores", f"has shape {array.shape} of {array.dtype}, wanted numbers of shape (n,)")
        array = array.astype(np.float64)
        if not np.isfinite(array).all():
            raise self.error("scores", "holds NaN or an infinite number")
        return array

    def prices(self, default: Prices) -> Prices:
        given = {name: self._number(name) for name in _PRICES if name in self.item.fields}
        return replace(default, **given) if given else default

    def _number(self, name: str) -> float:
        value = self.item.fields[name]
        if not 0 <= float(value) < float("inf"):  # type: ignore[arg-type]
            raise self.error(name, f"is {value}; must be a number of at least 0")
        return float(value)  # type: ignore[arg-type]
