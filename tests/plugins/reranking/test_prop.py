"""`prop`: what is masked, losses, fitting and reranking with a tiny network, and bad input."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pickaxe
from pickaxe import Call, Host, Item
from pickaxe.errors import ArtifactMismatch, InvalidItems, InvalidParams
from pickaxe_plugins.reranking.prop._pairs import Pair
from pickaxe_plugins.reranking.prop._training import Batches, Document, Masking, masked_words, rop_loss, whole_words
from pickaxe_plugins.train import bert, bert_files, vocabulary
from pickaxe_plugins.train.pairs import Framing

ARTICLES = Path(__file__).parents[2] / "golden/files/29-prop/wiki_toy_trimmed.jsonl"
SMALL: dict[str, Any] = {"max_len": 64, "batch": 8, "min_cf": 1, "skip_short": 0, "rate": 1e-3, "dropout": 0.0}


@pytest.fixture(scope="module")
def articles() -> list[Item]:
    read = [json.loads(line) for line in ARTICLES.read_text(encoding="utf-8").splitlines()[:8]]
    return [Item(each["id"], " ".join(each["text"].split()[:60])) for each in read]


@pytest.fixture(scope="module")
def tiny(articles: list[Item], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new BERT of one small layer."""
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = vocabulary.learn_words([item.text or "" for item in articles], 800, folder)
    config = bert.Config(layers=1, width=32, heads=4, mlp=64, vocab=tokenizer.vocab_size, positions=128)
    bert_files.save(folder, config, bert.initial(config, 0, scale=0.1))
    return folder


@pytest.fixture(scope="module")
def fitted(tiny: Path, articles: list[Item]) -> Path:
    path = tiny.with_name("prop-fit")
    pickaxe.reranker("prop", base=str(tiny), **SMALL).fit(articles, validation=articles[:2], out=path)
    return path


# ---------------------------------------------------------------- parts


def test_the_softmax_margin_is_never_zero() -> None:
    random = np.random.default_rng(0)
    positive, negative = random.normal(size=(2, 50))
    shares = 1 / (1 + np.exp(negative - positive))
    assert float(rop_loss(positive, negative, "softmax_margin")) == pytest.approx(
        float((2 * (1 - shares)).mean()), abs=1e-6
    )
    assert 0 < float(rop_loss(np.array([8.0]), np.array([0.0]), "softmax_margin")) < 1e-3
    assert float(rop_loss(np.array([8.0]), np.array([0.0]), "margin")) == 0


def test_masked_words() -> None:
    assert [masked_words(count, 0.15, 60) for count in (0, 1, 3, 14, 100, 1000)] == [0, 1, 1, 2, 15, 60]
    pieces = np.array([False, False, False, True])
    assert whole_words([0, 2, 1, 3, 2, 3, 3, 1], 3, pieces) == [[3], [4, 5, 6]]


