"""Golden cases of the Chronicles of RAG: windows, BM25, fusion, W, retrieval metrics and relative scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from golden import golden, understood

import pickaxe
from pickaxe import Item, metrics
from pickaxe_plugins.retrieval._fusion import reciprocal_rank_fusion
from pickaxe_plugins.retrieval._windows import windows
from pickaxe_plugins.retrieval.chronicles._customise import custom_cosine

FILE = understood(golden("30-chronicles-rag"), "cases", "tolerance", "how")
CASES = understood(
    FILE["cases"], "chunk_windows", "bm25_faquad", "rrf", "custom_embedding", "metrics", "relative_score"
)
TOLERANCE = understood(FILE["tolerance"], "rtol", "atol", "order")


def close(values: Any) -> Any:
    return pytest.approx(values, rel=TOLERANCE["rtol"], abs=TOLERANCE["atol"])


def inputs_and_expected(name: str, *inputs: str) -> tuple[dict[str, Any], Any]:
    case = understood(CASES[name], "inputs", "expected")
    return understood(case["inputs"], *inputs), case["expected"]


def test_ties_are_as_the_file_says() -> None:
    assert TOLERANCE["order"] == "ties by position/id"


@pytest.mark.parametrize("case", CASES["chunk_windows"])
def test_windows(case: dict[str, Any]) -> None:
    understood(case, "n", "size", "stride", "windows")
    assert [list(each) for each in windows(case["n"], case["size"], case["stride"])] == case["windows"]


def test_bm25() -> None:
    given, expected = inputs_and_expected("bm25_faquad", "corpus", "queries", "k1", "b", "tokenizer")
    assert given["tokenizer"].startswith("lower-case, Unicode word runs (regular expression \\w+)")
    documents = [Item(each["id"], each["text"]) for each in given["corpus"]]
    queries = [understood(each, "id", "query", "relevant") for each in given["queries"]]
    index = pickaxe.retriever("chronicles", k1=given["k1"], b=given["b"]).index(documents)
    results = index.search([Item(each["id"], each["query"]) for each in queries], len(documents))
    assert [each["query_id"] for each in expected] == [each["id"] for each in queries]
    for query, hits, wanted in zip(queries, results, expected, strict=True):
        understood(wanted, "query_id", "top10", "rank_of_relevant")
        top = hits[: len(wanted["top10"])]
        assert [hit.id for hit in top] == [name for name, _ in wanted["top10"]]
        assert [hit.score for hit in top] == close([score for _, score in wanted["top10"]])
        assert [hit.id for hit in hits].index(query["relevant"][0]) + 1 == wanted["rank_of_relevant"]


def test_reciprocal_rank_fusion() -> None:
    given, expected = inputs_and_expected("rrf", "lists", "k")
    fused = reciprocal_rank_fusion(given["lists"], given["k"])
    assert [name for name, _ in fused] == [name for name, _ in expected]
    assert [score for _, score in fused] == close([score for _, score in expected])


def test_custom_embedding() -> None:
    given, expected = inputs_and_expected("custom_embedding", "queries", "documents", "matrix")
    understood(expected, "cosine")
    queries, documents, matrix = (np.array(given[name]) for name in ("queries", "documents", "matrix"))
    assert custom_cosine(queries, documents, matrix) == close(np.array(expected["cosine"]))


def test_metrics() -> None:
    given, expected = inputs_and_expected("metrics", "rank_of_relevant", "note")
    assert given["note"] == "0 = not retrieved"
    ranks = np.array(given["rank_of_relevant"])
    understood(expected, "mrr@10", "recall")
    assert metrics.reciprocal_ranks(ranks, 10).mean() == close(expected["mrr@10"])
    for k, value in expected["recall"].items():
        assert metrics.hits(ranks, int(k)).mean() == close(value)


def test_relative_score() -> None:
    given, expected = inputs_and_expected("relative_score", "judge_scores", "reference")
    items = [
        Item(
            f"{system}/{row}",
            fields={"system": system, "reference_system": given["reference"], "score": score, "question": str(row)},
        )
        for system, scores in given["judge_scores"].items()
        for row, score in enumerate(scores)
    ]
    scores = pickaxe.scorer("rag-relative").score(items)
    assert set(expected) == set(given["judge_scores"])
    for row, item in enumerate(items):
        wanted = understood(expected[item.fields["system"]], "mean", "relative", "degradation")
        found = {"mean": scores["mean_score"][row]} | {name: scores[name][row] for name in ("relative", "degradation")}
        assert found == close(wanted)
