"""Golden cases of resampling with imperfect verifiers: two-type plans and tables of counts."""

from typing import Any

import numpy as np
import pytest
from golden import golden, understood

import pickaxe
from pickaxe import Item
from pickaxe.data import Scores

CASE = understood(golden("42-resampling-limits"), "how", "tolerance", "model", "empirical")
TOLERANCE = CASE["tolerance"]


def parts(case: dict[str, Any], *inputs: str) -> tuple[dict[str, Any], dict[str, Any]]:
    understood(case, "inputs", "expected")
    return understood(case["inputs"], *inputs), case["expected"]


def plan(inputs: dict[str, Any], mode: str) -> Scores:
    prior, r = np.array(inputs["types"]).T
    fields = {
        "prior": prior,
        "r": r,
        "completeness": inputs["completeness"],
        "soundness": inputs["soundness"],
        "value_correct": inputs["value_correct"],
        "value_false_positive": inputs["value_false_positive"],
        "max_attempts": inputs["max_attempts"],
    }
    return pickaxe.scorer("resampling-limits", form="plan", mode=mode).score([Item("plan", fields=fields)])


@pytest.mark.parametrize("case", CASE["model"])
def test_two_type_plan(case: dict[str, Any]) -> None:
    inputs, expected = parts(
        case, "types", "completeness", "soundness", "value_correct", "value_false_positive", "max_attempts"
    )
    understood(
        expected,
        "reward", "accuracy", "false_positive", "k_opt", "limit_accuracy", "notebook_reward", "notebook_k_opt",
    )  # fmt: skip
    exact, notebook = plan(inputs, "exact"), plan(inputs, "notebook")
    told = exact.summary["plans"][0]
    for name in ("reward", "accuracy", "false_positive"):
        wanted = expected[name]
        assert told[name][: len(wanted)] == pytest.approx(wanted, abs=TOLERANCE)
    assert exact["k_opt"][0] == told["k_opt"] == expected["k_opt"]
    assert exact["limit"][0] == pytest.approx(expected["limit_accuracy"], abs=TOLERANCE)
    wanted = expected["notebook_reward"]
    assert notebook.summary["plans"][0]["reward"][: len(wanted)] == pytest.approx(wanted, abs=TOLERANCE)
    assert notebook["k_opt"][0] == expected["notebook_k_opt"]


@pytest.mark.parametrize("case", CASE["empirical"])
def test_table_of_counts(case: dict[str, Any]) -> None:
    inputs, expected = parts(
        case,
        "n_samples", "pass_verifier", "pass_verifier_and_truth", "pass_truth", "false_positive_values", "k",
    )  # fmt: skip
    understood(
        expected,
        "by_false_positive_value", "single_sample_accuracy", "conditional_accuracy", "limit_accuracy_unsolved_as_wrong",
        "limit_accuracy_unsolved_as_right", "soundness_as_in_public_notebook", "pooled_soundness",
    )  # fmt: skip
    n = inputs["n_samples"]
    counts = zip(inputs["pass_verifier"], inputs["pass_verifier_and_truth"], inputs["pass_truth"], strict=True)
    items = [Item(str(row), fields={"n": n, "v": v, "g": g, "u": u}) for row, (v, g, u) in enumerate(counts)]
    values = inputs["false_positive_values"]
    scorer = pickaxe.scorer(
        "resampling-limits", false_positive_values=values, max_attempts=n, drop_false_negative_tasks=False
    )
    found = scorer.score(items)
    report = found.summary["groups"]["all"]
    for name, key in {
        "single": "single_sample_accuracy",
        "conditional": "conditional_accuracy",
        "limit_worst": "limit_accuracy_unsolved_as_wrong",
        "limit_best": "limit_accuracy_unsolved_as_right",
        "soundness_notebook": "soundness_as_in_public_notebook",
        "soundness": "pooled_soundness",
    }.items():
        assert report[name] == pytest.approx(expected[key], abs=TOLERANCE)
        assert found.groups is not None
        assert found.groups.columns[name][0] == pytest.approx(expected[key], abs=TOLERANCE)
    assert sorted(map(float, expected["by_false_positive_value"])) == sorted(values)
    for told in report["by_false_positive_value"]:
        wanted = understood(
            expected["by_false_positive_value"][str(told["false_positive_value"])], "reward_at", "k_opt", "max_reward"
        )
        at = [told["reward"][k - 1] for k in inputs["k"]]
        assert at == pytest.approx(wanted["reward_at"], abs=TOLERANCE)
        assert told["k_best"] == wanted["k_opt"]
        assert told["max_reward"] == pytest.approx(wanted["max_reward"], abs=TOLERANCE)
