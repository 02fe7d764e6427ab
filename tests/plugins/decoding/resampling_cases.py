"""Tasks, plans and tables of counts for the tests of resampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

import pickaxe
from pickaxe import Item
from pickaxe_plugins.decoding._resampling import (
    Counts,
)


def counted(*tasks: tuple[int, int, int, int]) -> Counts:
    return Counts(*np.array(tasks, np.int64).T)


def task(n: int, v: int, g: int, u: int | None = None, name: str = "t", **fields: Any) -> Item:
    return Item(name, fields={"n": n, "v": v, "g": g, "u": g if u is None else u, **fields})


def runs(*items: Item, **params: Any) -> pickaxe.Scores:
    return pickaxe.scorer("resampling-limits", **params).score(items)


def plan(r: Sequence[float], prior: Sequence[float], **given: Any) -> Item:
    return Item("plan", fields={"r": np.array(r), "prior": np.array(prior), **given})


@st.composite
def tables(draw: st.DrawFn, n: int | None = None, perfect: bool = False) -> Counts:
    """Up to six tasks of equal n, without false negatives."""
    samples = draw(st.integers(1, 40)) if n is None else n
    rows = []
    for _ in range(draw(st.integers(1, 6))):
        v = draw(st.integers(0, samples))
        g = v if perfect else draw(st.integers(0, v))
        rows.append((samples, v, g, g))
    return counted(*rows)
