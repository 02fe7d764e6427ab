"""Which tokens may follow in a list of distinct labels: a packed trie, and where one output stands in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pickaxe.errors import InvalidParams


class LabelTrie:
    """Token sequences of labels, closed by `separator` or by one of `ends`.

    Packed in arrays: the children of node v are `tokens[start[v] : start[v + 1]]` in rising order, and the child
    behind entry e is node e + 1.  Raises `InvalidParams` for labels without tokens, with the separator in them, or
    with the same tokens.
    """

    def __init__(
        self, sequences: Sequence[Sequence[int]], separator: int, ends: Sequence[int], pad: int | None = None
    ) -> None:
        self.separator = separator
        self.ends = np.array(sorted(set(ends)), np.int64)
        self.closing = np.array(sorted({separator, *ends}), np.int64)
        """What may follow a finished label: the separator or an end."""
        self.pad = np.array([self.ends[0] if pad is None else pad], np.int64)
        self.size = len(sequences)
        _check(sequences, separator, ends)
        self._pack([tuple(map(int, sequence)) for sequence in sequences])

    def _pack(self, sequences: Sequence[tuple[int, ...]]) -> None:
        """Breadth first, so that the children of a node lie side by side."""
        tokens: list[int] = []
        start = [0]
        self.label = np.full(1 + sum(map(len, sequences)), -1, np.int64)
        """Label that ends at a node, or -1."""
        self.count = np.zeros(len(self.label), np.int64)
        """Labels at or below a node."""
        self.parent = np.zeros(len(self.label), np.int64)
        order = sorted(range(len(sequences)), key=lambda label: sequences[label])
        waiting = [(order, 0)]
        for node, (labels, depth) in enumerate(waiting):  # grows while it is read
            self.count[node] = len(labels)
            for label in labels:
                if len(sequences[label]) == depth:
                    self.label[node] = label
                    continue
                token = sequences[label][depth]
                if len(tokens) == start[-1] or tokens[-1] != token:
                    tokens.append(token)
                    waiting.append(([], depth + 1))
                    self.parent[len(tokens)] = node
                waiting[-1][0].append(label)
            start.append(len(tokens))
        nodes = len(waiting)
        self.tokens, self.start = np.array(tokens, np.int64), np.array(start, np.int64)
        self.label, self.count, self.parent = self.label[:nodes], self.count[:nodes], self.parent[:nodes]

    def walk(self, prefix: Iterable[int] = (), most: int | None = None) -> Walk:
        """Where an output of these tokens stands; it holds at most `most` labels."""
        walk = Walk(self, self.size if most is None else min(most, self.size))
        for token in prefix:
            walk = walk.take(token)
        return walk


@dataclass(frozen=True)
class Walk:
    """One output on its way.  Never changes: `take` gives another one, so that outputs may branch anywhere."""

    trie: LabelTrie
    most: int
    node: int = 0
    labels: tuple[int, ...] = ()
    """Finished labels; the one that could end here is not among them."""
    ended: bool = False
    _gone: Mapping[int, int] = field(default_factory=dict)
    """Finished labels at or below a node."""
    _closed: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """Children of a node, counted from its first, below which no label is left."""

    @property
    def label(self) -> int | None:
        """The label that is complete here and may be closed."""
        found = int(self.trie.label[self.node])
        return None if found < 0 or found in self.labels else found

    def allowed(self) -> np.ndarray:
        """Ids of the tokens that may follow, rising; the padding once the output has ended."""
        trie = self.trie
        if self.ended:
            return trie.pad
        following = trie.tokens[trie.start[self.node] : trie.start[self.node + 1]]
        if closed := self._closed.get(self.node):
            following = np.delete(following, closed)
        if self.label is None:
            return following
        closing = trie.ends if len(self.labels) + 1 == self.most else trie.closing
        return np.sort(np.concatenate([following, closing])) if len(following) else closing

    def take(self, token: int) -> Walk:
        """Where the output stands after one more token; raises `InvalidParams` when that is not allowed."""
        trie, label = self.trie, self.label
        if self.ended and token == trie.pad[0]:
            return self
        if label is not None and not self.ended:
            if token in trie.ends:
                return Walk(trie, self.most, self.node, (*self.labels, label), True)
            if token == trie.separator and len(self.labels) + 1 < self.most:
                return self._without(label)
        if not self.ended:
            first, last = trie.start[self.node], trie.start[self.node + 1]
            entry = int(first + np.searchsorted(trie.tokens[first:last], token))
            if entry < last and trie.tokens[entry] == token and entry - first not in self._closed.get(self.node, ()):
                return Walk(trie, self.most, entry + 1, self.labels, False, self._gone, self._closed)
        raise InvalidParams("prefix", f"no label left continues with token {token}")

    def _without(self, label: int) -> Walk:
        """At the root again, with one label less to come."""
        trie, node = self.trie, self.node
        gone, closed = dict(self._gone), dict(self._closed)
        while True:
            gone[node] = gone.get(node, 0) + 1
            if node == 0:
                return Walk(trie, self.most, 0, (*self.labels, label), False, gone, closed)
            parent = int(trie.parent[node])
            if gone[node] == trie.count[node]:
                closed[parent] = (*closed.get(parent, ()), node - 1 - int(trie.start[parent]))
            node = parent


def _check(sequences: Sequence[Sequence[int]], separator: int, ends: Sequence[int]) -> None:
    seen: dict[tuple[int, ...], int] = {}
    if not sequences:
        raise InvalidParams("labels", "are missing: give at least one")
    for row, sequence in enumerate(sequences):
        tokens = tuple(map(int, sequence))
        if not tokens:
            raise InvalidParams(f"labels[{row}]", "is empty")
        if separator in tokens or not set(tokens).isdisjoint(ends):
            raise InvalidParams(f"labels[{row}]", "holds the separator or an end token: choose another separator")
        if (other := seen.setdefault(tokens, row)) != row:
            raise InvalidParams(f"labels[{row}]", f"has the same tokens as labels[{other}]")
