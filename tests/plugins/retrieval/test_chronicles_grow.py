"""`chronicles`: indexes that grow are those that are made at once, and what they are refused for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pickaxe
from pickaxe import Call, Item
from pickaxe.errors import ArtifactMismatch, InvalidItems, InvalidParams


class Letters:
    """Counts of letters; `digest` says which model it is."""

    def __init__(self, digest: str = "letters") -> None:
        self.digest = digest
        self.encoded: list[str] = []

    def encode(self, texts: Sequence[str], call: Call) -> np.ndarray:
        self.encoded += texts
        return np.array([[1 + text.lower().count(letter) for letter in "abcdef"] for text in texts], np.float32)


@pytest.fixture
def letters(monkeypatch: pytest.MonkeyPatch) -> Letters:
    encoder = Letters()
    monkeypatch.setattr(pickaxe.Host, "encoder", lambda self, name="encoder": encoder)
    return encoder


OLD = [Item("a", "a bad cab fed a dead bee", {"title": "Cab"}), Item("b", "a face"), Item("c", "bed bed ebb")]
NEW = [Item("d", "dead bees in a bed"), Item("b", "another face of the cab")]
QUERIES = ["a bad bed", "face", "dead bee", "nothing"]


@pytest.mark.parametrize("mode", ["bm25", "dense", "hybrid"])
def test_a_grown_index_finds_what_one_made_at_once_finds(mode: str, letters: Letters) -> None:
    made = pickaxe.retriever("chronicles", mode=mode, chunk_size=3, stride=2)
    old = made.index(OLD)
    letters.encoded.clear()
    grown = old.add(NEW, remove=["b"])
    assert [text.split()[0] for text in letters.encoded] == ([] if mode == "bm25" else ["dead", "in", "another", "of"])
    whole = made.index([OLD[0], OLD[2], *NEW])
    assert grown.search(QUERIES, 5).results == whole.search(QUERIES, 5).results
    assert old.search(["face"], 1).results[0][0].id == "b"
    usage = grown.search(["a"]).usage
    assert usage["index_documents"] == 4
    assert usage["index_encoded_texts"] == (0 if mode == "bm25" else 4)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text("abc ", max_size=9), min_size=1, max_size=6), data=st.data())
def test_any_growth_is_like_a_fresh_index(texts: list[str], data: st.DataObject) -> None:
    items = [Item(f"i{row}", text) for row, text in enumerate(texts)]
    first = data.draw(st.integers(1, len(items)))
    gone = data.draw(st.sets(st.sampled_from([item.id for item in items[:first]])))
    stay = [item for item in items if item.id not in gone]
    made = pickaxe.retriever("chronicles", chunk_size=2)
    if not stay:
        with pytest.raises(InvalidItems, match="at least one document"):
            made.index(items[:first]).add(items[first:], remove=gone)
        return
    grown = made.index(items[:first]).add(items[first:], remove=gone)
    assert grown.search(["a b", "ab"], 9).results == made.index(stay).search(["a b", "ab"], 9).results


def test_w_goes_with_the_index_until_another_is_fitted(letters: Letters, tmp_path: Path) -> None:
    examples = [Item(f"q{row}", item.text, {"gold": item.text or ""}) for row, item in enumerate((*OLD, *NEW))]
    fitted = pickaxe.retriever("chronicles", mode="custom", epochs=2, validation_share=0.4).fit(examples)
    old = fitted.index(OLD)
    grown = old.add(NEW, remove=["b"])
    whole = fitted.index([OLD[0], OLD[2], *NEW])
    assert grown.search(QUERIES, 5).results == whole.search(QUERIES, 5).results
    assert old.artifact is not None
    plain = pickaxe.retriever("chronicles", mode="dense").index(OLD, out=tmp_path / "plain")
    assert plain.artifact is not None
    with_w = fitted.index(NEW, base=tmp_path / "plain", remove=["b"])
    assert with_w.search(QUERIES, 5).results == whole.search(QUERIES, 5).results


def test_growth_that_would_mix_two_ways_is_refused(letters: Letters, tmp_path: Path) -> None:
    pickaxe.retriever("chronicles").index(OLD, out=tmp_path / "index")
    options: tuple[dict[str, Any], ...] = ({"chunk_size": 7}, {"k1": 2.0}, {"language": "pt"})
    for each in options:
        with pytest.raises(ArtifactMismatch, match=f"made with {next(iter(each))}="):
            pickaxe.retriever("chronicles", **each).index(NEW, base=tmp_path / "index", remove=["b"])
    with pytest.raises(ArtifactMismatch, match="has no embeddings"):
        pickaxe.retriever("chronicles", mode="dense").index(NEW, base=tmp_path / "index", remove=["b"])
    with pytest.raises(InvalidItems, match="'b' is in the index already"):
        pickaxe.retriever("chronicles").index(NEW, base=tmp_path / "index")
    with pytest.raises(InvalidParams, match="'nobody'"):
        pickaxe.retriever("chronicles").index(NEW, base=tmp_path / "index", remove=["nobody"])


def test_another_encoder_is_refused(letters: Letters, tmp_path: Path) -> None:
    pickaxe.retriever("chronicles", mode="dense").index(OLD, out=tmp_path / "index")
    letters.digest = "other"
    opened = pickaxe.retriever("chronicles", artifact=tmp_path / "index")
    with pytest.raises(ArtifactMismatch, match="built with the encoder"):
        opened.search(["a"])
    with pytest.raises(ArtifactMismatch, match="built with the encoder"):
        opened.add(NEW, remove=["b"])
    lexical = pickaxe.retriever("chronicles").index(OLD)
    assert lexical.search(["face"], 1).results[0][0].id == "b"
