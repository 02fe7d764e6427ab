from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pickaxe.lm import drawn
from pickaxe.lm.sampling import STRIDE


@given(st.integers(1, 5 * STRIDE), st.floats(0, 1, exclude_max=True), st.integers(0, 2**32 - 1))
def test_it_is_where_the_running_sum_passes_the_share(size: int, uniform: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    weights = (random.random(size) * (random.random(size) < 0.2)).astype(np.float32)
    weights[random.integers(size)] = 1
    place = drawn(weights, uniform)
    sums = np.cumsum(weights, dtype=np.float64) / weights.sum(dtype=np.float64)
    assert weights[place] > 0
    assert sums[place] >= uniform - 1e-12
    assert place == 0 or sums[place - 1] <= uniform + 1e-12


@pytest.mark.parametrize("size", [3, 4 * STRIDE + 5])
def test_the_last_weights_are_not_drawn_when_they_are_nothing(size: int) -> None:
    weights = np.zeros(size, np.float32)
    weights[1] = 1
    assert {drawn(weights, uniform) for uniform in (0.0, 0.5, np.nextafter(1.0, 0.0))} == {1}


def test_what_is_drawn_follows_the_weights() -> None:
    random = np.random.default_rng(7)
    weights = random.random(3 * STRIDE).astype(np.float32)
    found = np.bincount([drawn(weights, uniform) for uniform in random.random(60_000)], minlength=len(weights))
    expected = 60_000 * weights / weights.sum()
    chi_square = float(((found - expected) ** 2 / np.maximum(expected, 1e-9)).sum())
    assert chi_square < len(weights) + 4 * np.sqrt(2 * len(weights))
