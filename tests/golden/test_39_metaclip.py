"""MetaCLIP against matches, counts, probabilities and shares that the published functions gave."""

import json
from typing import Any

import numpy as np
import pytest
from golden import golden, understood

import pickaxe
from pickaxe_plugins.selection._curation import pattern, probabilities, spaced, tail_share, threshold

FILE = understood(golden("39-metaclip"), "how", "inputs", "expected", "tolerance")
INPUTS = understood(FILE["inputs"], "metadata", "texts", "spacing_text_ids", "t", "multilingual_entries")
EXPECTED = understood(FILE["expected"], "spaced_text_of_extra", "matched", "entry_count", "by_t", "multilingual_spaced")
WITHIN = understood(FILE["tolerance"], "probability_abs", "note")["probability_abs"]


@pytest.fixture(scope="module")
def fitted() -> Any:
    return pickaxe.scorer("metaclip", metadata=INPUTS["metadata"], t=INPUTS["t"][0], matched=True).fit(INPUTS["texts"])


def test_spacing() -> None:
    found = [spaced(INPUTS["texts"][row]) for row in INPUTS["spacing_text_ids"]]
    assert found == EXPECTED["spaced_text_of_extra"]
    assert [pattern(entry, True) for entry in INPUTS["multilingual_entries"]] == EXPECTED["multilingual_spaced"]


def test_matches_and_counts(fitted: Any) -> None:
    scores = fitted.score(INPUTS["texts"])
    assert [json.loads(each) for each in scores["matched"]] == EXPECTED["matched"]
    assert scores["n_matched"].tolist() == [len(each) for each in EXPECTED["matched"]]
    assert fitted.artifact.read_array("counts.npy").tolist() == EXPECTED["entry_count"]


def test_every_threshold_has_an_expectation() -> None:
    assert {str(t) for t in INPUTS["t"]} == set(EXPECTED["by_t"])


@pytest.mark.parametrize("t", INPUTS["t"])
def test_probabilities_and_shares(fitted: Any, t: int) -> None:
    case = understood(
        EXPECTED["by_t"][str(t)], "entry_prob", "keep_prob", "expected_curated_size", "tail_portion", "t_back_from_p"
    )
    counts = np.array(EXPECTED["entry_count"], np.uint64)
    scores = pickaxe.scorer("metaclip", t=t, artifact=str(fitted.artifact.path)).score(INPUTS["texts"])
    np.testing.assert_allclose(probabilities(counts, t), case["entry_prob"], rtol=0, atol=WITHIN)
    np.testing.assert_allclose(scores["keep_prob"], case["keep_prob"], rtol=0, atol=WITHIN)
    assert scores["keep_prob"].sum() == pytest.approx(case["expected_curated_size"], abs=WITHIN * len(scores))
    assert tail_share(counts, t) == pytest.approx(case["tail_portion"], abs=WITHIN)
    assert threshold(counts, case["tail_portion"]) == case["t_back_from_p"]
