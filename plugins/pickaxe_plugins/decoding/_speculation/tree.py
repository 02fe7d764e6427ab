"""Drafts of one round as a tree of tokens, and models that read such a tree on top of what is certain."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pickaxe.lm import KV
from pickaxe_plugins.decoding._speculation.transport import Distribution

if TYPE_CHECKING:
    from pickaxe import Call
    from pickaxe.lm import LM
    from pickaxe.lm.network import Network

TAIL = 128
"""Most tokens of a prompt that are read along with a tree: beside so many, the call that this saves is a trifle."""
HIDDEN = -1e9
"""Added to the score of a slot that a node must not see."""


class Tree:
    """Drafted tokens after a certain context, shared prefixes merged.

    Node 0 is the last certain token.  Per node: its token, parent, depth (node 0: 0), `copies` (how many drafts
    go through it), `reach` (product of the largest probabilities of the laws on the way to it: how sure the draft
    is), and, once something was drafted after it, `laws` (what was drawn from), `drafted` (the drafts in order,
    repeats included) and `children` (token → node).  A parent's number is below its children's.
    """

    def __init__(self, context: Sequence[int], copies: int = 1) -> None:
        self.context = list(context)
        """All certain tokens; the last one is node 0."""
        self.tokens = [int(context[-1])]
        self.parents = [-1]
        self.depths = [0]
        self.copies = [copies]
        self.reach = [1.0]
        self.laws: list[Distribution | None] = [None]
        self.drafted: list[list[int]] = [[]]
        self.children: list[dict[int, int]] = [{}]

    def __len__(self) -> int:
        return len(self.tokens)

    def add(self, node: int, law: Distribution, drafted: Sequence[int]) -> list[int]:
        """Note what was drafted after a node; returns the new nodes, one per different token, in order."""
        self.laws[node], self.drafted[node] = law, list(drafted)
        children, reach = self.children[node], self.reach[node] * law.surest
        for token in drafted:
            if token in children:
                self.copies[children[token]] += 1
                continue
            children[token] = len(self.tokens)
            self.tokens.append(int(token))
            self.parents.append(node)
            self.depths.append(self.depths[node] + 1)
            self.copies.append(1)
            self.reach.append(reach)
            self.laws.append(None)
            self.drafted.append([])
            self.children.append({})
        return list(children.values())

    def likeliest(self, nodes: Sequence[int], most: int | None) -> list[int]:
        """At most so many of these nodes, those whose paths the draft finds most probable; in the order given."""
        if most is None or len(nodes) <= most:
            return list(nodes)
        kept = sorted(nodes, key=self.probability, reverse=True)[:most]
        return [node for node in nodes if node in kept]

    def probability(self, node: int) -> float:
        """Of the path to this node, by the laws it was drafted from."""
        found = 1.0
        for parent, child in pairwise(self.path(node)):
            law = self.laws[parent]
            assert law is not None
            found *= law.of(self.tokens[child])
        return found

    def path(self, node: int) -> list[int]:
        """Nodes from 0 to this one."""
        path = [node]
        while self.parents[path[-1]] >= 0:
            path.append(self.parents[path[-1]])
        return path[::-1]

    def after(self, node: int) -> list[int]:
        """Tokens drafted on the way to this node, its own included; none for node 0."""
        return [self.tokens[each] for each in self.path(node)[1:]]

    def preorder(self) -> list[int]:
        """All nodes, each path of first children in one piece: what is accepted then often lies in one piece."""
        order, waiting = [], [0]
        while waiting:
            node = waiting.pop()
            order.append(node)
            waiting.extend(reversed(self.children[node].values()))
        return order


class Reader(Protocol):
    """A model that has read a context and, in a round, nodes of a tree."""

    def read(self, tree: Tree, nodes: Sequence[int], call: Call | None = None) -> np.ndarray:
        """float32 (len(nodes), V): logits of what follows each node.

        The first nodes that are read of a tree begin with node 0; a node comes after its parent.
        """
        ...

    def keep(self, tree: Tree, path: Sequence[int]) -> None:
        """Of the tree, only the nodes on this path (from 0) have become certain."""
        ...

    def behind(self, context: Sequence[int]) -> int:
        """How many tokens of the context, node 0 not counted, will be read along with the next tree."""
        ...


class TreeReader:
    """Reads a tree as one row: every node sees the context, its ancestors and itself.

    `cache` holds the certain tokens read so far, which may lag behind the context: what is missing is read
    with the next tree.  `network` reads trees in place of the model's own, with the same keys and values; it may
    give logits of the first ids only.
    """

    def __init__(self, lm: LM, cache: KV | None = None, network: Network | None = None) -> None:
        self.lm = lm
        self.calls = 0
        self._network = network or lm.network
        self._cache = cache if cache is not None else empty_cache(lm)
        self._base = self._cache.width
        """Slots before those of this round's tree."""
        self._slots: dict[int, int] = {}
        self._prompt = np.empty(0, np.int64)
        """What the prefix cache is to remember once it is read."""

    @property
    def cache(self) -> KV:
        """Keys and values of the certain tokens read so far; between rounds only."""
        return self._cache

    def fork(self) -> TreeReader:
        """Another reader that has read the same."""
        other = TreeReader(self.lm, self._cache, self._network)
        other._prompt = self._prompt
        return other

    def behind(self, context: Sequence[int]) -> int:
        return len(context) - 1 - self._cache.width

    def catch_up(self, context: Sequence[int], call: Call | None = None, leave: int = 0) -> None:
        """Read all of the context but its last token, which is node 0 of the next tree.

        What the model has read before of a context that begins alike is not read again.  The last `leave` tokens
        may be left to be read with that tree.
        """
        ids = np.asarray(context[:-1], dtype=np.int64)
        prefixes = self.lm.engine.prefixes
        if not self._cache.width and (known := prefixes.longest(ids)) is not None:
            self._cache = known
        now = ids[self._cache.width : max(0, len(ids) - leave)]
        if len(now) == 1 and leave:  # one token alone goes through another kernel, which rounds differently
            now = now[:0]
        if len(now):
            _, self._cache = self.lm.forward(now[None], past=self._cache, logits_at="none", call=call)
            self.calls += 1
        self._prompt = ids
        self._base = self._cache.width
        self._remember()

    def _remember(self) -> None:
        if len(self._prompt) and self._cache.width >= len(self._prompt):
            self.lm.engine.prefixes.remember(self._prompt, self._cache.truncate(len(self._prompt)))
            self._prompt = self._prompt[:0]

    def room(self, tree: Tree) -> int:
        """How many nodes of this tree, node 0 not counted, fit the model's context."""
        return self.lm.context_length - len(tree.context)

    def read(self, tree: Tree, nodes: Sequence[int], call: Call | None = None) -> np.ndarray:
        behind = [] if self._slots else list(tree.context[self._cache.width : -1])
        start = self._cache.width
        first = start + len(behind)
        if not self._slots:
            self._base = first
        self._slots |= {node: first + place for place, node in enumerate(nodes)}
        ids = np.array([behind + [tree.tokens[node] for node in nodes]], dtype=np.int64)
        wanted = np.arange(len(behind), ids.shape[1])
        positions, bias = None, None
        if not self._is_chain(tree):
            positions, bias = self._placed(tree, nodes, start, len(behind))
        counts = np.array([ids.shape[1]])
        with self.lm.turn(call):
            states, self._cache = self._network.read(
                ids, counts, self._cache, wanted, positions=positions, bias=bias, call=call
            )
            self.calls += 1
            return self._network.logits(states)

    def keep(self, tree: Tree, path: Sequence[int]) -> None:
        if not self._slots:
            return
        slots = [self._slots[node] for node in path if node in self._slots]
        base, self._slots = self._base, {}
        in_place = next((i for i, slot in enumerate(slots) if slot != base + i), len(slots))
        moved = slots[in_place:]
        if not moved:
            self._cache = self._cache.truncate(base + len(slots))
        elif self.lm.network.runtime.is_cuda:
            self._cache = self._cache.take(np.array([*range(base + in_place), *moved]))
        else:
            self._move(base + in_place, moved)
        self._remember()

    def _move(self, start: int, slots: Sequence[int]) -> None:
        """Keep `start` tokens and those at `slots`, moving only the latter: a context may be long."""
        index = np.asarray(slots)
        moved = [tensor[:, :, index] for tensor in self._cache.tensors]
        self._cache = self._cache.truncate(start)
        self._cache = self._cache.extended(np.array([len(index)]), start + len(index))
        for tensor, part in zip(self._cache.tensors, moved, strict=True):
            tensor[:, :, start : start + len(index)] = part

    def _is_chain(self, tree: Tree) -> bool:
        """Whether every node was read right after its parent, so that the causal mask says all."""
        return all(node == 0 or self._slots[tree.parents[node]] == slot - 1 for node, slot in self._slots.items())

    def _placed(self, tree: Tree, nodes: Sequence[int], start: int, behind: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions (1, T) and bias (1, 1, T, S) of tokens that catch up and of nodes."""
        total = start + behind + len(nodes)
        positions = np.concatenate(
            [np.arange(start, start + behind), len(tree.context) - 1 + np.array([tree.depths[node] for node in nodes])]
        )
        bias = np.zeros((behind + len(nodes), total), np.float32)
        bias[behind:, self._base :] = HIDDEN
        for row, node in enumerate(nodes, behind):
            bias[row, [self._slots[each] for each in tree.path(node)]] = 0
        return positions[None], bias[None, None]


class BatchReader:
    """Reads a tree as rows that share the context, one per path to a leaf: no bias, but shared prefixes twice."""

    def __init__(self, lm: LM, cache: KV | None = None) -> None:
        self.lm = lm
        self.calls = 0
        self._cache = cache if cache is not None else empty_cache(lm)
        self._rows: KV | None = None
        self._paths: list[list[int]] = []

    def read(self, tree: Tree, nodes: Sequence[int], call: Call | None = None) -> np.ndarray:
        """As `TreeReader.read`, for all nodes of a tree at once; the cache must hold the context."""
        leaves = [node for node in nodes if not tree.children[node]]
        self._paths = [tree.path(leaf) for leaf in leaves]
        lengths = np.array([len(path) for path in self._paths])
        ids = np.zeros((len(leaves), int(lengths.max())), np.int64)
        where: dict[int, tuple[int, int]] = {}
        for row, path in enumerate(self._paths):
            ids[row, : len(path)] = [tree.tokens[node] for node in path]
            for place, node in enumerate(path):
                where.setdefault(node, (row, place))
        past = self._cache if len(leaves) == 1 else self._cache.tile(len(leaves))
        logits, self._rows = self.lm.forward(ids, lengths=lengths, past=past, logits_at="all", call=call)
        self.calls += 1
        assert logits is not None
        rows, places = zip(*(where[node] for node in nodes), strict=True)
        return logits[list(rows), list(places)]

    def keep(self, tree: Tree, path: Sequence[int]) -> None:
        row = next(i for i, each in enumerate(self._paths) if each[: len(path)] == list(path))
        assert self._rows is not None
        rows, self._rows = self._rows, None
        kept = rows if rows.rows == 1 else rows.gather([row])
        self._cache = kept.truncate(self._cache.width + len(path))

    def behind(self, context: Sequence[int]) -> int:
        """None: the cache must hold the context."""
        return 0


def empty_cache(lm: LM) -> KV:
    """One row in which nothing was read."""
    return KV.empty(lm.network.architecture, 1, 0, lm.network.dtype)
