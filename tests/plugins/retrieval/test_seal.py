"""`seal` with the small model that is shipped: keys, hits, spans, what an index remembers, fitting, bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pickaxe
from pickaxe import Call, Item
from pickaxe.artifact import writing
from pickaxe.errors import ArtifactMismatch, DoesNotFit, InvalidItems, InvalidParams
from pickaxe.host import default_host
from pickaxe_plugins.retrieval._token_index import TokenIndex
from pickaxe_plugins.retrieval.seal import Params
from pickaxe_plugins.retrieval.seal._keys import Beams
from pickaxe_plugins.retrieval.seal._train import Training, likeness, starts

SMALL: dict[str, Any] = {
    "model": "draft",
    "precision": "fp32",
    "beam": 4,
    "steps": 4,
    "title_steps": 6,
    "smoothing": 0.0,
}
WORDS: dict[str, Any] = {"generate": False, "unigrams": 0, "query_logprob": -1.0}
"""Nothing but the query's own words, all equally likely: the model is not asked."""
DOCUMENTS = [
    Item("rain", "The rain in Spain stays mainly in the plain. Naïve ducks like it.", {"title": "Rain in Spain"}),
    Item("tea", "Green tea is brewed at about 80 degrees, black tea with boiling water.", {"title": "Tea"}),
    Item("moon", "The Moon turns once on its axis for every orbit around the Earth.", {"title": "Moon"}),
    Item("empty", ""),
    Item("bare", "Kettles boil water for black tea and for coffee."),
]


@pytest.fixture(scope="module")
def index() -> Any:
    return pickaxe.retriever("seal", **SMALL).index(DOCUMENTS)


def opened(index: Any, **params: Any) -> Any:
    return pickaxe.retriever("seal", **{**SMALL, **params}, artifact=index.artifact.path)


def test_keys_of_the_query_find_the_documents_that_hold_them(index: Any) -> None:
    found = opened(index, **WORDS).search(["black tea with boiling water", "The Moon turns"], 5)
    assert [hits[0].id for hits in found] == ["tea", "moon"]
    assert all(hit.score > 0 for hits in found for hit in hits)
    assert "empty" not in {hit.id for hits in found for hit in hits}


def test_spans_are_what_query_and_document_share(index: Any) -> None:
    texts = {item.id: item.text or "" for item in DOCUMENTS}
    query = "Naïve ducks and black tea"
    (hits,) = opened(index, **WORDS).search([query], 5)
    said = {hit.id: [texts[hit.id][span.start : span.end] for span in hit.spans] for hit in hits}
    assert {"Naïve", "ducks"} == set(" ".join(said["rain"]).split())
    assert {"black", "tea"} <= set(" ".join(said["tea"]).split())
    assert all(piece and piece.lower() in query.lower() for pieces in said.values() for piece in pieces)


def test_titles_are_keys_that_stand_outside_the_text(index: Any) -> None:
    (hits,) = opened(index, **WORDS).search(["Rain in Spain"], 1)
    assert hits[0].id == "rain"
    assert hits[0].columns["title"] > 0
    bare = pickaxe.retriever("seal", **SMALL, use_titles=False, **WORDS).index(DOCUMENTS)
    (hits,) = bare.search(["Rain in Spain"], 1)
    assert hits[0].columns["title"] == 0


def test_what_is_said_under_constraint_occurs_in_the_documents() -> None:
    lm = default_host().lm("draft", "fp32")
    end = lm.tokenizer.eos_ids[0]
    rows = [[*lm.tokenizer.encode(f" {item.text}"), end] for item in DOCUMENTS]
    index = TokenIndex.build(rows)
    beams = Beams(lm, index, 4, [end])
    prompt = lm.tokenizer.encode("Question: How is tea brewed?\nPassage:")
    keys, first = beams.keys(prompt, 4, Call())
    assert {len(key) for key in keys} == {1, 2, 3, 4}
    assert 4 * 2 * 4 >= len(keys) > 16
    assert (index.counts(list(keys)) > 0).all()
    assert not any(end in key for key in keys)
    assert first.shape == (lm.vocab_size,)
    again = beams.score(prompt, list(keys), Call())
    assert again == {key: pytest.approx(value, abs=1e-3) for key, value in keys.items()}


def test_titles_are_said_whole() -> None:
    lm = default_host().lm("draft", "fp32")
    end = lm.tokenizer.eos_ids[0]
    rows = [[*lm.tokenizer.encode(f" {item.get('title')} @@ {item.text}"), end] for item in DOCUMENTS[:3]]
    beams = Beams(lm, TokenIndex.build(rows), 4, [end])
    ending = lm.tokenizer.encode(" @@")
    prompt = lm.tokenizer.encode("Question: How is tea brewed?\nTitle:")
    keys, _ = beams.keys(prompt, 8, Call(), start=[end], ending=ending, partial=False)
    said = {lm.tokenizer.decode(key[1:]) for key in keys}
    assert all(key[0] == end for key in keys)
    assert said == {" Rain in Spain @@", " Tea @@", " Moon @@"}
    partial, _ = beams.keys(prompt, 2, Call(), start=[end], ending=ending, partial=True)
    assert any(key[-2:] != tuple(ending) for key in partial)


def test_the_same_in_memory_in_a_copy_and_with_other_queries(index: Any, tmp_path: Path) -> None:
    other = pickaxe.retriever("seal", **SMALL).index(DOCUMENTS, out=tmp_path / "index")
    alone = index.search(["How is tea brewed?"], 3)
    assert other.search(["The sky", "How is tea brewed?", ""], 3)[1] == alone[0]
    for name in ("fm_words.npy", "tokens.npy", "starts.npy"):
        assert np.array_equal(other.artifact.read_array(name), index.artifact.read_array(name))


