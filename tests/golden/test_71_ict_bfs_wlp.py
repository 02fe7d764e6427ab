"""Golden cases of ICT, BFS and WLP: all admissible pairs of a small linked corpus, the softmax, recall."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import jax
import numpy as np
import pytest
from golden import golden, understood

from pickaxe.metrics import hits
from pickaxe_plugins.retrieval.ict_bfs_wlp._page_pairs import Corpus, Page, Pair, Task, pretraining_pairs
from pickaxe_plugins.retrieval.ict_bfs_wlp._train import duplicates, in_batch_loss

FILE = understood(golden("71-ict-bfs-wlp"), "cases", "tolerance", "how")
CASES = understood(FILE["cases"], "pairs", "loss", "recall")
TOLERANCE = understood(FILE["tolerance"], "rtol", "atol")


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def pages() -> list[Page]:
    given = understood(understood(CASES["pairs"], "inputs", "expected", "note")["inputs"], "pages")["pages"]
    return [
        Page(
            understood(each, "id", "sections", "links")["id"],
            [understood(section, "paragraphs")["paragraphs"] for section in each["sections"]],
            links=each["links"],
        )
        for each in given
    ]


def expected(task: str) -> list[Any]:
    found = understood(CASES["pairs"]["expected"], "ict", "bfs_pairs", "wlp_pairs", "counts")
    if task != "ict":
        pairs: list[Any] = found[f"{task}_pairs"]
        return pairs
    return [[*understood(each, "query_at", "doc_at", "query", "doc").values()] for each in found["ict"]]


def told(pair: Pair) -> list[Any]:
    places = [list(pair.query_at), list(pair.passage_at)]
    return [*places, pair.query, pair.passage] if pair.task == "ict" else places


@pytest.mark.parametrize("task", ["ict", "bfs", "wlp"])
def test_pairs(task: Task) -> None:
    wanted = sorted(expected(task))
    assert len(wanted) == understood(CASES["pairs"]["expected"]["counts"], "ict", "bfs", "wlp")[task]
    assert sorted(map(told, Corpus(pages()).admissible(task))) == wanted
    drawn = {repr(told(pair)) for pair in islice(pretraining_pairs(pages(), [task]), 10_000)}
    assert drawn == {repr(each) for each in wanted}


def test_loss() -> None:
    case = understood(CASES["loss"], "inputs", "expected")
    given = understood(case["inputs"], "query_emb", "doc_emb", "doc_ids")
    wanted = understood(case["expected"], "in_batch_softmax", "with_duplicate_docs_masked")
    queries, documents = np.array(given["query_emb"]), np.array(given["doc_emb"])
    same = duplicates(given["doc_ids"])
    for name, mask in (("in_batch_softmax", np.zeros_like(same)), ("with_duplicate_docs_masked", same)):
        value = float(in_batch_loss(queries, documents, mask))
        assert value == pytest.approx(wanted[name], rel=TOLERANCE["rtol"], abs=TOLERANCE["atol"])


def test_recall() -> None:
    case = understood(CASES["recall"], "inputs", "expected")
    ranks = np.array(understood(case["inputs"], "first_relevant_rank")["first_relevant_rank"])
    for k, value in understood(case["expected"], "recall")["recall"].items():
        assert hits(ranks, int(k)).mean() == pytest.approx(value, rel=TOLERANCE["rtol"], abs=TOLERANCE["atol"])
