"""Beam search over identifiers, for all queries of a batch at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pickaxe import Call
from pickaxe_plugins.retrieval.dsi._identifiers import END
from pickaxe_plugins.retrieval.dsi._trie import Trie


class Stepper(Protocol):
    """A model that has read the queries.  Log-probabilities are over all tokens of identifiers."""

    def begin(self) -> np.ndarray:
        """(queries, V) of the first token."""
        ...

    def step(self, owner: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """(rows, V): row i goes on from row `owner[i]` of the answer before, with `tokens[i]`."""
        ...


@dataclass(frozen=True)
class Found:
    """The documents that one query's search came upon, unordered."""

    rows: np.ndarray
    """(found,) int64."""
    logprobs: np.ndarray
    """(found,) float64: the sum over the identifier's tokens."""
    lost: int = 0
    """Identifiers that ended and are no document's; only without the trie as a constraint."""


@dataclass
class _Rows:
    """Hypotheses: the query that each belongs to, its node of the trie (-1: off it) and its log-probability."""

    query: np.ndarray
    node: np.ndarray
    total: np.ndarray


def search(trie: Trie, stepper: Stepper, width: int, longest: int, constrained: bool, call: Call) -> list[Found]:
    """What every query finds.  A beam holds the `width` best unfinished prefixes.

    Identifiers that end leave the beam, are all kept, and take none of its places.  Log-probabilities are not
    renormalised over the tokens that the trie allows.  Without `constrained` any token may follow.
    """
    logprobs = stepper.begin()
    queries = len(logprobs)
    beam = _Rows(np.arange(queries), np.zeros(queries, np.int64), np.zeros(queries))
    ended: list[_Rows] = []
    for depth in range(1, longest + 1):
        call.check()
        owner, token, node = trie.children(beam.node) if constrained else _anything(trie, beam.node, logprobs.shape[1])
        grown = _Rows(beam.query[owner], node, beam.total[owner] + logprobs[owner, token])
        whole = trie.rows[np.maximum(node, 0)] >= 0
        closes = ((node >= 0) & whole) | ((token == END) & _closing(trie))
        ended.append(_Rows(grown.query[closes], np.where(whole & (node >= 0), node, -1)[closes], grown.total[closes]))
        kept = _best(grown, np.flatnonzero(~closes), width)
        if not len(kept) or depth == longest:
            break
        beam = _Rows(grown.query[kept], node[kept], grown.total[kept])
        logprobs = stepper.step(owner[kept], token[kept])
    return _by_query(trie, ended, queries)


def _closing(trie: Trie) -> bool:
    """Whether identifiers have an end token: atomic ones are single tokens without."""
    return bool((trie.rows[1 : int(trie.starts[1]) + 1] < 0).any())


def _anything(trie: Trie, nodes: np.ndarray, vocabulary: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every token after every hypothesis, with its node where the trie has one."""
    reached = np.full((len(nodes), vocabulary), -1, np.int64)
    on = np.flatnonzero(nodes >= 0)
    owner, token, node = trie.children(nodes[on])
    reached[on[owner], token] = node
    return np.repeat(np.arange(len(nodes)), vocabulary), np.tile(np.arange(vocabulary), len(nodes)), reached.ravel()


def _best(rows: _Rows, candidates: np.ndarray, width: int) -> np.ndarray:
    """The `width` likeliest candidates of each query, best first; equal ones in the order of the trie."""
    query, total = rows.query[candidates], rows.total[candidates]
    order = np.lexsort((rows.node[candidates], -total, query))
    ranked = query[order]
    place = np.arange(len(ranked)) - np.searchsorted(ranked, ranked)
    return np.asarray(candidates[order[place < width]])


def _by_query(trie: Trie, ended: list[_Rows], queries: int) -> list[Found]:
    query, node, total = (
        np.concatenate([getattr(part, name) for part in ended]) for name in ("query", "node", "total")
    )
    found = []
    for each in range(queries):
        mine = query == each
        real = mine & (node >= 0)
        rows = trie.rows[node[real]].astype(np.int64)
        found.append(Found(rows, total[real], int(mine.sum() - real.sum())))
    return found
