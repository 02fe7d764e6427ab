"""Golden cases of eval-variance: seeds and trajectories, bootstrap, item analysis, choices, p-IRT."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from golden import golden, understood

import pickaxe
from pickaxe import Item, Scores
from pickaxe_plugins.evaluation.eval_variance import _item_response, _seed_stats

GOLDEN = understood(golden("15-eval-variance"), "paper", "how", "cases")


def scored(mode: str, items: list[Item], **params: Any) -> Scores:
    return pickaxe.scorer("eval-variance", mode=mode, **params).score(items)


def benchmark(scores: Any, ddof: int = 1) -> Scores:
    return scored("benchmark", [Item("one", fields={"scores": np.array(scores)})], ddof=ddof)


def seed_and_trajectory(inputs: dict[str, Any]) -> dict[str, Any]:
    understood(inputs, "discrete_scores_seed_by_checkpoint", "continuous_scores_seed_by_checkpoint")
    given = {name[:4]: inputs[f"{name}_scores_seed_by_checkpoint"] for name in ("discrete", "continuous")}
    found: dict[str, Any] = {}
    for name, scores in given.items():
        for ddof in (0, 1):
            each = benchmark(scores, ddof)
            found[f"seed_std_{name}_ddof{ddof}"] = each["seed_std"][0]
        found[f"seed_mean_{name}"], found[f"snr_{name}"] = each["seed_mean"][0], each["snr"][0]
        found[f"monotonicity_{name}"] = each["monotonicity"][0]
        found[f"monotonicity_{name}_per_seed"] = [benchmark([row])["monotonicity"][0] for row in scores]
        found[f"min_detectable_difference_{name}"] = each["min_detectable_difference"][0]
    return found


def degenerate(inputs: dict[str, Any]) -> dict[str, Any]:
    understood(inputs, "scores")
    taus = [benchmark([row])["monotonicity"][0] for row in inputs["scores"]]
    note = "constant trajectory: tau-b undefined -> NaN column value"
    return {"monotonicity": [None if np.isnan(tau) else tau for tau in taus], "note": note}


def bootstrap(inputs: dict[str, Any]) -> dict[str, Any]:
    understood(inputs, "item_scores_seed_by_item", "resample_indices")
    values = np.array(inputs["item_scores_seed_by_item"], np.float64)
    means = _seed_stats.bootstrap_means(values, np.array(inputs["resample_indices"]))
    low, high = _seed_stats.percentile_ends(means)
    one = Item("one", fields={"scores": values.mean(axis=1), "item_scores": values})
    analytic = _seed_stats.analytic_half_widths(values)
    assert scored("benchmark", [one], bootstrap=0)["ci95_half_width"][0] == pytest.approx(analytic.mean())
    return {
        "ci_low_per_seed": low,
        "ci_high_per_seed": high,
        "half_width_mean": (high - low).mean() / 2,
        "analytic_half_width_per_seed": analytic,
    }


def item_analysis(inputs: dict[str, Any]) -> dict[str, Any]:
    understood(inputs, "responses_model_by_item", "drop_quantile")
    responses = np.array(inputs["responses_model_by_item"], np.float64)
    items = [Item(str(row), fields={"responses": line}) for row, line in enumerate(responses.T)]
    found = scored("items", items, drop_quantile=inputs["drop_quantile"])
    return {
        "difficulty_mean_score": found["difficulty"],
        "discrimination_point_biserial": found["discrimination"],
        "discrimination_corrected": found["corrected_discrimination"],
        "kept_items": np.flatnonzero(found["keep"]),
    }


def choice_scores(inputs: dict[str, Any]) -> dict[str, Any]:
    understood(inputs, "option_loglikelihood", "option_char_length", "gold")
    rows = zip(inputs["option_loglikelihood"], inputs["option_char_length"], inputs["gold"], strict=True)
    items = [
        Item(str(row), fields={"option_loglikelihoods": np.array(ll), "option_lengths": np.array(length), "gold": gold})
        for row, (ll, length, gold) in enumerate(rows)
    ]
    raw, per_char = scored("choices", items), scored("choices", items, length_norm="chars")
    np.testing.assert_array_equal(raw["correct_mass"], per_char["correct_mass"])
    return {
        "acc": raw["correct"].mean(),
        "acc_char_norm": per_char["correct"].mean(),
        "correct_prob_mass": raw["correct_mass"],
        "mean_correct_prob_mass": raw["correct_mass"].mean(),
        "mean_correct_nll": -raw["loglikelihood"].mean(),
    }


def irt_2pl(inputs: dict[str, Any]) -> dict[str, Any]:
    understood(inputs, "a", "b", "seen_items", "responses", "prior")
    assert inputs["prior"] == "standard normal on theta"
    a, b = np.array(inputs["a"]), np.array(inputs["b"])
    responses, seen = np.array([inputs["responses"]], np.float64), np.array(inputs["seen_items"])
    found = _item_response.estimate(responses, seen, a, b)
    return {"theta_map": found.theta[0], "p_irt": found.p_irt[0]}


HOW: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "seed_and_trajectory": seed_and_trajectory,
    "degenerate": degenerate,
    "bootstrap_ci_given_indices": bootstrap,
    "item_analysis": item_analysis,
    "choice_scores": choice_scores,
    "irt_2pl": irt_2pl,
}


def test_every_kind_of_case_is_there() -> None:
    assert {case["name"] for case in GOLDEN["cases"]} == set(HOW)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])
def test_case(case: dict[str, Any]) -> None:
    understood(case, "name", "inputs", "expected", "tolerance", "note")
    tolerance = understood(case["tolerance"], "rel", "abs")
    found = HOW[case["name"]](case["inputs"])
    assert set(case["expected"]) <= set(found)
    for name, expected in case["expected"].items():
        if isinstance(expected, str) or None in np.atleast_1d(np.array(expected, object)).tolist():
            assert _rounded(found[name]) == _rounded(expected), name
            continue
        np.testing.assert_allclose(
            found[name], expected, rtol=tolerance.get("rel", 0), atol=tolerance.get("abs", 0), err_msg=name
        )


def _rounded(value: Any) -> Any:
    return value if isinstance(value, str) else [None if each is None else round(float(each), 9) for each in value]
