"""effective-robustness: mixes of vectors and of classifiers lie between their sources."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pickaxe.errors import InvalidParams
from pickaxe_plugins.evaluation.effective_robustness import gaussian_mix, output_mixing, similarity_filter

VECTORS = st.lists(st.floats(-3, 3), min_size=4, max_size=4).map(np.array)


@settings(max_examples=60, deadline=None)
@given(VECTORS, VECTORS, VECTORS, VECTORS)
def test_gaussian_mix_lies_between_its_sources(a: np.ndarray, b: np.ndarray, near: np.ndarray, far: np.ndarray) -> None:
    sources = np.stack([a * np.sign(a @ near), b * np.sign(b @ near)])
    if (sources @ near < 1e-3).any():
        return
    share = np.linspace(0, 1, 5)
    found = gaussian_mix(
        sources, np.stack([share, 1 - share], axis=1), np.stack([near, far]), np.array([1.0, 2.0])
    ).probit
    ratio = found[:, 1] / found[:, 0]
    weights = np.stack([share, 1 - share], axis=1) * (sources @ near)
    ends = (sources @ far / 2) / (sources @ near)
    np.testing.assert_allclose(ratio, weights @ ends / weights.sum(axis=1), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose([ratio[-1], ratio[0]], ends, rtol=1e-6, atol=1e-9)
    slack = 1e-6 * (1 + abs(ends).max())
    assert (ends.min() - slack <= ratio).all()
    assert (ratio <= ends.max() + slack).all()


@pytest.mark.parametrize("mode", ["logit", "prob"])
def test_mixing_a_model_with_itself_returns_it(mode: Any) -> None:
    logits = np.random.default_rng(0).normal(0, 3, (5, 4))
    found = output_mixing([logits, logits], mode)
    powers = np.exp(logits)
    np.testing.assert_allclose(found, logits if mode == "logit" else powers / powers.sum(axis=1, keepdims=True))


@settings(max_examples=20, deadline=None)
@given(st.floats(-1, 1), st.floats(-1, 1), st.integers(0, 100))
def test_a_higher_threshold_keeps_a_subset(one: float, other: float, seed: int) -> None:
    a, b = np.random.default_rng(seed).normal(0, 1, (2, 30, 3))
    low, high = sorted((one, other))
    assert set(similarity_filter(a, b, high)[0]) <= set(similarity_filter(a, b, low)[0])


def test_wrong_shapes_are_refused() -> None:
    one = np.zeros((2, 3))
    with pytest.raises(InvalidParams, match="one shape"):
        output_mixing([one, one[:1]])
    with pytest.raises(InvalidParams, match="logit or prob"):
        output_mixing([one], "mean")  # type: ignore[arg-type]
    with pytest.raises(InvalidParams, match="shape of the first"):
        similarity_filter(one, one[:1])
    for bad, match in (
        ((one, np.eye(2), np.zeros((1, 4)), np.ones(1)), "tests must be"),
        ((one, np.eye(2), np.zeros((1, 3)), np.zeros(1)), "positive"),
        ((one, np.ones((1, 2)), np.zeros((1, 3)), np.ones(1)), "add up to 1"),
        ((one, np.eye(2), np.zeros((1, 3)), np.ones(1)), "cancel"),
    ):
        with pytest.raises(InvalidParams, match=match):
            gaussian_mix(*bad)
