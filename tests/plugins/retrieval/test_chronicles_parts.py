"""`chronicles`: the invariants of its parts: windows, BM25, fusion and W."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import bm25s
import numpy as np
import pytest
from faquad_files import lines
from hypothesis import given, settings
from hypothesis import strategies as st

import pickaxe
from pickaxe import Item
from pickaxe_plugins.retrieval._fusion import best, reciprocal_rank_fusion
from pickaxe_plugins.retrieval._windows import WORD, chunks, windows, words
from pickaxe_plugins.retrieval.chronicles._bm25 import Bm25
from pickaxe_plugins.retrieval.chronicles._customise import Pairs, accuracy, custom_cosine, labelled_pairs, train

# ---------------------------------------------------------------- windows


@settings(max_examples=100, deadline=None)
@given(n=st.integers(0, 200), size=st.integers(1, 60), data=st.data())
def test_windows_cover_every_token_and_none_lies_in_the_one_before(n: int, size: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, size))
    cut = windows(n, size, stride)
    assert set(range(n)) == {token for start, end in cut for token in range(start, end)}
    assert len(cut) == (1 + -(-(n - size) // stride) if n > size else 1)
    assert all(start == row * stride and end - start <= size for row, (start, end) in enumerate(cut))
    assert all(end < later for (_, end), (_, later) in pairwise(cut))
    if stride == size:
        assert sum(end - start for start, end in cut) == n


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=120), size=st.integers(1, 10))
def test_chunks_of_stride_size_put_together_are_the_text(text: str, size: int) -> None:
    spans = chunks(text, size, size)
    assert "".join(text[start:end] for start, end in spans) == text
    assert [word for start, end in spans for word in words(text[start:end])] == words(text)
    assert spans == chunks(text, size, size, len(WORD.findall(text)))


def test_words_keep_accents_and_lose_case() -> None:
    assert words("Ação, NÃO! é_1 ½") == ["ação", "não", "é_1", "½"]


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(max_codepoint=127), max_size=120))
def test_words_of_plain_texts_are_those_of_any(text: str) -> None:
    assert words(text) == words(f"{text} é")[:-1]


# ---------------------------------------------------------------- BM25

WORDS = st.lists(st.sampled_from("abcdefgh"), max_size=8)


def build(passages: Sequence[Sequence[str]], k1: float = 1.5, b: float = 0.75) -> Bm25:
    names = list(dict.fromkeys(word for passage in passages for word in passage))
    return Bm25.build([np.array([names.index(w) for w in passage], np.int64) for passage in passages], names, k1, b)


@settings(max_examples=60, deadline=None)
@given(passages=st.lists(WORDS, min_size=1, max_size=8), query=WORDS, seed=st.integers(0, 99))
def test_order_of_passages_and_unknown_words_change_no_bit(
    passages: list[list[str]], query: list[str], seed: int
) -> None:
    order = np.random.default_rng(seed).permutation(len(passages))
    plain = build(passages).scores([query])[0]
    assert np.array_equal(build([passages[row] for row in order]).scores([query])[0], plain[order])
    assert np.array_equal(build(passages).scores([[*query, "unknown"]])[0], plain)


@pytest.mark.parametrize(("k1", "b"), [(1.5, 0.75), (0.0, 0.5), (2.0, 0.0), (1.2, 1.0)])
def test_bm25_agrees_with_bm25s(k1: float, b: float) -> None:
    passages = [words(each["text"]) for each in lines("docs.jsonl")[:60]]
    queries = [words(each["query"]) for each in lines("queries.jsonl")[:40]]
    peer = bm25s.BM25(k1=k1, b=b, method="atire", idf_method="lucene")
    peer.index(passages, show_progress=False)
    theirs = np.stack([peer.get_scores(query) for query in queries])
    assert build(passages, k1, b).scores(queries) == pytest.approx(theirs, rel=1e-4, abs=1e-5)


def test_empty_documents_are_found_by_nobody_but_indexed() -> None:
    index = pickaxe.retriever("chronicles").index([Item("a", ""), Item("b", "...")])
    assert index.search(["a", ""], 3).results == ((), ())


# ---------------------------------------------------------------- fusion


@settings(max_examples=60, deadline=None)
@given(entries=st.lists(st.integers(0, 30), unique=True, max_size=12), k=st.floats(0.5, 100))
def test_fusing_one_list_keeps_its_order(entries: list[int], k: float) -> None:
    assert [entry for entry, _ in reciprocal_rank_fusion([entries], k)] == entries


def test_absence_adds_nothing_and_scales_do_not_count() -> None:
    fused = dict(reciprocal_rank_fusion([["a", "b"], ["b"]], 60))
    assert fused == {"b": 1 / 62 + 1 / 61, "a": 1 / 61}
    scores = np.array([3.0, 1.0, 2.0])
    ties = np.arange(3)
    assert best(scores, 3, ties).tolist() == best(scores * 1000 - 7, 3, ties).tolist()


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.integers(0, 5), min_size=1, max_size=20), k=st.integers(1, 25))
def test_best_is_the_head_of_a_full_sort(values: list[int], k: int) -> None:
    scores, ties = np.array(values, np.float32), np.arange(len(values))[::-1]
    full = sorted(range(len(values)), key=lambda row: (-values[row], ties[row]))
    assert best(scores, k, ties).tolist() == full[:k]
    assert best(scores, k, ties, floor=2.0).tolist() == [row for row in full if values[row] > 2][:k]


# ---------------------------------------------------------------- W


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 100))
def test_identity_is_plain_cosine_and_scale_does_not_count(seed: int, scale: float) -> None:
    random = np.random.default_rng(seed)
    queries, documents, matrix = (random.standard_normal(shape) for shape in ((3, 5), (4, 5), (5, 2)))
    assert custom_cosine(queries, documents, np.eye(5)) == pytest.approx(custom_cosine(queries, documents))
    scaled = custom_cosine(queries, documents, scale * matrix)
    assert scaled == pytest.approx(custom_cosine(queries, documents, matrix))


def test_the_gradient_is_the_slope_of_the_loss_over_the_pairs() -> None:
    random = np.random.default_rng(0)
    queries, documents, matrix = (random.standard_normal(shape) for shape in ((4, 5), (3, 5), (5, 3)))
    rows, others = np.array([0, 1, 1, 3, 3]), np.array([0, 0, 2, 1, 2])
    pairs = Pairs(queries, documents, rows, others, np.array([1, 0, 1, -1, 0.0]))
    batch = pairs.batch(np.arange(5))
    loss, gradient = batch.loss_and_gradient(matrix)
    assert loss == pytest.approx(((pairs.cosines(matrix) - pairs.targets) ** 2).mean())
    for place in [(0, 0), (2, 1), (4, 2)]:
        step = np.zeros_like(matrix)
        step[place] = 1e-5
        (above, _), (below, _) = batch.loss_and_gradient(matrix + step), batch.loss_and_gradient(matrix - step)
        assert gradient[place] == pytest.approx((above - below) / 2e-5, rel=1e-4)


def test_accuracy_takes_the_best_threshold_and_splits_no_tie() -> None:
    assert accuracy(np.array([0.9, 0.8, 0.1]), np.array([1, 0, 0])) == 1.0
    assert accuracy(np.array([0.1, 0.9]), np.array([1, 0])) == 0.5
    assert accuracy(np.array([0.5, 0.5, 0.5]), np.array([1, 0, 1])) == pytest.approx(2 / 3)


def test_negatives_are_other_texts_and_hard_ones_the_nearest() -> None:
    texts = np.array([[1, 0], [0.9, 0.1], [0, 1.0]], np.float32)
    options: dict[str, Any] = {"negative_target": -1, "seed": 0, "key": "x"}
    hard = labelled_pairs(texts[:1], texts, np.array([0]), negatives=1, hard=True, **options)
    assert (hard.query_rows.tolist(), hard.document_rows.tolist()) == ([0, 0], [0, 1])
    assert hard.targets.tolist() == [1, -1]
    drawn = labelled_pairs(texts, texts, np.arange(3), negatives=9, hard=False, **options)
    assert len(drawn) == 9
    assert (drawn.query_rows[:3] == drawn.document_rows[:3]).all()
    assert (drawn.query_rows[3:] != drawn.document_rows[3:]).all()


def test_training_is_keyed_and_may_change_the_dimension() -> None:
    random = np.random.default_rng(0)
    rows = np.arange(20)
    queries, documents = random.standard_normal((2, 20, 6))
    pairs = Pairs(queries, documents, rows, rows, np.tile([1.0, 0.0], 10))
    options: dict[str, Any] = {"lr": 0.01, "epochs": 3, "dropout": 0.5, "batch": 8}
    first, again, other = (
        list(train(pairs, pairs, matrix_dim=4, seed=seed, **options))[-1].matrix for seed in (1, 1, 2)
    )
    assert first.shape == (6, 4)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert list(train(pairs, pairs, matrix_dim=9, seed=1, **options))[-1].matrix.shape == (6, 9)
