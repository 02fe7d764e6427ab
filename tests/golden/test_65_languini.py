"""Golden cases of Languini: book queues, learning rate, steps from throughputs, perplexity, windows, trends."""

import csv
from typing import Any

import numpy as np
import pytest
from golden import FILES, golden, understood

import pickaxe
from pickaxe import Item
from pickaxe_plugins.scaling.languini._stream import distribute, learning_rate, scored_targets, windows

FILE = understood(golden("65-languini"), "paper", "how", "cases")
CASES = {case["name"]: case for case in FILE["cases"]}


def case(name: str, *inputs: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Inputs, expectations and tolerances."""
    found = understood(CASES[name], "name", "inputs", "expected", "tolerance", "note", "how")
    return understood(found["inputs"], *inputs), found["expected"], found["tolerance"]


def test_every_case_is_understood() -> None:
    assert set(CASES) == {
        "distribute_docs",
        "learning_rate",
        "compute_class_to_steps",
        "normalised_perplexity",
        "sliding_last_n",
        "trend_and_intersection",
    }


def test_distribute_docs() -> None:
    given, expected, tolerance = case("distribute_docs", "books", "batch_size")
    assert tolerance == {"exact": True}
    understood(expected, "queues", "tokens", "totals")
    names, lengths = zip(*given["books"], strict=True)
    found = distribute(lengths, given["batch_size"])
    assert [[names[book] for book in queue] for queue in found] == expected["queues"]
    assert [[lengths[book] for book in queue] for queue in found] == expected["tokens"]
    assert [sum(lengths[book] for book in queue) for queue in found] == expected["totals"]


def test_learning_rate() -> None:
    given, expected, tolerance = case("learning_rate", "max_lr", "min_lr", "max_steps", "warmup_steps", "steps_1_based")
    steps = np.array(given["steps_1_based"])
    found = learning_rate(steps, given["max_steps"], given["max_lr"], given["min_lr"], given["warmup_steps"])
    assert found == pytest.approx(understood(expected, "lr")["lr"], rel=understood(tolerance, "rel")["rel"])


def test_compute_class_to_steps() -> None:
    given, expected, tolerance = case(
        "compute_class_to_steps", "csv", "queries", "data_folder", "query_columns", "row_columns"
    )
    assert tolerance == {"exact": True}
    asked = ["model", "config", "device_contains", "hours", "train_batch_size", "seq_len"]
    assert given["query_columns"] == asked
    with (FILES / given["data_folder"] / given["csv"]).open(encoding="utf-8") as stream:
        measured = list(csv.DictReader(stream))
    rows = []
    for model, config, device, hours, batch, seq_len in given["queries"]:
        plan = {"hours": hours, "batch": batch, "seq_len": seq_len}
        items = [
            Item(str(row), fields={
                **{name: each[name] for name in ("model", "config", "device")},
                "tokens_per_second": float(each["tokens_per_second"]), "batch_size": float(each["batch_size"]), **plan,
            })
            for row, each in enumerate(measured)
        ]  # fmt: skip
        steps = {}
        for rounding in ("round", "floor"):
            handle = pickaxe.scorer("languini", mode="plan", reference_device=device, round=rounding)
            found = handle.score(items)
            row = next(
                row
                for row, each in enumerate(items)
                if (each.fields["model"], each.fields["config"]) == (model, config)
                and device in str(each.get("device"))
            )
            steps[f"steps_{rounding}"] = int(found["steps"][row])
        values = {
            "model": model, "config": config, "device_contains": device, "hours": hours, "train_batch_size": batch,
            "seq_len": seq_len, "tokens_per_second": int(found["best_tokens_per_second"][row]),
            "best_batch_size": int(found["best_batch_size"][row]), "tokens": int(found["tokens"][row]),
            "steps_rounded": steps["steps_round"], "steps_floor": steps["steps_floor"],
        }  # fmt: skip
        rows.append([values[name] for name in given["row_columns"]])
    assert rows == understood(expected, "rows")["rows"]


def test_normalised_perplexity() -> None:
    given, expected, tolerance = case(
        "normalised_perplexity", "token_log_probs_of_target", "targets", "pad_id", "token_text"
    )
    rel = understood(tolerance, "rel")["rel"]
    understood(
        expected,
        "total_nll", "token_count", "string_length", "loss_per_token", "ppl", "normalised_loss", "normalised_ppl",
    )  # fmt: skip
    assert given["pad_id"] == 0
    text = "".join(given["token_text"][target] for target in given["targets"] if target != given["pad_id"])
    fields = {"token_logprobs": np.array(given["token_log_probs_of_target"]), "targets": np.array(given["targets"])}
    found = pickaxe.scorer("languini").score([Item("run", text, fields)])
    assert len(text) == expected["string_length"]
    assert found["normalised_loss"][0] == pytest.approx(expected["normalised_loss"], rel=rel)
    assert found["normalised_ppl"][0] == pytest.approx(expected["normalised_ppl"], rel=rel)
    assert -found.primary[0] == found["normalised_ppl"][0]
    assert found["token_ppl"][0] == pytest.approx(expected["ppl"], rel=rel)
    assert np.log(found["token_ppl"][0]) == pytest.approx(expected["loss_per_token"], rel=rel)
    assert found["normalised_loss"][0] * len(text) == pytest.approx(expected["total_nll"], rel=rel)
    assert found["bytes_per_token"][0] * expected["token_count"] == pytest.approx(len(text.encode()), rel=rel)


def test_sliding_last_n() -> None:
    given, expected, tolerance = case("sliding_last_n", "stream_length", "seq_len", "last_n", "full_windows_only")
    assert tolerance == {"exact": True}
    assert given["full_windows_only"] is True
    wanted = understood(expected, "window_start_and_scored_target_positions")
    sizes = given["stream_length"], given["seq_len"], given["last_n"]
    found = [list(each) for each in zip(windows(*sizes).tolist(), scored_targets(*sizes).tolist(), strict=True)]
    assert found == wanted["window_start_and_scored_target_positions"]


def test_trend_and_intersection() -> None:
    given, expected, tolerance = case(
        "trend_and_intersection", "hours", "model_a_normalised_ppl", "model_b_normalised_ppl", "form"
    )
    rel = understood(tolerance, "rel")["rel"]
    understood(expected, "a", "b", "intersection_hours", "ppl_at_intersection")
    assert given["form"] == "ln(ppl) = slope*ln(hours) + intercept"
    items = [
        Item(f"{model}-{hours}", fields={
            "model": model, "total_nll": 100 * np.log(ppl), "string_length": 100,
            "tokens_per_second": 1000, "steps": 3600 * hours, "batch": 10, "seq_len": 100,
        })
        for model in "ab"
        for hours, ppl in zip(given["hours"], given[f"model_{model}_normalised_ppl"], strict=True)
    ]  # fmt: skip
    handle = pickaxe.scorer("languini", classes=given["hours"]).fit(items)
    assert handle.artifact is not None
    found = handle.artifact.read_json("trends.json")
    for trend in found["trends"]:
        assert [trend["slope"], trend["intercept"]] == pytest.approx(expected[trend["model"]], rel=rel)
    (met,) = found["crossings"]
    assert met["hours"] == pytest.approx(expected["intersection_hours"], rel=rel)
    assert met["ppl"] == pytest.approx(expected["ppl_at_intersection"], rel=rel)
