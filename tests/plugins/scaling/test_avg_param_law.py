"""The average-parameter law: schedules, masks, the fit with its intervals, plans, the sparse recipe, errors."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pickaxe
from pickaxe import Item
from pickaxe.errors import InvalidItems, InvalidParams, Unmet
from pickaxe.extras import require
from pickaxe.report import explained
from pickaxe_plugins.scaling.avg_param_law._law import CHINCHILLA, ParamLaw, fit
from pickaxe_plugins.scaling.avg_param_law._pruning import (
    Course,
    magnitude_mask,
    pruning,
    removed,
    schedule,
    sparsity_at,
)

SHAPES = st.sampled_from(["cubic", "linear"])


def runs(count: int, noise: float = 0.0, seed: int = 0, law: ParamLaw = CHINCHILLA) -> list[Item]:
    rng = np.random.default_rng(seed)
    params, tokens = 10 ** rng.uniform(7, 9.5, count), 10 ** rng.uniform(9, 11, count)
    loss = law.loss(params, tokens) * np.exp(rng.normal(0, noise, count))
    return [
        Item(str(row), fields={"avg_params": n, "tokens": d, "loss": value})
        for row, (n, d, value) in enumerate(zip(params.tolist(), tokens.tolist(), loss.tolist(), strict=True))
    ]


def columns(items: list[Item]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Average parameters, tokens and losses."""
    table = np.array([[item.fields[name] for name in ("avg_params", "tokens", "loss")] for item in items], np.float64)
    return table[:, 0], table[:, 1], table[:, 2]


def score(*fields: dict[str, Any], **params: Any) -> Any:
    items = [Item(str(row), fields={"tokens": 1e10, **each}) for row, each in enumerate(fields)]
    return pickaxe.scorer("avg-param-law", **params).score(items)


# ---------------------------------------------------------------- schedules and masks


@settings(deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), SHAPES, st.floats(0, 0.9))
def test_dense_runs(one: float, other: float, shape: Any, never: float) -> None:
    start, end = sorted((one, other))
    plan = schedule(0.0, shape, start, end, never)
    assert (plan.start, plan.end, plan.density, plan.cost) == pytest.approx((start, end, 1, 1))
    found = score({"dense_params": 1e8, "compute_start": start, "compute_end": end})
    assert found["avg_params"][0] == found["final_params"][0] == pytest.approx(1e8)


@settings(deadline=None, max_examples=25)
@given(st.floats(0, 0.95), SHAPES, st.floats(0, 0.5), st.floats(0.5, 1), st.floats(0, 0.5))
def test_closed_forms_agree_with_steps(final: float, shape: Any, start: float, end: float, never: float) -> None:
    plan = schedule(final, shape, start, end, never)
    steps = (np.arange(100_000) + 0.5) / 100_000
    density = 1 - sparsity_at(steps, plan.start, plan.end, final, shape)
    cost = never + (1 - never) * density
    assert density.mean() == pytest.approx(plan.density, abs=1e-3)
    assert cost.mean() == pytest.approx(plan.cost, abs=1e-3)
    spent = np.cumsum(cost) / cost.sum()
    assert np.interp(start, spent, steps) == pytest.approx(plan.start, abs=1e-3)
    assert np.interp(end, spent, steps) == pytest.approx(plan.end, abs=1e-3)


@settings(deadline=None)
@given(st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 1.5]), min_size=1, max_size=30), st.data())
def test_masks_remove_the_smallest_and_the_first_of_equals(values: list[float], data: st.DataObject) -> None:
    weights = np.array(values)
    first = data.draw(st.integers(0, len(values)))
    mask = magnitude_mask(weights, first)
    order = sorted(range(len(values)), key=lambda place: (abs(values[place]), place))
    assert sorted(np.flatnonzero(~mask)) == sorted(order[:first])
    more = data.draw(st.integers(first, len(values)))
    later = magnitude_mask(weights * mask, more, mask)
    assert (~later).sum() == more
    assert not (later & ~mask).any()


