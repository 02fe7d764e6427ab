"""trie-labels: a step along the trie of 10,000 labels, against a trie of dictionaries that is copied at every label.

The peer follows the same rule as the authors' code does it: the whole trie is deep-copied at every separator, and the
finished label is cut out of the copy.
"""

from __future__ import annotations

import copy
import functools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from pickaxe_plugins.tuning._label_trie import LabelTrie

SEPARATOR, END = 0, 1
LABELS = 10_000
VOCABULARY = 49_152


def run() -> Iterator[dict[str, Any]]:
    labels = made_up(LABELS)
    begin = time.perf_counter()
    trie = LabelTrie(labels, SEPARATOR, [END])
    yield _row("building the trie", time.perf_counter() - begin, None, "s", LABELS, "")
    nested = _nested(labels)
    for count in (1, 5, 20):
        prefix = _prefix(labels, count)
        ours = _per_step(functools.partial(_walked, trie, prefix), len(prefix), 21)
        peer = _per_step(functools.partial(_copied, nested, prefix), len(prefix), 3)
        yield _row(f"a step, outputs of {count} labels", ours, peer, "us", len(prefix), "aim: below 20 us")


def made_up(count: int) -> list[tuple[int, ...]]:
    """Distinct sequences of 1 to 5 tokens, some of them prefixes of others."""
    random = np.random.default_rng(0)
    found: set[tuple[int, ...]] = set()
    while len(found) < count:
        size = int(random.integers(1, 6))
        found.add(tuple((2 + (VOCABULARY - 2) * random.random(size) ** 3).astype(int).tolist()))
    return sorted(found)


def _prefix(labels: Sequence[tuple[int, ...]], count: int) -> list[int]:
    chosen = np.random.default_rng(1).permutation(len(labels))[:count]
    tokens = [token for place in chosen for token in (*labels[place], SEPARATOR)]
    return [*tokens[:-1], END]


def _walked(trie: LabelTrie, prefix: Sequence[int]) -> None:
    walk = trie.walk()
    for token in prefix:
        walk.allowed()
        walk = walk.take(token)


def _copied(whole: dict[int, Any], prefix: Sequence[int]) -> None:
    left = node = whole
    done: list[int] = []
    for token in prefix:
        sorted(node)
        if token == SEPARATOR:
            left = copy.deepcopy(left)
            _removed(left, done)
            node, done = left, []
        else:
            node = node[token]
            done.append(token)


def _nested(labels: Sequence[tuple[int, ...]]) -> dict[int, Any]:
    root: dict[int, Any] = {}
    for label in labels:
        node = root
        for token in label:
            node = node.setdefault(token, {})
        node[END] = {}
    return root


def _removed(root: dict[int, Any], label: Sequence[int]) -> None:
    path = [root]
    for token in label:
        path.append(path[-1][token])
    del path[-1][END]
    for node, token in zip(reversed(path[:-1]), reversed(label), strict=True):
        if not node[token]:
            del node[token]


def _per_step(work: Callable[[], None], steps: int, runs: int) -> float:
    """Median microseconds."""
    times = []
    for _ in range(runs):
        begin = time.perf_counter()
        work()
        times.append((time.perf_counter() - begin) / steps * 1e6)
    return statistics.median(times)


def _row(name: str, ours: float, peer: float | None, unit: str, n: int, note: str) -> dict[str, Any]:
    ratio = None if peer is None else peer / ours
    return {"name": name, "ours": ours, "peer": peer, "ratio": ratio, "unit": unit, "n": n, "note": note}
