"""Golden cases of anncur: embeddings, approximate scores, shortlist, final hits, recall and error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from golden import golden, understood

import pickaxe
from pickaxe import Call, InputField, Item, Items, Method, Params, Ranked, Ranking, SearchResults, catalog, hookimpl

FILE = understood(golden("76-anncur"), "cases", "tolerance", "how")
TOLERANCE = understood(FILE["tolerance"], "approx_rtol", "approx_atol", "indices", "exact_low_rank")
CLOSE = {"rtol": TOLERANCE["approx_rtol"], "atol": TOLERANCE["approx_atol"]}
NEIGHBOURS = 1e-5
"""Items whose approximate scores differ by less may change places, as `tolerance.indices` says."""


class Table(Method[Params]):
    """Scores of a table: a query's text is its row, a document's id its column."""

    reads = (InputField("text", "text", "Text."),)
    table = np.empty((0, 0))

    @hookimpl
    def rerank(self, query: Item, candidates: Items, top_n: int, call: Call) -> Ranking:
        scores = [float(self.table[int(query.text or ""), int(item.id)]) for item in candidates]
        order = np.argsort(-np.array(scores), kind="stable")
        return Ranking(tuple(Ranked(int(row), candidates[row].id, scores[row]) for row in order))


@pytest.fixture(params=FILE["cases"])
def case(request: pytest.FixtureRequest) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    found = understood(FILE["cases"][request.param], "inputs", "expected")
    inputs = understood(
        found["inputs"],
        "anchor_query_scores", "anchor_items", "test_anchor_scores", "test_full_scores", "k", "budget", "rcond",
    )  # fmt: skip
    expected = understood(found["expected"], "item_embeddings_first3", "approx", "per_query", "fro_rel_error")
    Table.table = np.array(inputs["test_full_scores"])
    with catalog.register(Table, "golden-table", "reranker"):
        yield request.param, inputs, expected


def search(inputs: dict[str, Any], precision: str, k: int, **params: Any) -> tuple[np.ndarray, SearchResults]:
    """Embeddings (anchors, n), and what is found for all test queries."""
    columns = np.array(inputs["anchor_query_scores"]).T
    documents = [Item(str(row), "", {"anchor_scores": column}) for row, column in enumerate(columns)]
    index = pickaxe.retriever(
        "anncur", scorer="golden-table", precision=precision, rcond=inputs["rcond"],
        anchor_ids=[str(row) for row in inputs["anchor_items"]], **params,
    ).index(documents)  # fmt: skip
    queries = [str(row) for row in range(len(inputs["test_full_scores"]))]
    assert index.artifact is not None
    return np.array(index.artifact.read_array("embeddings.npy")).T, index.search(queries, k)


def alike(found: list[int], wanted: list[int], approx: np.ndarray) -> bool:
    """Equal but for neighbours of nearly the same approximate score."""
    return all(
        one == other or abs(approx[one] - approx[other]) < NEIGHBOURS for one, other in zip(found, wanted, strict=True)
    )


@pytest.mark.filterwarnings("ignore:anncur")  # the case `tall` has fewer anchor queries than anchors
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_case(case: tuple[str, dict[str, Any], dict[str, Any]], precision: str) -> None:
    name, inputs, expected = case
    full, k, budget = np.array(inputs["test_full_scores"]), inputs["k"], inputs["budget"]
    anchors = inputs["anchor_items"]
    np.testing.assert_array_equal(full[:, anchors], inputs["test_anchor_scores"])
    embeddings, everything = search(inputs, precision, full.shape[1], rerank=False)
    np.testing.assert_allclose(embeddings[:3], expected["item_embeddings_first3"], **CLOSE)
    approx = np.empty(full.shape)
    for row, hits in enumerate(everything):
        approx[row, [int(hit.id) for hit in hits]] = [hit.columns["approx"] for hit in hits]
    np.testing.assert_allclose(approx, expected["approx"], **CLOSE)
    error = float(np.linalg.norm(approx - full) / np.linalg.norm(full))
    assert error == pytest.approx(expected["fro_rel_error"], rel=1e-5, abs=1e-6)
    if name == "exact_low_rank" and precision == "float64":
        np.testing.assert_allclose(approx, full, rtol=0, atol=1e-8)

    _, whole = search(inputs, precision, budget, budget=budget)  # all that were scored exactly
    _, best = search(inputs, precision, k, budget=budget)
    assert whole.usage["model_calls"] == budget * len(full)
    for row, wanted in enumerate(expected["per_query"]):
        understood(wanted, "approx_top10", "shortlist", "top_k_exact_within_budget", "recall_at_k")
        reference = np.array(expected["approx"][row])
        assert alike([int(hit.id) for hit in everything[row][:10]], wanted["approx_top10"], reference)
        shortlist = [hit for hit in whole[row] if int(hit.id) not in anchors]
        shortlist.sort(key=lambda hit: (-hit.columns["approx"], int(hit.id)))
        assert alike([int(hit.id) for hit in shortlist], wanted["shortlist"], reference)
        found = [int(hit.id) for hit in best[row]]
        assert found == wanted["top_k_exact_within_budget"]
        assert [hit.score for hit in best[row]] == full[row, found].tolist()
        true = np.argsort(-full[row], kind="stable")[:k].tolist()
        assert len(set(true) & set(found)) / k == pytest.approx(wanted["recall_at_k"])
