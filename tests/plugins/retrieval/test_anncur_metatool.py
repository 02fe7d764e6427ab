"""`anncur` on MetaTool: better than a reranked TF-IDF shortlist at many calls, worse at few."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import bench_anncur


@pytest.fixture(scope="module")
def shortlist() -> np.ndarray:
    return bench_anncur.prepared()


def test_more_of_the_best_at_sixty_calls(shortlist: np.ndarray) -> None:
    ours, theirs = bench_anncur.recalls(shortlist, budget=60, anchors=30, k=10)
    assert ours - theirs >= 0.02


def test_fewer_at_twenty_calls(shortlist: np.ndarray) -> None:
    ours, theirs = bench_anncur.recalls(shortlist, budget=20, anchors=10, k=10, draws=1)
    assert ours < theirs


def test_as_many_anchor_queries_as_anchors_are_the_worst(shortlist: np.ndarray) -> None:
    for draw in range(3):
        assert bench_anncur.error(60, 60, draw) > 2 * bench_anncur.error(300, 60, draw)
