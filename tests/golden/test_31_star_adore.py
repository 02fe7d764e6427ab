"""Golden cases of STAR and ADORE: masks, losses, gradients, ranked lists and static pools of the authors' formulas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from golden import golden, understood

from pickaxe.index.dense import DenseIndex
from pickaxe_plugins.retrieval.star_adore._losses import adore_losses, lists, pair_masks, star_loss, static_pool

FILE = understood(golden("31-star-adore"), "cases", "tolerance", "how")
CASES = understood(FILE["cases"], "star_loss", "adore_loss", "static_hard_negatives")
TOLERANCE = understood(FILE["tolerance"], "rtol", "atol", "ids")


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def assert_close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE["rtol"], atol=TOLERANCE["atol"])


def test_star() -> None:
    case = understood(CASES["star_loss"], "inputs", "expected")
    given = understood(
        case["inputs"], "query_emb", "pos_doc_emb", "hard_neg_emb", "pos_doc_ids", "hard_neg_ids", "relevant"
    )
    expected = understood(
        case["expected"], "rel_pair_mask", "hard_pair_mask", "loss", "in_batch_only_loss", "grad_query"
    )
    queries, positives, hard = (np.array(given[name]) for name in ("query_emb", "pos_doc_emb", "hard_neg_emb"))
    relevant = [given["relevant"][str(row)] for row in range(len(queries))]
    in_batch, against = pair_masks(given["pos_doc_ids"], given["hard_neg_ids"], relevant)
    assert in_batch.tolist() == expected["rel_pair_mask"]
    assert against.tolist() == expected["hard_pair_mask"]
    value, slope = jax.value_and_grad(star_loss)(queries, positives, hard, in_batch, against)
    assert_close(value, expected["loss"])
    assert_close(slope, expected["grad_query"])
    alone = star_loss(queries, positives, hard[:0], in_batch, against[:, :0])
    assert_close(alone, expected["in_batch_only_loss"])


@pytest.mark.parametrize("name", CASES["adore_loss"]["expected"])
def test_adore(name: str) -> None:
    case = understood(CASES["adore_loss"], "inputs", "expected")
    given = understood(case["inputs"], "query_emb", "doc_emb", "relevant", "neg_topk", "sigma")
    expected = understood(
        case["expected"][name], "metric_cut", "loss", "per_query", "grad_query_times_batch", "ranked_ids"
    )
    queries, documents = np.array(given["query_emb"]), np.array(given["doc_emb"])
    most = max(map(len, given["relevant"]))
    positives = np.array([known + [-1] * (most - len(known)) for known in given["relevant"]])
    found = lists(queries, documents, positives, given["neg_topk"])

    def losses(vectors: Any) -> Any:
        return adore_losses(vectors, documents, positives, found, expected["metric_cut"], given["sigma"])

    assert_close(losses(queries), expected["per_query"])
    assert_close(losses(queries).mean(), expected["loss"])
    assert_close(jax.grad(lambda vectors: losses(vectors).sum())(queries), expected["grad_query_times_batch"])
    assert TOLERANCE["ids"] == "exact"
    assert [ranked(found, positives, row) for row in range(len(queries))] == expected["ranked_ids"]


def ranked(found: Any, positives: np.ndarray, row: int) -> list[int]:
    """The list with the positives that were appended, each at its rank."""
    listed = np.asarray(found.ids[row]).tolist()
    behind = [
        (rank, each)
        for rank, each, there in zip(found.ranks[row], positives[row], found.listed[row], strict=True)
        if there and rank > len(listed)
    ]
    for rank, each in sorted((int(rank), int(each)) for rank, each in behind):
        assert rank == len(listed) + 1
        listed.append(each)
    return listed


def test_static_pool() -> None:
    case = understood(CASES["static_hard_negatives"], "inputs", "expected")
    given = understood(case["inputs"], "query_emb", "doc_emb", "relevant", "topk")
    expected = understood(case["expected"], "pool")
    index = DenseIndex(np.array(given["doc_emb"], np.float32))
    assert static_pool(np.array(given["query_emb"]), index, given["relevant"], given["topk"]) == expected["pool"]
