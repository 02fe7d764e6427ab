"""One epoch: plans, the law and its invariances, speed-ups, the recipe and its order, errors."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pickaxe
from pickaxe import Item
from pickaxe.errors import InvalidItems
from pickaxe.extras import require
from pickaxe.randomness import generator
from pickaxe.report import explained
from pickaxe_plugins.scaling import _pretraining
from pickaxe_plugins.scaling._one_epoch_plan import adjusted, offset_law, overfits, pass_order, power_law, time_to
from pickaxe_plugins.train import llama

ITERATIONS = np.geomspace(500, 60_000, 24).round()


def plan(name: str = "plan", **fields: Any) -> Item:
    return Item(name, fields={"params": 1e8, "unique_tokens": 5e8, "epochs": 1, **fields})


def run(loss: np.ndarray, iterations: np.ndarray = ITERATIONS, name: str = "run", **fields: Any) -> Item:
    return Item(name, fields={"iterations": iterations, "test_loss": loss, **fields})


def score(*items: Item, **params: Any) -> Any:
    return pickaxe.scorer("one-epoch", **{"bootstrap": 0, **params}).score(items)


# ---------------------------------------------------------------- plans


@settings(deadline=None)
@given(st.floats(1e3, 1e12), st.floats(1e3, 1e14), st.floats(0.1, 100))
def test_the_budget_is_kept_and_the_ratio_met(params: float, tokens: float, target: float) -> None:
    new_params, new_tokens = adjusted(params, tokens, target)
    assert new_params * new_tokens == pytest.approx(params * tokens, rel=1e-9)
    assert new_tokens / new_params == pytest.approx(target, rel=1e-9)
    fitting = 1024.0
    assert adjusted(fitting, 5 * fitting, 5.0) == (fitting, 5 * fitting)


@settings(deadline=None)
@given(st.floats(0.1, 1.0))
def test_one_epoch_or_less_has_nothing_to_change(epochs: float) -> None:
    found = score(plan(epochs=epochs))
    assert found["repeat_factor"][0] == 1
    assert found["unique_tokens_needed"][0] == 500_000_000
    assert "repeats" not in {flag.reason for flag in found.flags}


def test_plans_by_steps_and_by_epochs_agree() -> None:
    by_epochs = score(plan(epochs=4, batch=64, context=256))
    steps = float(by_epochs["iterations"][0])
    by_steps = score(plan(epochs=None, steps=steps, batch=64, context=256))
    for name in ("tokens_processed", "iterations", "ratio", "new_params", "new_iterations"):
        assert by_steps[name][0] == by_epochs[name][0]
    assert by_steps["repeat_factor"][0] == pytest.approx(4, rel=1e-4)


def test_the_answer_says_what_to_change() -> None:
    found = score(plan("old", epochs=10), plan("good"))
    assert list(found.primary) == pytest.approx([-math.log(10), 0.0])
    answer, figures = explained(found.summary)
    assert answer[0] == (
        "old: each token is used 10 times; one epoch of the same length needs 5 billion different tokens, "
        "and there are 500 million."
    )
    assert "too many for so small a model" in answer[1]
    assert answer[2] == "good: the size fits, with 5 tokens for each parameter."
    assert figures[0].series[0].x == pytest.approx((50.0, 5.0))
    reasons = [(flag.index, flag.reason) for flag in found.flags]
    assert reasons == [(0, "repeats"), (0, "data-exhausted")]


# ---------------------------------------------------------------- the law


@settings(deadline=None)
@given(st.floats(0.5, 50), st.floats(0.01, 1), st.floats(0.01, 100), st.floats(0.01, 100))
def test_exact_laws_are_recovered_and_scale(a: float, b: float, k: float, s: float) -> None:
    law = power_law(ITERATIONS, a * ITERATIONS**-b)
    assert (float(law.exponent), float(law.coefficient)) == pytest.approx((b, a), rel=1e-9)
    assert law.r2 == pytest.approx(1, abs=1e-9)
    louder = power_law(ITERATIONS, k * a * ITERATIONS**-b)
    assert (float(louder.exponent), float(louder.coefficient)) == pytest.approx((b, k * a), rel=1e-8)
    longer = power_law(s * ITERATIONS, a * ITERATIONS**-b)
    assert (float(longer.exponent), float(longer.coefficient)) == pytest.approx((b, a * s**b), rel=1e-8)
    assert law.at(law.iterations_to(0.5 * a)) == pytest.approx(0.5 * a)


def test_an_offset_is_found_when_asked_for() -> None:
    loss = 1.7 + 30 * ITERATIONS**-0.4
    found = score(run(loss, predict_at=1e6), offset=True, fit_from=1, goal_loss=1.69)
    assert -found["neg_predicted_loss"][0] == pytest.approx(1.7 + 30 * 1e6**-0.4, abs=1e-8)
    assert found.summary["laws"][0]["offset"] == pytest.approx(1.7)
    assert found["iterations_to_goal"][0] == np.inf
    both = offset_law(ITERATIONS, np.stack([loss, 2 * loss]))
    assert both.coefficient == pytest.approx([30, 60])
    assert both.r2 == pytest.approx([1, 1])


def test_the_transient_is_left_out() -> None:
    loss = 9 * ITERATIONS**-0.1
    loss[ITERATIONS < 6000] += 0.5
    assert score(run(loss))["exponent"][0] == pytest.approx(0.1, rel=1e-9)
    assert score(run(loss), fit_from=1)["exponent"][0] > 0.11


def test_intervals_and_held_out_error() -> None:
    rng = np.random.default_rng(0)
    loss = 9 * ITERATIONS**-0.1 * np.exp(rng.normal(0, 0.01, len(ITERATIONS)))
    found = score(run(loss, predict_at=120_000), run(loss, predict_at=1e7, name="far"), bootstrap=200, fit_from=1)
    width = found["predicted_loss_high"] - found["predicted_loss_low"]
    assert (found["predicted_loss_low"] < -found["neg_predicted_loss"]).all()
    assert (-found["neg_predicted_loss"] < found["predicted_loss_high"]).all()
    assert width[1] > width[0]
    assert 0 < found["held_out_error"][0] < 0.02
    answer, figures = explained(found.summary)
    assert "2 times the last measured one: an extrapolation" in answer[0]
    band = figures[0].series[1]
    assert band.kind == "band"
    assert band.y[-1] == pytest.approx(-found["neg_predicted_loss"][0])
    assert {flag.reason for flag in found.flags} == {"extrapolated"}


def test_curves_without_a_law_say_why() -> None:
    few = run(np.array([3.0, 2.9]), np.array([1.0, 2.0]), "few")
    negative = run(np.where(ITERATIONS > 5e4, -1.0, 3.0), name="negative")
    found = score(few, negative, run(np.full(len(ITERATIONS), 3.0), name="constant"))
    assert np.isnan(found["neg_predicted_loss"]).all()
    assert [flag.reason for flag in found.flags] == ["no-law", "no-law", "no-law"]
    assert "2 points after the transient are too few" in found.flags[0].message
    assert "the loss is -1" in found.flags[1].message
    assert "the loss is 3 throughout" in found.flags[2].message
    assert "no law" in explained(found.summary)[0][0]


def test_overfitting_is_a_rise_beyond_the_tolerance() -> None:
    assert overfits(np.array([3, 2, 2.5]), 0.1)
    assert not overfits(np.array([3, 2, 2.005]), 0.01)
    loss = 9 * ITERATIONS**-0.1
    loss[-1] = loss[-3]
    assert score(run(loss))["overfits"][0] == 1
    assert "overfits" in explained(score(run(loss)).summary)[0][0]


# ---------------------------------------------------------------- speed-ups


def test_speedups_are_within_groups() -> None:
    hours = np.arange(1.0, 25.0)
    slow, fast = 9 * ITERATIONS**-0.1, 9 * ITERATIONS**-0.13
    found = score(
        run(slow, hours=hours, baseline=True, group="g"),
        run(fast, hours=hours, group="g"),
        run(slow + 1, hours=hours, group="g", name="never"),
        run(fast, hours=hours, group="h"),
    )
    assert found["speedup"][0] == 1
    assert found["speedup"][1] == pytest.approx(24 / time_to(hours, fast, slow.min()))
    assert np.isnan(found["speedup"][2:]).all()
    answer, _ = explained(found.summary)
    assert any("times as fast" in sentence for sentence in answer)
    assert any("never reaches the best loss" in sentence for sentence in answer)


def test_time_to_a_loss() -> None:
    hours, loss = np.array([0.0, 1.0, 2.0]), np.array([3.0, 2.0, 1.0])
    assert time_to(hours, loss, 1.5) == 1.5
    assert time_to(hours, loss, 4.0) == 0.0
    assert time_to(hours, loss, 2.0) == 1.0
    assert math.isnan(time_to(hours, loss, 0.5))


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"params": -1.0, "unique_tokens": 1e9, "epochs": 1}, "params: must be a number above 0"),
        ({"params": 1e8, "unique_tokens": 0.0, "epochs": 1}, "unique_tokens: must be a number above 0"),
        ({"params": 1e8}, "makes no plan"),
        ({"params": 1e8, "unique_tokens": 1e9, "steps": 5}, "steps need batch and context"),
        ({"params": 1e8, "unique_tokens": 1e9, "steps": 5, "epochs": 1, "batch": 1, "context": 1}, "give one of them"),
        ({"iterations": ITERATIONS}, "test_loss: is missing"),
        ({"iterations": np.empty(0), "test_loss": np.empty(0)}, "is empty"),
        ({"iterations": ITERATIONS, "test_loss": ITERATIONS, "hours": np.ones(3)}, "hours: must be 24 numbers"),
        ({"iterations": ITERATIONS[::-1], "test_loss": ITERATIONS}, "sort the measurements"),
    ],
)
def test_bad_items_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidItems, match=message):
        score(Item("bad", fields=fields))


# ---------------------------------------------------------------- the recipe


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(1, 20), st.integers(0, 5))
def test_one_pass_sees_every_row_at_most_once(rows: int, batch: int, seed: int) -> None:
    order = pass_order(rows, batch, generator(seed, "order"))
    assert order.shape == (rows // batch, batch)
    assert len(np.unique(order)) == order.size
    np.testing.assert_array_equal(order, pass_order(rows, batch, generator(seed, "order")))


def test_rows_predict_every_token_once() -> None:
    class Letters:
        eos_ids = (0,)

        def encode_batch(self, texts: list[str]) -> list[list[int]]:
            return [[ord(letter) for letter in text] for text in texts]

    rows = _pretraining.rows_of(["abc", "defg", "hi"], Letters(), 4)  # type: ignore[arg-type]
    np.testing.assert_array_equal(rows.ids[:, 1:].ravel(), [97, 98, 99, 0, 100, 101, 102, 103, 0, 104, 105, 0])
    np.testing.assert_array_equal(rows.ids[1:, 0], rows.ids[:-1, -1])
    np.testing.assert_array_equal(rows.starts, [0, 4, 9])


def test_networks_come_near_the_wanted_size() -> None:
    for wanted in (5e4, 5e5, 2e6):
        found = _pretraining.parameters(_pretraining.network(wanted, 300, 64, 256))
        assert abs(math.log(found / wanted)) < 0.35


def documents(count: int, seed: int = 0) -> list[Item]:
    rng = np.random.default_rng(seed)
    words = ["tide", "boat", "salt", "wind", "rope", "sand", "gull", "wave"]
    return [Item(str(row), " ".join(rng.choice(words, 12))) for row in range(count)]


RECIPE = {"budget": 1e9, "batch": 4, "context": 16, "vocab": 260, "measure": 5, "largest_width": 32}


def test_the_recipe_trains_once_and_leaves_a_model_and_a_law(tmp_path: Path) -> None:
    scorer = pickaxe.scorer("one-epoch", recipe=RECIPE, rank_by="loss")
    given = documents(60)
    fitted = scorer.fit([*given, *given[:5]], out=tmp_path / "art")
    order = np.load(tmp_path / "art" / "order.npy")
    notes: Any = fitted.artifact.notes if fitted.artifact else {}
    assert len(np.unique(order)) == order.size
    assert notes["duplicates_left_out"] == 5
    assert notes["passes"] == 1
    assert "rather than a second pass" in notes["notice"]
    iterations, train, test = np.load(tmp_path / "art" / "curve.npy")
    assert iterations[-1] == len(order) == notes["iterations"]
    assert test[-1] < test[0]
    assert np.isfinite(train).all()
    law = json.loads((tmp_path / "art" / "law.json").read_text())
    found = fitted.score([Item("ask", fields={"predict_at": float(2 * iterations[-1])})])
    assert -found.primary[0] == pytest.approx(law["coefficient"] * (2 * iterations[-1]) ** -law["exponent"])
    lm = pickaxe.Host().lm_at(tmp_path / "art", "fp32")
    assert lm.tokenizer.vocab_size == 260


def test_repeating_is_a_choice() -> None:
    fitted = pickaxe.scorer("one-epoch", recipe={**RECIPE, "budget": 1e8, "on_exhausted": "repeat"}).fit(documents(20))
    notes: Any = fitted.artifact.notes if fitted.artifact else {}
    assert notes["iterations"] == notes["planned_iterations"]
    assert notes["passes"] > 1
    assert notes["notice"] == ""


def test_dropout_is_random_and_off_by_default() -> None:
    jax = require("jax", extra="train")
    architecture = _pretraining.network(2e4, 260, 16, 32)
    weights = llama.initial(architecture, 0)
    rows = np.random.default_rng(0).integers(0, 260, (4, 17)).astype(np.int32)
    plain, dropping = (_pretraining.next_token_loss(architecture, dropout) for dropout in (0.0, 0.5))
    keys = [jax.random.key(seed) for seed in (0, 1)]
    assert plain(weights, rows, keys[0]) == plain(weights, rows, keys[1]) == pytest.approx(np.log(260), abs=1)
    assert dropping(weights, rows, keys[0]) != dropping(weights, rows, keys[1])


def test_too_little_text_is_said() -> None:
    with pytest.raises(InvalidItems, match="rows to train on"):
        pickaxe.scorer("one-epoch").fit(documents(4))
    with pytest.raises(InvalidItems, match="at least two"):
        pickaxe.scorer("one-epoch").fit([Item("a", "same"), Item("b", "same")])
    with pytest.raises(InvalidItems, match="validation"):
        pickaxe.scorer("one-epoch").fit(documents(4), validation=[Item("v", " ")])
