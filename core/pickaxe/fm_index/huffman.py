"""The shape of a wavelet tree: Huffman's code, in which frequent symbols have short paths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Shape:
    """A binary tree over symbols 0 to s - 1 with i inner nodes, the root the last.

    `children` int32 (i, 2): an inner node, or -1 - symbol; `paths` uint64 (s,): the turns to a symbol, the first in
    the lowest bit; `depths` uint8 (s,): how many turns; `sizes` int64 (i,): symbols of the text below a node.
    """

    children: np.ndarray
    paths: np.ndarray
    depths: np.ndarray
    sizes: np.ndarray


def shape(counts: np.ndarray) -> Shape:
    """Huffman's tree for these counts (s,), all of them at least 1."""
    symbols = len(counts)
    inner = max(symbols - 1, 1)
    children, sizes = np.full((inner, 2), -1, np.int32), np.zeros(inner, np.int64)
    if symbols == 1:  # one turn, so that even this text has bits to walk on
        return Shape(children, np.zeros(1, np.uint64), np.ones(1, np.uint8), counts.astype(np.int64))
    order = np.argsort(counts, kind="stable")
    leaves = [(int(counts[symbol]), -1 - int(symbol)) for symbol in order]
    # Leaves come in rising order and so do merged nodes: the two lightest are always at the heads of two queues.
    leaf = made = 0
    for node in range(inner):
        total = 0
        for side in range(2):
            if made >= node or (leaf < symbols and leaves[leaf][0] <= sizes[made]):
                weight, name = leaves[leaf]
                leaf += 1
            else:
                weight, name = int(sizes[made]), made
                made += 1
            children[node, side] = name
            total += weight
        sizes[node] = total
    return Shape(children, *_paths(children, symbols), sizes)


def _paths(children: np.ndarray, symbols: int) -> tuple[np.ndarray, np.ndarray]:
    """From the root down: a node's children are made before it, so falling numbers see parents first."""
    paths, depths = np.zeros(symbols, np.uint64), np.zeros(symbols, np.uint8)
    above: list[tuple[int, int]] = [(0, 0)] * len(children)
    for node in range(len(children) - 1, -1, -1):
        path, depth = above[node]
        for side, child in enumerate(children[node].tolist()):
            turned = path | side << depth
            if child >= 0:
                above[child] = turned, depth + 1
            else:
                paths[-1 - child], depths[-1 - child] = turned, depth + 1
    return paths, depths
