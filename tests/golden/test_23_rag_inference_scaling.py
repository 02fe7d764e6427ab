"""Golden cases of RAG inference scaling: sigma, predictions, the fit, allocations, the published table."""

from typing import Any

import numpy as np
import pytest
from golden import golden, understood

import pickaxe
from pickaxe import Item
from pickaxe_plugins.generation._rag_law import MARGIN, PUBLISHED, Sigma, per_decade
from pickaxe_plugins.generation.rag_allocation import configurations

CASE = understood(
    golden("23-rag-inference-scaling"),
    "how", "parameters", "tolerance", "clip", "cost_model", "sigmoid", "predict", "fit", "allocate",
    "published_optimal_performance",
)  # fmt: skip
TOLERANCE = understood(CASE["tolerance"], "prediction", "fit", "allocation")
LAW = understood(CASE["parameters"], "a", "b", "c", "epsilon")


def parts(case: dict[str, Any], *inputs: str) -> tuple[dict[str, Any], Any]:
    understood(case, "inputs", "expected")
    return understood(case["inputs"], *inputs), case["expected"]


def test_clip() -> None:
    sigma = Sigma()
    assert [sigma.floor + MARGIN, sigma.floor + sigma.height - MARGIN] == pytest.approx(CASE["clip"], abs=1e-12)


@pytest.mark.parametrize("case", CASE["sigmoid"])
def test_sigma_and_its_inverse(case: dict[str, Any]) -> None:
    understood(case, "x", "sigma", "inverse")
    assert PUBLISHED.sigma is not None
    assert PUBLISHED.sigma(case["x"]) == pytest.approx(case["sigma"], abs=TOLERANCE["prediction"])
    assert PUBLISHED.sigma.inverse(case["sigma"]) == pytest.approx(case["inverse"], abs=TOLERANCE["prediction"])


@pytest.mark.parametrize("case", CASE["predict"])
def test_predictions(case: dict[str, Any]) -> None:
    inputs, expected = parts(case, "k", "m", "n", "i_doc", "i_shot")
    understood(expected, "linear", "predicted")
    found = pickaxe.scorer("rag-allocation", **LAW).score([Item("one", fields=inputs)])
    for name, value in expected.items():
        assert found[name][0] == pytest.approx(value, abs=TOLERANCE["prediction"])


def test_fit() -> None:
    inputs, expected = parts(CASE["fit"], "theta", "i", "task", "P")
    understood(expected, "a", "b", "c", "r2_on_P")
    examples = [
        Item(
            str(row),
            fields={
                **dict(zip("kmn", theta, strict=True)),
                "i_doc": i[0], "i_shot": i[1], "task": str(task), "metric": p,
            },
        )
        for row, (theta, i, task, p) in enumerate(
            zip(inputs["theta"], inputs["i"], inputs["task"], inputs["P"], strict=True)
        )
    ]  # fmt: skip
    handle = pickaxe.scorer("rag-allocation", standardise=False, epsilon=LAW["epsilon"]).fit(examples)
    assert handle.artifact is not None
    stored = handle.artifact.read_json("law.json")
    law = stored["law"]
    assert law["a"] == pytest.approx(expected["a"], abs=TOLERANCE["fit"])
    assert law["b"][: len(expected["b"])] == pytest.approx(expected["b"], abs=TOLERANCE["fit"])
    assert not any(law["b"][len(expected["b"]) :])
    assert law["c"] == pytest.approx(expected["c"], abs=TOLERANCE["fit"])
    assert stored["quality"]["r2_on_p"] == pytest.approx(expected["r2_on_P"], abs=TOLERANCE["fit"])


@pytest.mark.parametrize("case", CASE["allocate"])
def test_allocation(case: dict[str, Any]) -> None:
    assert TOLERANCE["allocation"] == "exact"
    inputs, expected = parts(
        case,
        "budget", "doc_tokens", "query_and_answer_tokens", "instruction_tokens", "i_doc", "i_shot", "k", "m", "n",
    )  # fmt: skip
    understood(expected, "k", "m", "n", "effective_context_length", "linear")
    fields = {name: inputs[name] for name in ("doc_tokens", "instruction_tokens", "i_doc", "i_shot")}
    grid = configurations(inputs["k"], inputs["m"], inputs["n"], qa_tokens=inputs["query_and_answer_tokens"], **fields)
    found = pickaxe.scorer("rag-allocation", budget=inputs["budget"], **LAW).score(grid)
    best = found.summary["best"]["all"]
    assert [best[name] for name in "kmn"] == [expected[name] for name in "kmn"]
    assert best["effective_context_length"] == expected["effective_context_length"]
    assert best["linear"] == pytest.approx(expected["linear"], abs=TOLERANCE["prediction"])


def test_published_table() -> None:
    table = understood(
        CASE["published_optimal_performance"], "note", "budgets", "RAG", "DRAG", "IterDRAG", "expected"
    )  # fmt: skip
    expected = understood(
        table["expected"], "best_of_both_mean_accuracy", "slope_points_per_decade", "intercept", "pearson"
    )
    assert all(len(table[name]) == len(table["budgets"]) for name in ("RAG", "DRAG", "IterDRAG"))
    best = [
        float(np.max([each for each in pair if each is not None], axis=0).mean())
        for pair in zip(table["DRAG"], table["IterDRAG"], strict=True)
    ]
    assert best == pytest.approx(expected["best_of_both_mean_accuracy"], abs=TOLERANCE["prediction"])
    found = per_decade(table["budgets"], best)
    wanted = [expected[name] for name in ("slope_points_per_decade", "intercept", "pearson")]
    assert found == pytest.approx(wanted, abs=TOLERANCE["fit"])
