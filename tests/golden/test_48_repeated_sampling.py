"""Golden cases of repeated sampling: pass@k, coverage and its law, selection, cost."""

from typing import Any

import numpy as np
import pytest
from golden import golden, understood

import pickaxe
from pickaxe import Item
from pickaxe_plugins.decoding import _selection
from pickaxe_plugins.decoding._cost import Prices
from pickaxe_plugins.decoding.coverage._law import fit_law

CASE = understood(
    golden("48-repeated-sampling"), "how", "tolerance", "pass_at_k", "coverage", "fit_recovery", "selection", "cost"
)
TOLERANCE = understood(
    CASE["tolerance"],
    "pass_at_k", "coverage", "fit_params", "mean_abs_error", "exact_recovery", "cost", "selection",
)  # fmt: skip


def parts(case: dict[str, Any], *inputs: str) -> tuple[dict[str, Any], Any]:
    understood(case, "inputs", "expected")
    return understood(case["inputs"], *inputs), case["expected"]


@pytest.mark.parametrize("case", CASE["pass_at_k"])
def test_pass_at_k(case: dict[str, Any]) -> None:
    inputs, expected = parts(case, "n", "c", "k")
    item = Item("one", fields={"n": inputs["n"], "c": inputs["c"]})
    found = pickaxe.scorer("coverage", k=(inputs["k"],), bootstrap=0, law=False).score([item])
    assert found.primary[0] == pytest.approx(expected, abs=TOLERANCE["pass_at_k"])


def test_coverage_curve_and_its_law() -> None:
    inputs, expected = parts(CASE["coverage"], "n", "correct_counts", "k")
    understood(expected, "coverage", "a", "b", "mean_abs_error")
    items = [Item(str(row), fields={"n": inputs["n"], "c": c}) for row, c in enumerate(inputs["correct_counts"])]
    found = pickaxe.scorer("coverage", k=inputs["k"], curve=inputs["k"]).score(items)
    report = found.summary["groups"]["all"]
    assert report["k"] == inputs["k"]
    np.testing.assert_allclose(report["coverage"], expected["coverage"], atol=TOLERANCE["coverage"], rtol=0)
    for k, value in zip(inputs["k"], expected["coverage"], strict=True):
        assert found[f"pass_at_{k}"].mean() == pytest.approx(value, abs=TOLERANCE["coverage"])
    for name in ("a", "b"):
        assert report["law"][name] == pytest.approx(expected[name], abs=TOLERANCE["fit_params"])
    assert report["law"]["mean_abs_error"] == pytest.approx(expected["mean_abs_error"], abs=TOLERANCE["mean_abs_error"])


def test_exact_laws_are_recovered() -> None:
    inputs, expected = parts(CASE["fit_recovery"], "k", "coverage")
    understood(expected, "a", "b")
    law = fit_law(np.array(inputs["k"]), np.array(inputs["coverage"]))
    assert (law.a, law.b) == pytest.approx((expected["a"], expected["b"]), abs=TOLERANCE["exact_recovery"])


@pytest.mark.parametrize("case", CASE["selection"])
def test_selection(case: dict[str, Any]) -> None:
    assert TOLERANCE["selection"] == "exact"
    inputs, expected = parts(case, "answers", "scores", "reference")
    understood(expected, "majority", "best_of_n", "score_weighted_majority", "any_correct")
    answers, scores = inputs["answers"], inputs["scores"]
    chosen = {
        "majority": _selection.majority(answers),
        "best_of_n": _selection.best_of_n(scores),
        "weighted_majority": _selection.weighted_majority(answers, scores),
    }
    wanted = {**expected, "weighted_majority": expected["score_weighted_majority"]}
    fields = {"answers": answers, "scores": np.array(scores), "reference": inputs["reference"]}
    found = pickaxe.scorer("coverage", k=(len(answers),), law=False).score([Item("one", fields=fields)])
    for rule, index in chosen.items():
        assert answers[index] == wanted[rule]
        assert found[rule][0] == float(wanted[rule] == inputs["reference"])
    assert bool(found.primary[0]) == expected["any_correct"]


@pytest.mark.parametrize("case", CASE["cost"])
def test_cost(case: dict[str, Any]) -> None:
    inputs, expected = parts(
        case, "prompt_tokens", "output_tokens_per_sample", "samples", "usd_per_m_input", "usd_per_m_output"
    )
    understood(expected, "usd_prompt_billed_per_sample", "usd_prompt_shared")
    k = inputs["samples"]
    values = {name: inputs[name] for name in ("prompt_tokens", "usd_per_m_input", "usd_per_m_output")}
    prices = Prices(output_tokens=inputs["output_tokens_per_sample"], **values)
    billed, shared = expected["usd_prompt_billed_per_sample"], expected["usd_prompt_shared"]
    assert prices.billed(k) == pytest.approx(billed, abs=TOLERANCE["cost"])
    assert prices.shared(k) == pytest.approx(shared, abs=TOLERANCE["cost"])
    fields = {"n": k, "c": 1, **values, "output_tokens": inputs["output_tokens_per_sample"]}
    found = pickaxe.scorer("coverage", curve=(k,), law=False).score([Item("one", fields=fields)])
    assert found.summary["groups"]["all"]["usd_billed"] == pytest.approx([billed], abs=TOLERANCE["cost"])
    assert found.summary["groups"]["all"]["usd_shared"] == pytest.approx([shared], abs=TOLERANCE["cost"])
