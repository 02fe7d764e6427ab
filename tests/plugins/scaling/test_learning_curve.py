"""Learning curves: exact recovery, invariances, levels, anchors, comparisons, intervals, fit, errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pickaxe
from pickaxe import Item
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe.report import explained
from pickaxe_plugins.scaling.learning_curve._trace import (
    Rules,
    decision_reliability,
    pattern,
    prediction_level,
    robustness_rate,
    trace,
    working_level,
)

X = np.arange(1, 25) * 5000.0


def curve(
    x: np.ndarray = X, a: float = 3.1, b: float = 0.42, c: float = 0.968, noise: float = 0.0, seed: int = 0
) -> np.ndarray:
    return c - a * x**-b + np.random.default_rng(seed).normal(0, noise, len(x))


def run(y: np.ndarray, x: np.ndarray = X, name: str = "run", **fields: Any) -> Item:
    return Item(name, fields={"x": x, "y": y, **fields})


def score(*items: Item, **params: Any) -> Any:
    return pickaxe.scorer("learning-curve", **{"bootstrap": 0, **params}).score(items)


# ---------------------------------------------------------------- must hold


@settings(deadline=None, max_examples=30)
@given(st.floats(0.5, 8), st.floats(0.1, 1.0), st.floats(0.5, 1.0), st.floats(1e3, 1e9))
def test_exact_power_laws_are_recovered(a: float, b: float, c: float, target: float) -> None:
    found = score(run(curve(a=a, b=b, c=c), target_size=target))
    assert (found["asymptote"][0], found["exponent"][0]) == pytest.approx((c, b), rel=1e-4)
    assert found.summary["runs"][0]["a"] == pytest.approx(a, rel=1e-4)
    assert found.primary[0] == pytest.approx(c - a * target**-b, abs=1e-6)
    assert found["epsilon"][0] < 1e-6
    assert found["sse"][0] < 1e-15


@settings(deadline=None, max_examples=20)
@given(st.floats(1e-3, 1e4), st.floats(0.2, 3), st.integers(0, 99))
def test_scaling_sizes_and_values(s: float, k: float, seed: int) -> None:
    y = curve(noise=0.001, seed=seed)
    plain = score(run(y, target_size=5e5), anchors=False, upper=10.0)
    wider = score(run(y, X * s, target_size=5e5 * s), anchors=False, upper=10.0)
    assert wider["asymptote"][0] == pytest.approx(plain["asymptote"][0], rel=1e-6)
    assert wider.primary[0] == pytest.approx(plain.primary[0], rel=1e-6)
    higher = score(run(k * y, target_size=5e5), anchors=False, upper=10.0)
    assert higher["asymptote"][0] == pytest.approx(k * plain["asymptote"][0], rel=1e-6)
    assert higher.summary["runs"][0]["a"] == pytest.approx(k * plain.summary["runs"][0]["a"], rel=1e-4)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 999), st.floats(1e-8, 1e-4), st.floats(1, 100), st.integers(0, 5), st.integers(0, 4))
def test_levels_follow_each_other(seed: int, nu: float, shrink: float, lookahead: int, more: int) -> None:
    found = trace(X, curve(noise=0.003, seed=seed)[None], pattern("power", X[0]), Rules(nu=nu, lookahead=lookahead))
    wlevel, plevel, clevel = (int(level[0]) for level in (found.wlevel, found.plevel, found.clevel))
    assert not plevel or plevel >= wlevel > 0
    assert not clevel or clevel >= plevel > 0
    limits = found.plain.c[:, 2:]
    stricter = [
        int(working_level(X[2:], limits, *settings)[0])
        for settings in ((nu / shrink, 1, lookahead), (nu, 1, lookahead + more))
    ]
    first = int(working_level(X[2:], limits, nu, 1, lookahead)[0])
    assert all(place < 0 or (0 <= first <= place) for place in stricter)


def test_slowdown_loosens_the_threshold() -> None:
    limits = np.array([[1.0, 0.9, 0.9, 0.9]])
    sizes = np.array([1.0, 2.0, 3.0, 4.0])
    assert working_level(sizes, limits, 0.01, 1, 1)[0] == 1
    assert working_level(sizes, limits, 0.01, 2, 1)[0] == 0
    assert prediction_level(limits, np.array([0]), 0.95)[0] == 1
    assert prediction_level(limits, np.array([-1]), 0.95)[0] == -1


def test_anchors_calm_the_limits() -> None:
    steps = {True: 0.0, False: 0.0}
    for seed in range(10):
        y = curve(noise=0.002, seed=seed)[None]
        for anchors in steps:
            found = trace(X, y, pattern("power", X[0]), Rules(anchors=anchors, nu=1e-5))
            assert found.plevel[0]
            steps[anchors] += float(np.abs(np.diff(found.trends.c[0, int(found.plevel[0]) - 1 :])).mean())
    assert steps[True] < steps[False]


def test_constant_curves() -> None:
    found = score(run(np.full(24, 0.8)))
    assert found.primary[0] == found["asymptote"][0] == pytest.approx(0.8)
    assert np.isnan(found["exponent"][0])
    assert [flag.reason for flag in found.flags] == ["constant", "extrapolated"]


def test_a_limit_above_one_does_not_hide_a_good_prediction() -> None:
    x = np.arange(1, 81) * 5000.0
    y = 0.76 + 0.012 * np.log(x / 1000)  # still rising: no limit is in sight
    first = slice(0, 32)
    found = score(run(y[first], x[first], target_size=float(x[-1])))
    assert found["plevel"][0] == 0
    assert found["asymptote"][0] > 1
    assert found.primary[0] == pytest.approx(y[-1], abs=0.01)
    assert "no-prediction-level" in {flag.reason for flag in found.flags}


# ---------------------------------------------------------------- patterns, goals, directions


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("exp", lambda x: 0.9 - 0.4 * np.exp(-0.3 * x / 5000)),
        ("log-power", lambda x: 0.95 - 2 * np.log(x) ** -1.5),
        ("power", lambda x: 0.95 - 2 * x**-0.3),
    ],
)
def test_patterns_and_the_size_for_a_goal(name: str, value: Any) -> None:
    found = score(run(value(X), target_size=3e5), pattern=name, accuracy_goal=float(value(np.array(4e5))))
    assert found.primary[0] == pytest.approx(float(value(np.array(3e5))), abs=1e-6)
    assert found["size_for"][0] == pytest.approx(4e5, rel=1e-3)
    assert found["marginal_gain"][0] == pytest.approx(found.primary[0] - value(X)[-1])


def test_goals_beyond_the_limit_are_never_reached() -> None:
    found = score(run(curve()), accuracy_goal=0.99)
    assert found["size_for"][0] == np.inf
    answer, _ = explained(found.summary)
    assert any("beyond the fitted limit" in sentence for sentence in answer)


def test_a_loss_is_the_negative_of_a_score() -> None:
    loss = 1.7 + 40 * X**-0.4
    found = score(run(loss, target_size=1e6), direction="lower", accuracy_goal=1.8)
    assert found.primary[0] == pytest.approx(-(1.7 + 40 * 1e6**-0.4), abs=1e-6)
    assert found["asymptote"][0] == pytest.approx(-1.7, abs=1e-4)
    assert found["size_for"][0] == pytest.approx((0.1 / 40) ** (-1 / 0.4), rel=1e-3)
    answer, figures = explained(found.summary)
    assert "the loss is predicted to be 1.8" in answer[0]
    assert figures[0].series[0].y[0] == pytest.approx(loss[0])


def test_falling_scores_are_flagged() -> None:
    found = score(run(1 - curve()))
    assert "not-rising" in {flag.reason for flag in found.flags}
    assert np.isnan(score(run(1 - curve()), accuracy_goal=0.9)["size_for"][0])


# ---------------------------------------------------------------- intervals, held-out error, comparisons


def test_intervals_hold_the_prediction_and_widen_with_distance() -> None:
    items = [run(curve(noise=0.002), target_size=target) for target in (1e5, 1e7)]
    found = score(*items, bootstrap=200)
    width = found["predicted_high"] - found["predicted_low"]
    assert ((found["predicted_low"] <= found.primary) & (found.primary <= found["predicted_high"])).all()
    assert width[1] > 2 * width[0] > 0
    again = score(items[1], bootstrap=200)
    assert again["predicted_low"][0] == found["predicted_low"][1]
    assert np.isnan(score(run(curve()[:4], X[:4]), bootstrap=200)["predicted_low"][0])


def test_held_out_error_is_of_the_last_fifth() -> None:
    y = curve(noise=0.001)
    found = score(run(y))
    first = score(run(y[:19], X[:19]), anchors=False)
    row = first.summary["runs"][0]
    predicted = row["limit"] - row["a"] * X[19:] ** -row["exponent b"]
    assert found.summary["runs"][0]["held-out points"] == 5
    assert found["held_out_mape"][0] == pytest.approx(100 * np.mean(np.abs(predicted - y[19:]) / y[19:]), rel=1e-5)


def test_runs_of_a_group_are_compared() -> None:
    items = [
        run(curve(noise=1e-4), name="good", group="g"),
        run(curve(c=0.94, noise=1e-4, seed=1), name="poor", group="g"),
        run(curve(c=0.5), name="alone", group="h"),
    ]
    found = score(*items)
    assert found["win_margin"][0] == -found["win_margin"][1] == pytest.approx(found.primary[0] - found.primary[1])
    margin, layers = found["win_margin"][0], found["epsilon"][0] + found["epsilon"][1]
    assert found["reliable"][0] == found["reliable"][1] == float(margin > layers)
    assert np.isnan(found["win_margin"][2])
    (pair,) = found.summary["pairs"]
    assert (pair["run"], pair["other"], pair["decision reliability"]) == ("good", "poor", 1.0)
    answer, figures = explained(found.summary)
    assert answer[1].startswith("good is predicted to be ahead of poor")
    forest = figures[2].series[0]
    assert forest.x == pytest.approx(found.primary.tolist())


def test_reliability_of_decisions() -> None:
    actual = np.array([0.9, 0.92, 0.95]), np.array([0.91, 0.9, 0.9])
    predicted = np.array([0.9, 0.91, 0.96]), np.array([0.89, 0.9, 0.91])
    assert decision_reliability(actual, predicted) == pytest.approx(2 / 3)
    assert robustness_rate(actual, predicted) == pytest.approx(1 / 3)


def test_the_report_shows_the_curve_and_the_answer() -> None:
    found = score(run(curve(noise=0.001), name="tagger", target_size=480_000.0), bootstrap=100)
    answer, figures = explained(found.summary)
    assert answer[0].startswith("tagger: at size 480000 the score is predicted to be 0.95")
    assert "4 times the largest measured size" in answer[0]
    measured, trend = figures[0].series
    assert measured.x == pytest.approx(X.tolist())
    assert trend.kind == "band"
    assert trend.y[-1] == pytest.approx(found.primary[0])
    assert trend.low is not None
    assert trend.low[-1] == pytest.approx(found["predicted_low"][0])


# ---------------------------------------------------------------- errors


def test_short_curves_are_flagged_or_refused() -> None:
    short = run(np.array([0.5, 0.6]), X[:2], name="short")
    found = score(short, run(curve()))
    assert np.isnan(found.primary[0])
    assert found["plevel"][0] == found["stop"][0] == 0
    assert found.flags[0].reason == "too-short"
    assert "measure 1 more" in found.flags[0].message
    assert "Short has 2 measurements" in explained(found.summary)[0][-1]
    with pytest.raises(InvalidItems, match=r"items\[0\].fields.x: short has 2 measurements"):
        score(short, strict=True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"x": X[::-1], "y": curve()}, "sort the measurements"),
        ({"x": np.array([1.0, 1.0, 2.0]), "y": np.ones(3) / 2}, "average those of one size"),
        ({"x": X, "y": curve()[:-1]}, "y has 23 values|has 23 values, x has 24"),
        ({"x": X, "y": np.where(X > 6e4, np.nan, 0.5)}, "leave that measurement out"),
        ({"x": X - 5000.0, "y": curve()}, "above 0"),
        ({"x": X, "y": 100 * curve()}, "set upper=100"),
        ({"x": X}, "y: is missing, but x is there"),
        ({}, "no artifact of fit"),
        ({"x": X, "y": curve(), "target_size": -1.0}, "target_size: must be a number above 0"),
        ({"x": X[None], "y": curve()}, "wanted a list of numbers"),
    ],
)
def test_bad_runs_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidItems, match=message):
        score(Item("bad", fields=fields))


def test_percent_works_when_it_is_said() -> None:
    fractions, percent = (
        score(run(factor * curve(noise=0.001)), upper=factor * 1.0, nu=factor * 2e-6, tau=factor * 0.005)
        for factor in (1, 100)
    )
    assert percent.primary[0] == pytest.approx(100 * fractions.primary[0])
    for level in ("wlevel", "plevel", "clevel"):
        assert percent[level][0] == fractions[level][0]


def test_a_negative_loss_is_refused() -> None:
    with pytest.raises(InvalidItems, match="a loss is not negative"):
        score(run(np.linspace(1, -1, 24)), direction="lower")


def test_parameters_that_contradict_each_other() -> None:
    with pytest.raises(InvalidParams, match="b_range"):
        score(b_range=(2.0, 1.0))
    with pytest.raises(InvalidParams, match="go together"):
        score(learner="scorer")


# ---------------------------------------------------------------- fit


def texts(count: int, seed: int = 0) -> list[Item]:
    """Two classes told apart by words of which a text holds one, and many words that say nothing."""
    rng = np.random.default_rng(seed)
    items = []
    for row in range(count):
        label = row % 2
        words = [f"w{label}x{rng.zipf(1.4) % 200}", *(f"n{word}" for word in rng.integers(0, 100, 3))]
        items.append(Item(str(row), " ".join(words), {"label": "ab"[label]}))
    return items


def notes(fitted: Any) -> Any:
    return fitted.artifact.notes


def test_fit_measures_a_curve_that_later_calls_extrapolate(tmp_path: Path) -> None:
    scorer = pickaxe.scorer("learning-curve", kernel=40, step=40, passes=3, nu=1e-9)
    fitted = scorer.fit(texts(400), validation=texts(200, seed=1), out=tmp_path / "curve")
    x, y = np.load(tmp_path / "curve" / "curve.npy")
    np.testing.assert_array_equal(x, np.arange(40, 401, 40))
    assert y[-1] > y[0] > 0.4
    assert np.load(tmp_path / "curve" / "trace.npy").shape == (10, 9)
    assert notes(fitted)["stopped"] is False
    found = fitted.score([Item("ask", fields={"target_size": 4000.0})])
    assert found.primary[0] == pytest.approx(score(run(y, x, target_size=4000.0), nu=1e-9).primary[0])


def test_fit_stops_once_the_curve_has_converged() -> None:
    easy = [Item(str(row), "yes" if row % 2 else "no", {"label": str(row % 2)}) for row in range(300)]
    fitted = pickaxe.scorer("learning-curve", kernel=40, step=10, folds=2, passes=1).fit(easy)
    assert notes(fitted)["stopped"] is True
    assert notes(fitted)["largest_size"] < 300


def test_fit_with_fasttext_and_with_another_method() -> None:
    train, test = texts(60), texts(40, seed=1)
    fast = pickaxe.scorer("learning-curve", kernel=20, step=20, learner="fasttext").fit(train, validation=test)
    assert notes(fast)["measurements"] == 3
    other = pickaxe.scorer("learning-curve", kernel=20, step=20, learner="scorer", learner_scorer="zip-fit")
    found = other.fit(train, validation=test)
    assert notes(found)["measurements"] == 3


def test_what_fit_cannot_use_is_named() -> None:
    with pytest.raises(InvalidItems, match="give 150 or more"):
        pickaxe.scorer("learning-curve").fit(texts(20))
    with pytest.raises(InvalidItems, match=r"examples\[0\].fields.label"):
        pickaxe.scorer("learning-curve").fit([Item("a", "text")] * 200)
    with pytest.raises(InvalidParams, match="direction"):
        pickaxe.scorer("learning-curve", direction="lower").fit(texts(200))
