"""What the rule scorers share: one verdict, a reason and the statistics behind it for every text."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from pydantic import Field

import pickaxe
from pickaxe import Call, Column, Flag, InputField, Items, Method, Scores, hookimpl
from pickaxe_plugins.selection._numbered_words import blocks
from pickaxe_plugins.selection._text_units import WORD, Pattern

KEEP = Column("keep", "1 when the text passes every rule, 0 when it fails one", "float64")
REASON = Column("reason", "the first rule that failed, empty when none did", "str", direction="none", nullable=True)


class WordParams(pickaxe.Params):
    """Parameters of rules that count words."""

    word_pattern: Pattern = Field(WORD, description="Regular expression of a word; punctuation runs are words too.")


P = TypeVar("P", bound=pickaxe.Params)


class Verdict(NamedTuple):
    """`reason` is empty for a text that is kept; `values` are the columns after it, NaN where there is no value."""

    reason: str
    values: Sequence[float | str]


class Rules(Method[P]):
    """Base of the rule scorers: `judge` looks at some texts together, though each verdict depends on its text alone."""

    scope = "item"
    reads = (InputField("text", "text", "The text to judge; may be empty."),)
    fitted = "never"

    @abstractmethod
    def judge(self, texts: Sequence[str]) -> Iterable[Verdict]:
        """The verdict on each text."""

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        verdicts: list[Verdict] = []
        for texts in blocks(items.texts()):
            call.check()
            verdicts.extend(self.judge(texts))
        columns: dict[str, np.ndarray] = {
            "keep": np.array([not verdict.reason for verdict in verdicts], np.float64),
            "reason": np.array([verdict.reason for verdict in verdicts], np.str_),
        }
        declared = self.declared_columns()[2:]
        rows = zip(*(verdict.values for verdict in verdicts), strict=True) if verdicts else [()] * len(declared)
        for column, values in zip(declared, rows, strict=True):
            columns[column.name] = np.array(values, np.str_ if column.dtype == "str" else column.dtype)
        return Scores(columns, flags=tuple(_flags(columns, len(verdicts))))


def _flags(columns: dict[str, np.ndarray], count: int) -> Iterable[Flag]:
    """One flag for each text of which some share has a denominator of 0."""
    missing: dict[int, list[str]] = {}
    for name, values in columns.items():
        if values.dtype.kind == "f":
            for row in np.flatnonzero(np.isnan(values)).tolist():
                missing.setdefault(row, []).append(name)
    for row, names in sorted(missing.items()):
        yield Flag(row, "no-value", f"nothing to divide by, so without value: {', '.join(names)}")


def share(part: float, whole: float) -> float:
    """part / whole, NaN when there is no whole."""
    return part / whole if whole else math.nan


def first(*checks: tuple[str, bool]) -> str:
    """The reason of the first check that holds."""
    return next((reason for reason, failed in checks if failed), "")


def above(value: float, limit: float | None) -> bool:
    """Whether the value exceeds the limit; a limit of None never fails, nor does a value that does not exist."""
    return limit is not None and value > limit


def below(value: float, limit: float | None) -> bool:
    """Whether the value falls short of the limit; see `above`."""
    return limit is not None and value < limit


def duplicates(parts: Iterable[str]) -> tuple[int, int, int]:
    """How many parts there are, how many repeat an earlier one, and the characters of those that do."""
    every = list(parts)
    different = set(every)
    repeated = len(every) - len(different)
    return len(every), repeated, sum(map(len, every)) - sum(map(len, different)) if repeated else 0


def statistic(name: str, doc: str, dtype: Any = "float64") -> Column:
    """A column that explains a verdict and has no better side; shares may lack a value."""
    return Column(name, doc, dtype, direction="none", nullable=dtype in ("float64", "str"))
