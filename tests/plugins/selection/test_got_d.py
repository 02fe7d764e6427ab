"""got-d: what must hold of potentials and gains, text units, domains, bad input, what it is for."""

import warnings
from collections.abc import Sequence
from math import lcm
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pickaxe
from pickaxe import Call, Item
from pickaxe.errors import InvalidItems, InvalidParams, Unmet
from pickaxe_plugins.selection.got_d import _transport
from pickaxe_plugins.selection.got_d._transport import Costs, Settings

RNG = np.random.default_rng(0)
TARGETS, POOL = RNG.normal(0, 1, (20, 4)), RNG.normal(0.3, 1, (50, 4))


def items(rows: np.ndarray, **fields: Any) -> list[Item]:
    return [Item(str(at), fields={"embedding": row, **fields}) for at, row in enumerate(rows)]


def fitted(pool: np.ndarray = POOL, targets: np.ndarray = TARGETS, **params: Any) -> Any:
    given = {"epsilon": 0.5, "tolerance": 1e-9, **params}
    return pickaxe.scorer("got-d", **given).fit(items(pool), validation=items(targets))


def gains(pool: np.ndarray = POOL, targets: np.ndarray = TARGETS, **params: Any) -> np.ndarray:
    return fitted(pool, targets, **params).score(items(pool))["gain"]


