"""Pairs of distributions, and the exact laws of drafts, for the tests of multi-draft verification."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import get_args

import numpy as np

from pickaxe_plugins.decoding._speculation.multidraft import Law, greedy_rest

LAWS: tuple[Law, ...] = get_args(Law)


def pairs(size: int, count: int = 6) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Random targets and drafts from flat to peaked, some with holes."""
    random = np.random.default_rng(size)
    for place in range(count):
        target, draft = random.dirichlet(np.full(size, (2.0, 0.5, 0.1)[place % 3]), 2)
        if place % 2:
            target[0] = draft[-1] = 0.0
        yield target / target.sum(), draft / draft.sum()


def sequences(law: Law, draft: np.ndarray, n: int) -> dict[tuple[int, ...], float]:
    """The law's probability of every sequence of drafts."""
    support = np.flatnonzero(draft).tolist()
    if law == "with":
        return {drafts: float(np.prod(draft[list(drafts)])) for drafts in product(support, repeat=n)}
    n = min(n, len(support))
    if law == "greedy":
        top, rest = greedy_rest(draft, n)
        return {(*top.tolist(), last): float(rest[last]) for last in np.flatnonzero(rest).tolist()}
    found = {}
    for drafts in product(support, repeat=n):
        if len(set(drafts)) == n:
            beside = [1.0 if not i else float(np.delete(draft, drafts[:i]).sum()) for i in range(n)]
            found[drafts] = float(np.prod(draft[list(drafts)] / beside))
    return found
