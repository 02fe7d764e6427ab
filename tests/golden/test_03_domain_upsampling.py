"""Golden cases of domain upsampling: plans, mixes without a domain, utilities, the order of draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from golden import golden, understood

import pickaxe
from pickaxe import Item
from pickaxe_plugins.scaling.domain_upsampling import Credits
from pickaxe_plugins.scaling.domain_upsampling._mix import noise_limit, utilities, without

CASES = {
    case["name"]: understood(case, "name", "inputs", "expected", "tolerance")
    for case in understood(golden("03-domain-upsampling"), "paper", "how", "cases")["cases"]
}
SINGLE = {"leave_one_domain_out_mixes", "domain_utility", "deterministic_interleave"}
PLANS = sorted(name for name in CASES if name.startswith("two_phase"))


def parts(name: str, *inputs: str) -> tuple[dict[str, Any], dict[str, Any], float]:
    case = CASES[name]
    tolerance = understood(case["tolerance"], "rel", "exact")
    return understood(case["inputs"], *inputs), case["expected"], tolerance.get("rel", 0.0)


def test_every_case_is_understood() -> None:
    assert set(CASES) == SINGLE | set(PLANS)


@pytest.mark.parametrize("name", PLANS)
def test_plan(name: str) -> None:
    inputs, expected, rel = parts(
        name, "domains", "group", "available_tokens", "base_mix", "group_share_in_final_phase", "total_tokens",
        "final_fraction",
    )  # fmt: skip
    understood(expected, "final_mix", "switch_token", "tokens_seen", "epochs", "effective_mix", "upsampling_factor")
    rows = zip(inputs["domains"], inputs["group"], inputs["available_tokens"], inputs["base_mix"], strict=True)
    items = [
        Item(name, fields={"group": group, "available_tokens": tokens, "base_weight": weight})
        for name, group, tokens, weight in rows
    ]
    found = pickaxe.scorer(
        "domain-upsampling",
        group_share=inputs["group_share_in_final_phase"],
        total_tokens=inputs["total_tokens"],
        delta=inputs["final_fraction"],
    ).score(items)
    columns = {"final_mix": "final_weight", "effective_mix": "effective_weight"}
    for key in ("final_mix", "tokens_seen", "epochs", "effective_mix", "upsampling_factor"):
        np.testing.assert_allclose(found[columns.get(key, key)], expected[key], rtol=rel)
    assert found.summary["training"]["switch token"] == expected["switch_token"]


def test_leave_one_out() -> None:
    inputs, expected, rel = parts("leave_one_domain_out_mixes", "domains", "final_mix")
    assert set(understood(expected, "mixes")["mixes"]) == set(inputs["domains"])
    for place, name in enumerate(inputs["domains"]):
        np.testing.assert_allclose(without(np.array(inputs["final_mix"]), place), expected["mixes"][name], rtol=rel)


def test_utility() -> None:
    inputs, expected, rel = parts(
        "domain_utility", "benchmarks", "higher_is_better", "full_upsampling", "without_domain", "seed_std"
    )
    understood(expected, "utility", "significant_at_2_sigma")
    names = list(inputs["without_domain"])
    assert set(names) == set(expected["utility"]) == set(expected["significant_at_2_sigma"])
    found = utilities(
        np.array(inputs["full_upsampling"]),
        np.array([inputs["without_domain"][name] for name in names]),
        np.array(inputs["higher_is_better"]),
    )
    np.testing.assert_allclose(found, [expected["utility"][name] for name in names], rtol=rel)
    significant = np.abs(found) > noise_limit(np.array(inputs["seed_std"]))
    assert significant.tolist() == [expected["significant_at_2_sigma"][name] for name in names]


def test_order_of_draws() -> None:
    inputs, expected, _ = parts("deterministic_interleave", "mix", "draws", "rule")
    assert CASES["deterministic_interleave"]["tolerance"] == {"exact": True}
    mix = np.array(inputs["mix"])
    assert Credits(len(mix)).draw(mix, inputs["draws"]).tolist() == understood(expected, "order")["order"]
