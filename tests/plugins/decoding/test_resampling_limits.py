"""Resampling limits: runs, comparisons, fits and errors."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from resampling_cases import plan, runs, task

import pickaxe
from pickaxe import Item
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe_plugins.decoding._two_types import Types
from pickaxe_plugins.decoding.resampling_limits import read_evalplus

# ---------------------------------------------------------------- runs


def test_columns_of_a_run() -> None:
    found = runs(task(10, 6, 5, name="a"), task(10, 0, 0, name="b"), task(10, 10, 10, name="c"), max_attempts=10)
    assert found["limit"][0] == pytest.approx(5 / 6)
    assert math.isnan(found["limit"][1])
    assert found["single"].tolist() == [0.5, 0.0, 1.0]
    assert found["fpr"][:2].tolist() == pytest.approx([0.2, 0.0])
    assert math.isnan(found["fpr"][2])  # no wrong sample
    k = found.summary["groups"]["all"]["k"]
    assert k == 5  # the first at which the first task surely has a pass
    assert found["p_pass_at_best"].tolist() == pytest.approx([1, 0, 1])
    assert found["reward_at_best"].tolist() == pytest.approx([5 / 6 - 1 / 6, 0, 1])
    row = found.groups
    assert row is not None
    assert (row.columns["tasks"][0], row.columns["unsolved"][0], row.columns["k_best"][0]) == (3, 1, k)
    assert row.columns["max_reward"][0] == pytest.approx(found["reward_at_best"].mean())


def test_a_group_of_which_nothing_passes_has_no_limit_and_is_flagged() -> None:
    found = runs(task(10, 0, 0, name="a"), task(10, 0, 0, name="b"))
    assert [(flag.index, flag.reason) for flag in found.flags] == [(0, "unsolved")]
    assert not np.signbit(found["reward_at_best"]).any()


def test_arrays_and_statuses_say_the_same_as_counts() -> None:
    passed = np.array([True, True, False, True])
    right = np.array([True, False, False, True])
    words = [tuple("pass" if each else "fail" for each in judged) for judged in (passed, right)]
    ways: tuple[dict[str, Any], ...] = (
        {"verifier": passed, "truth": right},
        {"base_status": words[0], "plus_status": words[1]},
        {"n": 4, "v": 3, "g": 2, "u": 2},
        {"verifier": passed.astype(np.int64), "truth": right, "n": 4, "g": 2},
    )
    expected, *others = (runs(Item("t", fields=fields)) for fields in ways)
    for found in others:
        assert found.summary == expected.summary
        for name, values in expected.columns.items():
            np.testing.assert_array_equal(found.columns[name], values)


def test_tasks_with_a_false_negative_are_left_out_and_counted() -> None:
    items = (task(4, 1, 1, 2, "lost"), task(4, 2, 1, name="kept"))
    found = runs(*items)
    assert found.groups is not None
    assert found.groups.columns["dropped"].tolist() == [1]
    assert found.groups.columns["limit_worst"].tolist() == [0.5]
    assert found.groups.columns["completeness"][0] == pytest.approx(2 / 3)
    assert [(flag.index, flag.reason) for flag in found.flags] == [(0, "false_negative")]
    whole = runs(*items, drop_false_negative_tasks=False)
    assert whole.groups is not None
    assert whole.groups.columns["dropped"].tolist() == [0]
    assert whole.groups.columns["limit_worst"].tolist() == [0.75]
    with pytest.raises(InvalidItems, match="drop_false_negative_tasks"):
        runs(items[0])


def test_groups_are_apart_and_curves_end_at_the_least_n() -> None:
    found = runs(task(8, 4, 4, group="one"), task(5, 3, 1, group="one"), task(30, 3, 1, group="two"))
    reports = found.summary["groups"]
    assert [len(reports[name]["curves"]["k"]) for name in ("one", "two")] == [5, 30]
    alone = runs(task(30, 3, 1, group="two"))
    assert alone.summary["groups"]["two"] == reports["two"]
    assert alone["reward_at_best"][0] == found["reward_at_best"][2]
    short = runs(task(30, 3, 1), curves=False).summary["groups"]["all"]
    assert "curves" not in short
    assert "reward" not in short["by_false_positive_value"][0]


def test_false_positives_by_attempt_rise_as_late_passes_are_of_hard_tasks() -> None:
    found = runs(task(64, 60, 60), task(64, 4, 1))
    bins = found.summary["groups"]["all"]["false_positive_bins"]
    assert [(each["from"], each["to"]) for each in bins] == [
        (1, 1),
        (2, 3),
        (4, 7),
        (8, 15),
        (16, 31),
        (32, 63),
        (64, 64),
    ]
    assert sum(each["share"] for each in bins) == pytest.approx(1)
    rates = [each["false_positive_rate"] for each in bins if each["false_positive_rate"] is not None]
    assert np.all(np.diff(rates) >= -1e-12)
    assert rates[0] == pytest.approx(3 / 64)  # one sample of each: 60 + 4 pass, 3 of them wrong
    assert rates[-1] == pytest.approx(0.75)


def test_the_notebook_mode_is_a_simulation_that_depends_on_tasks_only() -> None:
    items = [task(40, v, v // 2, name=str(v)) for v in (0, 1, 5, 20, 40)]
    exact, notebook = runs(*items), runs(*items, mode="notebook")
    curves = [each.summary["groups"]["all"]["curves"] for each in (exact, notebook)]
    error = 3 * math.sqrt(0.25 / 1000 / len(items))
    for name in ("p_pass", "accuracy"):
        assert np.abs(np.array(curves[0][name]) - np.array(curves[1][name])).max() < error
    assert curves[0] != curves[1]
    again = runs(*items[::-1], mode="notebook").summary["groups"]["all"]["curves"]
    assert again["accuracy"] == pytest.approx(curves[1]["accuracy"])


def test_a_run_as_easy_and_hard_tasks() -> None:
    rng = np.random.default_rng(1)
    types = Types(np.array([0.6, 0.4]), np.array([0.85, 0.2]), 1.0, 0.75)
    easy = rng.random(400) < 0.6
    u = rng.binomial(200, np.where(easy, 0.85, 0.2))
    v = u + rng.binomial(200 - u, 0.25)
    found = runs(*(task(200, int(a), int(b)) for a, b in zip(v, u, strict=True)))
    told = found.summary["groups"]["all"]["two_types"]
    assert told["r"] == pytest.approx([0.85, 0.2], abs=0.02)
    assert told["prior"] == pytest.approx([0.6, 0.4], abs=0.05)
    assert told["soundness"] == pytest.approx(0.75, abs=0.01)
    assert told["limit"] == pytest.approx(types.limit, abs=0.03)
    item = plan(told["r"], told["prior"], completeness=told["completeness"], soundness=told["soundness"])
    assert pickaxe.scorer("resampling-limits", form="plan").score([item])["k_opt"][0] == told["k_best"]
    assert runs(task(4, 4, 4)).summary["groups"]["all"]["two_types"] is None  # no wrong sample to measure by


def test_no_items() -> None:
    assert len(runs()) == 0
    assert len(runs(form="plan")) == 0


# ---------------------------------------------------------------- comparison


def simulated_models() -> list[Item]:
    """Twelve models on 150 tasks: the better, the fewer of their wrong samples pass."""
    rng = np.random.default_rng(0)
    items = []
    for model, skill in enumerate(np.linspace(0.15, 0.9, 12)):
        rates = rng.beta(4 * skill, 4 * (1 - skill), 150)
        slips = 0.35 * (1 - skill) * rng.uniform(0.5, 1.5, 150)
        u = rng.binomial(200, rates)
        v = u + rng.binomial(200 - u, slips)
        items += [
            task(200, int(v[t]), int(u[t]), name=f"{model}/{t}", group=f"{model:02}", task=str(t)) for t in range(150)
        ]
    return items


def test_weak_models_cannot_reach_strong_ones() -> None:
    found = runs(*simulated_models(), false_positive_value=-4.0)
    assert found.groups is not None
    single, limit, k = (found.groups.columns[name] for name in ("single", "limit_best", "k_best"))
    assert np.all(limit < 1)
    told = found.summary["comparison"]
    assert told["reference"] == "11"
    assert told["over_single"]["conditional"]["correlation"] > 0.8
    assert np.all(limit[:4] < single[-1])
    assert all(told["groups"][f"{model:02}"]["cannot_match"] for model in range(4))
    skill = np.linspace(0.15, 0.9, 12)
    assert np.all(k[skill < 0.45] == 0)
    assert np.all((k[(skill > 0.45) & (skill < 0.75)] >= 1) & (k[(skill > 0.45) & (skill < 0.75)] <= 10))
    assert np.all(k[:9] <= 10)
    assert k[-1] > 10
    rates = [
        each["false_positive_rate"]
        for each in found.summary["groups"]["03"]["false_positive_bins"]
        if each["share"] > 0.01
    ]
    assert rates[-1] > rates[0]


def test_matching_a_reference() -> None:
    strong = [task(10, 8, 8, name="s", group="strong", task=str(t)) for t in range(2)]
    able = [task(10, 5, 5, name="a", group="able", task=str(t)) for t in range(2)]
    weak = [task(10, 5, 3, name="w", group="weak", task=str(t)) for t in range(2)]
    told = runs(*strong, *able, *weak).summary["comparison"]
    assert told["reference"] == "strong"
    assert told["groups"]["able"]["attempts_to_match"] == 3  # 1 - C(5,3)/C(10,3) = 0.917, and 0.778 at 2
    assert not told["groups"]["able"]["cannot_match"]
    assert told["groups"]["weak"]["attempts_to_match"] is None
    assert told["groups"]["weak"]["cannot_match"]
    assert told["groups"]["strong"]["attempts_to_match"] == 1
    other = runs(*strong, *able, *weak, reference="weak").summary["comparison"]
    assert not any(each["cannot_match"] for each in other["groups"].values())
    assert runs(*strong).summary["comparison"]["over_single"]["conditional"] is None
    with pytest.raises(InvalidParams, match="able, strong, weak"):
        runs(*strong, *able, *weak, reference="best")


def test_a_task_left_out_of_one_group_is_left_out_of_the_comparison() -> None:
    items = [
        task(4, 1, 1, 2, group="one", task="x"),
        task(4, 2, 2, group="one", task="y"),
        task(4, 4, 4, group="two", task="x"),
        task(4, 1, 1, group="two", task="y"),
    ]
    found = runs(*items)
    told = found.summary["comparison"]
    assert told["dropped_tasks"] == 1
    assert told["groups"]["two"]["single"] == 0.25
    assert found.groups is not None
    assert found.groups.columns["single"].tolist() == [0.5, 0.625]


# ---------------------------------------------------------------- fit, files


def test_fit_keeps_the_best_number_for_other_runs(tmp_path: Path) -> None:
    learnt = [task(20, 15, 13, group="m"), task(20, 6, 2, group="m")]
    fitted = pickaxe.scorer("resampling-limits").fit(learnt, out=tmp_path / "art")
    k = runs(*learnt).summary["groups"]["m"]["k_best"]
    assert fitted.artifact is not None
    assert fitted.artifact.notes["limits"]["m"]["k_best"] == k
    found = fitted.score([task(3, 1, 1, group="m"), task(20, 20, 20, group="new")])
    told = found.summary["groups"]
    assert (told["m"]["k"], told["m"]["k_from"]) == (k, "artifact")
    assert (told["new"]["k"], told["new"]["k_from"]) == (1, "items")
    assert found["p_pass_at_best"][0] == pytest.approx(1 - math.comb(2, k) / math.comb(3, k))
    with pytest.raises(InvalidParams, match="form"):
        pickaxe.scorer("resampling-limits", form="plan").fit(learnt)
    with pytest.raises(InvalidItems, match="examples"):
        pickaxe.scorer("resampling-limits").fit([])


def test_more_attempts_than_samples_draw_them_all() -> None:
    fitted = pickaxe.scorer("resampling-limits", cost_per_attempt=0.001).fit([task(50, 2, 2)])
    found = fitted.score([task(4, 1, 1)])
    assert found.summary["groups"]["all"]["k"] > 4
    assert found["p_pass_at_best"][0] == 1
    assert found["reward_at_best"][0] == pytest.approx(1 - 0.001 * 2.5)


def test_evalplus_files(tmp_path: Path) -> None:
    def sample(base: str, plus: str) -> dict[str, str]:
        return {"task_id": "T/0", "solution": "…", "base_status": base, "plus_status": plus}

    judged = {"T/0": [sample("pass", "pass"), sample("pass", "fail"), sample("timeout", "fail")]}
    path = tmp_path / "eval_results.json"
    path.write_text(json.dumps({"date": "today", "eval": judged}))
    (item,) = read_evalplus(path, "model")
    assert (item.id, item.fields["group"], item.fields["task"]) == ("model/T/0", "model", "T/0")
    found = runs(item)
    assert found["limit"][0] == 0.5
    assert found["single"][0] == pytest.approx(1 / 3)
    (plain,) = read_evalplus(path)
    assert plain.id == "T/0"
    assert "group" not in plain.fields
    for text in ("[]", "{", '{"eval": {"T/0": [{"base": []}]}}', '{"eval": 3}'):
        path.write_text(text)
        with pytest.raises(InvalidItems, match="no evalplus result file"):
            read_evalplus(path)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"n": 4, "v": 2, "g": 3, "u": 3}, "g", "between 0 and v = 2"),
        ({"n": 4, "v": 3, "g": 3, "u": 2}, "g", "between 0 and u = 2"),
        ({"n": 4, "v": 5, "g": 3, "u": 3}, "v", "between 0 and n = 4"),
        ({"n": 4, "v": 2, "g": 2, "u": 5}, "u", "between 0 and n = 4"),
        ({"n": 4, "v": 4, "g": 1, "u": 2}, "v", "only 2 of n = 4 are wrong"),
        ({"n": 0, "v": 0, "g": 0, "u": 0}, "n", "at least one"),
        ({"n": 4, "v": -1, "g": 0, "u": 0}, "v", "between 0"),
        ({"verifier": np.array([True])}, "truth", "is missing beside verifier"),
        ({"plus_status": ("pass",)}, "base_status", "is missing beside plus_status"),
        ({"verifier": np.array([True]), "truth": np.array([True, False])}, "truth", "has 2 samples"),
        ({"verifier": np.array([0.5]), "truth": np.array([1.0])}, "verifier", "true or false"),
        ({"verifier": np.array([np.nan]), "truth": np.array([1.0])}, "verifier", "true or false"),
        ({"verifier": np.empty(0), "truth": np.empty(0)}, "verifier", "no samples"),
        ({"verifier": np.array([True]), "truth": np.array([True]), "v": 0}, "v", "the samples say 1"),
    ],
)
def test_tasks_that_cannot_be(fields: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises(InvalidItems, match=said) as caught:
        runs(task(4, 2, 2), Item("odd", fields=fields))
    assert [violation.field for violation in caught.value.violations] == [f"items[1].fields.{field}"]
    assert "'odd'" in str(caught.value)


def test_a_task_without_judgements_is_told_what_to_give() -> None:
    with pytest.raises(InvalidItems, match="lacks u: give verifier and truth"):
        runs(Item("odd", fields={"n": 4, "v": 2, "g": 2}))


@pytest.mark.parametrize(
    ("item", "field"),
    [
        (plan([0.5, 1.5], [0.5, 0.5]), "r"),
        (plan([0.5, np.nan], [0.5, 0.5]), "r"),
        (plan([0.5, 0.5], [0.5, 0.6]), "prior"),
        (plan([0.5, 0.5], [1.0]), "prior"),
        (plan([0.5], [1.0], completeness=1.1), "completeness"),
        (plan([0.5], [1.0], soundness=-0.1), "soundness"),
        (plan([0.5], [1.0], value_false_positive=0.5), "value_false_positive"),
        (plan([0.5], [1.0], value_correct=0.0), "value_correct"),
        (plan([0.5], [1.0], cost=-1.0), "cost"),
        (plan([0.5], [1.0], max_attempts=0), "max_attempts"),
        (plan([], []), "r"),
        (Item("plan", fields={"r": np.array([0.5])}), "prior"),
    ],
)
def test_plans_that_cannot_be(item: Item, field: str) -> None:
    with pytest.raises(InvalidItems) as caught:
        runs(item, form="plan")
    assert [violation.field for violation in caught.value.violations] == [f"items[0].fields.{field}"]


def test_priors_may_be_rounded() -> None:
    assert len(runs(plan([0.5, 0.5], [0.5, 0.5 + 5e-7]), form="plan")) == 1


@pytest.mark.parametrize(
    "params",
    [
        {"false_positive_value": 0.1},
        {"false_positive_values": (0.0, 1.0)},
        {"value_correct": 0.0},
        {"max_attempts": 0},
        {"cost_per_attempt": -0.1},
        {"mode": "notebook", "cost_per_attempt": 0.1},
    ],
)
def test_parameters_that_cannot_be(params: dict[str, Any]) -> None:
    with pytest.raises(InvalidParams):
        pickaxe.scorer("resampling-limits", **params)


def test_the_notebook_knows_no_cost() -> None:
    with pytest.raises(InvalidItems, match="cost"):
        runs(plan([0.5], [1.0], cost=0.1), form="plan", mode="notebook")
