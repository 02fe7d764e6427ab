"""The decomposition behind `anncur`: its inverse, when that explodes, and the best of many scores."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pickaxe_plugins.retrieval.anncur._cur import Inverse, best


def test_the_inverse_explodes_where_anchors_and_queries_are_as_many() -> None:
    random = np.random.default_rng(3)
    spectrum = np.linalg.svd(random.standard_normal((400, 120)), full_matrices=False)
    scores = (spectrum[0] * np.arange(1, 121) ** -1.0) @ spectrum[2]
    anchors, tests = np.arange(0, 120, 4), scores[300:]

    def error(queries: int) -> float:
        embeddings = Inverse.of(scores[:queries][:, anchors], 1e-15).embed(scores[:queries].T)
        return float(np.linalg.norm(tests[:, anchors] @ embeddings.T - tests) / np.linalg.norm(tests))

    assert error(30) > 2 * error(150)


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=60), st.integers(0, 70))
def test_best_is_a_stable_sort(values: list[int], count: int) -> None:
    scores = np.array(values, np.float32)
    assert best(scores, count).tolist() == np.argsort(-scores, kind="stable")[:count].tolist()


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_the_inverse_is_that_of_moore_and_penrose(queries: int, anchors: int, seed: int) -> None:
    scores = np.random.default_rng(seed).standard_normal((queries, anchors))
    inverse = Inverse.of(scores, 1e-12)
    np.testing.assert_allclose(scores @ inverse.matrix @ scores, scores, atol=1e-6)
    assert inverse.rank == min(queries, anchors)


def test_scores_that_are_all_equal_to_zero_have_no_rank() -> None:
    inverse = Inverse.of(np.zeros((4, 3)), 1e-15)
    assert (inverse.rank, inverse.condition) == (0, 1.0)
    assert not inverse.matrix.any()