def test_the_three_scorings_put_documents_in_order(index: Any) -> None:
    for scoring in ("lm", "lm_fm", "intersective"):
        (hits,) = opened(index, scoring=scoring, **WORDS).search(["black tea with boiling water"], 3)
        assert {hits[0].id, hits[1].id} == {"tea", "bare"}
        if scoring == "intersective":
            assert hits[0].id == "tea"
            assert hits[0].columns["keys"] > 1
        else:
            assert hits[0].score == pytest.approx(hits[0].columns["best_key"])


def test_odd_queries(index: Any) -> None:
    found = opened(index, **WORDS).search(["", " \n", "?!", "日本語の質問", "x" * 3000], 99)
    assert [len(hits) for hits in found][:2] == [0, 0]
    assert len(index.search([], 3)) == 0


def test_usage_counts_the_model(index: Any) -> None:
    usage = index.search(["How is tea brewed?"], 3).usage
    assert usage["model_calls"] >= 1 + 3 + 1 + 1
    assert opened(index, generate=False).search(["tea"], 3).usage["model_calls"] == 2
    assert opened(index, **WORDS).search(["tea"], 3).usage["model_calls"] == 0


def test_a_budget_of_model_calls(index: Any) -> None:
    most = 4 + 6 + 1
    usage = index.search(["How is tea brewed?"], 3, budget=most).usage
    assert usage["model_calls"] <= most
    with pytest.raises(DoesNotFit, match="up to 22 model calls"):
        index.search(["How is tea brewed?", "Why?"], 3, budget=most)


def test_what_an_index_remembers(index: Any) -> None:
    with pytest.raises(ArtifactMismatch, match="use_titles"):
        opened(index, use_titles=False).search(["tea"], 1)
    found = opened(index, **WORDS, precision="auto").search(["Green tea"], 1)
    assert found[0][0].id == "tea"


def test_an_index_of_another_tokenizer_is_refused(index: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = opened(index)
    monkeypatch.setitem(vars(default_host().lm("draft", "fp32").tokenizer), "digest", "another")
    with pytest.raises(ArtifactMismatch, match="tokenizer"):
        handle.search(["tea"], 1)


def test_bad_documents_and_parameters() -> None:
    handle = pickaxe.retriever("seal", **SMALL)
    with pytest.raises(InvalidItems, match="at least one document"):
        handle.index([])
    with pytest.raises(InvalidItems):
        handle.index([Item("a", "one"), Item("a", "two")])
    with pytest.raises(InvalidParams, match="once, and no other brace"):
        pickaxe.retriever("seal", body_prompt="Question:")
    for wrong in ({"beam": 0}, {"beam": 201}, {"steps": 65}, {"alpha": 0}, {"beta": 1.5}, {"smoothing": -1}):
        with pytest.raises(InvalidParams):
            pickaxe.retriever("seal", **wrong)


def test_fit_teaches_the_model_what_passages_say() -> None:
    examples = [Item("q", "Where does the rain stay?", {"gold": DOCUMENTS[0].text or "", "title": "Rain in Spain"})]
    recipe = {"epochs": 5, "batch": 13, "rate": 1e-3, "warmup": 1}
    losses: list[float] = []
    fitted = pickaxe.retriever("seal", **SMALL, recipe=recipe).fit(
        examples, progress=lambda step: losses.append(step.metrics["loss"])
    )
    assert fitted.artifact.notes["pairs"] == 13
    assert losses[-1] < losses[0]
    index = fitted.index(DOCUMENTS)
    assert index.artifact.has("model.safetensors")
    assert index.search(["Where does the rain stay?"], 1)[0][0].id == "rain"


def test_what_is_learned_from_a_query_and_from_a_passage_alone(tmp_path: Path) -> None:
    params = Params.model_validate(SMALL)
    with writing(tmp_path / "fit", kind="fit", method="seal", method_version=1, params={}) as out:
        training = Training(params, default_host(), out, Call())
        rain = Item("q", "Where does the rain stay?", {"gold": DOCUMENTS[0].text or "", "title": "Rain in Spain"})
        asked = [(source.lower(), target) for source, target in training._supervised(rain, 0)]
        alone = training._unsupervised(DOCUMENTS[0], 0)
    assert len(asked) == 13
    assert asked[-3:] == [("question: where does the rain stay?\ntitle:", " Rain in Spain @@")] * 3
    assert all(target in f" {DOCUMENTS[0].text}" for _, target in asked[:10])
    assert len(alone) == 3 + 2
    assert alone[-1][1] == " Rain in Spain @@"
    assert training._unsupervised(Item("empty", ""), 1) == []


def test_fit_without_passages_is_refused() -> None:
    with pytest.raises(InvalidItems, match="needs a query and its passage"):
        pickaxe.retriever("seal", **SMALL).fit([Item("q", "", {"gold": ""})])


def test_targets_start_where_the_passage_is_like_the_query() -> None:
    words = [*"abcdef", "green", "tea", "is", "brewed", "in", "a", "pot", "of", "hot", "water", "every", "day"]
    like = likeness("how green tea is brewed", words)
    assert like.shape == (len(words),)
    assert like.argmax() in range(8)
    random = np.random.default_rng(0)
    assert 8 not in starts(words, like, frozenset({"is"}), 200, random)
    assert starts(["is"], likeness("is", ["is"]), frozenset({"is"}), 2, random) == [0, 0]
