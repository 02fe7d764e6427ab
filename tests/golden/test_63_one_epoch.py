"""Golden cases of one epoch: sizes, epochs, the power law, speed-ups, one pass."""

from typing import Any

import numpy as np
import pytest
from golden import golden, understood

import pickaxe
from pickaxe import Item
from pickaxe.randomness import generator
from pickaxe_plugins.scaling._one_epoch_plan import pass_order, time_to

FILE = understood(golden("63-one-epoch"), "paper", "how", "cases")
CASES = {case["name"]: case for case in FILE["cases"]}


def case(name: str, *inputs: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Inputs, expectations and tolerances."""
    found = understood(CASES[name], "name", "inputs", "expected", "tolerance", "note")
    return understood(found["inputs"], *inputs), found["expected"], found["tolerance"]


def test_every_case_is_understood() -> None:
    assert set(CASES) == {
        "size_iteration_adjustment",
        "epochs_to_one_epoch",
        "power_law",
        "speedup_at_equal_loss",
        "one_epoch_order",
    }


def test_size_iteration_adjustment() -> None:
    given, expected, tolerance = case("size_iteration_adjustment", "columns", "rows")
    rel = understood(tolerance, "rel")["rel"]
    assert given["columns"] == ["params", "tokens", "target_ratio"]
    assert understood(expected, "columns", "rows")["columns"] == ["ratio", "new_params", "new_tokens"]
    for (params, tokens, target), wanted in zip(given["rows"], expected["rows"], strict=True):
        item = Item("plan", fields={"params": params, "unique_tokens": tokens, "epochs": 1})
        found = pickaxe.scorer("one-epoch", target_ratio=target).score([item])
        assert [found[name][0] for name in expected["columns"]] == pytest.approx(wanted, rel=rel)


def test_epochs_to_one_epoch() -> None:
    given, expected, tolerance = case("epochs_to_one_epoch", "batch", "context", "columns", "rows")
    assert tolerance == {"exact": True}
    assert given["columns"] == ["unique_tokens", "epochs", "params"]
    understood(expected, "columns", "rows")
    assert expected["columns"] == ["iterations", "tokens_processed", "unique_tokens_needed_for_one_epoch"]
    items = [
        Item(str(row), fields={**dict(zip(given["columns"], values, strict=True)),
                               "batch": given["batch"], "context": given["context"]})
        for row, values in enumerate(given["rows"])
    ]  # fmt: skip
    found = pickaxe.scorer("one-epoch").score(items)
    for row, wanted in enumerate(expected["rows"]):
        assert [
            found["iterations"][row],
            found["tokens_processed"][row],
            found["unique_tokens_needed"][row],
        ] == wanted


def test_power_law() -> None:
    given, expected, tolerance = case(
        "power_law", "iterations", "loss", "fit_from_iteration", "predict_at_iterations", "goal_loss"
    )
    rel = understood(tolerance, "rel")["rel"]
    understood(expected, "exponent", "coefficient", "r2_log_log", "predicted_loss", "iterations_to_goal")
    item = Item(
        "run",
        fields={
            "iterations": np.array(given["iterations"]),
            "test_loss": np.array(given["loss"]),
            "predict_at": given["predict_at_iterations"],
        },
    )
    found = pickaxe.scorer("one-epoch", fit_from=given["fit_from_iteration"], goal_loss=given["goal_loss"]).score(
        [item]
    )
    assert found["exponent"][0] == pytest.approx(expected["exponent"], rel=rel)
    assert found["coefficient"][0] == pytest.approx(expected["coefficient"], rel=rel)
    assert found["r2"][0] == pytest.approx(expected["r2_log_log"], rel=rel)
    assert -found["neg_predicted_loss"][0] == pytest.approx(expected["predicted_loss"], rel=rel)
    assert found["iterations_to_goal"][0] == pytest.approx(expected["iterations_to_goal"], rel=rel)


def test_speedup_at_equal_loss() -> None:
    given, expected, tolerance = case(
        "speedup_at_equal_loss",
        "multi_epoch_hours", "multi_epoch_test_loss", "one_epoch_hours", "one_epoch_test_loss",
    )  # fmt: skip
    rel = understood(tolerance, "rel")["rel"]
    understood(expected, "target_loss", "multi_epoch_hours_to_target", "one_epoch_hours_to_target", "speedup")
    items = []
    for name in ("multi_epoch", "one_epoch"):
        hours, loss = np.array(given[f"{name}_hours"]), np.array(given[f"{name}_test_loss"])
        taken = time_to(hours, loss, expected["target_loss"])
        assert taken == pytest.approx(expected[f"{name}_hours_to_target"], rel=rel)
        iterations = np.arange(1.0, len(loss) + 1)
        fields: dict[str, Any] = {"iterations": iterations, "test_loss": loss, "hours": hours}
        items.append(Item(name, fields={**fields, "baseline": name == "multi_epoch"}))
    assert min(given["multi_epoch_test_loss"]) == pytest.approx(expected["target_loss"], rel=rel)
    found = pickaxe.scorer("one-epoch").score(items)
    assert found["speedup"][1] == pytest.approx(expected["speedup"], rel=rel)
    assert found["speedup"][0] == 1.0


def test_one_epoch_order() -> None:
    given, expected, tolerance = case("one_epoch_order", "n_documents", "batch", "drop_last")
    understood(expected, "batches", "each_document_at_most_once")
    assert tolerance == {"exact": True}
    assert given["drop_last"] is True
    order = pass_order(given["n_documents"], given["batch"], generator(0, "order"))
    assert order.shape == (expected["batches"], given["batch"])
    assert (len(np.unique(order)) == order.size) is expected["each_document_at_most_once"]
