"""Picking by a column: ties, order, shares, and rows without a number."""

import math
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pickaxe.errors import InvalidParams
from pickaxe.io.selection import Rule, pick

NAN = math.nan
VALUES = st.lists(st.one_of(st.integers(-3, 3).map(float), st.floats()), max_size=30)


def test_ties_go_to_the_lower_index() -> None:
    assert pick([1, 2, 2, 1, 2], Rule("top", 2)) == [1, 2]
    assert pick([1, 2, 2, 1, 2], Rule("top", 4)) == [0, 1, 2, 4]
    assert pick([1, 2, 2, 1, 2], Rule("top", 1, lowest=True)) == [0]
    assert pick([1, 2, 2, 1, 2], Rule("fraction", 0.4)) == [1, 2]


@pytest.mark.parametrize(("kind", "amount"), [("top", 1), ("fraction", 0.3), ("quantile", 1), ("threshold", 2**60 + 2)])
def test_whole_numbers_beyond_doubles(kind: Literal["top", "fraction"], amount: float) -> None:
    assert pick([2**60, 2**60 + 2, 2**60 + 1], Rule(kind, amount)) == [1]


def test_rows_without_a_number_are_never_picked() -> None:
    for rule in (Rule("top", 9), Rule("fraction", 1), Rule("threshold", -math.inf), Rule("quantile", 0)):
        assert pick([NAN, 1, NAN, -math.inf], rule) == [1, 3]
    assert pick([NAN, NAN], Rule("quantile", 0.5)) == []


def test_fractions_are_rounded() -> None:
    assert [len(pick(range(n), Rule("fraction", 0.07))) for n in (0, 7, 8, 100, 1000)] == [0, 0, 1, 7, 70]


@given(VALUES, st.integers(0, 40), st.booleans())
def test_top_is_a_stable_sort(values: list[float], n: int, lowest: bool) -> None:
    sign = -1 if lowest else 1
    numbers = [row for row, value in enumerate(values) if not math.isnan(value)]
    wanted = sorted(sorted(numbers, key=lambda row: -sign * values[row])[:n])
    assert pick(values, Rule("top", n, lowest)) == wanted


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.floats(0, 1))
def test_quantile_is_numpys(values: list[float], share: float) -> None:
    bound = np.quantile(values, share)
    picked = pick(values, Rule("quantile", share))
    near = [row for row, value in enumerate(values) if math.isclose(value, bound, rel_tol=1e-12, abs_tol=1e-9)]
    assert set(picked) ^ {row for row, value in enumerate(values) if value >= bound} <= set(near)


def test_quantile_of_low_is_good() -> None:
    assert pick(range(11), Rule("quantile", 0.9, lowest=True)) == [0, 1]


@pytest.mark.parametrize(("kind", "amount"), [("fraction", 1.1), ("quantile", -0.1), ("top", -1), ("top", 1.5)])
def test_rules_that_make_no_sense(kind: str, amount: float) -> None:
    with pytest.raises(InvalidParams, match=kind):
        Rule(kind, amount)  # type: ignore[arg-type]
