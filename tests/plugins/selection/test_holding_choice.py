"""holding-choice: log-probabilities, packing, figures, a selector that learns, both roles, errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pickaxe
from pickaxe import Host, Item
from pickaxe.errors import ArtifactMismatch, InvalidItems, InvalidParams
from pickaxe.report import explained
from pickaxe_plugins.selection.holding_choice._holding import fitting, interval, macro_f1, packed
from pickaxe_plugins.train import bert, bert_files, vocabulary

TOPICS = ("rent", "search", "patent", "divorce", "tax", "libel")
LOGITS = st.lists(st.floats(-30, 30, allow_nan=False), min_size=3, max_size=3)


def question(row: int, label: int | None = None) -> Item:
    """The right holding names the prompt's topic."""
    draw = np.random.default_rng(row)
    topics = draw.permutation(TOPICS)[:3]
    right = int(draw.integers(3)) if label is None else label
    text = f"the court was asked about {topics[right]} by the party"
    choices = [f"holding that {topic} is for the state to decide" for topic in topics]
    return Item(f"q{row}", text, {"choices": choices, "label": right})


def brought(logits: Any, **fields: Any) -> Item:
    return Item("x", fields={"choice_logits": np.array(logits, float), **fields})


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder with small random weights."""
    folder = tmp_path_factory.mktemp("encoder")
    texts = [text for row in range(40) for text in (question(row).text or "", *question(row).fields["choices"])]  # type: ignore[misc]  # texts
    tokenizer = vocabulary.learn_words(texts, 200, folder)
    config = bert.Config(layers=1, width=32, heads=2, mlp=64, vocab=tokenizer.vocab_size, positions=48)
    bert_files.save(folder, config, bert.initial(config, seed=0, scale=0.1))
    return folder


@pytest.fixture(scope="module")
def fitted() -> Any:
    scorer = pickaxe.scorer(
        "holding-choice", n_choices=3, layers=2, max_len=48, epochs=2, batch=8, rate=5e-4, dropout=0.0
    )
    return scorer.fit([question(row) for row in range(56)], validation=[question(row) for row in range(200, 208)])


# ---------------------------------------------------------------- what must hold


@given(LOGITS, st.floats(-50, 50), st.permutations(range(3)))
def test_log_probabilities_sum_shift_and_permute(logits: list[float], shift: float, order: list[int]) -> None:
    scorer = pickaxe.scorer("holding-choice", n_choices=3)
    names = [f"log_prob_{choice}" for choice in range(3)]
    plain, shifted, moved = (
        np.array([found[name][0] for name in names])
        for found in (scorer.score([brought(x)]) for x in (logits, np.add(logits, shift), np.take(logits, order)))
    )
    assert np.exp(plain).sum() == pytest.approx(1.0)
    np.testing.assert_allclose(shifted, plain, atol=1e-9)
    np.testing.assert_allclose(moved, plain[order], atol=1e-12)


def one_by_one(first: int, second: int, room: int) -> tuple[int, int]:
    while first + second > room:
        if first > second:
            first -= 1
        else:
            second -= 1
    return first, second


@given(st.integers(1, 300), st.integers(1, 300), st.integers(5, 160))
def test_packing_takes_one_token_at_a_time_from_the_longer(first: int, second: int, max_len: int) -> None:
    kept = packed(first, second, max_len)
    assert kept == one_by_one(first, second, max_len - 3)
    assert sum(kept) + 3 <= max_len or kept == (first, second)
    assert min(kept) >= 1


def test_texts_are_cut_at_their_tokens_and_fit(small: Path) -> None:
    model = Host().encoder(str(small))
    long = "the court was asked about rent by the party " * 6
    for pair in ((long, long), (long, "holding"), ("rent", long), ("rent", "tax")):
        (cut,) = fitting(model.tokenizer, [pair], 20)
        lengths = [len(model.tokenizer.encode(text)) for text in pair]
        assert [len(model.tokenizer.encode(text)) for text in cut] == list(packed(lengths[0], lengths[1], 20))
        assert all(text.startswith(part) for text, part in zip(pair, cut, strict=True))


def test_macro_f1_is_over_classes_that_occur() -> None:
    assert macro_f1(np.array([0, 0, 1]), np.array([0, 0, 1])) == 1.0
    assert macro_f1(np.array([0, 0]), np.array([0, 3])) == pytest.approx((2 / 3 + 0) / 2)
    assert np.isnan(macro_f1(np.zeros(0), np.zeros(0)))
    assert interval([0.5])[0] == 0.5
    assert np.isnan(interval([0.5])[1])


def test_folds_are_groups_and_the_report_names_their_interval() -> None:
    items = [brought([2, 0, 0], label=0, group="1"), brought([0, 3, 0], label=1, group="1"),
             brought([0, 3, 0], label=0, group="2")]  # fmt: skip
    scores = pickaxe.scorer("holding-choice", n_choices=3).score(items)
    assert scores.groups is not None
    assert scores.groups.columns["accuracy"].tolist() == [1.0, 0.0]
    answer, figures = explained(scores.summary)
    assert answer[0].startswith("66.7% of 3 questions")
    assert "0.5 ± 0.98" in answer[1]
    assert list(figures[0].series[0].x) == [1.0, 0.0]
    blind = pickaxe.scorer("holding-choice", n_choices=3).score([brought([1, 0, 0])])
    assert blind.groups is None
    assert "without labels" in explained(blind.summary)[0][0]


# ---------------------------------------------------------------- the model


def test_it_learns_to_choose(fitted: Any) -> None:
    held = [question(row) for row in range(300, 340)]
    scores = fitted.score(held)
    right = scores["chosen"] == np.array([item.fields["label"] for item in held])
    assert right.mean() > 0.7
    assert fitted.artifact.notes["validation_accuracy"] > 0.6
    assert json.loads(fitted.artifact.file("sentence_bert_config.json").read_text()) == {"max_seq_length": 48}


def test_permuted_choices_permute_the_probabilities(fitted: Any) -> None:
    item = question(7)
    choices = item.fields["choices"]
    turned = Item("t", item.text, {"choices": list(choices)[::-1]})  # type: ignore[arg-type]  # texts
    one, other = fitted.score([item]), fitted.score([turned])
    for choice in range(3):
        assert one[f"log_prob_{choice}"][0] == pytest.approx(other[f"log_prob_{2 - choice}"][0], abs=1e-5)


def test_the_reranker_orders_by_the_same_probabilities(fitted: Any) -> None:
    item = question(11)
    candidates = [Item(str(at), text) for at, text in enumerate(item.fields["choices"])]  # type: ignore[arg-type]  # texts
    reranker = pickaxe.reranker("holding-choice", artifact=str(fitted.artifact.path), n_choices=3, max_len=48)
    ranking = reranker.rerank(Item("q", item.text), candidates, top_n=2)
    scores = fitted.score([item])
    assert ranking[0].index == scores["chosen"][0]
    assert len(ranking) == 2
    np.testing.assert_allclose(ranking.scores, [scores[f"log_prob_{at}"][0] for at in range(3)], atol=1e-5)
    assert len(reranker.rerank(Item("q", item.text), [], top_n=2)) == 0


def test_without_an_artifact_a_named_model_chooses(fitted: Any) -> None:
    named = pickaxe.scorer("holding-choice", n_choices=3, max_len=48, model=str(fitted.artifact.path))
    items = [question(row) for row in range(4)]
    np.testing.assert_array_equal(named.score(items)["log_prob"], fitted.score(items)["log_prob"])
    with pytest.raises(ArtifactMismatch, match="max_len 48"):
        pickaxe.scorer("holding-choice", max_len=32, artifact=str(fitted.artifact.path)).score(items)


# ---------------------------------------------------------------- bad input


def test_empty_texts_have_no_result_and_a_flag(fitted: Any) -> None:
    items = [Item("a", "", {"choices": ["x", "y", "z"]}), Item("b", "rent", {"choices": ["x", " ", "z"]}), question(1)]
    scores = fitted.score(items)
    assert np.isnan(scores["log_prob"]).tolist() == [True, True, False]
    assert scores["chosen"].tolist()[:2] == [-1, -1]
    assert [flag.index for flag in scores.flags] == [0, 1]
    assert len(fitted.score([])) == 0
    assert len(fitted.score([Item("h", "word " * 100_000, {"choices": ["x", "y", "z"]})])) == 1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "is missing"),
        ({"choices": ["a", "b"]}, "set n_choices"),
        ({"choices": ["a", "b", "c"], "label": 3}, "wanted 0 to 2"),
        ({"choices": ["a", "b", "c"], "label": -1}, "wanted 0 to 2"),
        ({"choice_logits": np.zeros(2)}, "wanted 3 finite"),
        ({"choice_logits": np.array([0, np.nan, 1])}, "wanted 3 finite"),
    ],
)
def test_what_is_wrong_is_said(fields: Any, said: str, fitted: Any) -> None:
    with pytest.raises(InvalidItems, match=said):
        fitted.score([Item("x", "text", fields)])


def test_fits_refuse_what_cannot_be_learned(small: Path) -> None:
    scorer = pickaxe.scorer("holding-choice", n_choices=3, base=str(small), max_len=48)
    for examples, said in (
        ([], "are empty"),
        ([Item("x", "text", {"choices": ["a", "b", "c"], "label": 5})], "wanted 0 to 2"),
        ([Item("x", "text", {"choices": ["a", "b", "c"]})], "label"),
        ([Item("x", "", {"choices": ["a", "b", "c"], "label": 0})], "empty prompt"),
    ):
        with pytest.raises(InvalidItems, match=said):
            scorer.fit(examples)
    for params in ({"max_len": 64}, {"layers": 9, "max_len": 48}):
        with pytest.raises(InvalidParams, match=r"reads at most|the base has"):
            pickaxe.scorer("holding-choice", n_choices=3, base=str(small), **params).fit([question(0)])
    with pytest.raises(InvalidParams):
        pickaxe.scorer("holding-choice", n_choices=17)