def test_half_weights_are_rounded_to_even() -> None:
    assert [removed(0.5, n) for n in (1, 3, 5, 7)] == [0, 2, 2, 4]


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_removed_weights_stay_away(scope: Any) -> None:
    """Sparsity never falls, removed weights and moments are exactly 0, active counts are n - round(s n)."""
    jax, optax = require("jax", extra="train"), require("optax", extra="train")
    rng = np.random.default_rng(0)
    params = {name: jax.numpy.array(rng.normal(size=shape)) for name, shape in {"a": (7, 9), "b": (5, 5)}.items()}
    params["bias"] = jax.numpy.ones(4)
    sizes = {"a": 63, "b": 25}
    course = Course.of(30, 5, 20, 0.8, "cubic", 4)
    assert course.steps == (5, 9, 13, 17, 20)
    optimiser = pruning(optax.adamw(0.1, weight_decay=0.1), sizes, course, scope)
    state, gone = optimiser.init(params), {name: np.zeros(params[name].shape, bool) for name in sizes}
    update = jax.jit(optimiser.update)
    for step in range(30):
        grads = {name: jax.numpy.array(rng.normal(size=part.shape)) for name, part in params.items()}
        before = {name: np.asarray(params[name]) for name in sizes}
        change, state = update(grads, state, params)
        params = optax.apply_updates(params, change)
        for name in sizes:
            mask = np.asarray(state["masks"][name])
            assert not (mask & gone[name]).any()
            gone[name] = ~mask
            assert (np.asarray(params[name])[~mask] == 0).all()
            assert (np.asarray(state["inner"][0].mu[name])[~mask] == 0).all()
            if scope == "layer" and step in course.steps:
                wanted = magnitude_mask(before[name], removed(course.at(30)[step], sizes[name]), before[name] != 0)
                np.testing.assert_array_equal(mask, wanted)
        active = sum(int(np.asarray(state["masks"][name]).sum()) for name in sizes)
        if scope == "global":
            assert active == 88 - removed(course.at(30)[step], 88)
        else:
            assert active == sum(n - removed(course.at(30)[step], n) for n in sizes.values())
    assert np.asarray(params["bias"]).all()


# ---------------------------------------------------------------- runs


@settings(deadline=None)
@given(st.lists(st.floats(1e6, 1e9), min_size=2, max_size=20), st.randoms())
def test_only_the_mean_of_a_trajectory_counts(active: list[float], random: Any) -> None:
    shuffled = random.sample(active, len(active))
    found = score(
        {"active_params": np.array(active)},
        {"active_params": np.array(shuffled)},
        {"avg_params": float(np.mean(active))},
        {"active_params": np.array(active), "step_tokens": np.full(len(active), 3.0)},
    )
    assert found["predicted_loss"] == pytest.approx(np.full(4, found["predicted_loss"][0]), rel=1e-12)


def test_steps_with_more_tokens_count_more() -> None:
    found = score({"active_params": np.array([1e8, 2e8]), "step_tokens": np.array([3.0, 1.0])})
    assert found["avg_params"][0] == pytest.approx(1.25e8)
    assert found["train_flops"][0] == pytest.approx(6 * 1.25e8 * 1e10)
    assert found["inference_flops_per_token"][0] == 4e8


def test_what_parameters_are_counted() -> None:
    plan = {"dense_params": 1e8, "final_sparsity": 0.5, "never_pruned_share": 0.2}
    density = schedule(0.5, never_pruned=0.2).density
    few, many = score(plan), score(plan, count="all")
    assert few["avg_params"][0] == pytest.approx(1e8 * density)
    assert many["avg_params"][0] == pytest.approx(1e8 * (0.2 + 0.8 * density))
    assert (few["final_params"][0], many["final_params"][0]) == pytest.approx((5e7, 6e7))


@settings(deadline=None)
@given(st.floats(1e17, 1e24))
def test_the_optimum_is_flat_along_the_budget(flops: float) -> None:
    params, tokens = CHINCHILLA.optimum(flops)
    assert 6 * params * tokens == pytest.approx(flops)
    slope = -CHINCHILLA.alpha * CHINCHILLA.A * params**-CHINCHILLA.alpha
    slope += CHINCHILLA.beta * CHINCHILLA.B * tokens**-CHINCHILLA.beta
    assert slope == pytest.approx(0, abs=1e-9)


# ---------------------------------------------------------------- the fit


def test_noise_free_laws_are_recovered() -> None:
    law = ParamLaw(1.9, 250.0, 900.0, 0.3, 0.33)
    items = runs(30, law=law)
    found = fit(*columns(items), 1e-3).law
    assert (found.E, found.alpha, found.beta) == pytest.approx((1.9, 0.3, 0.33), abs=1e-4)


