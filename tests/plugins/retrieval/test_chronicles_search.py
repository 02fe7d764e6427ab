"""`chronicles`: the index, what a search finds and tells in every mode, and errors."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pickaxe
from pickaxe import Call, Item, Items, Method, Ranked, Ranking, catalog
from pickaxe.errors import ArtifactMismatch, InvalidItems, InvalidParams, Unmet
from pickaxe.hooks import hookimpl
from pickaxe_plugins.retrieval._windows import words


class Letters:
    """An encoder of small made-up texts: counts of letters."""

    digest = "letters"

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def encode(self, texts: Sequence[str], call: Call) -> np.ndarray:
        self.encoded += texts
        return np.array([[1 + text.lower().count(letter) for letter in "abcdefghij"] for text in texts], np.float32)


@pytest.fixture
def letters(monkeypatch: pytest.MonkeyPatch) -> Letters:
    encoder = Letters()
    monkeypatch.setattr(pickaxe.Host, "encoder", lambda self, name="encoder": encoder)
    return encoder


# ---------------------------------------------------------------- the method

DOCUMENTS = [
    Item("long", "alpha beta gamma delta epsilon zeta eta theta", {"title": "Greek"}),
    Item("cab", "a cab and a bad idea"),
    Item("jig", "jig, gig; high"),
]


def test_hits_are_documents_with_the_span_of_their_best_window() -> None:
    index = pickaxe.retriever("chronicles", chunk_size=3, stride=2).index(DOCUMENTS)
    (hit,) = index.search(["epsilon"], 10)[0]
    (span,) = hit.spans
    text = DOCUMENTS[0].text or ""
    assert hit.id == "long"
    assert words(text[span.start : span.end]) in (["gamma", "delta", "epsilon"], ["epsilon", "zeta", "eta"])
    assert hit.columns == {"bm25": hit.score}
    assert index.artifact is not None
    assert index.artifact.notes["windows"] == 4 + 3 + 1


def test_order_of_documents_in_the_index_is_irrelevant(letters: Letters) -> None:
    for mode in ("bm25", "dense", "hybrid"):
        forward = pickaxe.retriever("chronicles", mode=mode).index(DOCUMENTS)
        backward = pickaxe.retriever("chronicles", mode=mode).index(DOCUMENTS[::-1])
        queries = ["a big cab", "beta", "jig a"]
        assert forward.search(queries, 5).results == backward.search(queries, 5).results


def test_equal_scores_stand_in_the_order_of_ids() -> None:
    index = pickaxe.retriever("chronicles").index([Item(name, "same words") for name in ("c", "a", "b")])
    assert [hit.id for hit in index.search(["same"], 2)[0]] == ["a", "b"]


def test_the_index_moves_and_holds_no_pickles(tmp_path: Path, letters: Letters) -> None:
    made = pickaxe.retriever("chronicles", mode="hybrid").index(DOCUMENTS, out=tmp_path / "here")
    expected = made.search(["beta cab"], 3).results
    shutil.move(tmp_path / "here", tmp_path / "there")
    moved = pickaxe.retriever("chronicles", artifact=tmp_path / "there")
    assert moved.params.mode == "hybrid"
    assert moved.search(["beta cab"], 3).results == expected
    assert {path.suffix for path in (tmp_path / "there").iterdir()} == {".json", ".jsonl", ".npy"}


def test_hybrid_hits_carry_every_stage(letters: Letters) -> None:
    index = pickaxe.retriever("chronicles", mode="hybrid", rrf_k=10).index(DOCUMENTS)
    hits = index.search(["a cab"], 3)[0]
    assert {hit.id for hit in hits} == {"long", "cab", "jig"}
    assert all(hit.columns["rrf"] == hit.score for hit in hits)
    assert hits[0].score == pytest.approx(2 / 11)
    found = {hit.id: hit.columns for hit in hits}
    assert found["cab"]["bm25"] > 0
    assert found["jig"]["bm25"] == 0


def test_stop_words_are_off_until_a_language_is_named() -> None:
    documents = [Item("a", "o livro de que gosto"), Item("b", "que de o")]
    every = pickaxe.retriever("chronicles").index(documents)
    some = pickaxe.retriever("chronicles", language="pt").index(documents)
    assert len(every.search(["o que é o livro de"], 5)[0]) == 2
    assert [hit.id for hit in some.search(["o que é o livro de"], 5)[0]] == ["a"]


class Backwards(Method[pickaxe.Params]):
    """Turns the order round, and keeps what it was given."""

    seen: list[Items] = []

    @hookimpl
    def rerank(self, query: Item, candidates: Items, top_n: int) -> Ranking:
        self.seen.append(candidates)
        order = list(range(len(candidates)))[::-1][:top_n]
        return Ranking(tuple(Ranked(row, candidates[row].id, -5.0) for row in order), usage={"prompts": 1})


def test_the_reranker_sees_the_best_windows_of_the_deep_list() -> None:
    Backwards.seen.clear()
    documents = [*DOCUMENTS, Item("more", "a cab a cab")]
    with catalog.register(Backwards, "backwards", "reranker"):
        index = pickaxe.retriever("chronicles", chunk_size=3, reranker="backwards", depth=2).index(documents)
        plain = pickaxe.retriever("chronicles", chunk_size=3).index(documents)
        results = index.search(["cab beta zeta eta", "nothing"], 1)
    before = [hit.id for hit in plain.search(["cab beta zeta eta"], 2)[0]]
    assert Backwards.seen[0].ids == before
    (hit,) = results[0]
    assert hit.id == before[-1]
    assert hit.score == 1.0
    assert hit.columns["rerank"] == -5.0
    assert results[1] == ()
    long = Backwards.seen[0][before.index("long")]
    assert long.text == "eta theta"
    assert long.get("title") == "Greek"
    assert results.usage["search_reranks"] == 1
    assert results.usage["rerank_prompts"] == 1


def test_usage_tells_index_and_search_apart(letters: Letters) -> None:
    index = pickaxe.retriever("chronicles", mode="dense", chunk_size=3).index(DOCUMENTS)
    assert index.search(["a", "b"], 1).usage == {
        "index_documents": 3,
        "index_windows": 6,
        "index_encoded_texts": 6,
        "search_encoded_texts": 2,
    }


def test_blocks_of_queries_change_nothing(monkeypatch: pytest.MonkeyPatch, letters: Letters) -> None:
    index = pickaxe.retriever("chronicles", mode="hybrid").index(DOCUMENTS)
    queries = ["a cab", "beta", "jig", "zeta eta"]
    whole = index.search(queries, 3)
    monkeypatch.setattr("pickaxe_plugins.retrieval.chronicles._method.BLOCK", 3)
    for hits, expected in zip(index.search(queries, 3), whole, strict=True):
        assert [(hit.id, hit.score, hit.spans) for hit in hits] == [(hit.id, hit.score, hit.spans) for hit in expected]


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"chunk_size": 0}, "chunk_size"),
        ({"stride": 0}, "stride"),
        ({"chunk_size": 5, "stride": 6}, "stride 6 is larger than chunk_size 5"),
        ({"k1": -0.1}, "k1"),
        ({"b": 1.1}, "b"),
        ({"rrf_k": 0}, "rrf_k"),
        ({"depth": 0}, "depth"),
        ({"mode": "sparse"}, "mode"),
        ({"language": "de"}, "language"),
        ({"dropout": 1.0}, "dropout"),
        ({"matrix_dim": 0}, "matrix_dim"),
        ({"negative_target": 1}, "negative_target"),
    ],
)
def test_bad_parameters_are_named(given: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidParams, match=field):
        pickaxe.retriever("chronicles", **given)


def test_other_errors_name_the_remedy(letters: Letters) -> None:
    with pytest.raises(InvalidItems, match="at least one document"):
        pickaxe.retriever("chronicles").index([])
    with pytest.raises(Unmet, match=r"needs a fitted W: call fit\(examples\) first"):
        pickaxe.retriever("chronicles", mode="custom").index(DOCUMENTS)
    with pytest.raises(InvalidItems, match="two different gold texts"):
        pickaxe.retriever("chronicles").fit([Item("a", "a", {"gold": "b"}), Item("b", "c", {"gold": "b"})])
    with pytest.raises(InvalidItems, match=r"gold.*is missing"):
        pickaxe.retriever("chronicles").fit([Item("a", "a")])
    index = pickaxe.retriever("chronicles").index(DOCUMENTS)
    assert index.artifact is not None
    with pytest.raises(ArtifactMismatch, match="has no embeddings: index the documents again"):
        pickaxe.retriever("chronicles", mode="dense", artifact=index.artifact.path).search(["a"])
    with pytest.raises(ArtifactMismatch, match=r"made with k1=1\.5: search with the same"):
        pickaxe.retriever("chronicles", k1=2, artifact=index.artifact.path).search(["a"])
