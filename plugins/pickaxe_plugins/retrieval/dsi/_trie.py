"""A prefix trie of token sequences in flat arrays: what may come next is one gather."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pickaxe.artifact import Artifact, ArtifactWriter
from pickaxe.errors import InvalidItems


@dataclass(frozen=True)
class Trie:
    """Nodes are numbered by depth, then by parent and token; node 0 is the root, and edge e leads to node e + 1."""

    starts: np.ndarray
    """(nodes + 1,) int64: edges [starts[i], starts[i + 1]) leave node i, their tokens rising."""
    tokens: np.ndarray
    """(nodes - 1,) int32: the token of each edge."""
    rows: np.ndarray
    """(nodes,) int32: the row of the sequence that ends at the node; -1: none does."""

    @classmethod
    def build(cls, sequences: Sequence[Sequence[int]]) -> Trie:
        """Of sequences of which none is another's beginning; raises `InvalidItems` otherwise."""
        lengths = np.array([len(each) for each in sequences], np.int64)
        if not len(lengths) or not lengths.min():
            raise InvalidItems("sequences", "must be some, and none of them empty")
        table = np.zeros((len(lengths), int(lengths.max())), np.int64)
        for row, each in enumerate(sequences):
            table[row, : len(each)] = each
        span = int(table.max()) + 1
        node = np.zeros(len(lengths), np.int64)
        parents, tokens, rows = [], [], [np.full(1, -1, np.int64)]
        count = 1
        for depth in range(table.shape[1]):
            live = np.flatnonzero(lengths > depth)
            edges, place = np.unique(node[live] * span + table[live, depth], return_inverse=True)
            node[live] = count + place
            parents.append(edges // span)
            tokens.append(edges % span)
            ends = np.full(len(edges), -1, np.int64)
            ended = live[lengths[live] == depth + 1]
            ends[node[ended] - count] = ended
            rows.append(ends)
            count += len(edges)
        starts = np.searchsorted(np.concatenate(parents), np.arange(count + 1))
        trie = cls(starts, np.concatenate(tokens).astype(np.int32), np.concatenate(rows).astype(np.int32))
        inner = (np.diff(starts) > 0) & (trie.rows >= 0)
        if inner.any() or (trie.rows >= 0).sum() < len(lengths):
            raise InvalidItems("sequences", "must be unique, and none the beginning of another")
        return trie

    def __len__(self) -> int:
        return len(self.rows)

    def children(self, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All edges that leave these nodes: (place in `nodes`, token, node that it leads to), each (edges,)."""
        counts = self.starts[nodes + 1] - self.starts[nodes]
        owner = np.repeat(np.arange(len(nodes)), counts)
        first = np.cumsum(counts) - counts
        edge = np.arange(len(owner)) - first[owner] + self.starts[nodes][owner]
        return owner, self.tokens[edge].astype(np.int64), edge + 1

    def walk(self, node: int, token: int) -> int:
        """The node after this token, or -1; from -1 there is no way back."""
        if node < 0:
            return -1
        low, high = int(self.starts[node]), int(self.starts[node + 1])
        place = low + int(np.searchsorted(self.tokens[low:high], token))
        return place + 1 if place < high and self.tokens[place] == token else -1

    def find(self, sequence: Sequence[int]) -> int:
        """The row of a whole sequence, or -1."""
        node = 0
        for token in sequence:
            node = self.walk(node, token)
        return int(self.rows[node]) if node >= 0 else -1

    def save(self, out: ArtifactWriter) -> None:
        for name in ("starts", "tokens", "rows"):
            out.write_array(f"trie_{name}.npy", getattr(self, name))

    @classmethod
    def open(cls, artifact: Artifact) -> Trie:
        return cls(*(artifact.read_array(f"trie_{name}.npy") for name in ("starts", "tokens", "rows")))
