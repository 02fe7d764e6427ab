"""calibration-sets against selections of the authors' collator, their fragments, and losses in float64."""

import re
from typing import Any

import numpy as np
import pytest
from golden import golden, understood

import pickaxe
from pickaxe import Item, Scores
from pickaxe_plugins.reranking.calibration_sets import contrastive, fragments, rank_scores, ranking, unlikelihood

FILE = understood(golden("33-calibration-sets"), "paper", "how", "tolerance", "inputs", "expected")
INPUTS = understood(
    FILE["inputs"],
    "metric_mean_std",
    "relevance_metrics",
    "faithfulness_metrics",
    "relevance_pool",
    "faithfulness_pool",
    "losses",
)
LOSSES = understood(
    INPUTS["losses"],
    "logits",
    "labels_ignore_-100",
    "contrast_states",
    "n_positive",
    "unlikelihood_uses_candidates",
    "label_smoothing",
)
EXPECTED = understood(
    FILE["expected"],
    "relevance_selection",
    "faithfulness_aggregate",
    "faithfulness_selection",
    "rank_losses",
    "contrastive_loss_one_set",
    "unlikelihood_smoothed",
    "fragments",
)
TOLERANCE = understood(FILE["tolerance"], "float")["float"]
RELEVANCE = EXPECTED["relevance_selection"]
SETS = [name for name in RELEVANCE if name not in ("order_by_metric", "rel_agg")]
FIELDS = (*INPUTS["metric_mean_std"], "prediction", "method", "sign", "sample_idx", "density", "primera_bertscore")


def items(pool: str) -> list[Item]:
    found = []
    for row, each in enumerate(INPUTS[pool]):
        understood(each, *FIELDS)
        fields: dict[str, Any] = {
            "group": "document",
            "metrics": {name: each[name] for name in INPUTS["metric_mean_std"]},
            "sample_idx": each["sample_idx"],
            "own": "primera" in each["method"],
            "likelihood": each["primera_bertscore"],
            "density": each["density"],
            "sign": each["sign"],
            "is_reference": each["method"] == "reference",
        }
        found.append(Item(f"{row:03}", each["prediction"], fields))
    return found


def scored(target: str, **params: Any) -> Scores:
    names = INPUTS[f"{target}_metrics"]
    normalisers = {name: tuple(INPUTS["metric_mean_std"][name]) for name in names}
    scorer = pickaxe.scorer("calibration-sets", target=target, metrics=names, normalisers=normalisers, **params)
    return scorer.score(items(f"{target}_pool"))


def chosen(scores: Scores) -> list[int]:
    """Rows of the set in its order, as often as each stands in it."""
    order = sorted(np.flatnonzero(scores["copies"]), key=lambda row: scores["rank_in_set"][row])
    return [int(row) for row in order for _ in range(scores["copies"][row])]


def test_aggregates_and_their_order() -> None:
    found = scored("relevance")["aggregate"]
    np.testing.assert_allclose(found, RELEVANCE["rel_agg"], atol=TOLERANCE)
    assert np.argsort(-found).tolist() == RELEVANCE["order_by_metric"]
    np.testing.assert_allclose(scored("faithfulness")["aggregate"], EXPECTED["faithfulness_aggregate"], atol=TOLERANCE)


@pytest.mark.parametrize("case", SETS)
def test_relevance_sets(case: str) -> None:
    strategy, _, k = case.rpartition("_")
    scores, expected = scored("relevance", strategy=strategy, k=int(k)), RELEVANCE[case]
    assert scores.groups is not None
    found, of_set = chosen(scores), scores.groups.columns
    if isinstance(expected, list):
        assert found == expected
    elif "avg_gap" in expected:
        understood(expected, "selected", "avg_gap")
        assert len(set(found)) == int(k)
        assert of_set["margin"][0] == pytest.approx(expected["avg_gap"], abs=TOLERANCE)
    else:
        understood(expected, "a_valid_selection", "all_valid_selections", "spearman")
        assert found in expected["all_valid_selections"]
        assert expected["a_valid_selection"] in expected["all_valid_selections"]
        assert -of_set["surprise"][0] == pytest.approx(expected["spearman"], abs=TOLERANCE)


@pytest.mark.parametrize("case", EXPECTED["faithfulness_selection"])
def test_faithfulness_sets(case: str) -> None:
    match = re.fullmatch(r"(\w+)\|reference=(\w+)\|(\d+)\+(\d+)", case)
    assert match is not None
    strategy, status, n_pos, n_neg = match.groups()
    scores = scored("faithfulness", strategy=strategy, reference_status=status, n_pos=int(n_pos), n_neg=int(n_neg))
    assert chosen(scores) == EXPECTED["faithfulness_selection"][case]


@pytest.mark.parametrize("case", EXPECTED["rank_losses"])
def test_ranking_losses(case: str) -> None:
    given = {name: float(value) for name, value in (part.split("=") for part in case.split(","))}
    understood(given, "alpha", "scale", "lambda")
    expected = understood(EXPECTED["rank_losses"][case], "scores", "margin_rank_loss")
    logits, labels = np.array(LOSSES["logits"]), np.array(LOSSES["labels_ignore_-100"])
    scores = rank_scores(logits, labels, given["scale"], given["alpha"])
    np.testing.assert_allclose(scores, expected["scores"], atol=TOLERANCE)
    assert ranking(scores, given["lambda"]) == pytest.approx(expected["margin_rank_loss"], abs=TOLERANCE)


def test_contrastive_and_unlikelihood_losses() -> None:
    states = np.array(LOSSES["contrast_states"])
    found = contrastive(states, LOSSES["n_positive"])
    assert found == pytest.approx(EXPECTED["contrastive_loss_one_set"], abs=TOLERANCE)
    negatives = LOSSES["unlikelihood_uses_candidates"]
    logits, labels = np.array(LOSSES["logits"])[:, negatives], np.array(LOSSES["labels_ignore_-100"])[:, negatives]
    found = unlikelihood(logits, labels, LOSSES["label_smoothing"])
    assert found == pytest.approx(EXPECTED["unlikelihood_smoothed"], abs=TOLERANCE)


@pytest.mark.parametrize("case", EXPECTED["fragments"])
def test_fragments(case: dict[str, Any]) -> None:
    understood(case, "source", "summary", "fragments", "coverage", "density", "compression")
    found = fragments(case["summary"], case["source"])
    assert [list(each) for each in found.found] == case["fragments"]
    for name in ("coverage", "density", "compression"):
        assert getattr(found, name) == pytest.approx(case[name], abs=TOLERANCE)
