"""Sparse search: both ways of adding up against a dense product."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pickaxe.artifact import Artifact, writing
from pickaxe.call import Call
from pickaxe.data import Hit, HitTable, SearchResults
from pickaxe.errors import Cancelled, InvalidItems
from pickaxe.index import SparseIndex, SparseQueries, sparse


def random_index(random: np.random.Generator, n: int, vocabulary: int) -> tuple[SparseIndex, np.ndarray]:
    """An index and the same as a dense (n, vocabulary) matrix of few different weights."""
    matrix = random.integers(0, 3, (n, vocabulary)) * random.integers(0, 2, (n, vocabulary))
    rows, terms = np.nonzero(matrix)
    order = random.permutation(len(rows))
    weights = matrix[rows, terms].astype(np.float32)
    return SparseIndex.build(terms[order], rows[order], weights[order], vocabulary, n), matrix.astype(np.float32)


def random_queries(random: np.random.Generator, q: int, vocabulary: int) -> tuple[SparseQueries, np.ndarray]:
    matrix = random.integers(0, 3, (q, vocabulary)) * random.integers(0, 2, (q, vocabulary))
    rows = [np.flatnonzero(row) for row in matrix]
    return SparseQueries.of([(row, matrix[place][row]) for place, row in enumerate(rows)]), matrix.astype(np.float32)


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 9), st.integers(1, 30), st.integers(1, 50))
def test_both_ways_equal_the_dense_product(seed: int, n: int, vocabulary: int, q: int, k: int) -> None:
    random = np.random.default_rng(seed)
    index, matrix = random_index(random, n, vocabulary)
    queries, wanted = random_queries(random, q, vocabulary)
    exact = wanted @ matrix.T
    for few in (0, 1000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sparse, "FEW", few)
            patch.setattr(sparse, "WORK", 3 * n)
            rows, scores, counts = index.search(queries, k)
        for query, row in enumerate(exact):
            best = [place for place in np.lexsort((np.arange(n), -row)) if row[place] > 0][:k]
            assert rows[query, : counts[query]].tolist() == best
            np.testing.assert_array_equal(scores[query, : counts[query]], row[best])


def test_both_ways_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    weights = random.random((300, 40), np.float32)
    rows, terms = np.nonzero(weights > 0.5)
    index = SparseIndex.build(terms, rows, weights[rows, terms], 40, 300)
    queries = SparseQueries.of([(random.permutation(40)[:9], random.random(9)) for _ in range(20)])
    for k in (50, 200):  # kept in order, kept in a heap
        compiled = index.search(queries, k)
        with monkeypatch.context() as patch:
            patch.setattr(sparse, "FEW", 1000)
            for one, other in zip(compiled, index.search(queries, k), strict=True):
                np.testing.assert_array_equal(one, other)


def test_on_disk(tmp_path: Path) -> None:
    index, _ = random_index(np.random.default_rng(2), 20, 6)
    with writing(tmp_path / "a", kind="index", method="m", method_version=1, params={}) as out:
        index.write(out)
    opened = SparseIndex.open(Artifact.open(tmp_path / "a"), 20)
    queries, _ = random_queries(np.random.default_rng(3), 30, 6)
    for one, other in zip(index.search(queries, 5), opened.search(queries, 5), strict=True):
        np.testing.assert_array_equal(one, other)
    assert opened.vocabulary == 6


def test_edges() -> None:
    index, _ = random_index(np.random.default_rng(2), 20, 6)
    none: Any = np.empty(0, np.int32)
    for q in (1, 20):
        _, _, counts = index.search(SparseQueries.of([(none, none)] * q), 5)
        assert counts.tolist() == [0] * q
    assert index.search(SparseQueries.of([]), 5)[0].shape == (0, 5)
    for weight in (np.nan, np.inf, 0.0, -1.0):
        with pytest.raises(InvalidItems, match=r"documents\[3\]"):
            SparseIndex.build(np.array([0, 1]), np.array([2, 3]), np.array([1, weight], np.float32), 2, 4)
    call = Call()
    call.cancel()
    for q in (1, 20, 500):
        with pytest.raises(Cancelled):
            index.search(SparseQueries.of([(none, none)] * q), 5, call)


def test_hits_of_a_table() -> None:
    rows, scores = np.array([[2, 0, 0], [1, 2, 0]]), np.array([[3.0, 1, 9], [2, 2, 1]], np.float32)
    table = HitTable.of(["a", "b", "c"], rows, scores, np.array([2, 3]), "x", {"n": 1.0})
    for each in (table, replace(table, usage={}), SearchResults(table.results)):
        assert (each.ids, each.scores) == ([["c", "a"], ["b", "c", "a"]], [[3, 1], [2, 2, 1]])
    assert len(table) == 2
    assert table[0] == (Hit("c", 3.0, {"x": 3.0}), Hit("a", 1.0, {"x": 1.0}))
    assert table.sound(3)
    copy = replace(table, usage={})
    assert (len(copy), copy.results, copy.sound(3)) == (2, table.results, False)
    assert not table.sound(2)
    for place, row, score in ((0, 2, 1), (1, 1, 1), (1, 0, 4), (0, 0, np.nan)):
        bad_rows, bad_scores = rows.copy(), scores.copy()
        bad_rows[0, place], bad_scores[0, place] = row, score
        if (place, row) == (0, 2):
            bad_rows[0, 1] = 2
        assert HitTable.of(["a", "b", "c"], bad_rows, bad_scores, np.array([2, 3]), "x", {}).sound(3) == (
            place == row == 1
        )
