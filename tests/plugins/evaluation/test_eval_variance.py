"""eval-variance: its statistics against references and invariances, its modes, fit, flags, errors and report."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau, ttest_ind

import pickaxe
from pickaxe import Call, Item, Items, Scores
from pickaxe.errors import Cancelled, InvalidItems, InvalidParams
from pickaxe.report import explained
from pickaxe_plugins.evaluation.eval_variance import _choices, _seed_stats


def scored(*rows: dict[str, Any], **params: Any) -> Scores:
    items = [Item(f"item {at}", fields=row) for at, row in enumerate(rows)]
    return pickaxe.scorer("eval-variance", **params).score(items)


def flags(scores: Scores) -> list[tuple[int, str]]:
    return [(flag.index, flag.reason) for flag in scores.flags]


def same(one: Scores, other: Scores) -> None:
    for name in one.columns:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-12, err_msg=name)


def answers(rng: np.random.Generator, *shape: int, share: float = 0.4) -> np.ndarray:
    return (rng.random(shape) < share).astype(np.float64)


# ---------------------------------------------------------------- trajectories


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=2, max_size=40))
def test_tau_b_is_that_of_scipy(scores: list[int]) -> None:
    found = _seed_stats.tau_b(np.array([scores], np.float64))[0]
    assert found == pytest.approx(kendalltau(np.arange(len(scores)), scores).statistic, nan_ok=True)


@pytest.mark.parametrize("steps", [256, 257, 700, 2049])
def test_tau_b_of_long_trajectories(steps: int) -> None:
    scores = np.round(np.random.default_rng(steps).normal(size=(5, steps)).cumsum(axis=1))
    expected = [kendalltau(np.arange(steps), row).statistic for row in scores]
    np.testing.assert_allclose(_seed_stats.tau_b(scores), expected, rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.01, 100), st.integers(-50, 50), st.integers(0, 1000))
def test_scale_and_shift_leave_tau_and_scale_the_spread(factor: float, shift: int, seed: int) -> None:
    scores = np.random.default_rng(seed).integers(0, 30, (4, 12)).astype(np.float64)
    one, other = scored({"scores": scores}), scored({"scores": factor * scores + shift})
    np.testing.assert_allclose(one["monotonicity"], other["monotonicity"])
    np.testing.assert_allclose(factor * one["seed_std"], other["seed_std"], rtol=1e-9, atol=1e-12)


def test_rising_falling_and_constant_trajectories() -> None:
    rising = np.arange(9.0)[None]
    found = scored({"scores": rising}, {"scores": -rising}, {"scores": 0 * rising})
    np.testing.assert_array_equal(found["monotonicity"], [1, -1, np.nan])
    assert found["n_constant"].tolist() == [0, 0, 1]
    assert (2, "constant") in flags(found)


def test_constant_trajectories_are_left_out_of_the_mean() -> None:
    found = scored({"scores": np.array([[1, 2, 3.0], [2, 2, 2], [1, 3, 2]])})
    assert found["monotonicity"][0] == pytest.approx((1 + 1 / 3) / 2)
    assert found["monotonicity_min"][0] == pytest.approx(1 / 3)


def test_losses_are_turned_before_ranking() -> None:
    losses = np.array([[3, 2, 1.0], [3.1, 2, 1.2]])
    found = scored({"scores": losses}, {"scores": losses, "direction": "lower"})
    assert found["monotonicity"].tolist() == [-1, 1]
    assert found["snr"][0] == found["snr"][1] > 0


# ---------------------------------------------------------------- intervals over items


@pytest.mark.parametrize("n", [200, 500])
def test_bootstrap_approaches_the_analytic_width(n: int) -> None:
    scores = answers(np.random.default_rng(n), 3, n)
    found = scored({"scores": scores.mean(axis=1), "item_scores": scores}, bootstrap=20_000)
    assert found["ci95_half_width"] == pytest.approx(found["ci95_analytic"], rel=0.03)


@pytest.mark.parametrize("shape", [(3, 37), (3, 11, 4)])
def test_bootstrap_does_not_depend_on_blocks_order_or_repetition(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(shape)
    low, high = _seed_stats.bootstrap_ends(scores, 200, Call(seed=3))
    shuffled = scores[:, rng.permutation(shape[1])]
    for other, block in itertools.product((scores, shuffled), (1, 500, 10**6)):
        again = _seed_stats.bootstrap_ends(other, 200, Call(seed=3), block)
        np.testing.assert_array_equal(again, (low, high))
    turned = _seed_stats.bootstrap_ends(scores[::-1], 200, Call(seed=3))
    np.testing.assert_array_equal(turned, (low[::-1], high[::-1]))
    assert (_seed_stats.bootstrap_ends(scores, 200, Call(seed=4))[0] != low).any()


def test_repeated_samples_widen_the_interval_less_than_separate_items() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random((1, 300, 1))
    repeated = (rng.random((1, 300, 8)) < hard).astype(np.float64)
    two, flat = (
        scored({"scores": repeated.mean(axis=(1, 2)), "item_scores": each})
        for each in (repeated, repeated.reshape(1, -1))
    )
    assert two["ci95_half_width"][0] > 1.5 * flat["ci95_half_width"][0]
    assert two["ci95_half_width"][0] == pytest.approx(two["ci95_analytic"][0], rel=0.1)


def test_wilson_has_a_width_at_both_ends() -> None:
    found = scored(*({"scores": np.full(2, p), "item_scores": np.full((2, 50), p)} for p in (0.0, 1.0, 0.5)))
    np.testing.assert_allclose(found["ci95_half_width"], 0)
    assert found["wilson_low"][0] == 0 < found["wilson_high"][0] == pytest.approx(1.96**2 / (50 + 1.96**2))
    assert found["wilson_high"][1] == 1 > found["wilson_low"][1]
    assert np.isnan(found["wilson_low"][2])


def test_bootstrap_stops_when_the_caller_gives_up() -> None:
    call = Call()
    call.cancel()
    with pytest.raises(Cancelled):
        _seed_stats.bootstrap_ends(np.ones((1, 5)), 10, call)


# ---------------------------------------------------------------- seeds


def test_order_of_seeds_models_and_items_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    steps, models = answers(rng, 4, 6, 30), answers(rng, 9, 30, share=0.6)
    seeds, columns, others = rng.permutation(4), rng.permutation(30), rng.permutation(9)
    one = scored({"item_trajectories": steps, "responses": models})
    other = scored({"item_trajectories": steps[seeds][:, :, columns], "responses": models[others][:, columns]})
    same(one, other)
    for a, b in zip(one.summary["Fewer items"], other.summary["Fewer items"], strict=True):
        assert a == pytest.approx(b, nan_ok=True)
    of_items = [scored(*({"responses": line} for line in each), mode="items") for each in (models.T, models.T[columns])]
    for name in ("difficulty", "discrimination", "corrected_discrimination"):
        np.testing.assert_allclose(of_items[0][name][columns], of_items[1][name], atol=1e-12)


def test_one_seed_equal_seeds_and_one_checkpoint_are_flagged() -> None:
    found = scored({"scores": np.array([0.4])}, {"scores": np.array([0.4, 0.4])}, {"scores": np.array([0.4, 0.5])})
    np.testing.assert_array_equal(np.isnan(found["seed_std"]), [True, False, False])
    assert math.isnan(found["snr"][0])
    assert found["snr"][1] == math.inf
    assert np.isnan(found["monotonicity"]).all()
    assert np.isnan(found["ci95_half_width"]).all()
    assert [each for each in flags(found) if each[1] != "one-checkpoint"] == [(0, "one-seed"), (1, "no-spread")]
    answer, _ = explained(found.summary)
    assert any("one seed only: no spread can be given, give two or more" in each for each in answer)


@pytest.mark.parametrize("primary", ["snr", "monotonicity", "neg_std"])
def test_primary_column_comes_first(primary: str) -> None:
    found = scored({"scores": np.random.default_rng(0).random((3, 4))}, primary=primary)
    assert next(iter(found.columns)) == primary
    if primary == "neg_std":
        assert found.primary[0] == -found["seed_std"][0]


# ---------------------------------------------------------------- comparison


def test_a_clear_difference_and_none() -> None:
    a, b = np.array([0.7, 0.71, 0.69]), np.array([0.5, 0.51, 0.49])
    found = scored({"a": a, "b": b}, {"a": a, "b": a + 0.001}, {"a": a, "b": b, "direction": "lower"}, mode="compare")
    assert found["detectable"].tolist() == [1, 0, 1]
    assert found["diff"] == pytest.approx([0.2, -0.001, -0.2])
    assert found["p_value"][0] == pytest.approx(2 / 20)
    assert found["seed_std"][0] == pytest.approx(0.01)
    assert found["min_detectable_difference"][0] == pytest.approx(1.96 * math.sqrt(2) * 0.01)
    assert found["z"][0] == pytest.approx(0.2 / (math.sqrt(2) * 0.01))
    answer, (figure,) = explained(found.summary)
    assert any(each.startswith("item 0: A is ahead by 0.2, more than the 0.0277") for each in answer)
    assert figure.series[0].x == pytest.approx(found["diff"])


def test_more_than_twelve_runs_take_welch() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, 8), rng.normal(0.5, 2, 9)
    found = scored({"a": a, "b": b}, {"a": np.ones(7), "b": np.ones(7)}, mode="compare")
    assert found["p_value"] == pytest.approx([ttest_ind(a, b, equal_var=False).pvalue, 1])
    assert flags(found) == [(1, "no-spread")]


def test_single_runs_need_a_known_spread() -> None:
    pair = {"a": np.array([0.6]), "b": np.array([0.5])}
    found = scored(pair, {**pair, "seed_std": 0.01}, {**pair, "seed_std": 0.1}, mode="compare")
    np.testing.assert_array_equal(found["detectable"], [np.nan, 1, 0])
    assert np.isnan(found["p_value"]).all()
    assert flags(found) == [(0, "one-seed")]


# ---------------------------------------------------------------- choices


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-800, 0), min_size=2, max_size=6), st.floats(-1000, 1000))
def test_masses_add_up_to_one_and_ignore_a_constant(values: list[float], constant: float) -> None:
    masses = _choices.option_masses(np.array(values))
    assert masses.sum() == pytest.approx(1)
    np.testing.assert_allclose(_choices.option_masses(np.array(values) + constant), masses, atol=1e-9)


def test_first_of_equal_options_counts() -> None:
    rows = [{"option_loglikelihoods": np.array([-1.0, -1.0]), "gold": gold} for gold in (0, 1)]
    found = scored(*rows, mode="choices")
    assert found["correct"].tolist() == [1, 0]
    assert found["correct_mass"] == pytest.approx([0.5, 0.5])
    assert np.isnan(found["letter_mass"]).all()


@pytest.mark.parametrize("norm", ["none", "chars", "tokens"])
def test_a_model_reads_both_framings(norm: str) -> None:
    question = Item("q", "Which of these is an animal?", {"options": ("a dog", "a stone"), "gold": 0})
    handle = pickaxe.scorer("eval-variance", mode="choices", model="draft", length_norm=norm)
    found = handle.score([question])
    for name in ("correct_mass", "letter_mass"):
        assert 0 < found[name][0] < 1
    assert found["loglikelihood"][0] < 0
    answer, _ = explained(found.summary)
    assert "accuracy of letters" in answer[0]


# ---------------------------------------------------------------- tables, report, errors


def test_a_wide_and_a_long_table() -> None:
    wide = [{"id": "arc", "seed_1": 0.5, "seed_2": 0.52}, {"id": "qa", "seed_1": 0.3, "seed_2": 0.4}]
    long = [{"benchmark": row["id"], "seed": seed, "accuracy": row[f"seed_{seed}"]} for row in wide for seed in (1, 2)]
    handle = pickaxe.scorer("eval-variance")
    one = handle.score(Items.from_table(wide, wide=["scores=seed_*"]))
    other = handle.score(Items.from_table(long, map={"accuracy": "scores"}, gather="benchmark,seed=scores"))
    same(one, other)
    assert one["seed_mean"] == pytest.approx([0.51, 0.35])


def test_the_report_names_the_winner_and_both_sources_of_noise() -> None:
    rng = np.random.default_rng(0)
    rise = np.linspace(0.2, 0.5, 8)
    noisy, steady = (rise + rng.normal(0, noise, (5, 8)) for noise in (0.05, 0.002))
    tokens = np.arange(1, 9) * 1e9
    found = scored(
        {"scores": noisy, "item_scores": answers(rng, 5, 100), "checkpoint_tokens": tokens},
        {"scores": steady, "item_scores": answers(rng, 5, 100), "checkpoint_tokens": np.tile(tokens, (5, 1))},
    )
    answer, figures = explained(found.summary)
    assert answer[0].startswith("item 1: mean 0.5")
    assert "over 5 seeds" in answer[0]
    assert any(each.startswith("item 1 has the highest signal-to-noise ratio") for each in answer)
    assert any("test set, which other seeds neither show nor shrink" in each for each in answer)
    noise, ratio, training = figures
    assert noise.series[0].x == pytest.approx(found["seed_mean"])
    assert noise.series[1].low == pytest.approx(found["ci95_low"])
    assert ratio.series[0].x == pytest.approx(found["snr"])
    assert training.x.label == "tokens"
    assert training.series[1].y == pytest.approx(steady.mean(axis=0))
    row = found.summary["Benchmarks"][0]
    assert row["seed std low"] < row["seed std"] < row["seed std high"]


S = np.array([[0.1, 0.2], [0.2, 0.3]])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({}, "scores: is missing"),
        ({"scores": np.array([[0.1, math.nan]])}, "is nan at [0, 1]: fill that cell"),
        ({"scores": np.zeros((2, 0))}, "none of them empty"),
        ({"scores": {"scores": [[0.1], [0.2, 0.3]]}}, "wanted tensor"),
        ({"scores": np.array(["0,1", "0,2"])}, "decimal commas"),
        ({"scores": 100 * S, "kind": "accuracy"}, "holds 10, outside 0 to 1: divide percent by 100"),
        ({"scores": S, "kind": "acc"}, "is 'acc'"),
        ({"scores": S, "direction": "up"}, "wanted 'higher' or 'lower'"),
        ({"scores": S, "item_scores": np.ones((3, 5))}, "is of 3 seeds, scores of 2"),
        ({"scores": S, "item_trajectories": np.ones((2, 3, 5))}, "is of 2 seeds and 3 checkpoints"),
        ({"scores": S, "item_scores": np.ones((2, 5)), "responses": np.ones((3, 4))}, "is of 4 items"),
        ({"scores": S, "checkpoint_tokens": np.array([2.0, 1])}, "must rise"),
        ({"scores": S, "checkpoint_tokens": np.array([1.0])}, "has 1 values, scores have 2 checkpoints"),
        ({"scores": S, "checkpoint_tokens": np.array([[1, 2.0], [1, 3]])}, "differs between seeds"),
    ],
)
def test_benchmarks_that_cannot_be_used(row: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidItems, match="items\\[0\\]") as error:
        scored(row)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("mode", "rows", "said"),
    [
        ("compare", [{"a": np.ones(2)}], "b: is missing"),
        ("compare", [{"a": np.ones(1), "b": np.ones(1), "seed_std": -1.0}], "must be a number of at least 0"),
        ("items", [{"responses": np.array([0.0, 3])}], "outside 0 to 1"),
        ("items", [{"responses": np.ones(2)}, {"responses": np.ones(3)}], "is of 3 models, that of item 'item 0' of 2"),
        ("choices", [{"gold": 0}], "give them, or the question as text with options"),
        ("choices", [{"option_loglikelihoods": -np.ones(2), "gold": 2}], "the right option, 0 to 1"),
    ],
)
def test_other_modes_name_what_is_wrong(mode: str, rows: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(InvalidItems) as error:
        scored(*rows, mode=mode)
    assert said in str(error.value)


def test_lengths_are_needed_where_they_divide() -> None:
    with pytest.raises(InvalidItems, match="positive lengths"):
        scored({"option_loglikelihoods": -np.ones(2), "gold": 0}, mode="choices", length_norm="chars")


def test_options_must_be_some() -> None:
    item = Item("q", "Which?", {"options": ("one",), "gold": 0})
    with pytest.raises(InvalidItems, match="must be 2 to 26 texts"):
        pickaxe.scorer("eval-variance", mode="choices", model="draft").score([item])


@pytest.mark.parametrize("wrong", [{"ddof": 2}, {"bootstrap": -1}, {"drop_quantile": 1}, {"mode": "x"}, {"ties": "a"}])
def test_parameters_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidParams):
        pickaxe.scorer("eval-variance", **wrong)
