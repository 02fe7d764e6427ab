"""Golden cases of idealized runtime: fits, denoising, estimates from published tables, cost and FLOPs."""

from typing import Any

import numpy as np
import pytest
from golden import golden, understood

import pickaxe
from pickaxe import Item
from pickaxe_plugins.scaling.idealized_runtime._model import aggregated

FILE = understood(golden("57-idealized-runtime"), "paper", "how", "cases")
CASES = {case["name"]: case for case in FILE["cases"]}
FITS = [name for name in CASES if name.startswith("fit_")]
ESTIMATES = [name for name in CASES if name.startswith("estimate_")]
COLUMNS = ["num_prompt_tokens", "num_output_tokens"]


def case(name: str, *inputs: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Inputs, expectations and tolerances."""
    found = understood(CASES[name], "name", "inputs", "expected", "tolerance", "note")
    return understood(found["inputs"], *inputs), found["expected"], found["tolerance"]


def fitted(rows: list[list[Any]], **params: Any) -> dict[str, Any]:
    """The entry that fit writes for points (p, o, seconds or list of seconds)."""
    examples = [
        Item(str(row), fields={**dict(zip(COLUMNS, (p, o), strict=True)), "runtimes": np.atleast_1d(seconds)})
        for row, (p, o, seconds) in enumerate(rows)
    ]
    handle = pickaxe.scorer("idealized-runtime", bootstrap=0, **params).fit(examples)
    assert handle.artifact is not None
    entry: dict[str, Any] = handle.artifact.read_json("table.json")["default"]
    return entry


def test_every_case_is_understood() -> None:
    rest = {"denoise_min_of_10", "cost_and_flops"}
    assert {*FITS, *ESTIMATES, *rest} == set(CASES)
    assert FITS
    assert ESTIMATES


@pytest.mark.parametrize("name", FITS)
def test_fits(name: str) -> None:
    given, expected, tolerance = case(name, "grid", "grid_columns", "prompt_mode")
    understood(tolerance, "round3", "unrounded_rel")
    understood(expected, "round3", "unrounded")
    assert given["grid_columns"] == [*COLUMNS, "runtime_s"]
    rounded = understood(expected["round3"], "runtime_per_output_token", "runtime_for_prompt_tokens")
    found = fitted(given["grid"], prompt_mode=given["prompt_mode"], round_digits=3)
    for key, wanted in rounded.items():
        assert found[key] == pytest.approx(wanted, abs=tolerance["round3"])
    check_law(
        fitted(given["grid"], prompt_mode=given["prompt_mode"]), expected["unrounded"], tolerance["unrounded_rel"]
    )


def check_law(found: dict[str, Any], wanted: dict[str, Any], rel: float) -> None:
    quality = ("r2", "mse", "max_squared_error")
    understood(wanted, "runtime_per_output_token", "runtime_for_prompt_tokens", *quality)
    assert found["runtime_per_output_token"] == pytest.approx(wanted["runtime_per_output_token"], rel=rel)
    if found["overhead"] == 0:
        assert found["runtime_for_prompt_tokens"] == pytest.approx(wanted["runtime_for_prompt_tokens"], rel=rel)
    for key in quality:
        assert found["quality"][key] == pytest.approx(wanted[key], rel=rel)


def test_denoise_min_of_10() -> None:
    given, expected, tolerance = case(
        "denoise_min_of_10", "trials", "columns", "aggregate", "prompt_mode", "split_overhead"
    )
    rel = understood(tolerance, "rel")["rel"]
    without = "runtime_for_prompt_tokens_without_overhead"
    understood(expected, "grid_after_min", "unrounded", "overhead", without)
    assert given["columns"] == [*COLUMNS, "ten runtimes_s"]
    trials = {(p, o): np.array(seconds) for p, o, seconds in given["trials"]}
    assert aggregated(trials, given["aggregate"]).tolist() == expected["grid_after_min"]
    params = {"aggregate": given["aggregate"], "prompt_mode": given["prompt_mode"]}
    check_law(fitted(given["trials"], **params), expected["unrounded"], rel)
    assert given["split_overhead"] is True
    split = fitted(given["trials"], **params, split_overhead=True)
    check_law(split, expected["unrounded"], rel)
    assert split["overhead"] == pytest.approx(expected["overhead"], rel=rel)
    assert split["runtime_for_prompt_tokens"] == pytest.approx(expected[without], rel=rel)


@pytest.mark.parametrize("name", ESTIMATES)
def test_estimates(name: str) -> None:
    given, expected, tolerance = case(name, "table", "queries")
    rel = understood(tolerance, "rel")["rel"]
    understood(expected, "runtime_s")
    items = [
        Item(str(row), fields=dict(zip(("deployment", *COLUMNS), query, strict=True)))
        for row, query in enumerate(given["queries"])
    ]
    for params in ({"table": given["table"], "preset": "none"}, {"preset": name.split("_")[1]}):
        found = pickaxe.scorer("idealized-runtime", **params).score(items)
        assert found["runtime_s"] == pytest.approx(expected["runtime_s"], rel=rel)


def test_cost_and_flops() -> None:
    given, expected, tolerance = case(
        "cost_and_flops",
        "runtime_s", "num_accelerators", "usd_per_accelerator_hour", "hidden", "layers", *COLUMNS,
    )  # fmt: skip
    rel = understood(tolerance, "rel")["rel"]
    understood(expected, "cost_usd", "flops")
    p, o = (given[name] for name in COLUMNS)
    entry = {
        "runtime_per_output_token": given["runtime_s"] / 2 / (o - 1),
        "runtime_for_prompt_tokens": {p: given["runtime_s"] / 2},
        **{name: given[name] for name in ("num_accelerators", "hidden", "layers")},
        "price_per_hour": given["usd_per_accelerator_hour"],
    }
    item = Item("query", fields={name: given[name] for name in COLUMNS})
    found = pickaxe.scorer("idealized-runtime", table={"it": entry}, preset="none").score([item])
    assert found["runtime_s"][0] == pytest.approx(given["runtime_s"], rel=rel)
    assert found["cost_usd"][0] == pytest.approx(expected["cost_usd"], rel=rel)
    assert found["flops"][0] == pytest.approx(expected["flops"], rel=rel)