def test_the_fit_is_no_worse_than_a_generic_solver() -> None:
    optimize = require("scipy.optimize", extra="scaling")
    items = runs(40, noise=0.01)
    n, d, loss = columns(items)
    found = fit(n, d, loss, 1e-3)

    def objective(theta: np.ndarray) -> float:
        a, b, e, alpha, beta = theta
        off = np.abs(np.log(np.exp(a) * n**-alpha + np.exp(b) * d**-beta + np.exp(e)) - np.log(loss))
        return float(np.where(off <= 1e-3, 0.5 * off**2, 1e-3 * (off - 5e-4)).sum())

    starts = [(5.0, 5.0, 0.5, 0.5, 0.5), (5.0, 10.0, 0.0, 0.5, 0.5), (10.0, 5.0, 0.5, 0.5, 0.5)]
    best = min(optimize.minimize(objective, start, method="L-BFGS-B").fun for start in starts)
    assert found.objective <= best * (1 + 1e-6)


def test_intervals_hold_the_constants_and_predictions_have_them(tmp_path: Path) -> None:
    fitted = pickaxe.scorer("avg-param-law", bootstrap=60).fit(runs(60, noise=0.01), out=tmp_path / "law")
    assert fitted.artifact is not None
    report = fitted.artifact.read_json("law.json")["report"]
    for name, truth in CHINCHILLA.as_dict().items():
        low, high = report["intervals"][name]
        assert low <= truth <= high, name
    assert report["held_out_points"] == 60
    assert 0.004 < report["held_out_error"] < 0.02
    assert report["r2"] > 0.99
    items = [
        Item("near", fields={"avg_params": 1e8, "tokens": 1e10, "loss": 3.0}),
        Item("far", fields={"avg_params": 2e10, "tokens": 1e10}),
        Item("beyond", fields={"avg_params": 1e12, "tokens": 1e10}),
    ]
    found = fitted.score(items)
    assert (found["predicted_low"][:2] <= found["predicted_loss"][:2]).all()
    assert (found["predicted_loss"][:2] <= found["predicted_high"][:2]).all()
    assert found["residual"][0] == pytest.approx(3.0 - found["predicted_loss"][0])
    assert np.isnan(found.primary[2])
    assert [(flag.index, flag.reason) for flag in found.flags] == [(1, "extrapolated"), (2, "too-far")]
    answer, figures = explained(found.summary)
    assert "fitted to 60 runs (95% intervals: E" in answer[0]
    assert answer[2].startswith("far is predicted best")
    assert "1 of 3 runs lie more than 10 times beyond" in answer[3]
    assert [figure.title for figure in figures] == ["Measured against predicted loss", "Predicted loss of each run"]
    assert figures[1].series[0].x == pytest.approx(found["predicted_loss"][:2].tolist())
    wide = pickaxe.scorer("avg-param-law", extrapolate=True).with_artifact(tmp_path / "law").score(items)
    assert np.isfinite(wide.primary[2])
    assert wide.flags[1].reason == "extrapolated"


def test_a_fit_without_bootstrap_has_no_intervals() -> None:
    found = pickaxe.scorer("avg-param-law", bootstrap=0).fit(runs(12)).score(runs(2))
    assert np.isnan(found["predicted_low"]).all()
    assert "intervals" not in explained(found.summary)[0][0]


