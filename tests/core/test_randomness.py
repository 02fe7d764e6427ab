"""Keyed randomness: equal keys give equal streams, and no other key does."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pickaxe.randomness import generator, uniform

Key = tuple[int, tuple[str | int, ...]]
PART = st.integers(-(2**70), 2**70) | st.text(max_size=6) | st.sampled_from(["a\x1fstr:b", "\x1f", "1", "int:1"])
KEY = st.tuples(st.integers(0, 2**64 - 1), st.lists(PART, max_size=4).map(tuple))


def draw(seed: int, *key: str | int) -> tuple[float, ...]:
    return tuple(generator(seed, *key).random(3))


def test_draws_are_fixed_for_ever() -> None:
    """Golden figures depend on these streams: they must not change."""
    assert generator(0, "a", 1).integers(1000, size=4).tolist() == [615, 683, 159, 221]


@given(KEY, KEY)
def test_streams_are_equal_exactly_when_keys_are(one: Key, two: Key) -> None:
    assert (draw(one[0], *one[1]) == draw(two[0], *two[1])) == (one == two)


@pytest.mark.parametrize(
    ("one", "two"),
    [(("a\x1fstr:b",), ("a", "b")), (("1",), (1,)), (("ab", "c"), ("a", "bc")), ((), ("",)), (("a", ""), ("a",))],
)
def test_keys_cannot_imitate_each_other(one: tuple[str | int, ...], two: tuple[str | int, ...]) -> None:
    assert draw(0, *one) != draw(0, *two)


def test_numpy_numbers_are_numbers() -> None:
    assert draw(0, np.int64(3)) == draw(np.int32(0), 3)
    assert draw(0, np.str_("x")) == draw(0, "x")


def test_lone_surrogates_have_a_stream_too() -> None:
    assert 0 <= uniform(1, "\ud800") < 1


def test_another_process_draws_the_same() -> None:
    program = "from pickaxe.randomness import uniform; print(repr(uniform(7, 'item', 3)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert float(done.stdout) == uniform(7, "item", 3)


def test_draws_of_many_keys_are_uniform() -> None:
    draws = np.array([uniform(1, row) for row in range(2000)])
    assert abs(draws.mean() - 0.5) < 0.03
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.08
