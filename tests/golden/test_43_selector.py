"""The rule scorers and dsir against decisions of datatrove and weights of the authors' DSIR code."""

import math
from typing import Any

import numpy as np
import pytest
from golden import golden, understood

import pickaxe
from pickaxe_plugins.selection._ngrams import bucket, choose
from pickaxe_plugins.selection._text_units import SENTENCE_END, WORD

FILE = understood(golden("43-selector"), "how", "inputs", "expected", "tolerance")
INPUTS = understood(
    FILE["inputs"],
    "texts",
    "word_regex",
    "sentence_regex",
    "sentence_rule",
    "dsir_target",
    "dsir",
    *("mechanism", "dedup_pairs", "lsh"),  # of test_43_selector_mechanisms
)
DSIR = understood(INPUTS["dsir"], "ngrams", "buckets", "min_example_length", "gumbel_noise", "k", "hash_examples")
EXPECTED = understood(
    FILE["expected"],
    "decision",
    "c4_cleaned_text",
    "spacy_decision",  # of another tokenizer, for information
    "statistics",
    "dsir",
    "dsir_top_k",
    "dsir_gumbel_top_k",
    "dsir_gumbel_top_k_noise_times_200",
    "dsir_hash_bucket",
    *("mechanism", "jaccard", "lsh_candidate_probability"),  # of test_43_selector_mechanisms
)
TOLERANCE = understood(FILE["tolerance"], "statistics_abs", "log_weight_abs", "decision", "note")
TEXTS = INPUTS["texts"]
RULES = {
    "c4": pickaxe.scorer("rules-c4", sentence_pattern=INPUTS["sentence_regex"]).score(TEXTS),
    **{
        name: pickaxe.scorer(f"rules-{name.replace('_', '-')}", word_pattern=INPUTS["word_regex"]).score(TEXTS)
        for name in ("gopher_quality", "gopher_repetition", "fineweb")
    },
}
FACTORS = {"dsir_top_k": 0, "dsir_gumbel_top_k": 1, "dsir_gumbel_top_k_noise_times_200": 200}


def dsir(pseudo_count: float) -> pickaxe.Scores:
    params = {
        "ngrams": DSIR["ngrams"],
        "buckets": DSIR["buckets"],
        "min_words": DSIR["min_example_length"],
        "word_pattern": INPUTS["word_regex"],
        "pseudo_count": pseudo_count,
    }
    return pickaxe.scorer("dsir", **params).fit(INPUTS["dsir_target"], unlabelled=TEXTS).score(TEXTS)


def test_the_units_are_the_defaults() -> None:
    assert INPUTS["word_regex"] == WORD
    assert INPUTS["sentence_regex"] == SENTENCE_END


@pytest.mark.parametrize("row", range(len(TEXTS)))
def test_decisions_and_reasons(row: int) -> None:
    assert TOLERANCE["decision"] == "exact"
    expected = understood(EXPECTED["decision"][row], *RULES)
    found = {name: str(RULES[name]["reason"][row]) or "keep" for name in RULES}
    assert found == expected
    assert {name: RULES[name]["keep"][row] for name in RULES} == {
        name: float(reason == "keep") for name, reason in expected.items()
    }


@pytest.mark.parametrize("row", range(len(TEXTS)))
def test_statistics(row: int) -> None:
    expected = EXPECTED["statistics"][row]
    numeric = {
        name: values[row]
        for scores in RULES.values()
        for name, values in scores.columns.items()
        if name != "keep" and values.dtype.kind in "fi"
    }
    assert expected
    assert set(expected) <= set(numeric), "a statistic is no column"
    for name, value in expected.items():
        assert math.isclose(numeric[name], value, rel_tol=0, abs_tol=TOLERANCE["statistics_abs"]), name


@pytest.mark.parametrize("row", EXPECTED["c4_cleaned_text"])
def test_cleaned_texts(row: str) -> None:
    assert RULES["c4"]["text"][int(row)] == EXPECTED["c4_cleaned_text"][row]


@pytest.mark.parametrize("pseudo_count", EXPECTED["dsir"])
def test_dsir_weights(pseudo_count: str) -> None:
    expected: dict[str, Any] = understood(EXPECTED["dsir"][pseudo_count], "log_weight", "length")
    scores = dsir(float(pseudo_count))
    np.testing.assert_allclose(scores["log_weight"], expected["log_weight"], rtol=0, atol=TOLERANCE["log_weight_abs"])
    assert scores["n_words"].tolist() == expected["length"]


@pytest.mark.parametrize("case", FACTORS)
def test_dsir_selections(case: str) -> None:
    noisy = dsir(0.0)["priority"] + FACTORS[case] * np.array(DSIR["gumbel_noise"])
    assert choose(noisy, DSIR["k"]).tolist() == EXPECTED[case]


def test_dsir_hash_buckets() -> None:
    found = {gram: bucket(gram, DSIR["buckets"]) for gram in DSIR["hash_examples"]}
    assert found == EXPECTED["dsir_hash_bucket"]
