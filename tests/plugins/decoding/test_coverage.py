"""Coverage: unbiased estimators, the law, selection curves, cost, and errors that name the item."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pickaxe
from pickaxe import Item
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe_plugins.decoding._answers import INVALID
from pickaxe_plugins.decoding._cost import Prices, average
from pickaxe_plugins.decoding._passk import band, log_grid, pass_at_k
from pickaxe_plugins.decoding._selection import best_of_n, codes_of, majority, subset_success, weighted_majority
from pickaxe_plugins.decoding.coverage._law import Law, fit_law, shift


def problem(n: int, c: int, name: str = "p", **fields: object) -> Item:
    return Item(name, fields={"n": n, "c": c, **fields})  # type: ignore[dict-item]


def one(n: int, c: int, k: int) -> float:
    return float(pass_at_k(np.array([n]), np.array([c]), np.array([k]))[0, 0])


# ---------------------------------------------------------------- pass@k


def test_the_worked_figure_of_the_paper() -> None:
    assert one(10, 3, 5) == pytest.approx(0.9166666666666666)


@settings(deadline=None)
@given(st.integers(1, 300), st.data())
def test_pass_at_k_is_the_exact_rational(n: int, data: st.DataObject) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    exact = 1 - Fraction(math.comb(n - c, k), math.comb(n, k))
    assert one(n, c, k) == pytest.approx(float(exact), abs=1e-10)


@settings(deadline=None)
@given(st.integers(1, 500), st.data())
def test_first_last_and_rising(n: int, data: st.DataObject) -> None:
    c = data.draw(st.integers(0, n))
    curve = pass_at_k(np.array([n]), np.array([c]), np.arange(1, n + 1))[0]
    assert curve[0] == pytest.approx(c / n, abs=1e-10)  # differences of lgamma lose digits with n log n
    assert curve[-1] == (c > 0)
    assert np.all(np.diff(curve) >= -1e-12)


def test_unbiased_on_binomial_draws() -> None:
    rng = np.random.default_rng(0)
    n, p, ks = 40, 0.07, np.array([1, 5, 20])
    c = rng.binomial(n, p, 20_000)
    values = pass_at_k(np.full(len(c), n), c, ks)
    error = values.std(axis=0) / math.sqrt(len(c))
    assert np.all(np.abs(values.mean(axis=0) - (1 - (1 - p) ** ks)) < 3 * error)


def test_coverage_of_beta_distributed_problems() -> None:
    rng = np.random.default_rng(1)
    al, be, n, ks = 0.4, 2.0, 200, np.array([1, 10, 100])
    c = rng.binomial(n, rng.beta(al, be, 5000))
    values = pass_at_k(np.full(len(c), n), c, ks)
    log_fail = [
        math.lgamma(be + k) + math.lgamma(al + be) - math.lgamma(be) - math.lgamma(al + be + k) for k in ks.tolist()
    ]
    error = values.std(axis=0) / math.sqrt(len(c))
    assert np.all(np.abs(values.mean(axis=0) - (1 - np.exp(log_fail))) < 3 * error)


def test_bands_hold_the_coverage_and_are_those_of_resampled_problems() -> None:
    rng = np.random.default_rng(2)
    n, c, ks = np.full(60, 30), rng.integers(0, 31, 60), np.array([1, 4, 30])
    low, high = band(n, c, ks, 2000, 0.9, np.random.default_rng(0))
    curves = pass_at_k(n, c, ks)
    assert np.all((low <= curves.mean(axis=0)) & (curves.mean(axis=0) <= high))
    picks = rng.integers(0, 60, (4000, 60))
    plain = np.quantile(curves[picks].mean(axis=1), [0.05, 0.95], axis=0)
    np.testing.assert_allclose([low, high], plain, atol=0.01)


# ---------------------------------------------------------------- the law


@settings(deadline=None)
@given(st.floats(-6, -0.2), st.floats(-1.2, -0.1))
def test_exact_laws_are_recovered(a: float, b: float) -> None:
    ks = log_grid(2000, 30)
    law = fit_law(ks, np.exp(a * ks**b))
    assert (law.a, law.b) == pytest.approx((a, b), abs=1e-5)
    assert law.mean_abs_error < 1e-8


def test_needed_samples_invert_the_law() -> None:
    law = Law(-2.0, -0.4, 0.0, 100)
    assert law.coverage(law.samples_for(0.95)) == pytest.approx(0.95)
    assert law.samples_for(0.95) == pytest.approx((math.log(0.95) / -2.0) ** (1 / -0.4))
    assert law.samples_for(0.01) == 1.0
    assert Law(-0.5, 0.0, 0.0, 10).samples_for(0.9) == math.inf


def test_laws_that_cannot_be_fitted() -> None:
    ks = np.array([1, 2, 4])
    with pytest.raises(InvalidItems, match="0 at every k"):
        fit_law(ks, np.zeros(3))
    with pytest.raises(InvalidItems, match="at least two"):
        fit_law(np.array([1]), np.array([0.5]))
    law = fit_law(ks, np.ones(3))
    assert (law.a, law.mean_abs_error) == (0.0, 0.0)
    assert math.isnan(law.b)
    assert law.coverage(7.0) == 1.0


def test_shift_finds_how_many_times_the_samples_another_curve_needs() -> None:
    ks = log_grid(1000, 40)
    a, b = np.exp(-2 * ks**-0.5), np.exp(-2 * (ks / 8) ** -0.5)
    d, rmse = shift(ks, a, ks, b)
    assert d == pytest.approx(math.log(8), abs=0.02)
    assert rmse < 0.01
    assert shift(ks, a, ks, a) == pytest.approx((0.0, 0.0), abs=1e-6)


def test_fit_keeps_one_law_per_group_and_predicts(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    items = [
        problem(200, int(rng.binomial(200, p)), str(row), group=group)
        for group, be in (("large", 2.0), ("small", 8.0))
        for row, p in enumerate(rng.beta(0.5, be, 40))
    ]
    scorer = pickaxe.scorer("coverage", predict=(10, 1000), target=0.9).fit(items, out=tmp_path / "laws")
    report = scorer.score(items).summary["groups"]
    assert set(report) == {"large", "small"}
    large = report["large"]
    assert large["law_from"] == "artifact"
    law = Law(large["law"]["a"], large["law"]["b"], 0.0, 200)
    assert [each["extrapolated"] for each in large["predicted"]] == [False, True]
    assert large["predicted"][1]["coverage"] == pytest.approx(float(law.coverage(1000)))
    assert large["target"]["k"] == pytest.approx(law.samples_for(0.9))
    assert report["small"]["target"]["k"] > large["target"]["k"]
    other = scorer.score([problem(10, 3, group="unseen"), problem(10, 1, group="unseen")])
    assert other.summary["groups"]["unseen"]["law_from"] == "items"


def test_fit_refuses_what_has_no_law() -> None:
    with pytest.raises(InvalidItems, match="group 'x'"):
        pickaxe.scorer("coverage").fit([problem(10, 0, group="x")])
    with pytest.raises(InvalidItems, match="empty"):
        pickaxe.scorer("coverage").fit([])


def test_scoring_goes_on_where_no_law_fits() -> None:
    found = pickaxe.scorer("coverage").score([problem(10, 0, group="none"), problem(10, 10, group="all")])
    reports = found.summary["groups"]
    assert reports["none"]["law"] is None
    assert "0 at every k" in reports["none"]["law_refused"]
    assert reports["all"]["law"]["a"] == 0
    assert reports["all"]["law"]["b"] is None
    assert found.groups is not None
    assert found.groups.keys == ("all", "none")
    np.testing.assert_array_equal(found.groups.columns["coverage"], [1.0, 0.0])


# ---------------------------------------------------------------- selection


def test_ties_go_to_the_first_seen() -> None:
    assert majority(["b", "a", "a", "b"]) == 0
    assert majority(["c", "a", "b", "b", "a"]) == 1
    assert best_of_n([0.1, 0.7, 0.7]) == 1
    assert weighted_majority(["a", "b", "a"], [0.1, 0.3, 0.2]) == 0
    assert weighted_majority(["a", "b", "a"], [0.1, 0.31, 0.2]) == 1


@settings(deadline=None)
@given(st.data())
def test_subset_success_at_full_size_is_the_rule_itself(data: st.DataObject) -> None:
    answers = data.draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=12))
    scores = np.array(
        data.draw(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=len(answers), max_size=len(answers)))
    )
    correct = np.array([answer == "a" for answer in answers])
    found = subset_success(codes_of(answers), correct, scores, [len(answers)], 3, np.random.default_rng(0))
    assert found["majority"][0] == correct[majority(answers)]
    assert found["best_of_n"][0] == correct[best_of_n(scores.tolist())]
    assert found["weighted_majority"][0] == correct[weighted_majority(answers, scores.tolist())]


def test_subset_success_averages_the_rule_over_random_subsets() -> None:
    rng = np.random.default_rng(4)
    answers = rng.choice(list("abc"), 15, p=[0.4, 0.35, 0.25])
    correct, scores = answers == "a", rng.random(15)
    found = subset_success(codes_of(answers.tolist()), correct, scores, [1, 6], 4000, rng)
    assert found["majority"][0] == pytest.approx(correct.mean(), abs=0.03)
    subsets = [np.sort(rng.permutation(15)[:6]) for _ in range(4000)]
    plain = {
        "majority": np.mean([correct[s][majority(answers[s].tolist())] for s in subsets]),
        "best_of_n": np.mean([correct[s][best_of_n(scores[s].tolist())] for s in subsets]),
        "weighted_majority": np.mean(
            [correct[s][weighted_majority(answers[s].tolist(), scores[s].tolist())] for s in subsets]
        ),
    }
    for rule, value in plain.items():
        assert found[rule][1] == pytest.approx(value, abs=0.04), rule


def test_answers_are_judged_by_the_reference_and_no_answer_is_never_right() -> None:
    fields = {"answers": ["1/2", "0.50", INVALID, "3"], "reference": "0.5", "scores": np.array([0.1, 0.2, 0.9, 0.3])}
    found = pickaxe.scorer("coverage", k=(4,)).score([Item("p", fields=fields)])  # type: ignore[arg-type]
    assert found["pass_at_4"][0] == 1.0
    assert found["best_of_n"][0] == 0.0
    same = pickaxe.scorer("coverage").score([Item("p", fields={"answers": [INVALID], "reference": INVALID})])
    assert same["pass_at_1"][0] == 0.0


def test_gap_between_voting_and_coverage() -> None:
    rng = np.random.default_rng(5)
    items = []
    for row in range(20):
        right = rng.random(32) < 0.2
        answers = ["right" if good else "wrong" for good in right]
        items.append(Item(str(row), fields={"answers": answers, "reference": "right"}))
    selection = pickaxe.scorer("coverage", k=(32,)).score(items).summary["groups"]["all"]["selection"]
    assert selection["k"][-1] == 32
    assert selection["majority_below_coverage"] == pytest.approx(selection["coverage"][-1] - selection["majority"][-1])
    assert selection["majority_below_coverage"] > 0.9
    assert "best_of_n" not in selection


def test_columns_without_what_they_need_are_nan() -> None:
    found = pickaxe.scorer("coverage").score([problem(4, 1)])
    assert all(np.isnan(found[rule][0]) for rule in ("majority", "best_of_n", "weighted_majority"))


# ---------------------------------------------------------------- cost


@settings(deadline=None)
@given(st.floats(0, 1e4), st.floats(0, 1e4), st.floats(0, 50), st.floats(0, 50), st.integers(1, 1000))
def test_cost_is_linear_and_sharing_never_costs_more(p: float, o: float, ci: float, co: float, k: int) -> None:
    prices = Prices(p, o, ci, co)
    assert prices.billed(k) == pytest.approx(k * prices.billed(1))
    assert prices.shared(k) <= prices.billed(k) * (1 + 1e-12)
    assert prices.shared(k) - prices.shared(0) == pytest.approx(k * (prices.shared(1) - prices.shared(0)), abs=1e-9)
    assert prices.flops(k, 10.0) == pytest.approx(20 * (p + k * o))


def test_average_cost_is_that_of_average_prices() -> None:
    several = [Prices(100, 10, 1.0, 2.0), Prices(300, 50, 3.0, 4.0)]
    mean = average(several)
    assert mean.billed(7) == pytest.approx(np.mean([each.billed(7) for each in several]))
    assert mean.shared(7) == pytest.approx(np.mean([each.shared(7) for each in several]))


def test_groups_are_compared_at_equal_cost() -> None:
    items = [
        problem(100, 10, "a", group="small", usd_per_m_output=1.0),
        problem(100, 60, "b", group="large", usd_per_m_output=20.0),
    ]
    scorer = pickaxe.scorer("coverage", output_tokens=1000, budget_usd=0.02, model_parameters=1e9)
    reports = scorer.score(items).summary["groups"]
    assert reports["small"]["at_budget"]["k"] == pytest.approx(20)
    assert reports["large"]["at_budget"]["k"] == pytest.approx(1)
    assert reports["small"]["at_budget"]["coverage"] == pytest.approx(one(100, 10, 20), abs=0.01)
    assert reports["large"]["at_budget"]["coverage"] == pytest.approx(0.6)
    assert reports["small"]["flops"][0] == pytest.approx(2e12)
    assert reports["small"]["usd_billed"] == reports["small"]["usd_shared"]
    poor = pickaxe.scorer("coverage", output_tokens=1000, budget_usd=0.001).score(items).summary["groups"]
    assert poor["large"]["at_budget"]["coverage"] == 0.0


# ---------------------------------------------------------------- items, groups, parameters


def test_columns_follow_k_and_the_largest_comes_first() -> None:
    scorer = pickaxe.scorer("coverage", k=(1, 10, 3))
    assert [column.name for column in scorer.columns][:3] == ["pass_at_10", "pass_at_1", "pass_at_3"]
    found = scorer.score([Item("p", fields={"correct": np.array([True] * 3 + [False] * 7)})])
    assert found["pass_at_1"][0] == pytest.approx(0.3)
    assert found.primary[0] == 1.0


def test_items_with_different_numbers_of_samples() -> None:
    items = [problem(4, 2, "few"), problem(16, 4, "many")]
    report = pickaxe.scorer("coverage").score(items).summary["groups"]["all"]
    assert report["k"][-1] == 4
    wide = pickaxe.scorer("coverage", per_item=True, k=(8,)).score(items)
    assert np.isnan(wide.primary[0])
    assert wide.primary[1] == pytest.approx(one(16, 4, 8))
    curve = wide.summary["groups"]["all"]
    assert curve["k"][-1] == 16
    assert curve["coverage"][-1] == 1.0
    with pytest.raises(InvalidItems, match=r"fewer than k = 8.*'few'"):
        pickaxe.scorer("coverage", k=(8,)).score(items)


def test_curves_of_single_problems() -> None:
    found = pickaxe.scorer("coverage", curves=True, curve=(1, 2)).score([problem(4, 2, "a"), problem(4, 0, "b")])
    assert found.summary["groups"]["all"]["curves"] == {
        "a": pytest.approx([0.5, one(4, 2, 2)]),
        "b": pytest.approx([0.0, 0.0]),
    }


def test_bands_depend_on_the_seed_only_and_can_be_left_out() -> None:
    items = [problem(20, c, str(c)) for c in range(20)]
    scorer = pickaxe.scorer("coverage")
    first, again, other = (scorer.score(items, seed=seed).summary["groups"]["all"] for seed in (1, 1, 2))
    assert first["low"] == again["low"] != other["low"]
    assert "low" not in pickaxe.scorer("coverage", bootstrap=0).score(items).summary["groups"]["all"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n": 3, "c": 4}, "c: is 4 of n = 3"),
        ({"n": 3, "c": -1}, "between 0 and n"),
        ({"n": 0, "c": 0}, "at least one sample"),
        ({}, "neither `correct`"),
        ({"correct": np.array([], bool)}, "no samples"),
        ({"correct": np.array([0.0, np.nan])}, "true or false"),
        ({"correct": np.array([True]), "n": 2}, "samples say 1"),
        ({"correct": np.array([True]), "answers": ["a", "b"]}, "answers: are 2 for 1"),
        ({"correct": np.array([True]), "scores": np.array([np.nan])}, "NaN"),
        ({"n": 3, "c": 1, "usd_per_m_input": -1.0}, "usd_per_m_input"),
    ],
)
def test_bad_items_are_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidItems, match=message) as caught:
        pickaxe.scorer("coverage").score([problem(3, 1), Item("bad", fields=fields)])  # type: ignore[arg-type]
    assert "'bad'" in str(caught.value)
    assert "items[1]" in str(caught.value)


@pytest.mark.parametrize("params", [{"k": (0,)}, {"k": ()}, {"curve": (-1,)}, {"target": 1.0}, {"confidence": 0}])
def test_bad_parameters(params: dict[str, object]) -> None:
    with pytest.raises(InvalidParams):
        pickaxe.scorer("coverage", **params)


def test_curve_beyond_all_samples_is_refused() -> None:
    with pytest.raises(InvalidParams, match="within the 4 samples"):
        pickaxe.scorer("coverage", curve=(5, 6)).score([problem(4, 1)])
