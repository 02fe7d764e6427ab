"""`bm25`: the same numbers as `chronicles`, what is found, and bad input."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import pickaxe
from pickaxe import Item
from pickaxe.errors import ArtifactCorrupt, ArtifactMismatch, InvalidItems, InvalidParams

DOCUMENTS = [
    Item("rain", "The rain in Spain stays mainly in the plain."),
    Item("tea", "Green tea is brewed at about 80 degrees, black tea with boiling water.", {"title": "Tea"}),
    Item("again", "The rain in Spain stays mainly in the plain."),
    Item("empty", ""),
    Item("other", "日本語 🎉"),
]


def test_same_numbers_as_chronicles() -> None:
    queries = ["the rain", "tea tea water", "日本語", "in"]
    ours = pickaxe.retriever("bm25").index(DOCUMENTS).search(queries, 10)
    theirs = pickaxe.retriever("chronicles").index(DOCUMENTS).search(queries, 10)
    for one, other in zip(ours, theirs, strict=True):
        assert {hit.id: pytest.approx(hit.score, rel=1e-6) for hit in one} == {hit.id: hit.score for hit in other}


def test_hits() -> None:
    index = pickaxe.retriever("bm25").index(DOCUMENTS)
    found = index.search(["rain", "nothing here", "", "TEA"], 10)
    assert [[hit.id for hit in hits] for hits in found] == [["rain", "again"], [], [], ["tea"]]
    assert found[0][0].columns == {"bm25": found[0][0].score}
    assert found.usage == {"index_documents": 5}
    assert len(index.search(["the in"] * 300, 1)) == 300
    assert index.search(["the in"] * 300, 1).results[-1] == index.search(["the in"], 1).results[0]


def test_stop_words_and_variants() -> None:
    assert [hit.id for hit in pickaxe.retriever("bm25", language="en").index(DOCUMENTS).search(["the tea"], 9)[0]] == [
        "tea"
    ]
    scores = {
        variant: pickaxe.retriever("bm25", variant=variant).index(DOCUMENTS).search(["tea"], 1)[0][0].score
        for variant in ("okapi", "lucene", "robertson", "atire")
    }
    assert scores["okapi"] == pytest.approx(2.5 * scores["lucene"])
    assert len(set(scores.values())) == 4


def test_an_index_moves_and_keeps_its_formula(tmp_path: Path) -> None:
    pickaxe.retriever("bm25").index(DOCUMENTS, out=tmp_path / "made")
    shutil.move(tmp_path / "made", tmp_path / "moved")
    assert pickaxe.retriever("bm25", artifact=tmp_path / "moved").search(["tea"], 1)[0][0].id == "tea"
    with pytest.raises(ArtifactMismatch, match=r"k1=1\.5"):
        pickaxe.retriever("bm25", artifact=tmp_path / "moved", k1=2).search(["tea"], 1)
    (tmp_path / "moved" / "bm25_data.npy").unlink()
    with pytest.raises(ArtifactCorrupt, match=r"bm25_data\.npy"):
        pickaxe.retriever("bm25", artifact=tmp_path / "moved")


def test_bad_input(tmp_path: Path) -> None:
    for documents, match in (([], "are none"), ([Item("a", "x"), Item("a", "y")], "used before")):
        with pytest.raises(InvalidItems, match=match):
            pickaxe.retriever("bm25").index(documents, out=tmp_path / "x")
    assert not (tmp_path / "x").exists()
    for wrong in ({"k1": -1}, {"k1": float("nan")}, {"b": 2}, {"variant": "bm26"}):
        with pytest.raises(InvalidParams):
            pickaxe.retriever("bm25", **wrong)
    only_empty = pickaxe.retriever("bm25").index([Item("a", ""), Item("b", "…")])
    assert only_empty.search(["a"], 3).results == ((),)


def test_growing_equals_indexing_what_is_left(tmp_path: Path) -> None:
    old = pickaxe.retriever("bm25", language="en").index(DOCUMENTS, out=tmp_path / "index")
    new = [Item("rain", "No rain at all."), Item("snow", "Snow and rain.")]
    grown = old.add(new, remove=["rain", "empty"])
    anew = pickaxe.retriever("bm25", language="en").index([*(DOCUMENTS[row] for row in (1, 2, 4)), *new])
    queries = ["rain", "tea and snow", "all", "日本語"]
    assert grown.search(queries, 10).results == anew.search(queries, 10).results
    assert [hit.id for hit in old.search(["rain"], 10)[0]] == ["rain", "again"]
    with pytest.raises(InvalidParams, match="'gone'"):
        old.add([], remove=["gone"])
    with pytest.raises(InvalidItems, match="'tea' is in the index already"):
        old.add([Item("tea", "x")], out=tmp_path / "index", overwrite=True)
    with pytest.raises(ArtifactMismatch, match="language='en'"):
        pickaxe.retriever("bm25", language="pt").index([], base=tmp_path / "index")
    with pytest.raises(InvalidItems, match="are none"):
        old.add([], remove=[item.id for item in DOCUMENTS])
    assert [hit.id for hit in pickaxe.retriever("bm25", artifact=tmp_path / "index").search(["tea"], 1)[0]] == ["tea"]
