"""`dense`: what it finds, what an index remembers, how it grows, and bad input."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import pickaxe
from pickaxe import Call, Item
from pickaxe.errors import ArtifactCorrupt, ArtifactMismatch, InvalidItems, InvalidParams

DOCUMENTS = [
    Item("cab", "a cab and a bad idea", {"title": "Cab"}),
    Item("jig", "jig, gig; high"),
    Item("same as jig", "jig, gig; high"),
    Item("empty", ""),
    Item("other", "日本語"),
]


class Letters:
    """An encoder of small made-up texts: counts of letters.  `shift` makes another encoder of it."""

    width = 10

    def __init__(self, shift: float = 1) -> None:
        self.digest = f"{shift}" * 8
        self.shift = shift
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str], call: Call, normalize: bool = True) -> np.ndarray:
        self.asked += texts
        counts = [[self.shift + text.lower().count(letter) for letter in "abcdefghij"] for text in texts]
        vectors = np.array(counts, np.float32).reshape(-1, 10)
        vectors[["broken" in text for text in texts]] = np.nan
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if normalize else vectors


@pytest.fixture
def letters(monkeypatch: pytest.MonkeyPatch) -> dict[str, Letters]:
    """The encoders by name: "encoder", "alias" (the same one) and "another"."""
    same = Letters()
    encoders = {"encoder": same, "alias": same, "another": Letters(2)}
    monkeypatch.setattr(pickaxe.Host, "encoder", lambda self, name="encoder", precision="fp32": encoders[name])
    return encoders


def ids(found: pickaxe.SearchResults) -> list[list[str]]:
    return [[hit.id for hit in hits] for hits in found]


def test_finds_the_highest_cosine_and_says_it(letters: dict[str, Letters]) -> None:
    index = pickaxe.retriever("dense").index(DOCUMENTS)
    found = index.search(["jig gig", "a cab and a bad idea"], 2)
    assert ids(found) == [["jig", "same as jig"], ["cab", found[1][1].id]]
    vectors = Letters().encode(["jig gig", "jig, gig; high"], Call())
    assert found[0][0].score == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-6)
    assert found[0][0].columns == {"cosine": found[0][0].score}
    assert found[1][0].score == pytest.approx(1, abs=1e-6)
    assert found.usage == {"index_documents": 5, "search_encoded_texts": 2}


def test_an_index_of_eight_bits_is_searched_in_eight_bits(tmp_path: Path) -> None:
    texts = [Item("tea", "Water for tea should be hot."), Item("moon", "The Moon turns around the Earth.")]
    index = pickaxe.retriever("dense", precision="int8").index(texts, out=tmp_path / "index")
    assert ids(index.search(["How do I brew Darjeeling?"], 1)) == [["tea"]]
    with pytest.raises(ArtifactMismatch, match="built with the encoder"):
        pickaxe.retriever("dense", precision="fp32", artifact=tmp_path / "index").search(["tea"], 1)


def test_the_real_encoder_finds_by_meaning() -> None:
    index = pickaxe.retriever("dense").index(["A cat sat on the mat.", "Stock prices fell."])
    assert ids(index.search(["kitten", "shares"], 1)) == [["0"], ["1"]]


def test_inner_products_and_prefixes(letters: dict[str, Letters]) -> None:
    index = pickaxe.retriever("dense", similarity="dot", document_prefix="a", query_prefix="b").index(["c", "cc"])
    (hits,) = index.search(["c"], 5)
    assert letters["encoder"].asked == ["ac", "acc", "bc"]
    # letters a, b, c of documents (2, 1, 2), (2, 1, 3) and of the query (1, 2, 2); the other seven are 1
    assert [(hit.id, hit.score) for hit in hits] == [("1", 2 + 2 + 6 + 7), ("0", 2 + 2 + 4 + 7)]
    assert hits[0].columns == {"dot": hits[0].score}


def test_an_index_moves_and_refuses_another_encoder(letters: dict[str, Letters], tmp_path: Path) -> None:
    pickaxe.retriever("dense").index(DOCUMENTS, out=tmp_path / "made")
    shutil.move(tmp_path / "made", tmp_path / "moved")
    for name in ("encoder", "alias"):
        index = pickaxe.retriever("dense", artifact=tmp_path / "moved", encoder=name)
        assert ids(index.search(["jig gig"], 1)) == [["jig"]]
    with pytest.raises(ArtifactMismatch, match=r"built with the encoder 'encoder' .* not with 'another'"):
        pickaxe.retriever("dense", artifact=tmp_path / "moved", encoder="another").search(["jig"], 1)
    with pytest.raises(ArtifactMismatch, match="similarity='cosine'"):
        pickaxe.retriever("dense", artifact=tmp_path / "moved", similarity="dot").search(["jig"], 1)
    vectors = tmp_path / "moved" / "vectors.npy"
    vectors.write_bytes(vectors.read_bytes()[:-1])
    with pytest.raises(ArtifactCorrupt, match=r"vectors\.npy"):
        pickaxe.retriever("dense", artifact=tmp_path / "moved")


def test_bad_input(letters: dict[str, Letters], tmp_path: Path) -> None:
    dense = pickaxe.retriever("dense")
    with pytest.raises(InvalidItems, match="are none"):
        dense.index([], out=tmp_path / "x")
    with pytest.raises(InvalidItems, match="used before"):
        dense.index([Item("a", "x"), Item("a", "y")], out=tmp_path / "x")
    with pytest.raises(InvalidItems, match=r"not finite.*'bad'"):
        dense.index([Item("good", "x"), Item("bad", "broken")], out=tmp_path / "x")
    assert not (tmp_path / "x").exists()
    index = dense.index(DOCUMENTS)
    assert [len(hits) for hits in index.search(["", "日本語 " * 5000], 100)] == [5, 5]
    assert len(index.search([], 3)) == 0
    with pytest.raises(InvalidItems, match="not finite"):
        index.search(["broken"], 3)
    with pytest.raises(InvalidParams, match="k"):
        index.search(["a"], 0)


def test_growing_encodes_new_documents_only(letters: dict[str, Letters], tmp_path: Path) -> None:
    old = pickaxe.retriever("dense").index(DOCUMENTS, out=tmp_path / "index")
    letters["encoder"].asked.clear()
    new = [Item("jig", "a new jig"), Item("bee", "bee")]
    grown = old.add(new, remove=["jig", "empty"])
    assert letters["encoder"].asked == ["a new jig", "bee"]
    anew = pickaxe.retriever("dense").index([*(DOCUMENTS[row] for row in (0, 2, 4)), *new])
    queries = ["jig gig", "a bee", ""]
    assert grown.search(queries, 10).results == anew.search(queries, 10).results
    assert ids(old.search(["jig gig"], 2)) == [["jig", "same as jig"]]
    with pytest.raises(ArtifactMismatch, match="another"):
        pickaxe.retriever("dense", encoder="another").index(new, base=tmp_path / "index")
    with pytest.raises(InvalidItems, match="not finite"):
        old.add([Item("bad", "broken")], out=tmp_path / "index", overwrite=True)
    assert ids(pickaxe.retriever("dense", artifact=tmp_path / "index").search(["jig gig"], 1)) == [["jig"]]


def test_approximate(letters: dict[str, Letters], tmp_path: Path) -> None:
    exact = pickaxe.retriever("dense").index(DOCUMENTS, out=tmp_path / "exact")
    index = pickaxe.retriever("dense", approximate=True, effort=10).index(DOCUMENTS, out=tmp_path / "graph")
    queries = ["jig gig", "a cab"]
    expected = exact.search(queries, 3)
    assert ids(index.search(queries, 3)) == ids(expected)
    assert ids(pickaxe.retriever("dense", artifact=tmp_path / "graph", approximate=False).search(queries, 3)) == ids(
        expected
    )
    grown = index.add([Item("new", "gig")], remove=["cab"])
    assert ids(grown.search(["gig"], 1)) == [["new"]]
    assert "cab" not in ids(grown.search(["a cab"], 10))[0]
    with pytest.raises(ArtifactMismatch, match="no graph"):
        pickaxe.retriever("dense", artifact=tmp_path / "exact", approximate=True).search(queries, 3)
