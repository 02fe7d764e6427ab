"""Golden cases of clustered-rag: Lloyd's rounds from given rows, context, tokens, and cosines of answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from golden import golden, understood

import pickaxe
from pickaxe import Item
from pickaxe_plugins.retrieval.clustered_rag._clusters import agreement

CASE = understood(golden("72-crag"), "inputs", "expected", "tolerance", "how")
INPUTS = understood(CASE["inputs"], "documents", "embeddings", "k", "answer_embeddings_crag", "answer_embeddings_rag")
EXPECTED = understood(CASE["expected"], "runs", "answer_cosine")
TOLERANCE = understood(CASE["tolerance"], "rtol", "atol", "labels")
CLOSE = {"rtol": TOLERANCE["rtol"], "atol": TOLERANCE["atol"]}


@pytest.mark.parametrize("name", EXPECTED["runs"])
def test_run(name: str) -> None:
    run: dict[str, Any] = understood(
        EXPECTED["runs"][name],
        "init_rows", "labels", "centroids", "inertia", "representatives", "sizes", "cluster_order",
        "aggregated_context", "tokens_all", "tokens_crag", "reduction",
    )  # fmt: skip
    texts = [understood(each, "id", "text") for each in INPUTS["documents"]]
    vectors = np.array(INPUTS["embeddings"])
    documents = [Item(each["id"], each["text"], {"embedding": row}) for each, row in zip(texts, vectors, strict=True)]
    assert len(run["init_rows"]) == INPUTS["k"]
    index = pickaxe.retriever("clustered-rag", k=INPUTS["k"], starts=run["init_rows"], summary_tokens=1000).index(
        documents
    )
    artifact = index.artifact
    assert artifact is not None
    told = artifact.read_json("groups.json")["all"]
    order = run["cluster_order"]  # ours are numbered in it
    assert [order[told["labels"][each["id"]]] for each in texts] == run["labels"]
    np.testing.assert_allclose(artifact.read_array("centroids.npy"), np.array(run["centroids"])[order], **CLOSE)
    np.testing.assert_allclose(told["inertia"], run["inertia"], **CLOSE)
    assert all(later <= before for before, later in zip(told["objective"], told["objective"][1:], strict=False))

    records = pickaxe.pipeline(index).items(index.search([Item("q", "", {"embedding": vectors[0]})], 10)[0])
    found = sorted(records, key=lambda item: int(item.id.partition("/")[2]))
    members = [item.get("members") for item in found]
    assert [len(each) for each in members] == [run["sizes"][number] for number in order]
    nearest = [texts[run["representatives"][number]]["id"] for number in order]
    assert [each[0] for each in members] == nearest
    assert "\n".join(item.text or "" for item in found) == run["aggregated_context"]
    assert told["tokens_documents"] == run["tokens_all"]
    assert told["tokens_context"] == run["tokens_crag"]
    np.testing.assert_allclose(told["reduction"], run["reduction"], **CLOSE)


def test_cosines_of_answers() -> None:
    found = agreement(np.array(INPUTS["answer_embeddings_crag"]), np.array(INPUTS["answer_embeddings_rag"]))
    np.testing.assert_allclose(found, EXPECTED["answer_cosine"], **CLOSE)
