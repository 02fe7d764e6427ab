"""The clusters behind `clustered-rag`, cutting of texts, and cosines of answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pickaxe import Call
from pickaxe_plugins.retrieval.clustered_rag._clusters import Settings, agreement, cluster, silhouette
from pickaxe_plugins.retrieval.clustered_rag._texts import cut, words


@given(st.integers(1, 40), st.integers(1, 8), st.integers(0, 50), st.sampled_from(["size", "index"]))
@settings(max_examples=40)
def test_clusters_cover_everything_and_are_never_empty(n: int, k: int, seed: int, order: str) -> None:
    vectors = np.random.default_rng(seed).integers(0, 3, (n, 2)).astype(float)
    found = cluster(vectors, Settings(k, 3, 50, order), seed, Call())  # type: ignore[arg-type]  # one of the two
    rows = sorted(row for number in range(len(found)) for row in found.members(number))
    assert rows == list(range(n))
    assert 1 <= len(found) <= min(k, len(np.unique(vectors, axis=0)))
    assert all(found.members(number) for number in range(len(found)))
    assert all(b <= a + 1e-9 for a, b in zip(found.objective, found.objective[1:], strict=False))
    assert found.inertia == pytest.approx(float((found.distances**2).sum()))


def test_an_empty_cluster_of_given_starts_is_dropped() -> None:
    vectors = np.array([[0.0], [0.0], [1.0]])
    found = cluster(vectors, Settings(4, 1, 10, "size", (0, 1, 2)), 0, Call())
    assert found.labels.tolist() == [0, 0, 1]


def test_silhouette_by_hand() -> None:
    vectors = np.array([[0.0], [1.0], [10.0]])
    # 0: a = 1, b = 10; 1: a = 1, b = 9; 2 is alone
    assert silhouette(vectors, np.array([0, 0, 1])) == pytest.approx((0.9 + 8 / 9 + 0) / 3)
    assert silhouette(vectors, np.zeros(3, int)) == -1


@given(st.text(), st.integers(1, 20))
def test_cut_keeps_at_most_so_many_tokens_of_the_beginning(text: str, most: int) -> None:
    short = cut(text, most, words)
    assert len(words(short)) <= most
    assert text.startswith(short)
    assert short == text or len(words(short)) == most


def test_cosines_of_zeros_are_zero() -> None:
    assert agreement(np.array([[1.0, 0], [0, 0]]), np.array([[2.0, 0], [1, 1]])).tolist() == [1, 0]
