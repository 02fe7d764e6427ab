"""Golden cases of full ranking: windows, passes, complete labels, parsing and losses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from golden import golden, understood

import pickaxe
from pickaxe import Column, Item, Items, Method, Scores, catalog
from pickaxe.hooks import hookimpl
from pickaxe_plugins.reranking.fullrank import (
    IGNORED,
    complete_order,
    importance_weights,
    listwise_loss,
    one_pass,
    parse_permutation,
    schedule,
)

FILE = understood(golden("68-fullrank"), "paper", "how", "tolerance", "inputs", "expected")
EXPECTED = understood(FILE["expected"], "window_schedules", "sliding", "parse_permutation", "losses")
TOLERANCE = understood(FILE["tolerance"], "float", "order")


class ByRelevance(Method[pickaxe.Params]):
    """Orders by the field `relevance`."""

    columns = (Column("relevance", "The field."),)

    @hookimpl
    def score(self, items: Items) -> Scores:
        return Scores({"relevance": items.column("relevance")})


def test_the_file_is_understood() -> None:
    assert FILE["paper"] == "FullRank"
    assert understood(FILE["inputs"], "note")
    assert TOLERANCE["order"] == 0


@pytest.mark.parametrize("case", EXPECTED["window_schedules"])
def test_window_schedules(case: dict[str, Any]) -> None:
    understood(case, "n", "window", "step", "windows_start_end")
    assert [list(each) for each in schedule(case["n"], case["window"], case["step"])] == case["windows_start_end"]


@pytest.mark.parametrize("case", EXPECTED["sliding"])
def test_sliding_and_complete(case: dict[str, Any]) -> None:
    given = understood(case["inputs"], "ids", "relevance", "window", "step")
    expected = understood(case["expected"], "order_after_one_pass", "windows", "complete_label_order", "passes")
    ids, relevance, window, step = (given[name] for name in ("ids", "relevance", "window", "step"))

    def rank_window(rows: Any) -> list[int]:
        return sorted(rows, key=lambda row: -relevance[row])

    assert [list(each) for each in schedule(len(ids), window, step)] == expected["windows"]
    assert [ids[row] for row in one_pass(range(len(ids)), rank_window, window, step)] == expected[
        "order_after_one_pass"
    ]
    order, passes = complete_order(rank_window, len(ids), window, step)
    assert [ids[row] for row in order] == expected["complete_label_order"]
    assert passes == expected["passes"]

    candidates = [Item(name, "text", {"relevance": float(value)}) for name, value in zip(ids, relevance, strict=True)]
    with catalog.register(ByRelevance, "by-relevance", "scorer"):
        for strategy, wanted in (("sliding", "order_after_one_pass"), ("complete", "complete_label_order")):
            reranker = pickaxe.reranker("fullrank", ranker="by-relevance", strategy=strategy, window=window, step=step)
            assert reranker.rerank("query", candidates).ids == expected[wanted]


@pytest.mark.parametrize("case", EXPECTED["parse_permutation"])
def test_parsing(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    understood(case, "n", "text", "incoming_scores", "order_1based", "scores")
    order = [place + 1 for place in parse_permutation(case["text"], case["n"]).order]
    assert order == case["order_1based"]

    class Says(Method[pickaxe.Params]):
        """Writes the case's text."""

        @hookimpl
        def decode(self, prompts: Any) -> Any:
            yield pickaxe.Chunk(text=case["text"], finish_reason="stop")

    candidates = [Item(str(row), "text", {"score": score}) for row, score in enumerate(case["incoming_scores"], 1)]
    with catalog.register(Says, "says", "decoder"):
        ranking = pickaxe.reranker("fullrank", decoder="says", score_mode="inherit").rerank("query", candidates)
    assert [int(name) for name in ranking.ids] == case["order_1based"]
    assert [entry.score for entry in ranking] == pytest.approx(case["scores"], abs=TOLERANCE["float"])


@pytest.mark.parametrize("case", EXPECTED["losses"])
def test_losses(case: dict[str, Any]) -> None:
    given = understood(case["inputs"], "logits", "targets", "separator_id")
    expected = understood(case["expected"], "weights", "loss_importance", "loss_lm")
    logits, targets = np.array(given["logits"]), np.array(given["targets"])
    weights = importance_weights(targets[targets != IGNORED], given["separator_id"])
    close = {"rel": 0, "abs": TOLERANCE["float"]}
    assert weights == pytest.approx(np.array(expected["weights"]), **close)
    assert listwise_loss(logits, targets, weights) == pytest.approx(expected["loss_importance"], **close)
    assert listwise_loss(logits, targets) == pytest.approx(expected["loss_lm"], **close)
