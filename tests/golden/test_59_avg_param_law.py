"""Golden cases of the average-parameter law: values, schedules, masks, trajectories, the fit, optima."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden import golden, understood

import pickaxe
from pickaxe import Item
from pickaxe_plugins.scaling.avg_param_law._law import ParamLaw
from pickaxe_plugins.scaling.avg_param_law._pruning import magnitude_mask, removed, schedule, sparsity_at

FILE = understood(golden("59-avg-param-law"), "paper", "how", "cases")
CASES = {case["name"]: case for case in FILE["cases"]}
LAW = ("E", "A", "B", "alpha", "beta")


def case(name: str, *inputs: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Inputs, expectations and tolerances."""
    found = understood(CASES[name], "name", "inputs", "expected", "tolerance", "note")
    return understood(found["inputs"], *inputs), found["expected"], found["tolerance"]


def test_every_case_is_understood() -> None:
    assert set(CASES) == {
        "law_values",
        "schedule_by_compute_fraction",
        "sparsity_at_step",
        "magnitude_mask",
        "trajectory",
        "fit_noise_free",
        "compute_optimal",
    }


def test_law_values() -> None:
    given, expected, tolerance = case("law_values", *LAW, "avg_params_tokens")
    understood(expected, "loss", "train_flops")
    rel = understood(tolerance, "rel")["rel"]
    items = [
        Item(str(row), fields={"avg_params": n, "tokens": d}) for row, (n, d) in enumerate(given["avg_params_tokens"])
    ]
    found = pickaxe.scorer("avg-param-law", law={name: given[name] for name in LAW}).score(items)
    np.testing.assert_allclose(found["predicted_loss"], expected["loss"], rtol=rel)
    np.testing.assert_allclose(found["train_flops"], expected["train_flops"], rtol=rel)


def test_schedule_by_compute_fraction() -> None:
    given, expected, tolerance = case("schedule_by_compute_fraction", "columns", "rows")
    rel = understood(tolerance, "rel")["rel"]
    understood(expected, "columns", "rows")
    names = ["final_sparsity", "shape", "compute_start", "compute_end", "never_pruned_share"]
    assert given["columns"] == names
    assert expected["columns"] == [
        "step_start_fraction", "step_end_fraction", "avg_density_of_prunable", "avg_cost_relative_to_dense",
    ]  # fmt: skip
    items = [
        Item(str(row), fields={**dict(zip(names, values, strict=True)), "dense_params": 1e6, "tokens": 1e9})
        for row, values in enumerate(given["rows"])
    ]
    found = pickaxe.scorer("avg-param-law").score(items)
    for row, wanted in enumerate(expected["rows"]):
        plan = schedule(*given["rows"][row])
        assert [plan.start, plan.end, plan.density, plan.cost] == pytest.approx(wanted, rel=rel)
        shown = [found["step_start"][row], found["step_end"][row], found["avg_params"][row] / 1e6]
        assert shown == pytest.approx(wanted[:3], rel=rel)


def test_sparsity_at_step() -> None:
    given, expected, tolerance = case("sparsity_at_step", "start_step", "end_step", "final_sparsity", "shape", "steps")
    rel = understood(tolerance, "rel")["rel"]
    found = sparsity_at(
        np.array(given["steps"]), given["start_step"], given["end_step"], given["final_sparsity"], given["shape"]
    )
    np.testing.assert_allclose(found, understood(expected, "sparsity")["sparsity"], rtol=rel)


def test_magnitude_mask() -> None:
    given, expected, tolerance = case("magnitude_mask", "weights", "sparsity")
    assert tolerance == {"exact": True}
    weights = np.array(given["weights"])
    found = magnitude_mask(weights, removed(given["sparsity"], weights.size))
    np.testing.assert_array_equal(found.astype(int), understood(expected, "mask")["mask"])


def test_trajectory() -> None:
    given, expected, tolerance = case("trajectory", "active_params_per_logged_step", "tokens", "law")
    rel = understood(tolerance, "rel")["rel"]
    understood(expected, "avg_params", "predicted_loss", "final_params", "compression_ratio_avg_over_final")
    items = [
        Item(str(row), fields={"active_params": np.array(active), "tokens": tokens})
        for row, (active, tokens) in enumerate(
            zip(given["active_params_per_logged_step"], given["tokens"], strict=True)
        )
    ]
    found = pickaxe.scorer("avg-param-law", law=dict(zip(LAW, given["law"], strict=True))).score(items)
    columns = {"compression_ratio_avg_over_final": "size_saving"}
    for name, wanted in expected.items():
        np.testing.assert_allclose(found[columns.get(name, name)], wanted, rtol=rel, err_msg=name)


def test_fit_noise_free(tmp_path: Path) -> None:
    given, expected, tolerance = case("fit_noise_free", "avg_params", "tokens", "loss", "query")
    understood(expected, "params_E_A_B_alpha_beta", "query_loss")
    understood(tolerance, "query_rel", "E_abs", "exponents_abs", "max_abs_log_residual")
    names = ("avg_params", "tokens", "loss")
    runs = [
        Item(str(row), fields=dict(zip(names, values, strict=True)))
        for row, values in enumerate(zip(*(given[name] for name in names), strict=True))
    ]
    fitted = pickaxe.scorer("avg-param-law", bootstrap=5, extrapolate=True).fit(runs, out=tmp_path / "law")
    query = [Item(str(row), fields={"avg_params": n, "tokens": d}) for row, (n, d) in enumerate(given["query"])]
    found = fitted.score(query)
    np.testing.assert_allclose(found["predicted_loss"], expected["query_loss"], rtol=tolerance["query_rel"])
    assert fitted.artifact is not None
    law = fitted.artifact.read_json("law.json")["law"]
    wanted = dict(zip(LAW, expected["params_E_A_B_alpha_beta"], strict=True))
    assert law["E"] == pytest.approx(wanted["E"], abs=tolerance["E_abs"])
    for name in ("alpha", "beta"):
        assert law[name] == pytest.approx(wanted[name], abs=tolerance["exponents_abs"])
    known = fitted.score(runs)
    off = np.abs(np.log(known["predicted_loss"] / np.array(given["loss"])))
    assert off.max() <= tolerance["max_abs_log_residual"]


def test_compute_optimal() -> None:
    given, expected, tolerance = case("compute_optimal", "law", "flops")
    understood(expected, "avg_params", "tokens")
    rel = understood(tolerance, "rel")["rel"]
    law = ParamLaw(*given["law"])
    found = [law.optimum(flops) for flops in given["flops"]]
    np.testing.assert_allclose([params for params, _ in found], expected["avg_params"], rtol=rel)
    np.testing.assert_allclose([tokens for _, tokens in found], expected["tokens"], rtol=rel)
