"""The reference values of SAGE: segmenter, selection, feedback loop and costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from golden import golden, understood

import pickaxe
from pickaxe import Item
from pickaxe_plugins.retrieval._sage_feedback import Rounds, Verdict, cost
from pickaxe_plugins.retrieval._sage_network import Network, mean_squared_error
from pickaxe_plugins.retrieval._sage_selection import SelectionParams
from pickaxe_plugins.retrieval.sage_segment._chunks import Cutting, chunks

FILE = understood(golden("66-sage"), "cases", "tolerance", "how")
CASES = understood(FILE["cases"], "segmenter", "selection", "feedback_loop", "cost")
TOLERANCE = {name: FILE["tolerance"][name] for name in ("rtol", "atol")}


def test_segmenter() -> None:
    case = understood(CASES["segmenter"], "inputs", "expected")
    given = understood(case["inputs"], "sentence_embeddings", "W1", "b1", "W2", "b2", "ss", "labels")
    wanted = understood(case["expected"], "scores", "chunks", "mse")
    network = Network(*(np.array(given[name], np.float64) for name in ("W1", "b1", "W2", "b2")))
    embeddings = np.array(given["sentence_embeddings"], np.float64)
    scores = network.neighbours(embeddings)
    np.testing.assert_allclose(scores, wanted["scores"], **TOLERANCE)
    np.testing.assert_allclose(network.pairs(embeddings[:-1], embeddings[1:]), wanted["scores"], **TOLERANCE)
    ones = [1] * len(embeddings)
    found = chunks(scores, [0], ones, ones, Cutting(ss=given["ss"]))
    assert [list(range(chunk.first, chunk.last)) for chunk in found] == wanted["chunks"]
    mse = mean_squared_error(scores, np.array(given["labels"]))
    np.testing.assert_allclose(mse, wanted["mse"], **TOLERANCE)


@pytest.mark.parametrize("case", CASES["selection"])
def test_selection(case: dict[str, Any]) -> None:
    understood(case, "scores", "min_k", "g", "selected")
    select = pickaxe.reranker("sage-select", reranker=None, score_transform="none", min_k=case["min_k"], g=case["g"])
    found = select.rerank("q", [Item(str(row), fields={"score": value}) for row, value in enumerate(case["scores"])])
    assert [entry.index for entry in found] == case["selected"]
    np.testing.assert_allclose(found.scores, np.float32(case["scores"]))


@pytest.mark.parametrize("case", CASES["feedback_loop"])
def test_feedback_loop(case: dict[str, Any]) -> None:
    understood(
        case, "scores", "min_k", "g", "replies", "feedback_threshold", "max_iterations", "trace", "final_answer",
        "final_iteration",
    )  # fmt: skip
    params = SelectionParams(reranker=None, score_transform="none", min_k=case["min_k"], g=case["g"])
    rounds = Rounds(params, np.array(case["scores"]), case["feedback_threshold"], case["max_iterations"])
    for answer, score, adjustment in case["replies"]:
        if rounds.ended:
            break
        rounds.take(answer, Verdict(score, adjustment))
    assert rounds.ended
    told = [
        {"min_k": each.min_k, "selected": list(each.selected), "score": each.verdict.score,
         "adjust": each.verdict.adjustment}
        for each in rounds.done if each.verdict is not None
    ]  # fmt: skip
    assert told == [understood(each, "min_k", "selected", "score", "adjust") for each in case["trace"]]
    assert (rounds.final, rounds.done[rounds.final].answer) == (case["final_iteration"], case["final_answer"])


@pytest.mark.parametrize("case", CASES["cost"])
def test_cost(case: dict[str, Any]) -> None:
    understood(case, "input_tokens", "output_tokens", "c_i", "c_o", "cost")
    found = cost(case["input_tokens"], case["output_tokens"], case["c_i"], case["c_o"])
    np.testing.assert_allclose(found, case["cost"], **TOLERANCE)