def cost(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return ((left[:, None] - right) ** 2).sum(-1)


def logsumexp(x: np.ndarray, axis: int) -> np.ndarray:
    top = x.max(axis=axis, keepdims=True)
    return np.squeeze(top, axis) + np.log(np.exp(x - top).sum(axis=axis))


def dual_value(c: np.ndarray, b: np.ndarray, epsilon: float) -> float:
    """<f, a> + <g, b> after many plain steps, for any weights b."""
    n = len(c)
    f, g = np.zeros(n), np.zeros(len(b))
    for _ in range(1000):
        f = -epsilon * (np.log(n) + logsumexp((g - c) / epsilon, 1))
        g = epsilon * (np.log(b) - logsumexp((f[:, None] - c) / epsilon, 0))
    return float(f.mean() + g @ b)


# ---------------------------------------------------------------- must hold


def test_marginals_hold_and_gains_sum_to_zero() -> None:
    handle = fitted()
    f, g = np.array(handle.artifact.read_array("potentials.npy")), handle.score(items(POOL))["potential"]
    plan = np.exp((f[:, None] + g - cost(TARGETS, POOL)) / 0.5)
    np.testing.assert_allclose(plan.sum(axis=0), 1 / 50, atol=1e-6)
    np.testing.assert_allclose(plan.sum(axis=1), 1 / 20, atol=1e-6)
    assert handle.artifact.notes["mass_error"] < 1e-6
    assert abs(handle.score(items(POOL))["gain"].sum()) < 1e-8


def test_shift_and_rotation_change_nothing() -> None:
    turn, shift = np.linalg.qr(RNG.normal(size=(4, 4)))[0], 100 * RNG.normal(size=4)
    np.testing.assert_allclose(gains((POOL @ turn) + shift, (TARGETS @ turn) + shift), gains(), atol=1e-7)


def test_gain_is_the_slope_of_the_dual_value() -> None:
    targets, pool, step = TARGETS[:6], POOL[:8], 1e-4
    c, b, gain = cost(targets, pool), np.full(8, 1 / 8), gains(pool, targets, tolerance=1e-12)

    def moved(j: int, mass: float) -> float:
        weights = b - mass / 7
        weights[j] = b[j] + mass
        # The entropy of the weights themselves is part of this value: the slope is that of the plan's cost to them.
        return dual_value(c, weights, 0.5) - 0.5 * float(weights @ np.log(weights))

    for j in range(8):
        slope = (moved(j, step) - moved(j, -step)) / (2 * step)
        assert -gain[j] == pytest.approx(slope, abs=1e-3)


@pytest.mark.parametrize("batch", [5, 1000])
def test_blocks_and_kept_costs_do_not_matter(batch: int) -> None:
    for memory in (0, 100):
        np.testing.assert_allclose(gains(batch=batch, memory=memory), gains(), atol=1e-8)


def test_pool_items_get_the_fitted_potentials_alone_or_together() -> None:
    handle = fitted()
    whole = handle.score(items(POOL))["potential"]
    alone = [handle.score([item])["potential"][0] for item in items(POOL)]
    np.testing.assert_allclose(alone, whole, atol=1e-9)
    assert abs(whole.mean()) < 1e-9


def test_equal_candidates_score_equally() -> None:
    gain = gains(np.concatenate([POOL, POOL[:3]]))
    np.testing.assert_allclose(gain[-3:], gain[:3], atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_a_mode_that_the_pool_covers_well_yields_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    near, far = np.zeros(4), np.array([4.0, 0, 0, 0])
    targets = np.concatenate([near + rng.normal(0, 0.5, (20, 4)), far + rng.normal(0, 0.5, (20, 4))])
    pool = np.concatenate([near + rng.normal(0, 0.5, (180, 4)), far + rng.normal(0, 0.5, (20, 4))])
    handle = fitted(pool, targets)
    best = np.argsort(-handle.score(items(pool))["gain"])[:20]
    assert (best >= 180).all()
    nearest = np.argsort(handle.score(items(pool))["nearest_target_distance"])[:20]
    assert (nearest < 180).any()


def exact_transport(left: np.ndarray, right: np.ndarray) -> float:
    from scipy.optimize import linear_sum_assignment

    size = lcm(len(left), len(right))
    c = cost(left.repeat(size // len(left), axis=0), right.repeat(size // len(right), axis=0))
    rows, columns = linear_sum_assignment(c)
    return float(c[rows, columns].mean())


@pytest.mark.parametrize("seed", range(5))
def test_selected_items_bring_the_pool_nearer_than_random_and_worst_ones(seed: int) -> None:
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 2, (6, 8))
    targets = centres[rng.choice(6, 40, p=[0.3, 0.3, 0.2, 0.1, 0.05, 0.05])] + rng.normal(0, 0.7, (40, 8))
    pool = centres[rng.choice(6, 200, p=[0.05, 0.05, 0.1, 0.2, 0.3, 0.3])] + rng.normal(0, 0.7, (200, 8))
    order = np.argsort(-gains(pool, targets, tolerance=1e-6))
    picked = {"selected": order[:20], "random": rng.choice(200, 20, replace=False), "worst": order[-20:]}
    after = {name: exact_transport(np.concatenate([pool, pool[rows]]), targets) for name, rows in picked.items()}
    assert after["selected"] < after["random"] < after["worst"]
    assert after["selected"] < exact_transport(pool, targets)


# ---------------------------------------------------------------- the solver


def solved(precision: type[np.floating], **settings: Any) -> _transport.Solution:
    costs = Costs(POOL, TARGETS, precision)
    return _transport.finished(_transport.solve(costs, TARGETS, Settings(**settings), np.random.default_rng(0), Call()))


@given(st.floats(0.05, 5), st.integers(1, 12), st.integers(2, 30), st.integers(0, 100))
@settings(max_examples=25)
def test_any_size_converges_to_exact_masses(epsilon: float, n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    targets, pool = rng.normal(size=(n, 3)), rng.normal(size=(m, 3))
    costs = Costs(pool, targets, np.float64, block=5)
    solution = _transport.finished(
        _transport.solve(costs, targets, Settings(epsilon, 1e-8, 20_000), np.random.default_rng(0), Call())
    )
    assert solution.converged
    assert solution.mass_error < 1e-6
    assert solution.divergence > -1e-7


def test_momentum_finds_the_same_in_fewer_iterations() -> None:
    plain, fast = (solved(np.float64, epsilon=0.1, tolerance=1e-9, momentum=each) for each in (1.0, 1.5))
    np.testing.assert_allclose(fast.f, plain.f, atol=1e-6)
    assert fast.iterations < plain.iterations


def test_32_bits_are_near() -> None:
    exact, rough = (solved(each, epsilon=0.5, tolerance=1e-5) for each in (np.float64, np.float32))
    np.testing.assert_allclose(rough.f, exact.f, atol=1e-3)


@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_targets_far_from_everything_do_not_underflow(precision: type[np.floating]) -> None:
    targets = np.concatenate([TARGETS, np.full((1, 4), 300.0)])
    costs = Costs(POOL, targets, precision)
    found = _transport._wanted(costs, np.zeros(21), 0.5, Call())
    c = cost(targets, POOL)
    g = -0.5 * (np.log(50) + logsumexp(-c / 0.5, 0))
    expected = -0.5 * (np.log(21) + logsumexp((g - c) / 0.5, 1))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def test_many_candidates_start_on_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = solved(np.float64, epsilon=0.5, tolerance=1e-8)
    monkeypatch.setattr(_transport, "SAMPLE", 10)
    np.testing.assert_allclose(solved(np.float64, epsilon=0.5, tolerance=1e-8).f, whole.f, atol=1e-6)


# ---------------------------------------------------------------- params, domains, texts


def test_auto_epsilon_is_a_share_of_the_median_cost() -> None:
    notes = fitted(epsilon="auto").artifact.read_json("about.json")
    assert notes["epsilon"] == pytest.approx(0.05 * np.median(cost(TARGETS, POOL)), rel=1e-9)


def test_unit_norm_ignores_lengths() -> None:
    stretch = RNG.uniform(0.5, 2, (50, 1))
    np.testing.assert_allclose(gains(POOL * stretch, scale="unit_norm"), gains(scale="unit_norm"), atol=1e-7)


def test_nearest_domains_make_the_pool() -> None:
    near, far, none = items(TARGETS, domain="near"), items(TARGETS + 5, domain="far"), items(POOL[:3])
    scorer = pickaxe.scorer("got-d", epsilon=0.5, keep_domains=1)
    handle = scorer.fit([*far, *near, *none], validation=items(TARGETS))
    about = handle.artifact.read_json("about.json")
    assert about["kept_domains"] == ["near"]
    assert about["candidates"] == 23
    assert about["domains"]["near"] < about["domains"]["far"]
    column = handle.score([near[0], far[0], Item("?", fields={"embedding": POOL[0], "domain": "new"})])
    assert column["domain_distance"][0] == about["domains"]["near"]
    assert np.isnan(column["domain_distance"][2])


def test_long_texts_are_cut_into_units() -> None:
    targets = [Item("t", "def area(width, height): return width * height"), Item("u", "import os")]
    pool = [Item("a", "x" * 25), Item("b", "import sys"), Item("c", "The moon rose over the hills.")]
    handle = pickaxe.scorer("got-d", epsilon=0.05, unit_chars=10).fit(pool, validation=targets)
    assert handle.artifact.notes["candidates"] == 3 + 1 + 3
    scores = handle.score(pool)
    assert [(each.start, each.end) for each in scores.segments[0]] == [(0, 10), (10, 20), (20, 25)]
    assert scores["gain"][0] == pytest.approx(np.mean([each.score for each in scores.segments[0]]))
    assert scores.segments[1] == ()


def test_memory_is_told_before_the_work(tmp_path: Any) -> None:
    steps = list(pickaxe.scorer("got-d", epsilon=0.5).fitting(items(POOL), tmp_path / "a", validation=items(TARGETS)))
    told = next(step for step in steps if "memory_mib" in step.metrics)
    assert told.stage == "read"
    assert told.metrics["candidates"] == 50
    assert sum(step.stage == "transport" for step in steps) > 1
    assert not (tmp_path / "a" / "pool.bin").exists()


def test_a_sample_of_targets_is_drawn_by_the_seed() -> None:
    assert fitted(target_sample=5).artifact.notes["targets"] == 5
    assert fitted(target_sample=500).artifact.notes["targets"] == 20


# ---------------------------------------------------------------- bad input


def test_no_convergence_is_told_or_refused() -> None:
    with pytest.warns(UserWarning, match="too small"):
        handle = fitted(epsilon=0.001, max_iterations=2)
    assert handle.artifact.notes["converged"] is False
    with pytest.raises(Unmet, match="raise epsilon"):
        fitted(epsilon=0.001, max_iterations=2, require_convergence=True)


def test_too_large_an_epsilon_is_told() -> None:
    with pytest.warns(UserWarning, match="lower epsilon"):
        fitted(epsilon=1e4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted()


@pytest.mark.parametrize("epsilon", [0, -1.0, float("nan"), "none"])
def test_wrong_epsilon(epsilon: Any) -> None:
    with pytest.raises(InvalidParams):
        pickaxe.scorer("got-d", epsilon=epsilon)


def embedded(*rows: Sequence[float]) -> list[Item]:
    return [Item(str(at), fields={"embedding": np.array(row)}) for at, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("pool", "targets", "place"),
    [
        ([], embedded([1.0]), "examples"),
        (embedded([1.0]), embedded([1.0]), "examples"),
        (embedded([1.0], [2.0]), [], "validation"),
        (embedded([1.0], [2.0, 3.0]), embedded([1.0]), r"examples\[1\].fields.embedding"),
        (embedded([1.0], [2.0]), embedded([1.0, 2.0]), r"examples\[0\].fields.embedding"),
        (embedded([1.0], [np.nan]), embedded([1.0]), r"examples\[1\].fields.embedding"),
        (embedded([1.0], [2.0]), embedded([np.inf]), r"validation\[0\].fields.embedding"),
        ([*embedded([1.0]), Item("x", "text")], embedded([1.0]), r"examples\[1\].fields.embedding"),
        ([Item("x"), Item("y")], [Item("z", "text")], r"examples\[0\]"),
        ([Item("x", "text"), *embedded([1.0])], [Item("z", "text")], r"examples\[1\].fields.embedding"),
    ],
)
def test_bad_items_are_named(pool: list[Item], targets: list[Item], place: str) -> None:
    with pytest.raises(InvalidItems, match=place):
        pickaxe.scorer("got-d").fit(pool, validation=targets)


def test_bad_items_to_score_are_named() -> None:
    handle = fitted()
    for bad in ([1.0], [np.nan] * 4):
        with pytest.raises(InvalidItems, match=r"items\[0\].fields.embedding"):
            handle.score(embedded(bad))
    with pytest.raises(InvalidItems, match="all 0"):
        fitted(scale="unit_norm").score(embedded([0.0] * 4))
    with pytest.raises(InvalidItems, match="validation"):
        pickaxe.scorer("got-d").fit(items(POOL))


def test_target_equal_to_pool_and_repeated_ids_are_fine() -> None:
    same = [Item("same", fields={"embedding": row}) for row in POOL]
    handle = pickaxe.scorer("got-d", epsilon=5).fit(same, validation=same)
    assert np.isfinite(handle.score(same)["gain"]).all()
