"""Golden cases of Min-K% Prob: the file has the official sign (lower = seen), the plugin the opposite one."""

from typing import Any

import numpy as np
import pytest
from golden import golden, understood

import pickaxe
from pickaxe import Item
from pickaxe_plugins.selection.min_k_prob import ratio_column
from pickaxe_plugins.selection.min_k_prob._stats import from_logits, surprise_scores

CASE = understood(golden("49-min-k-prob"), "how", "inputs", "expected", "tolerance")
INPUTS = understood(CASE["inputs"], "items", "ratios", "plusplus")
EXPECTED = understood(CASE["expected"], "official_sign", "roc_without_last_item", "plusplus")
TOLERANCE = understood(CASE["tolerance"], "abs", "auc", "zlib_abs_other_build", "note")
COLUMNS = {"ppl": "ppl_neg", "ref": "ref", "lowercase": "lowercase", "zlib": "zlib"}
BASELINES = ("ppl_neg", "zlib", "lowercase", "ref")


def column_of(name: str) -> str:
    """Our column for one of the file's: `min_k_0.05` → `min_k_05`."""
    return ratio_column(float(name.removeprefix("min_k_"))) if name.startswith("min_k_") else COLUMNS[name]


def item_of(row: int, case: dict[str, Any]) -> Item:
    understood(case, "text", "label", "token_logprobs", "token_logprobs_lower", "token_logprobs_ref")
    tensors = {name: np.array(case[name]) for name in case if name.startswith("token_logprobs")}
    return Item(str(row), case["text"], {**tensors, "label": case["label"]})


ITEMS = [item_of(row, case) for row, case in enumerate(INPUTS["items"])]


@pytest.fixture(scope="module")
def scores() -> pickaxe.Scores:
    return pickaxe.scorer("min-k-prob", ratios=INPUTS["ratios"], columns=BASELINES).score(ITEMS)


def test_every_column_is_the_official_one_with_its_sign_turned(scores: pickaxe.Scores) -> None:
    assert len(EXPECTED["official_sign"]) == len(ITEMS)
    for row, expected in enumerate(EXPECTED["official_sign"]):
        for name, value in expected.items():
            ours = -scores[column_of(name)][row]
            if value is None:
                lowest = min(INPUTS["items"][row]["token_logprobs"])
                assert ours == pytest.approx(-lowest, abs=TOLERANCE["abs"])
            else:
                assert ours == pytest.approx(value, abs=TOLERANCE["abs"]), (row, name)


def test_primary_column_is_that_of_its_ratio() -> None:
    for ratio in INPUTS["ratios"]:
        found = pickaxe.scorer("min-k-prob", ratio=ratio, ratios=(ratio,), columns=()).score(ITEMS)
        np.testing.assert_array_equal(found["min_k"], found[ratio_column(ratio)])


def test_roc_figures_of_every_column(tmp_path: Any) -> None:
    scorer = pickaxe.scorer("min-k-prob", ratios=INPUTS["ratios"], columns=BASELINES)
    calibrated = scorer.fit(ITEMS[:-1], out=tmp_path / "artifact")
    assert calibrated.artifact is not None
    figures = calibrated.artifact.read_json("calibration.json")["columns"]
    for name, expected in EXPECTED["roc_without_last_item"].items():
        found = figures[column_of(name)]
        understood(expected, "auc", "best_balanced_accuracy", "tpr_at_5pct_fpr")
        for figure, value in expected.items():
            assert found[figure] == pytest.approx(value, abs=TOLERANCE["auc"]), (name, figure)


def test_min_k_plus_plus() -> None:
    case = understood(INPUTS["plusplus"], "logits_of_next_token", "token_ids", "ratio")
    expected = understood(EXPECTED["plusplus"], "token_logprob", "mean", "std", "z", "score_mean_of_lowest_k")
    logits, ids = np.array(case["logits_of_next_token"]), np.array(case["token_ids"])
    logprobs, means, stds = from_logits(logits, ids)
    z = surprise_scores(logprobs, means, stds)
    for ours, name in ((logprobs, "token_logprob"), (means, "mean"), (stds, "std"), (z, "z")):
        np.testing.assert_allclose(ours, expected[name], atol=TOLERANCE["abs"], rtol=0)
    item = Item("one", fields={"logits": logits, "token_ids": ids})
    found = pickaxe.scorer("min-k-prob", ratio=case["ratio"], columns=("min_k_pp",)).score([item])
    assert found["min_k_pp"][0] == pytest.approx(expected["score_mean_of_lowest_k"], abs=TOLERANCE["abs"])
