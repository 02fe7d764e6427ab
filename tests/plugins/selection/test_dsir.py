"""dsir: weights, invariances, several targets, shards, selections, how near a selection comes."""

import hashlib
import itertools
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from topic_corpus import TOPICS, document

import pickaxe
from pickaxe import Item
from pickaxe.errors import ArtifactMismatch, InvalidItems, InvalidParams, Unmet
from pickaxe_plugins.selection import _ngrams, _numbered_words, _text_units
from pickaxe_plugins.selection._ngrams import Hasher, bucket, buckets_of, choose, choose_for_targets, divergence
from pickaxe_plugins.selection._text_units import WORD
from pickaxe_plugins.selection.dsir import kl_reduction

DRAW = random.Random(7)
POOL = [(topic, document(topic, DRAW) + " " + document(topic, DRAW)) for topic in TOPICS for _ in range(50)]
TEXTS = [text for _, text in POOL]
TARGET = [document("maths", DRAW) for _ in range(60)]


def fitted(target: Any = TARGET, raw: Any = TEXTS, **params: Any) -> Any:
    return pickaxe.scorer("dsir", **{"min_words": 1, **params}).fit(target, unlabelled=raw)


def weights(target: Any = TARGET, raw: Any = TEXTS, texts: Any = TEXTS, **params: Any) -> np.ndarray:
    return fitted(target, raw, **params).score(texts)["log_weight"]


# ---------------------------------------------------------------- weights


def test_weights_are_those_of_the_formula() -> None:
    target, raw, text = "a b", "b c b", "A b d"
    grams = {"a b": ["a", "b", "a b"], "b c b": ["b", "c", "b", "b c", "c b"], "A b d": ["a", "b", "d", "a b", "b d"]}

    def share(of: str, at: int) -> float:
        return sum(bucket(gram, 10_000) == at for gram in grams[of]) / len(grams[of])

    expected = sum(
        np.log(share(target, at) + 1e-8) - np.log(share(raw, at) + 1e-8)
        for at in (bucket(gram, 10_000) for gram in grams[text])
    )
    scores = fitted([target], [raw]).score([text, ""])
    np.testing.assert_allclose(scores["log_weight"], [expected, 0], atol=1e-12)
    assert scores["n_words"].tolist() == [3, 0]
    assert scores["priority"].tolist() == [scores["log_weight"][0], -np.inf]


@given(st.text(max_size=20), st.integers(2, 1000))
def test_buckets_are_sha256_modulo(gram: str, buckets: int) -> None:
    assert bucket(gram, buckets) == int(hashlib.sha256(gram.encode()).hexdigest(), 16) % buckets


def test_doubling_the_target_or_the_pool_changes_nothing() -> None:
    for target, raw in ((TARGET * 2, TEXTS), (TARGET, TEXTS * 2)):
        np.testing.assert_allclose(weights(target, raw), weights(), rtol=0, atol=1e-9)


def test_a_target_that_is_the_pool_gives_zeros() -> None:
    assert not weights(TEXTS, TEXTS).any()


def test_smoothing_takes_the_extremes_away() -> None:
    assert np.abs(weights(pseudo_count=1.0)).max() < np.abs(weights()).max()


def test_texts_in_pieces_and_forgotten_ngrams_weigh_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(TEXTS)
    whole = np.zeros(500, np.int64)
    words = Hasher(WORD, 3, 500).count(text, whole)
    monkeypatch.setattr(_text_units, "PIECE", 50)
    parts = np.zeros(500, np.int64)
    assert Hasher(WORD, 3, 500, remembered=10).count(text, parts) == words
    assert parts.tolist() == whole.tolist()
    assert whole.sum() == 3 * words - 3


def test_pairs_that_share_a_place_keep_their_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ngrams, "_PLACES", 4)
    monkeypatch.setattr(_ngrams, "_SHIFT", np.uint64(62))
    monkeypatch.setattr(_numbered_words, "_MOST", 3)
    known, draw = _ngrams._Words(WORD, 1000), random.Random(0)
    for _ in range(50):
        words = [draw.choice("abcdef") for _ in range(draw.randrange(9))]
        expected = [bucket(f"{one} {two}", 1000) for one, two in itertools.pairwise(words)]
        ids = known.cut(" ".join(words))
        assert known.words(ids) == words
        assert known.pairs(ids).tolist() == expected
        assert known.singles(ids).tolist() == [bucket(word, 1000) for word in words]


@given(st.lists(st.text(), max_size=5), st.integers(2, 1 << 24))
def test_buckets_of_many_are_those_of_each(grams: list[str], buckets: int) -> None:
    assert buckets_of(grams, buckets).tolist() == [bucket(gram, buckets) for gram in grams]


# ---------------------------------------------------------------- fitting


def test_shards_add_up() -> None:
    parts = [fitted(TARGET[:10], TEXTS[:70]), fitted(TARGET[10:], TEXTS[70:])]
    only_pool = fitted([], TEXTS[150:])
    merged = pickaxe.scorer("dsir", min_words=1).merge([part.artifact.path for part in parts])
    np.testing.assert_array_equal(merged.score(TEXTS)["log_weight"], weights())
    other = fitted(TARGET, TEXTS[:150])
    merged = pickaxe.scorer("dsir", min_words=1).merge([other.artifact.path, only_pool.artifact.path])
    np.testing.assert_array_equal(merged.score(TEXTS)["log_weight"], weights())


