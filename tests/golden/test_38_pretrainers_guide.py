"""A Pretrainer's Guide: degradation, filters, blocklist, ablation and features against a float64 derivation."""

from typing import Any

import numpy as np
import pytest
from golden import golden, understood

import pickaxe
from pickaxe import Item
from pickaxe_plugins.selection.pretrainers_guide._studies import degradation
from pickaxe_plugins.selection.pretrainers_guide._text import Blocklist

FILE = understood(golden("38-pretrainers-guide"), "paper", "how", "cases")
CASES = {case["name"]: understood(case, "name", "inputs", "expected", "tolerance", "note") for case in FILE["cases"]}


def relative(case: dict[str, Any]) -> float:
    return float(understood(case["tolerance"], "rel")["rel"])


def test_every_case_is_looked_at() -> None:
    assert set(CASES) == {"temporal_degradation", "filters", "ngram_filter", "domain_ablation", "text_features"}


def test_temporal_degradation() -> None:
    case = CASES["temporal_degradation"]
    inputs = understood(case["inputs"], "pretraining_years", "evaluation_years", "score_pretraining_by_evaluation")
    expected = understood(
        case["expected"], "reference_year_per_evaluation_year", "pooled_gap_years", "pooled_degradation",
        "pooled_slope_per_year", "pooled_pearson_r", "slope_per_evaluation_year", "mean_slope",
        "pearson_of_score_with_abs_gap",
    )  # fmt: skip
    within = relative(case)
    trained, evaluated, scores = (np.array(inputs[name], float) for name in inputs)
    found = degradation(trained, evaluated, scores)
    assert found.reference.tolist() == expected["reference_year_per_evaluation_year"]
    assert found.gaps.tolist() == expected["pooled_gap_years"]
    np.testing.assert_allclose(found.degradations, expected["pooled_degradation"], rtol=within)
    np.testing.assert_allclose(found.slopes, expected["slope_per_evaluation_year"], rtol=within)
    item = Item("task", fields={"pretraining_years": trained, "evaluation_years": evaluated, "scores": scores})
    result = pickaxe.scorer("pretrainers-guide", mode="temporal").score([item])
    for column, name in (
        ("slope_pooled", "pooled_slope_per_year"),
        ("slope_mean", "mean_slope"),
        ("pearson_r", "pooled_pearson_r"),
        ("pearson_score_gap", "pearson_of_score_with_abs_gap"),
    ):
        assert result[column][0] == pytest.approx(expected[name], rel=within), column
    assert result["neg_degradation_per_year"][0] == -result["slope_pooled"][0]


def test_filters() -> None:
    case = CASES["filters"]
    inputs = understood(case["inputs"], "low_quality_score", "toxicity_score", "tokens", "rules")
    assert inputs["rules"] == "normal: drop when score > threshold; inverse: drop when score < threshold"
    expected = understood(case["expected"], "columns", "rows", "both_quality_0.9_and_toxicity_0.5")
    names = ["filter", "direction", "threshold", "documents_kept", "share_documents", "share_tokens"]
    assert expected["columns"] == names
    rows = zip(inputs["low_quality_score"], inputs["toxicity_score"], inputs["tokens"], strict=True)
    items = [
        Item(str(row), fields={"quality_risk": quality, "toxicity": toxicity, "tokens": tokens})
        for row, (quality, toxicity, tokens) in enumerate(rows)
    ]
    within = relative(case)
    for name, direction, threshold, documents, share, tokens in expected["rows"]:
        params: dict[str, Any] = {"quality_threshold": None}
        params |= {f"{name}_threshold": threshold, f"{name}_direction": direction}
        scores = pickaxe.scorer("pretrainers-guide", **params).score(items)
        table = scores.summary["filters"][-1]
        assert int(scores["keep"].sum()) == table["documents kept"] == documents, (name, threshold)
        assert table["share of documents"] == pytest.approx(share, rel=within)
        assert table["share of tokens"] == pytest.approx(tokens, rel=within)
    both = pickaxe.scorer("pretrainers-guide", quality_threshold=0.9, toxicity_threshold=0.5).score(items)
    assert int(both["keep"].sum()) == expected["both_quality_0.9_and_toxicity_0.5"]


def test_blocklist() -> None:
    case = CASES["ngram_filter"]
    inputs = understood(case["inputs"], "documents", "blocklist", "rule")
    expected = understood(case["expected"], "hits", "drop")
    assert case["tolerance"] == {"exact": True}
    listed = Blocklist(inputs["blocklist"])
    assert [listed.hits(text) for text in inputs["documents"]] == expected["hits"]
    scorer = pickaxe.scorer("pretrainers-guide", quality_threshold=None, blocklist=inputs["blocklist"])
    scores = scorer.score(inputs["documents"])
    assert (scores["keep"] == 0).tolist() == expected["drop"]
    assert scores["ngram_hits"].tolist() == list(map(len, expected["hits"]))


def test_ablation() -> None:
    case = CASES["domain_ablation"]
    inputs = understood(case["inputs"], "tasks", "full", "without")
    expected = understood(
        case["expected"], "mean_change_when_removed_percent", "ranking_most_harmful_removal_first"
    )  # fmt: skip
    full = np.array(inputs["full"])
    assert len(full) == len(inputs["tasks"])
    items = [
        Item(name, fields={"full": full, "without": np.array(without)}) for name, without in inputs["without"].items()
    ]
    scores = pickaxe.scorer("pretrainers-guide", mode="ablation").score(items)
    changes = [expected["mean_change_when_removed_percent"][item.id] for item in items]
    np.testing.assert_allclose(-scores["harm_percent"], changes, rtol=relative(case))
    ranked = [items[row].id for row in np.argsort(scores["rank"])]
    assert ranked == expected["ranking_most_harmful_removal_first"]


def test_features() -> None:
    case = CASES["text_features"]
    inputs, expected = understood(case["inputs"], "documents"), understood(case["expected"], "features")
    scorer = pickaxe.scorer("pretrainers-guide", quality_threshold=None, features=True)
    scores = scorer.score(inputs["documents"])
    known = ("chars", "words", "type_token_ratio", "mean_word_length", "non_ascii_share")
    for row, values in enumerate(expected["features"]):
        for name, value in understood(values, *known).items():
            wanted = np.nan if value is None else value
            np.testing.assert_allclose(scores[name][row], wanted, rtol=relative(case), err_msg=f"{row} {name}")