@given(st.integers(0, 40), st.integers(0, 200), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_only_the_document_is_masked_and_cut(first: int, second: int, seed: int) -> None:
    tokenizer = _tokenizer()
    framing, masking = Framing(tokenizer, 64), Masking(tokenizer, 0.3, 60)
    random = np.random.default_rng(seed)
    one, other = (random.integers(5, tokenizer.vocab_size, size).tolist() for size in (first, second))
    row = framing.pair(one, other)
    hidden, places, was = masking.hidden(row, random)
    assert len(row) <= 64
    assert row.ids[1 : first + 1].tolist() == one
    assert row.ids[first + 1] == tokenizer.token_to_id("[SEP]")
    assert (hidden.ids[: first + 2] == row.ids[: first + 2]).all()
    assert hidden.ids[-1] == row.ids[-1]
    assert (places >= first + 2).all()
    assert (was == row.ids[places]).all()
    changed = np.flatnonzero(hidden.ids != row.ids)
    assert set(changed.tolist()) <= set(places.tolist())
    assert bool(len(places)) == bool(second)


@functools.cache
def _tokenizer() -> Any:
    return Host().encoder().tokenizer


def test_batches_hold_pairs_side_by_side_and_mask_anew(tiny: Path) -> None:
    tokenizer = Host().encoder(str(tiny)).tokenizer
    pairs = [Pair((f"word{row}", "one"), (f"other{row}", "two")) for row in range(4)]
    documents = [Document("a", "some words of a text " * 6, pairs), Document("b", "further words " * 9, pairs[:1])]
    framing, masking = Framing(tokenizer, 64), Masking(tokenizer, 0.15, 60)
    found = {}
    for dynamic in (True, False):
        params = pickaxe.reranker("prop", batch=2, pairs_per_doc=4, used_pairs=2, dynamic_masking=dynamic).params
        batches = Batches(documents, framing, masking, params, 0)
        assert batches.shuffle.per_epoch == 2
        first = batches.given(0)
        assert first["ids"].shape[0] == 4
        assert (first["lengths"] > 0).all()
        assert (np.diff(first["segments"], axis=1) != 0).any()
        assert (first["labels"] >= 0).any(1).all()
        found[dynamic] = [batches.inputs(2, epoch)[0] for epoch in range(3)]
    assert found[True] == ["b\x1f0"] * 3
    names = {Batches(documents, framing, masking, params, 0).inputs(0, epoch)[0] for epoch in range(2)}
    assert names == {"a\x1f0", "a\x1f2"}


# ---------------------------------------------------------------- fit and rerank


def test_pairs_are_learned(tiny: Path, articles: list[Item]) -> None:
    told: list[dict[str, float]] = []
    options = {**SMALL, "rate": 3e-3, "pairs_per_doc": 2, "used_pairs": 2, "loss": "margin", "epochs": 30}
    pickaxe.reranker("prop", base=str(tiny), **options).fit(
        articles, progress=lambda step: told.append(dict(step.metrics))
    )
    steps = [each for each in told if each]
    assert {"loss", "rop_accuracy", "mlm_loss"} <= steps[0].keys()
    early, late = steps[:5], steps[-8:]
    assert np.mean([each["mlm_loss"] for each in late]) < np.mean([each["mlm_loss"] for each in early]) - 0.3
    assert np.mean([each["rop_accuracy"] for each in late]) > 0.8


def test_what_a_fit_leaves(fitted: Path, articles: list[Item]) -> None:
    opened = pickaxe.Artifact.open(fitted)
    assert {"cf.npy", "df.npy", "words.json", "model.safetensors", "tokenizer.json"} <= set(opened.manifest["files"])
    assert opened.notes["documents"] == opened.notes["trained_documents"] == 8
    assert 0 <= opened.notes["validation_accuracy"] <= 1
    ranking = pickaxe.reranker("prop", artifact=fitted).rerank("anarchism", articles)
    cross = Host().cross_encoder(str(fitted))
    assert ranking.scores == pytest.approx(cross.score([("anarchism", item.text or "") for item in articles]), abs=1e-5)
    assert [entry.score for entry in ranking] == sorted(ranking.scores.tolist(), reverse=True)
    assert ranking.usage == {"model_calls": 8}
    assert len(pickaxe.reranker("prop", artifact=fitted).rerank("anarchism", articles, 3)) == 3


def test_the_same_fit_gives_the_same_bits_and_goes_on_where_it_stopped(
    tiny: Path, articles: list[Item], tmp_path: Path
) -> None:
    options = {**SMALL, "base": str(tiny), "checkpoint": 2}
    whole = pickaxe.reranker("prop", **options).fit(articles, out=tmp_path / "whole")
    run = pickaxe.reranker("prop", **options).fitting(articles, tmp_path / "part", call=Call(seed=0))
    for _ in range(5):
        next(run)
    run.close()
    part = pickaxe.reranker("prop", **options).fit(articles, out=tmp_path / "part")
    files = [each.artifact.manifest["files"]["model.safetensors"]["sha256"] for each in (whole, part)]
    assert files[0] == files[1]
    more = pickaxe.reranker("prop", **options).fit(articles, init_from=tmp_path / "whole", out=tmp_path / "more")
    assert more.artifact.manifest["files"]["model.safetensors"]["sha256"] != files[0]


def test_long_candidates(fitted: Path, articles: list[Item]) -> None:
    long = " ".join(item.text or "" for item in articles[:3])
    windows = pickaxe.reranker("prop", artifact=fitted, long_documents="max")
    ranking = windows.rerank("achilles hero", [Item("long", long), articles[5]])
    cut = pickaxe.reranker("prop", artifact=fitted).rerank("achilles hero", [Item("long", long), articles[5]])
    assert ranking.usage["model_calls"] > cut.usage["model_calls"] == 2
    assert ranking.scores[0] >= cut.scores[0] - 1e-5
    assert len(windows.rerank("", [Item("empty", ""), Item("huge", "rain " * 5000)])) == 2


def test_fine_tuning_goes_on_from_the_pretrained_network(fitted: Path, articles: list[Item], tmp_path: Path) -> None:
    examples = [Item(item.id, " ".join((item.text or "").split()[:2]), {"positive": item.text}) for item in articles]
    tuned = pickaxe.reranker("cross-encoder", base=str(fitted), max_tokens=64, epochs=1, negatives=2, batch=4)
    assert len(tuned.fit(examples).rerank("anarchism", articles)) == 8


def test_bad_input(tiny: Path, articles: list[Item]) -> None:
    with pytest.raises(ArtifactMismatch, match="fit"):
        pickaxe.reranker("prop").rerank("a", ["b"])
    method = pickaxe.reranker("prop", base=str(tiny), **SMALL)
    for examples, match in (
        ([], "2 are needed"),
        ([Item("a", "rain"), Item("b", "日本 of the")], "2 are needed"),
        ([Item("a", "rain"), Item("b", "rain")], "no pair"),
    ):
        with pytest.raises(InvalidItems, match=match):
            method.fit(examples)
    for wrong in ({"used_pairs": 11}, {"poisson_lambda": 0}, {"mlm_prob": 1}, {"loss": "hinge"}, {"max_len": 4}):
        with pytest.raises(InvalidParams):
            pickaxe.reranker("prop", **wrong)
    with pytest.raises(InvalidParams, match="max_len"):
        pickaxe.reranker("prop", base=str(tiny), **{**SMALL, "max_len": 512}).fit(articles)
