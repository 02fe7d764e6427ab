"""Rankers registered for the tests of `fullrank`."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fullrank_methods import Longest, LongestFirst, Says

from pickaxe import catalog


@pytest.fixture
def fullrank_methods() -> Iterator[None]:
    """`says`, `longest` and `longest-first` are in the catalog, and have seen nothing."""
    Says.text, Says.asked[:], Longest.seen[:] = "", [], []
    with (
        catalog.register(Says, "says", "decoder"),
        catalog.register(Longest, "longest", "scorer"),
        catalog.register(LongestFirst, "longest-first", "reranker"),
    ):
        yield
