"""Shared numerics of laws: recovery, conditioning, weights, intervals, held-out points."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pickaxe.errors import InvalidItems
from pickaxe_plugins.scaling import _laws


@settings(deadline=None, max_examples=50)
@given(st.floats(0.05, 10), st.floats(0.02, 2), st.floats(-5, 5), st.floats(-3, 6))
def test_exact_saturating_curves_are_recovered(height: float, b: float, c: float, start: float) -> None:
    t = start + np.linspace(0, 4, 20)
    a = height * np.exp(b * start)
    found = _laws.fit_saturating(t, c - a * np.exp(-b * t))
    assert found.b == pytest.approx(b, rel=1e-4)
    np.testing.assert_allclose(found.at(t + 3), c - a * np.exp(-b * (t + 3)), atol=1e-6 * max(1.0, height))


def test_no_worse_than_a_generic_solver_from_many_starts() -> None:
    rng = np.random.default_rng(0)
    x = np.arange(1, 25) * 5000.0
    t = np.log(x)
    for _ in range(5):
        y = 0.96 - rng.uniform(1, 4) * x ** -rng.uniform(0.2, 0.6) + rng.normal(0, 0.003, len(x))
        starts = [np.array([rng.uniform(0, 8), rng.uniform(0.05, 1.0), rng.uniform(0.8, 1.2)]) for _ in range(20)]
        _, cost = _laws.least_squares(
            lambda p, y=y: p[2] - p[0] * np.exp(-p[1] * t) - y,  # type: ignore[misc]
            starts,
            (np.array([-np.inf, 1e-3, -np.inf]), np.array([np.inf, 5.0, np.inf])),
        )
        assert _laws.fit_saturating(t, y).sse <= 2 * cost * (1 + 1e-6)


def test_weights_leave_points_out_and_count_them_twice() -> None:
    rng = np.random.default_rng(1)
    t, y = np.linspace(0, 3, 12), rng.random(12)
    weights = np.array([np.arange(12) < 7, np.ones(12), [2, *[1] * 11]], np.float64)
    rows = _laws.fit_saturating(t, y, weights)
    for row, (times, values) in enumerate(((t[:7], y[:7]), (t, y), (np.append(t[0], t), np.append(y[0], y)))):
        alone = _laws.fit_saturating(times, values)
        assert rows[row].sse == pytest.approx(float(alone.sse), rel=1e-9)
        assert rows[row].c == pytest.approx(float(alone.c), rel=1e-5)


def test_constant_values_have_a_limit_and_no_exponent() -> None:
    found = _laws.fit_saturating(np.arange(5.0), np.full((2, 5), 0.7))
    assert np.isnan(found.b).all()
    np.testing.assert_allclose(found.c, 0.7, rtol=1e-12)
    np.testing.assert_array_equal(found.at(9.0), found.c)


def test_an_observation_at_infinity_pulls_the_limit() -> None:
    rng = np.random.default_rng(2)
    t = np.log(np.arange(1, 21))
    y = 0.9 - 0.5 * np.exp(-0.4 * t) + rng.normal(0, 0.01, 20)
    plain = _laws.fit_saturating(t, y)
    held = _laws.fit_saturating(np.append(t, np.inf), np.append(y, plain.c + 0.1))
    assert plain.c < held.c < plain.c + 0.1


def test_lines_are_those_of_polyfit_and_know_when_there_is_none() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.random(30), rng.random((4, 30))
    found = _laws.fit_line(x, y)
    for row in range(4):
        slope, intercept = np.polyfit(x, y[row], 1)
        assert (found.slope[row], found.intercept[row]) == pytest.approx((slope, intercept))
        assert found.r2[row] == pytest.approx(np.corrcoef(x, y[row])[0, 1] ** 2)
    assert np.isnan(_laws.fit_line(np.ones(3), np.arange(3.0)).slope)
    weighted = _laws.fit_line(x, y[0], np.r_[np.ones(10), np.zeros(20)])
    assert weighted.slope == pytest.approx(np.polyfit(x[:10], y[0, :10], 1)[0])


def test_intervals_leave_out_draws_without_a_value() -> None:
    draws = np.array([[1.0, np.nan], [2.0, np.nan], [3.0, 5.0], [np.nan, np.nan]])
    low, high = _laws.interval(draws, 0.9)
    assert (low[0], high[0]) == (1.0, 3.0)
    assert np.isnan([low[1], high[1]]).all()
    low, high = _laws.interval(np.array([1.0, 2.0, np.inf]), 0.99)
    assert (low, high) == (1.0, np.inf)


def test_bootstrap_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(4)
    t = np.log(np.arange(2, 42) * 1000.0)
    truth = 0.95 - 3 * np.exp(-0.4 * t)
    inside = 0
    for _ in range(40):
        y = truth + rng.normal(0, 0.002, len(t))
        fit = _laws.fit_saturating(t, y)
        draws = _laws.fit_saturating(t, _laws.resampled_residuals(fit.at(t), y, 3, 200, rng))
        low, high = _laws.interval(draws.at(np.log(80_000.0)), 0.9)
        inside += int(low <= 0.95 - 3 * 80_000**-0.4 <= high)
    assert 30 <= inside <= 40


def test_held_out_points_and_extrapolation() -> None:
    assert _laws.before_tail(20, 4) == 16
    assert _laws.before_tail(5, 4) == 4
    assert _laws.before_tail(4, 4) == 0
    error = _laws.error_of(np.array([2.0, 4.0]), np.array([1.0, 4.0]))
    assert (error.points, error.mean_abs, error.max_abs, error.relative) == (2, 0.5, 1.0, 0.25)
    assert _laws.error_of(np.array([]), np.array([])).points == 0
    np.testing.assert_allclose(_laws.reach(np.array([5.0, 40.0, 0.5]), np.array([1.0, 10.0])), [1, 4, 2])
    parts = _laws.folds(10, 3, np.random.default_rng(0))
    assert sorted(np.concatenate([held for _, held in parts])) == list(range(10))
    assert all(not set(kept) & set(held) for kept, held in parts)
    assert _laws.r2(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0])) == 1.0
    assert np.isnan(_laws.r2(np.ones(3), np.ones(3)))
    assert _laws.resampled_counts(7, 5, np.random.default_rng(0)).sum(axis=1).tolist() == [7.0] * 5


def test_a_law_that_is_finite_nowhere_is_refused() -> None:
    with pytest.raises(InvalidItems, match="losses: fit no law"):
        _laws.least_squares(lambda p: p / 0.0 if p[0] else np.full(2, np.nan), [np.zeros(2)], where="losses")
