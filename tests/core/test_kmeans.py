"""k-means: objective, empty clusters, sampling, labels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pickaxe import Call, kmeans


def run(vectors: np.ndarray, k: int, iterations: int = 20, seed: int = 0) -> kmeans.Clusters:
    return kmeans.kmeans(vectors, k, iterations, np.random.default_rng(seed), Call())


@given(st.integers(1, 60), st.integers(1, 70), st.integers(1, 5), st.integers(0, 50))
@settings(max_examples=40)
def test_objective_never_grows_and_labels_are_nearest(n: int, k: int, d: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).integers(0, 4, (n, d)).astype(float)
    found = run(vectors, k, seed=seed)
    assert all(later <= before + 1e-9 for before, later in zip(found.objective, found.objective[1:], strict=False))
    assert np.isfinite(found.centroids).all()
    assert found.centroids.shape == (min(n, k), d)
    apart = ((vectors[:, None] - found.centroids) ** 2).sum(-1)
    np.testing.assert_allclose(found.distances**2, apart.min(axis=1), atol=1e-9)
    np.testing.assert_allclose(apart[np.arange(n), found.labels], apart.min(axis=1), atol=1e-9)


def test_empty_clusters_are_seeded_anew() -> None:
    vectors = np.array([[0.0], [0.1], [10.0], [20.0]])
    labels = np.zeros(4, np.int64)
    squared = vectors[:, 0] ** 2
    centroids = kmeans._moved(vectors, labels, squared, 3, Call())
    assert centroids[1:, 0].tolist() == [20.0, 10.0]


def test_copies_leave_finite_centroids() -> None:
    found = run(np.ones((10, 3)), 4)
    assert (found.centroids == 1).all()
    assert (found.distances == 0).all()


def test_many_vectors_are_learned_from_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmeans, "PER_CENTROID", 20)
    rng = np.random.default_rng(0)
    vectors = (np.eye(3)[rng.integers(0, 3, 500)] * 10 + rng.normal(0, 0.1, (500, 3))).astype(np.float32)
    found = run(vectors, 3)
    assert len(found.labels) == 500
    assert found.distances.max() < 1
    assert found.objective[0] < 60 * 1


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(0).normal(size=(100, 4))
    whole = run(vectors, 7)
    monkeypatch.setattr(kmeans, "BLOCK_BYTES", 500)
    parts = run(vectors, 7)
    np.testing.assert_allclose(parts.centroids, whole.centroids, atol=1e-12)
    np.testing.assert_array_equal(parts.labels, whole.labels)
