"""PreSelect against its golden strengths, labels, thresholds, training lines and windows."""

import json
from typing import Any

import numpy as np
import pytest
from golden import golden, understood

import pickaxe
from pickaxe_plugins.selection.preselect._corpus import training_line
from pickaxe_plugins.selection.preselect._losses import windows
from pickaxe_plugins.selection.preselect._strength import (
    Cut,
    bits_per_character,
    extremes,
    matched_pairs,
    ordered_pairs,
)

FILE = understood(golden("01-preselect"), "how", "inputs", "expected", "tolerance")
INPUTS = understood(
    FILE["inputs"], "benchmark_score", "total_loss_nats", "characters", "texts_first5", "predicted_probability",
    "keep_fraction", "loss_windows",
)  # fmt: skip
EXPECTED = understood(
    FILE["expected"], "bpc", "matched_pairs", "pairs", "predictive_strength", "positive",
    "negative_same_size_lowest_first", "threshold", "documents_strictly_before_threshold", "fasttext_lines_first5",
    "loss_windows_begin_end_firstscored",
)  # fmt: skip
WITHIN = understood(FILE["tolerance"], "abs", "note")["abs"]

BENCHMARK = INPUTS["benchmark_score"]
LOSSES = np.array(INPUTS["total_loss_nats"], float)  # null becomes NaN
CHARACTERS = np.array(INPUTS["characters"])
COMPLETE = ~np.isnan(LOSSES).any(axis=1)


def numbers(values: Any) -> np.ndarray:
    return np.array(values, float)


def same(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=WITHIN)


def documents() -> list[pickaxe.Item]:
    """Texts of the right length; what they say does not matter here."""
    return [
        pickaxe.Item(str(row), "x" * length, {"losses": losses})
        for row, (length, losses) in enumerate(zip(CHARACTERS, LOSSES, strict=True))
    ]


def test_bits_per_character() -> None:
    expected = [
        [np.nan if value is None else value for value in row or [None] * len(BENCHMARK)] for row in EXPECTED["bpc"]
    ]
    same(bits_per_character(LOSSES, CHARACTERS), numbers(expected))


def test_matched_pairs_and_strengths() -> None:
    assert len(ordered_pairs(BENCHMARK)) == EXPECTED["pairs"]
    matched = matched_pairs(LOSSES, BENCHMARK)
    for row, wanted in enumerate(EXPECTED["matched_pairs"]):
        assert COMPLETE[row] == (wanted is not None)
        assert wanted in (None, matched[row])
    scores = pickaxe.scorer("preselect", benchmark_scores=BENCHMARK).score(documents())
    same(scores["strength"], numbers(EXPECTED["predictive_strength"]))


def test_mean_bits_of_the_scorer() -> None:
    scores = pickaxe.scorer("preselect", benchmark_scores=BENCHMARK).score(documents())
    same(scores["bpc_mean"], bits_per_character(LOSSES, CHARACTERS).mean(axis=1))


def test_positives_and_negatives() -> None:
    rows = np.flatnonzero(COMPLETE)
    strengths = matched_pairs(LOSSES[COMPLETE], BENCHMARK) / len(ordered_pairs(BENCHMARK))
    positives, negatives = extremes(strengths, "all_pairs", len(rows))
    assert rows[positives].tolist() == EXPECTED["positive"]
    assert rows[negatives].tolist() == EXPECTED["negative_same_size_lowest_first"]


def test_a_fit_labels_the_same_documents() -> None:
    small: dict[str, Any] = {"dim": 2, "bucket": 1000, "epoch": 1}
    fitted = pickaxe.scorer("preselect", benchmark_scores=BENCHMARK, **small).fit(documents())
    assert fitted.artifact is not None
    labels = fitted.artifact.read_json("labels.json")
    assert labels["1"] == [str(row) for row in EXPECTED["positive"]]
    assert labels["0"] == [str(row) for row in EXPECTED["negative_same_size_lowest_first"]]


@pytest.mark.parametrize("fraction", INPUTS["keep_fraction"])
def test_thresholds(fraction: float) -> None:
    cut = Cut.of(numbers(INPUTS["predicted_probability"]), CHARACTERS)
    same(cut.threshold(fraction), EXPECTED["threshold"][str(fraction)])
    above = int((cut.scores > cut.threshold(fraction)).sum())
    assert above <= cut.before(fraction) == EXPECTED["documents_strictly_before_threshold"][str(fraction)]


def test_training_lines() -> None:
    lines = [training_line(text, row in EXPECTED["positive"]) for row, text in enumerate(INPUTS["texts_first5"])]
    assert lines == EXPECTED["fasttext_lines_first5"]


@pytest.mark.parametrize("case", range(len(INPUTS["loss_windows"])))
def test_loss_windows(case: int) -> None:
    given = understood(INPUTS["loss_windows"][case], "n_tokens", "block", "stride")
    wanted = understood(EXPECTED["loss_windows_begin_end_firstscored"][case], "as_in_repository", "product")
    tokens, block, stride = given["n_tokens"], given["block"], given["stride"]
    assert [list(window) for window in windows(tokens + 1, block, stride)] == wanted["product"]
    assert [list(window) for window in windows(tokens, block, stride, whole=True)] == wanted["as_in_repository"]


def test_every_expected_window_and_threshold_has_its_input() -> None:
    assert len(EXPECTED["loss_windows_begin_end_firstscored"]) == len(INPUTS["loss_windows"])
    assert {json.dumps(fraction) for fraction in INPUTS["keep_fraction"]} == set(EXPECTED["threshold"])
