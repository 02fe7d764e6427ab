"""Regression trees as flat arrays, evaluated for many rows at once without the library that grew them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

MOST_LEAVES = 64
"""A tree's leaves are the bits of one unsigned integer."""
_ROWS = 16_384
"""Rows at a time: all that is touched then stays in the cache."""
_DE_BRUIJN = {np.uint32: 0x077CB531, np.uint64: 0x03F79D71B4CB0A89}
"""Multiplied by 1 << i their highest 5 or 6 bits differ for every i."""


@dataclass(frozen=True)
class Trees:
    """A sum of binary trees over D features.

    `nodes` (N, 4) int32: tree, feature (-1: leaf), left and right child (rows of this table; -1 at leaves), the root
    of a tree first.  `values` (N,) float64: the threshold, `x <= threshold` goes left, or the leaf's value.
    """

    nodes: np.ndarray
    values: np.ndarray

    def predict(self, x: np.ndarray) -> np.ndarray:
        """(n, D) float64 -> (n,) float64."""
        out = np.empty(len(x))
        for start in range(0, len(x), _ROWS):
            out[start : start + _ROWS] = self._predict(x[start : start + _ROWS])
        return out

    def _predict(self, x: np.ndarray) -> np.ndarray:
        thresholds, trees = self._masks
        ranks = {feature: np.searchsorted(edges, x[:, feature]) for feature, edges in thresholds.items()}
        total = np.zeros(len(x))
        for tree in trees:
            total += tree.values_at(ranks, len(x))
        return total

    @cached_property
    def _masks(self) -> tuple[Mapping[int, np.ndarray], Sequence[_Masks]]:
        """The sorted thresholds of every feature that is used, and the trees over ranks among them."""
        inner = self.nodes[:, 1] >= 0
        features = np.unique(self.nodes[inner, 1])
        thresholds = {
            int(feature): np.unique(self.values[inner & (self.nodes[:, 1] == feature)]) for feature in features
        }
        roots = np.flatnonzero(np.diff(self.nodes[:, 0], prepend=-1))
        return thresholds, [_Masks.of(self, int(root), thresholds) for root in roots]


@dataclass(frozen=True)
class _Masks:
    """One tree in the form of QuickScorer (Lucchese et al., SIGIR 2015).

    Every comparison that fails rules out the leaves to the left of its node; of the leaves that remain the leftmost
    is the answer.  `tables[feature][r]` holds the leaves (bits) that remain when r thresholds lie below the value.
    """

    tables: Mapping[int, np.ndarray]
    leaves: np.ndarray
    """Leaf values, in the places to which `_DE_BRUIJN` takes their bits."""
    kind: type[np.uint32] | type[np.uint64]

    @classmethod
    def of(cls, trees: Trees, root: int, thresholds: Mapping[int, np.ndarray]) -> _Masks:
        values: list[float] = []
        cuts: list[tuple[int, int, int]] = []  # feature, rank of the threshold, leaves to its left

        def walk(node: int) -> None:
            _, feature, left, right = (int(each) for each in trees.nodes[node])
            if feature < 0:
                values.append(float(trees.values[node]))
                return
            first = len(values)
            walk(left)
            rank = int(np.searchsorted(thresholds[feature], trees.values[node]))
            cuts.append((feature, rank, (1 << len(values)) - (1 << first)))
            walk(right)

        walk(root)
        kind = np.uint32 if len(values) <= 32 else np.uint64
        bits = 8 * kind().itemsize
        everything = (1 << bits) - 1
        tables: dict[int, np.ndarray] = {}
        for feature, rank, lost in cuts:
            if feature not in tables:
                tables[feature] = np.full(len(thresholds[feature]) + 1, everything, kind)
            tables[feature][rank + 1] &= kind(everything ^ lost)
        leaves = np.zeros(bits)
        for bit, value in enumerate(values):
            leaves[((_DE_BRUIJN[kind] << bit) & everything) >> (27 if bits == 32 else 58)] = value
        return cls({name: np.bitwise_and.accumulate(table) for name, table in tables.items()}, leaves, kind)

    def values_at(self, ranks: Mapping[int, np.ndarray], rows: int) -> np.ndarray:
        if not self.tables:
            return np.full(rows, self.leaves[0])
        remaining: np.ndarray | None = None
        for feature, table in self.tables.items():
            found = table.take(ranks[feature])
            remaining = found if remaining is None else np.bitwise_and(remaining, found, out=remaining)
        assert remaining is not None
        leftmost: np.ndarray = remaining & (np.invert(remaining) + self.kind(1))
        leftmost *= self.kind(_DE_BRUIJN[self.kind])
        leftmost >>= self.kind(27 if self.kind is np.uint32 else 58)
        return self.leaves.take(leftmost)


def from_lightgbm(booster: Any, rounds: int) -> Trees:
    """The first `rounds` trees of a LightGBM booster over numbers, out of its text form."""
    nodes, values = [], []
    for place, block in enumerate(booster.model_to_string(num_iteration=rounds).split("\nTree=")[1:]):
        tree_nodes, tree_values = _table(dict(line.partition("=")[::2] for line in block.splitlines()), place)
        nodes.append(tree_nodes)
        values.append(tree_values)
    # Children count rows from the start of all trees.
    starts = np.cumsum([0, *(len(each) for each in nodes[:-1])])
    for start, table in zip(starts.tolist(), nodes, strict=True):
        table[:, 2:][table[:, 2:] >= 0] += start
    return Trees(np.concatenate(nodes), np.concatenate(values))


def _table(tree: Mapping[str, str], place: int) -> tuple[np.ndarray, np.ndarray]:
    """One tree: its inner nodes, then its leaves, to which LightGBM points by -1 - leaf."""
    leaves = _numbers(tree["leaf_value"], np.float64)
    if len(leaves) == 1:
        return np.array([[place, -1, -1, -1]], np.int32), leaves
    features = _numbers(tree["split_feature"], np.int32)
    children = np.stack([_numbers(tree[side], np.int32) for side in ("left_child", "right_child")], axis=1)
    inner = len(features)
    nodes = np.full((inner + len(leaves), 4), -1, np.int32)
    nodes[:, 0], nodes[:inner, 1] = place, features
    nodes[:inner, 2:] = np.where(children < 0, inner - 1 - children, children)
    return nodes, np.concatenate([_numbers(tree["threshold"], np.float64), leaves])


def _numbers(text: str, kind: type[np.int32] | type[np.float64]) -> np.ndarray:
    return np.array(text.split(), kind)


def joined(parts: Sequence[Trees]) -> tuple[Trees, np.ndarray]:
    """Several sums in one table, and at which row each begins (with the end as last): children stay relative."""
    starts = np.cumsum([0, *(len(part.nodes) for part in parts)])
    return Trees(
        np.concatenate([part.nodes for part in parts]), np.concatenate([part.values for part in parts])
    ), starts


def parted(trees: Trees, starts: Sequence[int]) -> Iterator[Trees]:
    """The sums that `joined` put together."""
    for start, stop in itertools.pairwise(starts):
        yield Trees(trees.nodes[start:stop], trees.values[start:stop])
