"""concept-frequency against the authors' notebook on their table, and the semantics of search and misalignment."""

import csv
from typing import Any

import numpy as np
import pytest
from golden import FILES, golden, understood

import pickaxe
from pickaxe import Item
from pickaxe_plugins.selection.concept_frequency._log_linear import log_linear

FILE = understood(golden("14-concept-frequency"), "paper", "how", "cases")
LOG_LINEAR = [case for case in FILE["cases"] if case["name"].startswith("loglinear_")]
SEARCH = [case for case in FILE["cases"] if not case["name"].startswith("loglinear_")]
ROUNDING = 1e-9
"""What is not `official` was computed from the same inputs."""


def data(inputs: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Counts and accuracies of a case."""
    known = ("num_bins", "drop_first_bins", "drop_last_bins")
    if "csv" not in inputs:
        understood(inputs, "counts", "accuracy", *known)
        return np.array(inputs["counts"], float), np.array(inputs["accuracy"], float)
    understood(inputs, "csv", "count_column", "accuracy_column", "skip_rows_with_empty_count", *known)
    with (FILES / "14-concept-frequency" / inputs["csv"]).open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    if inputs["skip_rows_with_empty_count"]:
        rows = [row for row in rows if row[inputs["count_column"]] != ""]
    pairs = [(float(row[inputs["count_column"]]), float(row[inputs["accuracy_column"]])) for row in rows]
    counts, accuracy = np.array(pairs).T
    return counts, accuracy


@pytest.mark.parametrize("case", LOG_LINEAR, ids=lambda case: case["name"])
def test_bins_and_line(case: dict[str, Any]) -> None:
    understood(case, "name", "inputs", "expected", "tolerance")
    inputs, tolerance = case["inputs"], understood(case["tolerance"], "abs_accuracy_points", "pearson_r", "rel")
    expected = understood(
        case["expected"], "exp_bins", "bin_of_item_counts", "cum_means", "cum_stds", "pearson_r", "p_value",
        "slope_per_ln", "slope_per_decade", "intercept", "official",
    )  # fmt: skip
    counts, accuracy = data(inputs)
    law = log_linear(counts, accuracy, inputs["num_bins"], inputs["drop_first_bins"], inputs["drop_last_bins"])
    within = tolerance.get("rel", ROUNDING)
    assert law.members.tolist() == expected["bin_of_item_counts"]
    for found, name in ((law.edges, "exp_bins"), (law.means, "cum_means"), (law.stds, "cum_stds")):
        np.testing.assert_allclose(found, expected[name], rtol=within, err_msg=name)
    single = {
        "pearson_r": law.r, "p_value": law.p_value, "slope_per_ln": law.slope,
        "slope_per_decade": law.slope_per_decade, "intercept": law.intercept,
    }  # fmt: skip
    for name, value in single.items():
        assert value == pytest.approx(expected[name], rel=max(within, 1e-7)), name
    if "official" in expected:
        official = understood(expected["official"], "exp_bins", "cum_means", "cum_stds", "pearson_r", "p_value")
        points = tolerance["abs_accuracy_points"]
        np.testing.assert_allclose(law.edges, official["exp_bins"], rtol=ROUNDING)
        np.testing.assert_allclose(law.means, official["cum_means"], rtol=0, atol=points)
        np.testing.assert_allclose(law.stds, official["cum_stds"], rtol=0, atol=points)
        assert law.r == pytest.approx(official["pearson_r"], abs=tolerance["pearson_r"])
        assert law.p_value == pytest.approx(official["p_value"], rel=0.01)


@pytest.mark.parametrize("case", LOG_LINEAR, ids=lambda case: case["name"])
def test_the_plugin_reports_the_same(case: dict[str, Any]) -> None:
    inputs = case["inputs"]
    counts, accuracy = data(inputs)
    items = [
        Item(str(row), fields={"count": float(count), "accuracy": float(value)})
        for row, (count, value) in enumerate(zip(counts, accuracy, strict=True))
    ]
    names = {"num_bins": "num_bins", "drop_first": "drop_first_bins", "drop_last": "drop_last_bins"}
    scores = pickaxe.scorer("concept-frequency", **{ours: inputs[name] for ours, name in names.items()}).score(items)
    within = case["tolerance"].get("rel", case["tolerance"].get("pearson_r"))
    assert scores.summary["law"]["r"] == pytest.approx(case["expected"]["pearson_r"], abs=within)
    assert scores.summary["law"]["slope per decade"] == pytest.approx(case["expected"]["slope_per_decade"], rel=1e-6)


@pytest.mark.parametrize("case", SEARCH, ids=lambda case: case["name"])
def test_search_and_misalignment(case: dict[str, Any]) -> None:
    understood(case, "name", "inputs", "expected", "tolerance")
    assert case["tolerance"] == {"exact": True}
    inputs = understood(
        case["inputs"], "documents_as_lemma_noun_sets", "concepts", "query_lemma_overrides", "image_tag_probability",
        "image_threshold", "threshold_is_strict",
    )  # fmt: skip
    expected = understood(
        case["expected"], "rows", "columns", "misaligned_sample_ids", "misalignment_degree_extracted",
        "misalignment_degree_fixed",
    )  # fmt: skip
    assert inputs["threshold_is_strict"]
    documents = [
        Item(str(row), fields={"lemmas": lemmas, "tag_probabilities": np.array(tags)})
        for row, (lemmas, tags) in enumerate(
            zip(inputs["documents_as_lemma_noun_sets"], inputs["image_tag_probability"], strict=True)
        )
    ]
    params = {
        "concepts": inputs["concepts"], "threshold": inputs["image_threshold"],
        "lemma_overrides": inputs["query_lemma_overrides"],
    }  # fmt: skip
    handle = pickaxe.scorer("concept-frequency", **params).fit(documents)
    scores = handle.score([Item(name, name) for name in inputs["concepts"]])
    for column, name in enumerate(expected["columns"]):
        found = inputs["concepts"] if name == "concept" else scores[name].tolist()
        assert found == [row[column] for row in expected["rows"]], name
    assert handle.artifact is not None
    opened = pickaxe.scorer("concept-frequency", artifact=str(handle.artifact.path), items="documents")
    scored = opened.score(documents)
    assert np.flatnonzero(scored["misaligned"] == 1).tolist() == expected["misaligned_sample_ids"]
    degrees = scored.summary["misalignment"]
    assert degrees["degree of those with concepts"] == expected["misalignment_degree_extracted"]
    assert degrees["degree of all"] == expected["misalignment_degree_fixed"]
