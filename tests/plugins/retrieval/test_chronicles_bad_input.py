"""`chronicles`: what it does with queries, vectors, files and rerankers that are not as they should be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import pickaxe
from pickaxe import Call, Item, Items, Method, Ranked, Ranking, catalog
from pickaxe.errors import InvalidItems, PickaxeError
from pickaxe.hooks import hookimpl

MODES = ("bm25", "dense", "hybrid")
DOCUMENTS = [Item("a", "a cab"), Item("b", "bed, bee and cab")]


class Letters:
    """Counts of letters; texts with a z get a vector that is not a number."""

    digest = "letters"

    def encode(self, texts: Sequence[str], call: Call) -> np.ndarray:
        vectors = np.array([[1 + text.count(letter) for letter in "abcde"] for text in texts], np.float32)
        vectors[["z" in text for text in texts]] = np.nan
        return vectors


@pytest.fixture(autouse=True)
def letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickaxe.Host, "encoder", lambda self, name="encoder": Letters())


@pytest.mark.parametrize("mode", MODES)
def test_queries_without_words_of_the_index(mode: str) -> None:
    index = pickaxe.retriever("chronicles", mode=mode).index(DOCUMENTS)
    found = index.search(["", "東京 タワー", "cab", "!?"], 50)
    assert [len(hits) for hits in found] == ([0, 0, 2, 0] if mode == "bm25" else [2, 2, 2, 2])
    assert len(index.search([], 3)) == 0
    assert len(index.search(["cab " * 20_000], 1)[0]) == 1


@pytest.mark.parametrize("mode", MODES)
def test_one_document_without_words(mode: str) -> None:
    index = pickaxe.retriever("chronicles", mode=mode).index([Item("only", "")])
    assert [hit.id for hit in index.search(["cab"], 5)[0]] == ([] if mode == "bm25" else ["only"])


@pytest.mark.parametrize("mode", ["dense", "hybrid"])
def test_vectors_that_are_not_numbers_are_named(mode: str) -> None:
    index = pickaxe.retriever("chronicles", mode=mode).index(DOCUMENTS)
    with pytest.raises(InvalidItems, match=r"queries\[1\].*not finite.*'q1'"):
        index.search([Item("q0", "a"), Item("q1", "z")])
    with pytest.raises(InvalidItems, match=r"not finite.*'bad'"):
        pickaxe.retriever("chronicles", mode=mode).index([*DOCUMENTS, Item("bad", "zebra")])
    with pytest.raises(InvalidItems, match=r"not finite.*'bad'"):
        index.add([Item("bad", "zebra")])


def test_vectors_that_are_not_numbers_are_not_learned_from() -> None:
    examples = [Item(str(row), "abc"[row % 3], {"gold": "abc"[row % 3] * 2}) for row in range(6)]
    with pytest.raises(InvalidItems, match=r"examples\[\d\].*not finite.*'bad'"):
        pickaxe.retriever("chronicles", mode="custom").fit([*examples, Item("bad", "z", {"gold": "a"})])
    with pytest.raises(InvalidItems, match=r"gold\[\d\].*not finite.*'zz'"):
        pickaxe.retriever("chronicles", mode="custom").fit([*examples, Item("bad", "a", {"gold": "zz"})])


def test_the_epoch_is_chosen_by_the_validation_that_is_given() -> None:
    examples = [Item(str(row), "abc"[row % 3], {"gold": "abc"[row % 3] * 2}) for row in range(6)]
    fitted = pickaxe.retriever("chronicles", mode="custom", epochs=2).fit(examples[:4], validation=examples[4:])
    assert fitted.artifact is not None
    notes = fitted.artifact.notes
    assert (notes["training_pairs"], notes["validation_pairs"]) == (4 * 3, 2 * 3)


@pytest.mark.parametrize("file", ["windows.npy", "bm25_data.npy", "documents.jsonl", "ids.json"])
def test_a_torn_index_is_refused(file: str, tmp_path: Path) -> None:
    pickaxe.retriever("chronicles").index(DOCUMENTS, out=tmp_path / "index")
    content = (tmp_path / "index" / file).read_bytes()
    (tmp_path / "index" / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(PickaxeError, match=file):
        pickaxe.retriever("chronicles", artifact=tmp_path / "index").search(["cab"])


class Stranger(Method[pickaxe.Params]):
    """Ranks a document that nobody gave it."""

    @hookimpl
    def rerank(self, candidates: Items, top_n: int) -> Ranking:
        return Ranking((Ranked(0, "stranger", 1.0),))


def test_a_reranker_that_names_strangers_is_refused() -> None:
    with catalog.register(Stranger, "stranger", "reranker"):
        index = pickaxe.retriever("chronicles", reranker="stranger").index(DOCUMENTS)
        with pytest.raises(PickaxeError, match="stranger"):
            index.search(["cab"])
