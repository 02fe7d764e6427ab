"""Approximate dense search beside exact search, on disk and grown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pickaxe.artifact import Artifact, writing
from pickaxe.call import Call
from pickaxe.errors import ArtifactMismatch, Cancelled, InvalidItems
from pickaxe.index import ApproximateIndex, DenseIndex, VectorWriter, write_graph


def made(
    path: Path, vectors: np.ndarray, base: ApproximateIndex | None = None, kept: np.ndarray | None = None
) -> ApproximateIndex:
    with writing(path, kind="index", method="m", method_version=1, params={}) as out:
        with VectorWriter(out, vectors.shape[1], base.dense if base else None, kept) as writer:
            writer.add(vectors, [str(row) for row in range(len(vectors))])
        written = np.load(out.file("vectors.npy"), mmap_mode="r")
        steps = list(write_graph(out, written, base, kept))
        assert not len(vectors) or steps[-1] == len(written)
    artifact = Artifact.open(path)
    return ApproximateIndex(DenseIndex.open(artifact), artifact)


def unit(seed: int, n: int, d: int = 16) -> np.ndarray:
    """Vectors in clumps, as those of texts are."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((20, d))
    vectors = centres[random.integers(0, 20, n)] + 0.5 * random.standard_normal((n, d))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def recall(index: ApproximateIndex, queries: np.ndarray, k: int = 10, effort: int = 64) -> float:
    rows, scores = index.search(queries, k, effort)
    exact, _ = index.dense.search(queries, k)
    known = {(query, row) for query in range(len(queries)) for row in exact[query]}
    for query, (found, given) in enumerate(zip(rows, scores, strict=True)):
        assert len(set(found)) == k
        assert (np.diff(given) <= 0).all()
        np.testing.assert_allclose(given, index.dense.vectors[found] @ queries[query], atol=1e-6)
    return float(np.mean([(query, row) in known for query, found in enumerate(rows) for row in found]))


def test_finds_nearly_what_exact_search_finds(tmp_path: Path) -> None:
    index = made(tmp_path / "a", unit(1, 1500))
    assert recall(index, unit(2, 50)) > 0.95
    assert recall(index, unit(2, 1)) >= 0.8
    assert recall(index, unit(2, 5), effort=1500) > 0.9


def test_k_is_always_filled(tmp_path: Path) -> None:
    index = made(tmp_path / "a", unit(1, 40))
    for k in (1, 40, 100):
        rows, _ = index.search(unit(2, 3), k, 5)
        assert rows.shape == (3, min(k, 40))
        assert all(len(set(row)) == min(k, 40) for row in rows)
    assert index.search(unit(2, 3)[:0], 4, 5)[0].shape == (0, 4)
    alone = made(tmp_path / "b", unit(1, 1))
    assert alone.search(unit(2, 2), 3, 5)[0].tolist() == [[0], [0]]


@pytest.mark.parametrize("left", [300, 60])
def test_growing(tmp_path: Path, left: int) -> None:
    base = made(tmp_path / "base", unit(1, 400))
    kept = np.sort(np.random.default_rng(3).permutation(400)[:left])
    grown = made(tmp_path / "grown", unit(4, 200), base, kept)
    np.testing.assert_array_equal(grown.dense.vectors[:left], base.dense.vectors[kept])
    assert recall(grown, unit(2, 30)) > 0.95
    again = made(tmp_path / "again", unit(5, 0), grown, np.arange(50, left + 200))
    assert recall(again, unit(2, 30)) > 0.95


def test_refused(tmp_path: Path) -> None:
    with writing(tmp_path / "a", kind="index", method="m", method_version=1, params={}) as out:
        out.write_array("vectors.npy", unit(1, 3))
    artifact = Artifact.open(tmp_path / "a")
    with pytest.raises(ArtifactMismatch, match="no graph"):
        ApproximateIndex(DenseIndex.open(artifact), artifact)
    index = made(tmp_path / "b", unit(1, 30))
    with pytest.raises(InvalidItems, match="not finite"):
        index.search(np.full((1, 16), np.nan, np.float32), 1, 5)
    call = Call()
    call.cancel()
    with pytest.raises(Cancelled):
        index.search(unit(1, 1), 1, 5, call)
