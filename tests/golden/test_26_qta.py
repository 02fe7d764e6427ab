"""The reference values of QTA: metrics of runs, preferences from ranks, DPO; and two baselines on real tools."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from golden import FILES, golden, understood

import pickaxe
from pickaxe import Item
from pickaxe_plugins.retrieval.qta._pairs import dpo_loss, margins, preference

FILE = understood(golden("26-qta"), "cases", "tolerance", "how")
CASES = understood(FILE["cases"], "metrics", "ranking_function", "dpo")
TOLERANCE = FILE["tolerance"]
GROUPS = understood(CASES["ranking_function"], "inputs", "expected", "note")


def test_metrics() -> None:
    case = understood(CASES["metrics"], "inputs", "expected")
    given = understood(case["inputs"], "runs", "golden")
    expected = understood(case["expected"], "per_query", "mean")
    items = [
        Item(str(row), fields={"found": tuple(run), "relevant": tuple(needed)})
        for row, (run, needed) in enumerate(zip(given["runs"], given["golden"], strict=True))
    ]
    found = pickaxe.scorer("tool-sufficiency").score(items)
    for name, mean in expected["mean"].items():
        column = name.replace("s@", "sufficiency@")
        wanted = [row[name] for row in expected["per_query"]]
        np.testing.assert_allclose(found[column], np.float32(wanted), **TOLERANCE)
        np.testing.assert_allclose(found.summary["means"][column], mean, **TOLERANCE)


@pytest.mark.parametrize(("group", "wanted"), list(zip(GROUPS["inputs"]["groups"], GROUPS["expected"], strict=True)))
def test_ranking_function(group: list[dict[str, Any]], wanted: dict[str, Any]) -> None:
    understood(GROUPS["inputs"], "groups")
    ranks = [understood(each, "query", "golden_ranks")["golden_ranks"] for each in group]
    for ranking in understood(wanted, "worst", "mean"):
        case = understood(wanted[ranking], "order", "chosen", "rejected", "middle")
        found = preference(ranks, ranking)  # type: ignore[arg-type]  # the file's names are those of the parameter
        assert {"order": list(found.order), "chosen": found.chosen, "rejected": found.rejected,
                "middle": found.middle} == case  # fmt: skip


def test_dpo() -> None:
    case = understood(CASES["dpo"], "inputs", "expected", "note")
    names = ("policy_chosen", "policy_rejected", "ref_chosen", "ref_rejected")
    given = [np.array(understood(case["inputs"], *names)[name]) for name in names]
    for beta, wanted in case["expected"].items():
        understood(wanted, "loss", "margin", "accuracy")
        found = margins(*given, float(beta))
        np.testing.assert_allclose(found, wanted["margin"], **TOLERANCE)
        np.testing.assert_allclose(dpo_loss(found), wanted["loss"], **TOLERANCE)
        np.testing.assert_allclose((found > 0).mean(), wanted["accuracy"], **TOLERANCE)


@pytest.mark.parametrize(
    ("name", "retriever", "at_5", "at_10"),
    [
        ("tmdb", "dense", 0.24, 0.39),
        ("spotify", "dense", 0.316, 0.456),
        ("tmdb", "bm25", 0.10, 0.23),
        ("spotify", "bm25", 0.228, 0.298),
    ],
)
def test_baselines_of_real_tools(name: str, retriever: str, at_5: float, at_10: float) -> None:
    """The card's figures; another BM25 cuts words and breaks ties in another way."""
    tools, queries = (
        [json.loads(line) for line in (FILES / "26-tool-retrieval" / f"restbench_{name}_{part}.jsonl").open()]
        for part in ("tools", "queries")
    )
    index = pickaxe.retriever(retriever).index([Item(each["id"], f"{each['id']} {each['text']}") for each in tools])
    found = index.search([Item(each["id"], each["query"]) for each in queries], 10)
    items = [
        Item(each["id"], fields={"found": tuple(hit.id for hit in hits), "relevant": tuple(each["relevant"])})
        for each, hits in zip(queries, found, strict=True)
    ]
    means = pickaxe.scorer("tool-sufficiency").score(items).summary["means"]
    room = 0.001 if retriever == "dense" else 0.02
    assert [means["sufficiency@5"], means["sufficiency@10"]] == pytest.approx([at_5, at_10], abs=room)
