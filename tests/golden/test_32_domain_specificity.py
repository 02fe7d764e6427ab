"""Domain specificity and the holding selector against a float64 derivation."""

from typing import Any

import numpy as np
import pytest
from golden import golden, understood

import pickaxe
from pickaxe import Item
from pickaxe_plugins.selection.holding_choice._holding import interval, packed

FILE = understood(golden("32-domain-specificity"), "paper", "how", "tolerance", "inputs", "expected")
WITHIN = understood(FILE["tolerance"], "float")["float"]
INPUTS = understood(FILE["inputs"], "fold_scores", "note")
EXPECTED = understood(FILE["expected"], "tasks", "multiple_choice", "packing", "folds")


def test_losses_and_specificity_of_all_tasks() -> None:
    items, wanted = [], {}
    for name, task in EXPECTED["tasks"].items():
        inputs = understood(understood(task, "inputs", "expected")["inputs"], "token_nll_general", "token_nll_domain")
        pairs = zip(inputs["token_nll_general"], inputs["token_nll_domain"], strict=True)
        for row, (general, domain) in enumerate(pairs):
            fields: Any = {"token_logprobs_general": -np.array(general), "token_logprobs_domain": -np.array(domain)}
            items.append(Item(f"{name}{row}", fields={**fields, "group": name}))
        wanted[name] = understood(
            task["expected"], "loss_general", "loss_domain", "ds", "ds_task_mean", "ds_task_standard_error"
        )
    scores = pickaxe.scorer("domain-specificity").score(items)
    for column in ("loss_general", "loss_domain", "ds"):
        expected = [value for task in wanted.values() for value in task[column]]
        np.testing.assert_allclose(scores[column], expected, rtol=0, atol=WITHIN, err_msg=column)
    assert scores.groups is not None
    assert scores.groups.keys == tuple(wanted)
    for column, name in (("ds", "ds_task_mean"), ("standard_error", "ds_task_standard_error")):
        expected = [task[name] for task in wanted.values()]
        np.testing.assert_allclose(scores.groups.columns[column], expected, rtol=0, atol=WITHIN)


def test_multiple_choice() -> None:
    case = understood(EXPECTED["multiple_choice"], "inputs", "expected")
    inputs = understood(case["inputs"], "choice_logits", "labels")
    expected = understood(
        case["expected"], "log_probs", "pred", "cross_entropy_per_example", "accuracy", "macro_f1"
    )  # fmt: skip
    items = [
        Item(str(row), fields={"choice_logits": np.array(logits), "label": label})
        for row, (logits, label) in enumerate(zip(inputs["choice_logits"], inputs["labels"], strict=True))
    ]
    n_choices = len(inputs["choice_logits"][0])
    scores = pickaxe.scorer("holding-choice", n_choices=n_choices).score(items)
    logs = np.stack([scores[f"log_prob_{choice}"] for choice in range(n_choices)], axis=1)
    np.testing.assert_allclose(logs, expected["log_probs"], rtol=0, atol=WITHIN)
    assert scores["chosen"].tolist() == expected["pred"]
    np.testing.assert_allclose(scores["cross_entropy"], expected["cross_entropy_per_example"], rtol=0, atol=WITHIN)
    assert scores.summary["overall"]["accuracy"] == pytest.approx(expected["accuracy"], abs=WITHIN)
    assert scores.summary["overall"]["macro F1"] == pytest.approx(expected["macro_f1"], abs=WITHIN)


@pytest.mark.parametrize("case", EXPECTED["packing"], ids=lambda case: f"{case['len_prompt']}-{case['len_choice']}")
def test_packing(case: dict[str, Any]) -> None:
    understood(
        case, "len_prompt", "len_choice", "max_len", "kept_prompt", "kept_choice", "segment_ids_ones_start", "total"
    )
    prompt, choice = packed(case["len_prompt"], case["len_choice"], case["max_len"])
    assert (prompt, choice) == (case["kept_prompt"], case["kept_choice"])
    assert (prompt + 2, prompt + choice + 3) == (case["segment_ids_ones_start"], case["total"])


def test_interval_over_folds() -> None:
    expected = understood(EXPECTED["folds"], "mean", "half_width_1.96se")
    mean, half = interval(INPUTS["fold_scores"])
    assert mean == pytest.approx(expected["mean"], abs=WITHIN)
    assert half == pytest.approx(expected["half_width_1.96se"], abs=WITHIN)
