"""Exact dense search against sorting everything; writing vectors without knowing how many come."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pickaxe.artifact import Artifact, writing
from pickaxe.call import Call
from pickaxe.errors import Cancelled, InvalidItems, InvalidParams
from pickaxe.index import DenseIndex, VectorWriter, dense
from pickaxe.index.arrays import ArrayStream


def everything_sorted(scores: np.ndarray, k: int) -> np.ndarray:
    return np.stack([np.lexsort((np.arange(len(row)), -row)) for row in scores])[:, :k]


@given(
    st.integers(0, 2**32),
    st.integers(1, 60),
    st.integers(1, 8),
    st.integers(1, 70),
    st.integers(1, 12),
    st.booleans(),
)
def test_equals_sorting_all_scores(seed: int, n: int, q: int, k: int, block: int, rising: bool) -> None:
    random = np.random.default_rng(seed)
    vectors = random.integers(-2, 3, (n, 3)).astype(np.float32)  # few values, so that many scores are equal
    if rising:
        vectors = vectors[np.argsort(vectors[:, 0])]
    queries = random.integers(-2, 3, (q, 3)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense, "DOCUMENT_BLOCK", block)
        patch.setattr(dense, "QUERY_BLOCK", 3)
        rows, scores = DenseIndex(vectors).search(queries, k)
    exact = queries @ vectors.T
    assert rows.shape == scores.shape == (q, min(k, n))
    np.testing.assert_array_equal(rows, everything_sorted(exact, k))
    np.testing.assert_array_equal(scores, np.take_along_axis(exact, rows, 1))


def test_queries_that_are_not_finite_are_refused() -> None:
    index = DenseIndex(np.eye(3, dtype=np.float32))
    with pytest.raises(InvalidItems, match="not finite"):
        index.search(np.array([[0, 1, 2], [np.nan, 0, 0]], np.float32), 1)


def test_search_stops_when_the_call_is_over() -> None:
    call = Call()
    call.cancel()
    with pytest.raises(Cancelled):
        DenseIndex(np.eye(3, dtype=np.float32)).search(np.eye(3, dtype=np.float32), 1, call)


def made(path: Path, vectors: np.ndarray, base: DenseIndex | None = None, kept: np.ndarray | None = None) -> DenseIndex:
    with (
        writing(path, kind="index", method="m", method_version=1, params={}) as out,
        VectorWriter(out, 2, base, kept) as writer,
    ):
        for row in range(0, len(vectors), 2):
            part = vectors[row : row + 2]
            writer.add(part, [f"d{row + place}" for place in range(len(part))])
    return DenseIndex.open(Artifact.open(path))


def test_vectors_are_written_in_parts_and_after_those_of_a_base(tmp_path: Path) -> None:
    first = np.arange(10, dtype=np.float32).reshape(5, 2)
    base = made(tmp_path / "base", first)
    np.testing.assert_array_equal(base.vectors, first)
    grown = made(tmp_path / "grown", -first[:3], base, np.array([0, 2, 4]))
    np.testing.assert_array_equal(grown.vectors, np.concatenate([first[[0, 2, 4]], -first[:3]]))
    assert (len(grown), grown.width) == (6, 2)


def test_bad_vectors_are_refused(tmp_path: Path) -> None:
    bad = np.array([[0, 1], [0, np.nan], [np.inf, 0]], np.float32)
    with pytest.raises(InvalidItems, match="'d1'"):
        made(tmp_path / "nan", bad)
    assert not (tmp_path / "nan").exists()
    with pytest.raises(InvalidItems, match="shape"):
        made(tmp_path / "wide", np.ones((1, 3), np.float32))
    with pytest.raises(InvalidParams, match="width"):
        made(tmp_path / "other", bad, DenseIndex(np.ones((1, 3), np.float32)), np.array([0]))


@pytest.mark.parametrize("width", [None, 1, 384, 123456789])
def test_streamed_arrays_are_what_numpy_reads(tmp_path: Path, width: int | None) -> None:
    stream = ArrayStream(tmp_path / "a.npy", np.float32, width)
    if width != 123456789:
        stream.write(np.ones((3, width) if width else 3, np.float64))
    stream.close()
    found = np.load(tmp_path / "a.npy")
    assert found.dtype == np.float32
    assert found.shape == {None: (3,), 123456789: (0, width)}.get(width, (3, width))
    assert (found == 1).all()