def test_examples_may_be_of_the_pool() -> None:
    mixed = [*TARGET, *(Item(str(row), text, {"raw": True}) for row, text in enumerate(TEXTS))]
    found = pickaxe.scorer("dsir", min_words=1).fit(mixed).score(TEXTS)
    np.testing.assert_array_equal(found["log_weight"], weights())


@pytest.mark.parametrize(
    ("target", "raw", "missing"), [([], TEXTS, "target"), (TARGET, [], "raw pool"), (TARGET, None, "raw pool")]
)
def test_one_side_alone_cannot_score(target: list[str], raw: Any, missing: str) -> None:
    with pytest.raises(Unmet, match=missing):
        fitted(target, raw).score(TEXTS)


def test_nothing_to_count_is_refused() -> None:
    with pytest.raises(InvalidItems, match="hold no words"):
        fitted(["", " "], [])


def test_pool_texts_must_be_there() -> None:
    with pytest.raises(InvalidItems, match="unlabelled"):
        fitted(TARGET, [Item("a", fields={"title": "x"})])


def test_counts_are_bound_to_their_settings() -> None:
    made = fitted()
    with pytest.raises(ArtifactMismatch, match="buckets"):
        pickaxe.scorer("dsir", artifact=made.artifact.path, buckets=100).score(TEXTS)
    smooth = pickaxe.scorer("dsir", artifact=made.artifact.path, pseudo_count=1.0).score(TEXTS)
    np.testing.assert_array_equal(smooth["log_weight"], weights(pseudo_count=1.0))


@pytest.mark.parametrize("params", [{"ngrams": 0}, {"buckets": 1}, {"noise": -1}, {"word_pattern": "("}])
def test_params_that_make_no_sense_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(InvalidParams, match=next(iter(params))):
        pickaxe.scorer("dsir", **params)


# ---------------------------------------------------------------- selecting


def test_the_selection_is_of_the_targets_topic() -> None:
    best = choose(weights(), len(POOL) // 10)
    assert np.mean([POOL[row][0] == "maths" for row in best]) > 0.9


def test_short_texts_are_never_selected() -> None:
    scores = fitted(min_words=10_000).score(TEXTS)
    assert np.isneginf(scores["priority"]).all()
    assert np.isfinite(scores["log_weight"]).all()
    assert not len(choose(scores["priority"], 5))


def test_noise_belongs_to_seed_and_item() -> None:
    scorer = fitted(noise=1.0)
    first, again, other = (scorer.score(TEXTS, seed=seed)["priority"] for seed in (1, 1, 2))
    assert first.tolist() == again.tolist()
    assert (first != other).all()
    assert np.mean(first - weights()) == pytest.approx(np.euler_gamma, abs=0.4)


def test_several_targets_have_weights_of_their_own() -> None:
    items = [
        Item(f"{topic}{row}", document(topic, DRAW), {"target": topic})
        for topic in ("maths", "cook")
        for row in range(40)
    ]
    scores = fitted(items).score(TEXTS)
    assert list(scores.columns)[3:] == ["log_weight_cook", "log_weight_maths"]
    alone = weights([item.text for item in items if item.fields["target"] == "cook"])
    np.testing.assert_allclose(scores["log_weight_cook"], alone, rtol=0, atol=1e-9)
    both = choose_for_targets(np.array([scores["log_weight_cook"], scores["log_weight_maths"]]), 30, (2, 1))
    assert [len(rows) for rows in both] == [20, 10]
    assert not set(both[0].tolist()) & set(both[1].tolist())
    assert {POOL[row][0] for row in both[0]} == {"cook"}
    assert {POOL[row][0] for row in both[1]} == {"maths"}


def test_choosing() -> None:
    assert choose(np.array([1.0, 3.0, -np.inf, 3.0]), 2).tolist() == [1, 3]
    assert choose(np.array([1.0, -np.inf]), 5).tolist() == [0]
    same = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    assert [rows.tolist() for rows in choose_for_targets(same, 3, (1, 2))] == [[0], [1, 2]]


def test_a_selection_comes_nearer_to_the_target() -> None:
    scorer = fitted()
    best = [TEXTS[row] for row in choose(weights(), 20)]
    worst = [TEXTS[row] for row in choose(-weights(), 20)]
    assert kl_reduction(scorer, best) > 0 > kl_reduction(scorer, worst)
    assert kl_reduction(scorer, (Item(str(row), text) for row, text in enumerate(TEXTS))) == pytest.approx(0)
    with pytest.raises(InvalidItems, match="no words"):
        kl_reduction(scorer, [])


@given(st.lists(st.integers(0, 50), min_size=4, max_size=4).filter(any))
def test_divergence_is_zero_only_from_itself(counts: list[int]) -> None:
    array = np.array(counts)
    assert divergence(array, array * 3) == pytest.approx(0, abs=1e-6)
    assert divergence(array, np.array([1, 1, 1, 1])) > -1e-6
