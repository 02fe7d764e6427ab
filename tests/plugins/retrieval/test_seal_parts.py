"""The parts of SEAL against plain loops: n-grams of documents, weights, first stage, full score."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as checked
from hypothesis import strategies as st

from pickaxe.errors import InvalidItems
from pickaxe_plugins.retrieval._token_index import TokenIndex
from pickaxe_plugins.retrieval.seal._keys import log_softmax, query_spans
from pickaxe_plugins.retrieval.seal._score import Key, Scorer, Settings, Weighed, log_odds

END = 2
PLAIN = Settings(beta=0.0, alpha=1.0, unigrams=0)
DOCUMENTS = st.lists(st.lists(st.integers(3, 9), max_size=14).map(lambda body: [*body, END]), min_size=1, max_size=8)
KEYS = st.dictionaries(st.lists(st.integers(3, 9), min_size=1, max_size=4).map(tuple), st.floats(-6, -0.01), max_size=8)


def occurrences(document: list[int], ngram: list[int]) -> list[int]:
    return [at for at in range(len(document) - len(ngram) + 1) if document[at : at + len(ngram)] == ngram]


@checked(max_examples=60, deadline=None)
@given(DOCUMENTS, st.lists(st.integers(2, 10), min_size=1, max_size=6))
def test_counts_places_and_continuations_are_those_of_the_documents(
    documents: list[list[int]], ngram: list[int]
) -> None:
    index = TokenIndex.build(documents, step=3)
    mirror = [token for document in documents for token in document[::-1]] + [END]
    expected = [at for at in range(len(mirror)) if mirror[at : at + len(ngram)] == ngram[::-1]]
    assert index.counts([ngram]).tolist() == [len(expected)]
    low, high = index.ranges([ngram])
    tokens, counts, _ = index.following(low, high)
    before = Counter(mirror[at - 1] for at in expected if at)
    assert dict(zip(tokens.tolist(), counts.tolist(), strict=True)) == before
    assert sum(before.values()) == len(expected) - (0 in expected)
    assert index.counts([[*ngram, token] for token in tokens.tolist()]).tolist() == counts.tolist()
    if END not in ngram:
        _, rows, firsts = index.occurrences(low, high, np.array([len(ngram)]))
        found = {(row, at) for row, document in enumerate(documents) for at in occurrences(document, ngram)}
        assert set(zip(rows.tolist(), firsts.tolist(), strict=True)) == found


def test_every_document_begins_behind_an_end_token() -> None:
    index = TokenIndex.build([[5, 6, END], [7, END], [5, 8, END]])
    low, high = index.ranges([[END], [END, 5, 8]])
    assert index.following(low[:1], high[:1])[0].tolist() == [5, 7]
    which, documents, firsts = index.occurrences(low[1:], high[1:], np.array([3]))
    assert (which.tolist(), documents.tolist(), firsts.tolist()) == ([0], [2], [-1])
    assert len(index) == 8


@given(st.floats(-30, 0), st.integers(0, 500), st.floats(0, 9))
def test_weights_are_never_negative_and_zero_at_chance(logprob: float, count: int, smoothing: float) -> None:
    weight = float(log_odds(np.array([logprob]), np.array([count]), 1000, smoothing)[0])
    chance = (count + smoothing) / (1000 + smoothing)
    assert np.isfinite(weight)
    assert weight >= 0
    if count == 0 or np.exp(logprob) <= chance * (1 - 1e-9):
        assert weight == 0
    likelier = float(log_odds(np.array([min(logprob + 0.5, 0)]), np.array([count]), 1000, smoothing)[0])
    assert likelier >= weight
    if count:
        assert float(log_odds(np.array([logprob]), np.array([count + 9]), 1000, smoothing)[0]) <= weight


@checked(max_examples=60, deadline=None)
@given(DOCUMENTS, KEYS)
def test_scores_are_those_of_the_rules_written_down(documents: list[list[int]], keys: dict[Key, float]) -> None:
    settings = Settings(unigrams=0, smoothing=0.0)
    index = TokenIndex.build(documents)
    weighed = Weighed.of(index, keys, None, settings)
    expected = {}
    for row, document in enumerate(documents):
        free, seen, total = [True] * len(document), set(), 0.0
        for key, weight in zip(weighed.keys, weighed.weights, strict=True):
            cover = 0.2 + 0.8 * len(set(key) - seen) / len(set(key))
            places = []
            for at in occurrences(document, list(key)):
                if all(free[at : at + len(key)]):
                    free[at : at + len(key)] = [False] * len(key)
                    places.append(at)
            if places:
                total += float(weight) * cover
                seen |= set(key)
        if total:
            expected[row] = pytest.approx(total)
    assert dict(Scorer(index, settings, END).best(weighed)) == expected


@checked(max_examples=40, deadline=None)
@given(DOCUMENTS, KEYS)
def test_matches_lie_where_they_say_and_add_up_to_the_score(documents: list[list[int]], keys: dict[Key, float]) -> None:
    index = TokenIndex.build(documents)
    settings = Settings(unigrams=0, smoothing=0.0)
    weighed, scorer = Weighed.of(index, keys, None, settings), Scorer(index, settings, END)
    for row, score in scorer.best(weighed):
        taken = scorer.explain(weighed, row)
        assert all(tuple(documents[row][match.start : match.end]) == weighed.keys[match.key] for match in taken)
        assert sum(match.gain for match in taken) == pytest.approx(score)


def test_without_repetition_and_overlap_the_score_is_the_plain_sum() -> None:
    index = TokenIndex.build([[3, 4, 5, 6, 7, END], [3, 4, 8, 8, 8, END], [9, 9, 9, 9, 9, END]])
    weighed = Weighed.of(index, {(3, 4): -0.5, (6, 7): -0.2}, None, PLAIN)
    weights = dict(zip(weighed.keys, weighed.weights.tolist(), strict=True))
    scores = dict(Scorer(index, PLAIN, END).best(weighed))
    assert scores == {0: pytest.approx(weights[3, 4] + weights[6, 7]), 1: pytest.approx(weights[3, 4])}


def test_a_document_without_a_key_leaves_the_order_of_the_others() -> None:
    documents = [[3, 4, 5, 6, END], [3, 4, 8, 8, END], [5, 6, 8, 3, 4, END]]
    keys = {(3, 4): -0.5, (5, 6): -0.3}
    settings = Settings(unigrams=0, smoothing=0.0)
    orders = []
    for every in (documents, [*documents, [11, 12, 13, END]]):
        index = TokenIndex.build(every)
        orders.append([row for row, _ in Scorer(index, settings, END).best(Weighed.of(index, keys, None, settings))])
    assert orders[0] == orders[1]


def test_the_first_stage_keeps_the_best_documents_when_there_are_too_many() -> None:
    random = np.random.default_rng(0)
    documents = [[*random.integers(3, 12, 30).tolist(), END] for _ in range(60)]
    index = TokenIndex.build(documents)
    keys = {tuple(documents[row][at : at + 2]): -0.4 for row in range(12) for at in (0, 9)}
    whole = Settings(unigrams=0, smoothing=0.0)
    weighed = Weighed.of(index, keys, None, whole)
    every = Scorer(index, whole, END).best(weighed)
    few = Scorer(index, Settings(unigrams=0, smoothing=0.0, fully_score=7), END).best(weighed)
    assert len(every) > 7
    assert few == every[:7]


def test_frequent_keys_find_no_documents_of_their_own() -> None:
    index = TokenIndex.build([[3, 4, END], [3, 5, END], [3, 6, END]])
    settings = Settings(unigrams=0, smoothing=0.0, max_hits=1)
    found = Scorer(index, settings, END).best(Weighed.of(index, {(3,): -0.1, (5,): -0.1}, None, settings))
    assert [row for row, _ in found] == [1]


def test_nothing_in_nothing_out() -> None:
    index = TokenIndex.build([[END], [3, END]])
    scorer = Scorer(index, Settings(), END)
    assert scorer.best(Weighed.of(index, {}, None, Settings())) == []
    assert scorer.best(Weighed.of(index, {(7, 7): -1.0, (): -1.0}, None, Settings())) == []


def test_broken_log_probabilities_are_refused() -> None:
    index = TokenIndex.build([[3, END]])
    with pytest.raises(InvalidItems, match="NaN"):
        Weighed.of(index, {(3,): float("nan")}, None, Settings())
    with pytest.raises(InvalidItems, match="NaN"):
        Weighed.of(index, {(3,): -1.0}, np.array([0.0, np.nan]), Settings())
    with pytest.raises(InvalidItems, match="NaN"):
        log_softmax(np.array([0.0, np.nan], np.float32))


def test_spans_of_a_query() -> None:
    assert query_spans("Who is it?") == [
        "Who", "is", "Is", "it", "It", "Who is", "Who Is", "is it", "is It", "Is it", "Is It",
        "Who is it", "Who is It", "Who Is it", "Who Is It",
    ]  # fmt: skip
    assert query_spans("?! …") == []
