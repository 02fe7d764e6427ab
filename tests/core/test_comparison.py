"""Agreement, quality and corrections: known cases, independent implementations and invariants."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pickaxe import comparison
from pickaxe.errors import InvalidItems, InvalidParams

PAIRS = st.lists(st.tuples(st.integers(0, 6), st.integers(-3, 9)), min_size=2, max_size=40)
RANKINGS = st.permutations(range(8)).flatmap(lambda order: st.integers(1, 8).map(lambda length: order[:length]))


def columns(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.array(pairs, np.float64).T
    return a, b


@given(PAIRS)
@settings(max_examples=150, deadline=None)
def test_correlations_agree_with_scipy(pairs: list[tuple[int, int]]) -> None:
    a, b = columns(pairs)
    if len(set(a)) < 2 or len(set(b)) < 2:
        assert math.isnan(comparison.spearman(a, b))
        assert math.isnan(comparison.kendall(a, b))
        return
    assert comparison.spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)
    assert comparison.kendall(a, b) == pytest.approx(stats.kendalltau(a, b).statistic, abs=1e-12)


def test_correlations_of_many_and_infinite_values() -> None:
    random = np.random.default_rng(1)
    a = random.normal(size=20_000)
    b = np.round(a + random.normal(size=20_000), 1)
    assert comparison.kendall(a, b) == pytest.approx(stats.kendalltau(a, b).statistic, abs=1e-12)
    a[0], b[0] = math.inf, math.inf
    assert comparison.kendall(a, a) == comparison.spearman(a, a) == 1
    assert comparison.kendall(a, -a) == comparison.spearman(a, -a) == -1
    with pytest.raises(InvalidItems, match="NaN"):
        comparison.spearman(np.array([1, math.nan]), np.array([1, 2]))
    with pytest.raises(InvalidItems, match="2 on one side and 1"):
        comparison.kendall(np.array([1, 2]), np.array([1]))


def test_overlap_and_the_best() -> None:
    assert comparison.best(np.array([1, 3, 3, 2]), 3) == [1, 2, 3]
    assert comparison.overlap("abcd", "badc", 1) == 0
    assert comparison.overlap("abcd", "badc", 2) == 1
    assert comparison.overlap("abc", "ax", 10) == pytest.approx(1 / 3)
    assert math.isnan(comparison.overlap("", "", 3))
    with pytest.raises(InvalidParams, match="at least 1"):
        comparison.overlap("a", "a", 0)


def rbo_by_definition(a: list[int], b: list[int], p: float) -> float:
    """Equal lengths: the finite sum, and the last agreement carried on for ever."""
    agreement = [len(set(a[:d]) & set(b[:d])) / d for d in range(1, len(a) + 1)]
    carried = agreement + [agreement[-1]] * 2000
    return (1 - p) * sum(each * p**d for d, each in enumerate(carried))


@given(st.permutations(range(8)), st.permutations(range(4, 12)), st.sampled_from([0.5, 0.9, 0.98]))
@settings(max_examples=60, deadline=None)
def test_rank_biased_overlap_of_equal_lengths_is_its_definition(a: list[int], b: list[int], p: float) -> None:
    assert comparison.rank_biased_overlap(a, b, p) == pytest.approx(rbo_by_definition(a, b, p), abs=1e-9)


@given(RANKINGS, RANKINGS)
@settings(max_examples=100, deadline=None)
def test_rank_biased_overlap_is_symmetric_and_bounded(a: list[int], b: list[int]) -> None:
    found = comparison.rank_biased_overlap(a, b)
    assert found == pytest.approx(comparison.rank_biased_overlap(b, a))
    assert -1e-12 <= found <= 1 + 1e-12
    assert comparison.rank_biased_overlap(a, a) == pytest.approx(1)


def test_rank_biased_overlap_at_the_edges() -> None:
    assert comparison.rank_biased_overlap("abc", "xyz") == 0
    assert comparison.rank_biased_overlap("", "ab") == 0
    assert math.isnan(comparison.rank_biased_overlap("", ""))
    assert comparison.rank_biased_overlap("ab", "abc") == pytest.approx(1)  # what is not seen is taken to agree
    with pytest.raises(InvalidParams, match="between 0 and 1"):
        comparison.rank_biased_overlap("a", "a", 1)
    with pytest.raises(InvalidItems, match="more than once"):
        comparison.rank_biased_overlap("aa", "ab")


@given(PAIRS, st.integers(0, 2**20))
@settings(max_examples=80, deadline=None)
def test_weights_are_repetitions(pairs: list[tuple[int, int]], seed: int) -> None:
    a, b = columns(pairs)
    times = np.random.default_rng(seed).integers(0, 4, len(a))
    repeated = np.repeat(a, times), np.repeat(b, times)
    weighted = comparison.spearman_statistic(a, b)(times.astype(float))
    assert weighted == pytest.approx(comparison.spearman(*repeated), nan_ok=True)
    area = comparison.auc_statistic(a, b > 2)(times.astype(float))
    labels = repeated[1] > 2
    if labels.any() and not labels.all():
        u = stats.mannwhitneyu(repeated[0][labels], repeated[0][~labels]).statistic
        assert area == pytest.approx(u / (labels.sum() * (~labels).sum()))
    else:
        assert math.isnan(area)
    if times.sum():
        assert comparison.mean_statistic(a)(times.astype(float)) == pytest.approx(repeated[0].mean())


def test_holm_by_hand() -> None:
    assert comparison.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert comparison.holm([0.6, math.nan, 0.7]) == pytest.approx([1.0, math.nan, 1.0], nan_ok=True)
    assert comparison.holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_the_plain_and_bonferroni(p: list[float]) -> None:
    for plain, corrected in zip(p, comparison.holm(p), strict=True):
        assert plain <= corrected <= min(1.0, len(p) * plain)
    order = np.argsort(p, kind="stable")
    assert (np.diff(np.array(comparison.holm(p))[order]) >= 0).all()


def means(**methods: np.ndarray) -> dict[str, dict[str, comparison.Statistic]]:
    return {"mean": {name: comparison.mean_statistic(values) for name, values in methods.items()}}


def test_pairing_finds_what_intervals_of_each_method_hide() -> None:
    random = np.random.default_rng(0)
    base = random.normal(0, 10, 200)
    found = comparison.quality(means(a=base + 0.5, b=base, c=base + random.normal(0, 1, 200)), 200, seed=3)
    a, b = found.estimates["mean"]["a"], found.estimates["mean"]["b"]
    assert b.low < a.value < b.high
    first = found.differences[0]
    assert (first.first, first.second) == ("a", "b")
    assert first.value == pytest.approx(0.5)
    assert (first.low, first.high) == pytest.approx((0.5, 0.5))
    assert first.p == pytest.approx(2 / 1001)
    assert first.adjusted == pytest.approx(6 / 1001)
    assert [(each.first, each.second) for each in found.differences] == [("a", "b"), ("a", "c"), ("b", "c")]


def test_equal_methods_do_not_differ() -> None:
    values = np.array([0.0, 1.0, 1.0])
    difference = comparison.quality(means(a=values, b=values.copy()), 3, draws=50).differences[0]
    assert (difference.value, difference.low, difference.high, difference.p, difference.adjusted) == (0, 0, 0, 1, 1)


def test_the_interval_is_that_of_the_mean() -> None:
    values = np.random.default_rng(5).normal(3, 2, 400)
    found = comparison.quality(means(a=values), 400, draws=4000, seed=1).estimates["mean"]["a"]
    error = values.std() / 20
    assert (found.low, found.high) == pytest.approx(
        (values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.02
    )
    again = comparison.quality(means(a=values), 400, draws=4000, seed=1).estimates["mean"]["a"]
    assert again == found


def test_false_alarms_are_as_rare_as_promised() -> None:
    random = np.random.default_rng(7)
    alarms = 0
    for trial in range(200):
        a, b = random.normal(size=(2, 60))
        alarms += comparison.quality(means(a=a, b=b), 60, draws=200, seed=trial).differences[0].p <= 0.05
    assert alarms / 200 < 0.1


def test_one_class_has_no_area() -> None:
    statistic = comparison.auc_statistic(np.arange(4.0), np.ones(4, bool))
    found = comparison.quality({"auc": {"a": statistic, "b": statistic}}, 4, draws=5)
    assert math.isnan(found.estimates["auc"]["a"].low)
    assert math.isnan(found.differences[0].adjusted)


@pytest.mark.parametrize(("name", "wrong"), [("draws", {"draws": 0}), ("level", {"level": 1.0}), ("count", {})])
def test_wrong_parameters_are_named(name: str, wrong: dict[str, float]) -> None:
    count = 0 if name == "count" else 2
    with pytest.raises(InvalidParams, match=name):
        comparison.quality(means(a=np.ones(2)), count, **wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidItems, match="values"):
        comparison.mean_statistic(np.array([math.nan]))