def test_the_planner_weighs_sparsity_against_tokens() -> None:
    found = score({"avg_params": 1e8}, final_size=1e8, budget_flops=4e18)
    answer, figures = explained(found.summary)
    options = found.summary["planner"]
    for option in options:
        assert option["dense parameters"] * (1 - option["final sparsity"]) == pytest.approx(1e8)
        assert 6 * option["average parameters"] * option["tokens"] == pytest.approx(4e18)
    best = min(options, key=lambda option: option["predicted loss"])
    assert 0 < best["final sparsity"] < 0.8
    assert f"{100 * best['final sparsity']:.3g}%" in answer[-1]
    assert figures[-1].series[0].y == pytest.approx([option["predicted loss"] for option in options])
    assert {flag.reason for flag in found.flags} == {"published-law"}
    richer = explained(score({"avg_params": 1e8}, final_size=1e8, budget_flops=1e21).summary)[0]
    assert "the most that was considered" in richer[-1]


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dense_params": 1e8, "final_sparsity": 1.0}, "final_sparsity: must be at least 0 and below 1"),
        ({"dense_params": 1e8, "compute_start": 0.8}, "compute_start: and compute_end must rise"),
        ({"dense_params": 1e8, "never_pruned_share": 1.0}, "never_pruned_share"),
        ({"dense_params": 1e8, "shape": "square"}, "wanted cubic or linear"),
        ({"dense_params": -1.0}, "dense_params: must be a number above 0"),
        ({"avg_params": 1e8, "tokens": 0.0}, "tokens: must be a number above 0"),
        ({"avg_params": 1e8, "loss": -2.0}, "loss: must be a number above 0"),
        ({"active_params": np.array([1e8, 0.0])}, "active_params: must be numbers above 0"),
        ({"active_params": np.array([1e8]), "step_tokens": np.ones(2)}, "step_tokens: must be 1 numbers"),
        ({}, "give it, or avg_params, or dense_params"),
    ],
)
def test_bad_runs_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidItems, match=message):
        score(fields)


def test_laws_that_cannot_be_told() -> None:
    scorer = pickaxe.scorer("avg-param-law")
    with pytest.raises(Unmet, match="4 runs cannot tell five constants"):
        scorer.fit(runs(4))
    one_size = [Item(str(d), fields={"avg_params": 1e8, "tokens": d * 1e9, "loss": 3 - d / 10}) for d in range(1, 8)]
    with pytest.raises(Unmet, match="same average parameters"):
        scorer.fit(one_size)
    one_length = [Item(str(n), fields={"avg_params": n * 1e8, "tokens": 1e9, "loss": 3 - n / 10}) for n in range(1, 8)]
    with pytest.raises(Unmet, match="same tokens"):
        scorer.fit(one_length)
    flat = [Item(str(n), fields={"avg_params": n * 1e8, "tokens": n * 1e9, "loss": 3.0}) for n in range(1, 8)]
    with pytest.raises(Unmet, match="same loss"):
        scorer.fit(flat)
    with pytest.raises(InvalidItems, match=r"examples\[0\].fields.loss"):
        scorer.fit([Item("a", fields={"avg_params": 1e8, "tokens": 1e9})])


def test_parameters_that_contradict_each_other() -> None:
    with pytest.raises(InvalidParams, match="compute_end"):
        score(compute_start=0.8, compute_end=0.5)
    with pytest.raises(InvalidParams, match="go together"):
        score(final_size=1e8)


# ---------------------------------------------------------------- the sparse recipe


def test_the_recipe_leaves_a_sparse_model(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    words = ["tide", "boat", "salt", "wind", "rope", "sand", "gull", "wave"]
    texts = [Item(str(row), " ".join(rng.choice(words, 12))) for row in range(30)]
    training = {"steps": 20, "batch": 4, "context": 16, "vocab": 260, "params": 2e4, "largest_width": 32}
    scorer = pickaxe.scorer("avg-param-law", recipe="sparse-pretrain", sparsity=0.8, interval=3, training=training)
    fitted = scorer.fit(texts, out=tmp_path / "art")
    notes: Any = fitted.artifact.notes if fitted.artifact else {}
    trajectory = np.load(tmp_path / "art" / "trajectory.npy")
    masks = require("safetensors.numpy", extra="cpu").load_file(str(tmp_path / "art" / "mask.safetensors"))
    assert trajectory[0] == notes["prunable"]
    assert (np.diff(trajectory) <= 0).all()
    assert trajectory[-1] == notes["final_prunable"] == sum(int(mask.sum()) for mask in masks.values())
    assert all(int(mask.sum()) == mask.size - round(0.8 * mask.size) for mask in masks.values())
    plan = schedule(0.8, never_pruned=notes["never_pruned_share"])
    assert trajectory.mean() / trajectory[0] == pytest.approx(plan.density, abs=0.1)
    assert math.isfinite(notes["test_loss"])
    lm = pickaxe.Host().lm_at(tmp_path / "art", "fp32")
    assert lm.tokenizer.vocab_size == 260
    item = Item("run", fields={"active_params": trajectory, "tokens": float(notes["tokens"])})
    assert fitted.score([item])["avg_params"][0] == pytest.approx(notes["average_prunable"])
