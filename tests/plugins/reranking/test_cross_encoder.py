"""The reranker `cross-encoder`: the shipped model, and models that `fit` trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pickaxe
from pickaxe import Call, Host, Item
from pickaxe.errors import InvalidItems, InvalidParams, Unmet

TINY: dict[str, Any] = {"layers": 1, "max_tokens": 32, "negatives": 3, "batch": 4, "epochs": 120, "rate": 3e-3,
                        "dropout": 0.0, "checkpoint": 100}  # fmt: skip
ANIMALS = [("fox", "den"), ("bee", "hive"), ("bird", "nest"), ("bear", "cave"), ("mole", "burrow"), ("dog", "kennel"),
           ("horse", "stable"), ("pig", "sty")]  # fmt: skip
PASSAGES = [Item(animal, f"a {animal} sleeps in its {home}") for animal, home in ANIMALS]
QUESTIONS = [
    Item(f"q-{animal}", f"where does the {animal} sleep", {"positive": PASSAGES[row].text or ""})
    for row, (animal, _) in enumerate(ANIMALS)
]


@pytest.fixture(scope="module")
def host() -> Host:
    return Host(device="cpu", threads=1)


@pytest.fixture(scope="module")
def small_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh encoder of one layer, which trains in seconds."""
    from pickaxe_plugins.train import bert, bert_files, vocabulary

    folder = tmp_path_factory.mktemp("base")
    texts = [item.text or "" for item in (*PASSAGES, *QUESTIONS)]
    tokenizer = vocabulary.learn_words(texts, 200, folder)
    config = bert.Config(layers=2, width=32, heads=4, mlp=64, vocab=tokenizer.vocab_size, positions=40)
    bert_files.save(folder, config, bert.initial(config, seed=0, scale=0.1))
    return folder


@pytest.fixture(scope="module")
def fitted(host: Host, small_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    handle = pickaxe.reranker("cross-encoder", host=host, base=str(small_base), **TINY)
    return handle.fit(QUESTIONS, out=tmp_path_factory.mktemp("fitted") / "made", seed=3)


def test_the_shipped_model_finds_the_passage_that_answers(host):
    passages = [Item("rain", "The rain in Spain stays mainly in the plain."),
                Item("tea", "Green tea is brewed at about 80 degrees, black tea with boiling water."),
                Item("moon", "The Moon turns once on its axis for every orbit around the Earth.")]  # fmt: skip
    ranking = pickaxe.reranker("cross-encoder", host=host).rerank("How hot should water for green tea be?", passages, 2)
    assert ranking.ids[0] == "tea"
    assert len(ranking) == 2
    assert ranking.usage["model_calls"] == 3
    assert np.isfinite(ranking.scores).all()


def test_a_fit_learns_which_passage_answers(fitted):
    first = [fitted.rerank(query.text, PASSAGES).ids[0] for query in QUESTIONS]
    assert sum(found == query.id.removeprefix("q-") for found, query in zip(first, QUESTIONS, strict=True)) >= 6


def test_a_fit_is_repeated_bit_by_bit(fitted, host, small_base, tmp_path):
    again = pickaxe.reranker("cross-encoder", host=host, base=str(small_base), **TINY).fit(
        QUESTIONS, out=tmp_path / "again", seed=3
    )
    weights = [(Path(handle.artifact.path) / "model.safetensors").read_bytes() for handle in (fitted, again)]
    assert weights[0] == weights[1]


def test_frozen_words_stay(fitted, small_base):
    from pickaxe.models.quantise import read_tensors

    name = "embeddings.word_embeddings.weight"
    before = read_tensors(small_base / "model.safetensors")[name]
    after = read_tensors(Path(fitted.artifact.path) / "model.safetensors")[f"bert.{name}"]
    np.testing.assert_array_equal(before, after)


def test_validation_keeps_the_best_epoch(host, small_base, tmp_path):
    handle = pickaxe.reranker("cross-encoder", host=host, base=str(small_base), **{**TINY, "epochs": 3})
    made = handle.fit(QUESTIONS[:6], validation=QUESTIONS[6:], out=tmp_path / "made")
    assert 0 < made.artifact.notes["validation_mrr"] <= 1


def test_own_negatives_come_first():
    from pickaxe.tokenizers import Tokenizer
    from pickaxe_plugins.reranking._pair_training import Query, _Draws
    from pickaxe_plugins.reranking.cross_encoder import Params
    from pickaxe_plugins.train.pairs import Framing

    tokenizer = Tokenizer.open(Host().models.path("encoder"))
    queries = [Query("a", "question", "right", ("wrong", "worse")), Query("b", "other", "elsewhere")]
    draws = _Draws(queries, Framing(tokenizer, 16), Params(negatives=3), seed=0)
    said = {
        tokenizer.decode(pair.ids.tolist()).replace("question", "").strip() for pair in draws.pairs(queries[0], 0)[1:]
    }
    assert said == {"wrong", "worse", "elsewhere"}


def test_titles_are_read(host):
    reranker = pickaxe.reranker("cross-encoder", host=host)
    bare, titled = (
        reranker.rerank("the tea ceremony", [Item("one", "It takes place at noon.", fields)]).scores[0]
        for fields in ({}, {"title": "The tea ceremony"})
    )
    assert titled > bare


def test_what_cannot_be_learned_from_is_said(host, small_base, tmp_path):
    handle = pickaxe.reranker("cross-encoder", host=host, base=str(small_base), **TINY)
    with pytest.raises(InvalidItems, match="at least 2"):
        handle.fit(QUESTIONS[:1], out=tmp_path / "made")
    with pytest.raises(InvalidParams, match="layers"):
        pickaxe.reranker("cross-encoder", host=host, base=str(small_base), **{**TINY, "layers": 3}).fit(
            QUESTIONS, out=tmp_path / "made"
        )
    with pytest.raises(InvalidParams, match="max_tokens"):
        pickaxe.reranker("cross-encoder", host=host, base=str(small_base), **{**TINY, "max_tokens": 64}).fit(
            QUESTIONS, out=tmp_path / "made"
        )


def test_an_encoder_is_no_cross_encoder(host):
    with pytest.raises(Unmet, match="classifier"):
        pickaxe.reranker("cross-encoder", host=host, model="encoder").rerank("a", [Item("b", "c")])


def test_the_shipped_model_can_be_trained_further(host, tmp_path):
    handle = pickaxe.reranker("cross-encoder", host=host, base="cross-encoder", layers=1, epochs=1, max_tokens=24,
                              negatives=1)  # fmt: skip
    made = handle.fit(QUESTIONS, out=tmp_path / "made", call=Call())
    assert made.rerank("where does the fox sleep", PASSAGES, 1).ids
