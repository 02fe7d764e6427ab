"""pet-select against complexities, rankings, metrics and routing of the authors' functions."""

from typing import Any

import numpy as np
import pytest
from golden import golden, understood

from pickaxe_plugins.reranking.pet_select import METRICS, Bounds, complexity, quality, rank, route, triplet_loss

FILE = understood(golden("73-pet-select"), "paper", "how", "tolerance", "inputs", "expected")
INPUTS = understood(FILE["inputs"], "codes", "weights", "note", "techniques", "triplet", "routing")
EXPECTED = understood(
    FILE["expected"],
    "raw_metrics",
    "normalised",
    "combined_complexity",
    "mean_threshold",
    "is_complex",
    "ranking",
    "selection_metrics",
    "triplet_loss",
    "routing",
)
WITHIN = understood(FILE["tolerance"], "float")["float"]
VALUES = np.array([complexity(code) for code in INPUTS["codes"]])


def table(rows: list[dict[str, float]]) -> np.ndarray:
    return np.array([[understood(row, *METRICS)[name] for name in METRICS] for row in rows])


def test_metrics_of_code() -> None:
    np.testing.assert_allclose(VALUES, table(EXPECTED["raw_metrics"]), rtol=0, atol=WITHIN)


def test_combined_complexity_and_threshold() -> None:
    bounds = Bounds.of(VALUES)
    weights = [understood(INPUTS["weights"], *METRICS)[name] for name in METRICS]
    np.testing.assert_allclose(bounds.normalised(VALUES), table(EXPECTED["normalised"]), rtol=0, atol=WITHIN)
    combined = bounds.combined(VALUES, weights)
    np.testing.assert_allclose(combined, EXPECTED["combined_complexity"], rtol=0, atol=WITHIN)
    assert combined.mean() == pytest.approx(EXPECTED["mean_threshold"], abs=WITHIN)
    assert (combined >= combined.mean()).astype(int).tolist() == EXPECTED["is_complex"]


@pytest.mark.parametrize("case", EXPECTED["ranking"])
def test_ranking(case: dict[str, Any]) -> None:
    understood(case, "inputs", "expected")
    given = understood(case["inputs"], "passed", "tokens")
    assert set(given["passed"]) == set(INPUTS["techniques"])
    found = rank(given["passed"], given["tokens"])
    expected = understood(case["expected"], "ranked")["ranked"]
    assert [name for name, _ in found] == [name for name, _ in expected]
    np.testing.assert_allclose([score for _, score in found], [score for _, score in expected], rtol=0, atol=WITHIN)


@pytest.mark.parametrize("case", EXPECTED["selection_metrics"])
def test_selection_metrics(case: dict[str, Any]) -> None:
    understood(case, "inputs", "expected")
    given = understood(case["inputs"], "logits", "labels")
    expected = understood(case["expected"], "ndcg_at_9", "mean_reciprocal_rank")
    assert quality(given["logits"], given["labels"]) == pytest.approx(tuple(expected.values()), abs=WITHIN)


def test_triplet_loss() -> None:
    given = understood(INPUTS["triplet"], "anchor", "positive", "negative", "margin")
    assert triplet_loss(**given) == pytest.approx(EXPECTED["triplet_loss"], abs=WITHIN)


@pytest.mark.parametrize("case", EXPECTED["routing"])
def test_routing(case: str) -> None:
    given = understood(INPUTS["routing"], "probabilities", "success", "tokens")
    expected = understood(EXPECTED["routing"][case], "accuracy", "mean_tokens")
    found = route(*(np.array(given[name]) for name in ("probabilities", "success", "tokens")), int(case[3:]))
    assert (found.accuracy, found.tokens) == pytest.approx((expected["accuracy"], expected["mean_tokens"]), abs=WITHIN)
