"""Curves of resampling in closed form, against brute force and simulation; two types of tasks."""

from __future__ import annotations

import math
from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from resampling_cases import counted, plan, tables

import pickaxe
from pickaxe_plugins.decoding._passk import pass_at_k
from pickaxe_plugins.decoding._resampling import (
    Counts,
    Limits,
    Stakes,
    Tries,
    best,
    exact_curves,
    none_passed,
    simulated_curves,
)
from pickaxe_plugins.decoding._two_types import Types

# ---------------------------------------------------------------- closed forms


@pytest.mark.parametrize("n", range(1, 8))
def test_closed_form_is_the_average_over_all_orders(n: int) -> None:
    stakes = Stakes(1.0, -1.5, 0.1)
    orders = np.array(list(permutations(range(n))))
    for v in range(n + 1):
        first = np.where((orders < v).any(axis=1), (orders < v).argmax(axis=1), n)
        for g in {0, v // 2, v}:
            drawn = orders[np.arange(len(orders)), np.minimum(first, n - 1)]
            curves = exact_curves(counted((n, v, g, g)), n)
            for k in range(1, n + 1):
                passed = first < k
                right = passed & (drawn < g)
                attempts = np.minimum(first + 1, k)
                reward = (right - 1.5 * (passed & ~right) - 0.1 * attempts).mean()
                assert curves.passed[k - 1] == pytest.approx(passed.mean(), abs=1e-12)
                assert curves.accuracy[k - 1] == pytest.approx(right.mean(), abs=1e-12)
                assert curves.attempts[k - 1] == pytest.approx(attempts.mean(), abs=1e-12)
                assert curves.reward(stakes)[k - 1] == pytest.approx(reward, abs=1e-12)
                alone = Tries.within(counted((n, v, g, g)), k)
                assert alone.reward(counted((n, v, g, g)), stakes)[0] == pytest.approx(reward, abs=1e-10)


def test_simulation_agrees_within_its_error() -> None:
    counts = counted((60, 0, 0, 0), (60, 4, 1, 1), (60, 30, 25, 25), (60, 60, 2, 2))
    rounds = 4000
    rngs = [np.random.default_rng(seed) for seed in range(len(counts))]
    exact, simulated = exact_curves(counts, 50), simulated_curves(counts, 50, rounds, rngs)
    error = 3 * math.sqrt(0.25 / rounds / len(counts))
    for name in ("passed", "accuracy", "false_positive"):
        assert np.abs(getattr(exact, name) - getattr(simulated, name)).max() < error
    assert np.abs(exact.attempts / simulated.attempts - 1).max() < 0.02
    assert simulated.attempts[0] == 1


def test_blocks_of_tasks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    v = rng.integers(0, 31, 50)
    counts = counted(*((30, int(x), int(x) // 2, int(x) // 2) for x in v))
    whole = exact_curves(counts, 30).reward(Stakes())
    monkeypatch.setattr("pickaxe_plugins.decoding._resampling._BLOCK", 64)
    np.testing.assert_allclose(exact_curves(counts, 30).reward(Stakes()), whole, atol=1e-14)


@given(tables())
def test_the_limit_is_the_accuracy_of_all_samples(counts: Counts) -> None:
    accuracy = exact_curves(counts, int(counts.n[0])).accuracy
    assert accuracy[-1] == pytest.approx(Limits.of(counts).limit_worst, abs=1e-12)
    assert np.all(accuracy <= Limits.of(counts).limit_worst + 1e-12)


@given(tables(perfect=True))
def test_a_perfect_verifier_gives_pass_at_k(counts: Counts) -> None:
    ks = np.arange(1, int(counts.n[0]) + 1)
    coverage = pass_at_k(counts.n, counts.g, ks).mean(axis=0)
    np.testing.assert_allclose(exact_curves(counts, len(ks)).accuracy, coverage, atol=1e-10)


@given(tables())
def test_without_a_loss_more_attempts_never_harm(counts: Counts) -> None:
    reward = exact_curves(counts, int(counts.n[0])).reward(Stakes(wrong=0.0))
    assert np.all(np.diff(reward) >= -1e-12)
    k = best(reward)
    assert np.all(reward[max(k - 1, 0) :] <= reward.max() + 1e-12)
    useful = counts.g > 0
    assert k == ((counts.n - counts.v + 1)[useful].max() if useful.any() else 0)


@given(tables(), st.lists(st.floats(-10, 0), min_size=2, max_size=6))
def test_reward_and_best_number_fall_with_the_loss(counts: Counts, losses: list[float]) -> None:
    curves = exact_curves(counts, int(counts.n[0]))
    rewards = [curves.reward(Stakes(wrong=loss)) for loss in sorted(losses, reverse=True)]
    for less, more in pairwise(rewards):
        assert np.all(more <= less + 1e-12)
        assert best(more) <= best(less)


@given(st.floats(-20, 0), st.integers(1, 50))
def test_tasks_that_never_pass_are_abstentions(loss: float, n: int) -> None:
    counts = counted((n, 0, 0, n))
    assert exact_curves(counts, n).reward(Stakes(wrong=loss)).tolist() == [0.0] * n
    assert Tries.within(counts, n).reward(counts, Stakes(wrong=loss)).tolist() == [0.0]


def test_chances_of_no_pass() -> None:
    chances = none_passed(np.array([5, 5, 5]), np.array([0, 2, 5]), 5)
    np.testing.assert_allclose(chances[0], np.ones(6))
    np.testing.assert_allclose(chances[1], [math.comb(3, k) / math.comb(5, k) for k in range(6)])
    np.testing.assert_allclose(chances[2], [1, 0, 0, 0, 0, 0])


# ---------------------------------------------------------------- two types

shares = st.floats(0, 1)


@given(shares, shares, shares, shares, shares, st.floats(-5, 0))
def test_increments_change_sign_at_most_once(
    easy: float, hard: float, prior: float, completeness: float, soundness: float, loss: float
) -> None:
    assume(easy > hard)
    types = Types(np.array([prior, 1 - prior]), np.array([easy, hard]), completeness, soundness)
    reward = types.curves(60).reward(Stakes(wrong=loss))
    steps = np.diff(reward, prepend=0.0)
    signs = np.sign(steps[np.abs(steps) > 1e-13])
    assert np.count_nonzero(np.diff(signs)) <= 1
    if completeness > 1 - soundness:  # then easy tasks pass sooner: the gain comes first, the loss after it
        assert np.all(np.diff(signs) <= 0)


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=4))
def test_a_perfect_verifier_has_no_limit(rates: list[float]) -> None:
    types = Types(np.full(len(rates), 1 / len(rates)), np.array(rates))
    assert types.limit == pytest.approx(1)
    assert np.all(types.curves(20).false_positive < 1e-12)


@given(shares, shares, shares)
def test_a_verifier_that_passes_everything_is_single_sampling(easy: float, hard: float, prior: float) -> None:
    types = Types(np.array([prior, 1 - prior]), np.array([easy, hard]), 1.0, 0.0)
    mean = prior * easy + (1 - prior) * hard
    np.testing.assert_allclose(types.curves(12).accuracy, np.full(12, mean), atol=1e-12)
    assert types.limit == pytest.approx(mean)


@given(shares, st.floats(0.05, 1), shares, st.floats(-5, 0))
def test_with_one_type_trying_pays_always_or_never(
    r: float, completeness: float, soundness: float, loss: float
) -> None:
    types = Types(np.ones(1), np.array([r]), completeness, soundness)
    reward = types.curves(80).reward(Stakes(wrong=loss))
    gain = float(types.right[0] + loss * types.wrong[0])
    assume(abs(gain) > 1e-9)
    assert best(reward) == (0 if gain < 0 else int(np.argmax(reward >= reward.max() - 1e-12)) + 1)
    assert gain < 0 or np.all(np.diff(reward) >= -1e-15)


def test_the_worked_plan() -> None:
    scorer = pickaxe.scorer("resampling-limits", form="plan", max_attempts=30)
    for loss, k in ((-0.7, 3), (-1.0, 2), (-2.0, 1)):
        item = plan([0.87, 0.13], [0.58, 0.42], soundness=0.75, value_false_positive=loss)
        found = scorer.score([item])
        assert found["k_opt"][0] == k
        assert found["limit"][0] == pytest.approx(0.716, abs=5e-4)
    assert found["accuracy"][0] == pytest.approx(0.5592)
    assert found["attempts"][0] == 1


def test_attempts_that_cost() -> None:
    types = Types(np.array([0.5, 0.5]), np.array([0.6, 0.0]))
    curves = types.curves(40)
    beta = np.array([0.4, 1.0])
    expected = [0.5 * sum(beta[0] ** i for i in range(k)) + 0.5 * k for k in range(1, 41)]
    np.testing.assert_allclose(curves.attempts, expected)
    item = plan([0.6, 0.0], [0.5, 0.5], cost=0.05)
    found = pickaxe.scorer("resampling-limits", form="plan").score([item])
    assert found["k_opt"][0] == int(np.argmax(curves.accuracy - 0.05 * curves.attempts)) + 1
    assert found["reward"][0] == pytest.approx((curves.accuracy - 0.05 * curves.attempts).max())


def test_the_notebooks_plan_counts_the_belief_twice() -> None:
    item = plan([0.87, 0.13], [0.58, 0.42], soundness=0.75, value_false_positive=-1.0)
    curves = {
        mode: pickaxe.scorer("resampling-limits", form="plan", mode=mode).score([item]).summary["plans"][0]["reward"]
        for mode in ("exact", "notebook")
    }
    assert curves["exact"][0] == pytest.approx(curves["notebook"][0])
    assert curves["exact"][1] < curves["notebook"][1] - 0.01
