"""The passage side: text and expansion become token ids, and each id gets a weight."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pickaxe import Call, Item
from pickaxe.encoder.states import StateEncoder
from pickaxe.tokenizers import Tokenizer
from pickaxe_plugins.reranking.tildev2 import _terms
from pickaxe_plugins.reranking.tildev2._expander import Expander, framed, survivors

TERMS = "expansion_terms"
"""The field of a document's given expansion."""


@dataclass(frozen=True)
class Framing:
    """Which ids a passage is, expansion included."""

    tokenizer: Tokenizer
    limit: int
    """Most ids, the special ones included."""
    provided: bool = False
    """Whether documents bring their expansion."""
    expander: Expander | None = None
    m: int = 0
    official_order: bool = False

    @cached_property
    def ends(self) -> tuple[int, int]:
        """What stands before and after a text."""
        first, *_, last = self.tokenizer.encode("", add_special=True)
        return first, last

    @cached_property
    def _unlikely(self) -> np.ndarray:
        return _terms.mask(_terms.unlikely_ids(self.tokenizer.vocabulary), self.tokenizer.vocab_size)

    def rows(self, items: Sequence[Item], call: Call | None = None) -> list[list[int]]:
        """The ids of each passage, at least two; what is too long loses its end, the expansion first."""
        tokens = self.tokenizer.encode_batch([item.text or "" for item in items])
        return [self._row(own, extra) for own, extra in zip(tokens, self._extra(items, tokens, call), strict=True)]

    def _row(self, tokens: list[int], extra: list[int]) -> list[int]:
        first, last = self.ends
        room = self.limit - 3 - len(tokens)
        if room <= 0 or not extra:
            return [first, *tokens[: self.limit - 2], last]
        return [first, *tokens, last, *extra[:room], last]

    def _extra(self, items: Sequence[Item], tokens: list[list[int]], call: Call | None) -> list[list[int]]:
        if self.provided:
            return [self._given(item, own) for item, own in zip(items, tokens, strict=True)]
        if self.expander is None:
            return [[] for _ in items]
        logits = self.expander.logits([framed(own, self.ends) for own in tokens], call)
        return [
            survivors(each, own, self._unlikely, self.m, self.official_order)
            for each, own in zip(logits, tokens, strict=True)
        ]

    def _given(self, item: Item, tokens: list[int]) -> list[int]:
        words = item.get(TERMS)
        if not isinstance(words, (list, tuple)) or not words:
            return []
        there = set(tokens)
        found = dict.fromkeys(index for row in self.tokenizer.encode_batch(list(words)) for index in row)
        return [index for index in found if index not in there and not self._unlikely[index]]


@dataclass(frozen=True)
class Weigher:
    """Weights of passages' tokens: max(0, u · state + b), or 1 for each where nothing is fitted."""

    framing: Framing
    stopped: np.ndarray
    """Mask of the ids that are no terms."""
    states: StateEncoder | None = None
    projection: np.ndarray | None = None
    """(d + 1,): u and, last, b."""

    @cached_property
    def digest(self) -> str:
        """Equal for two of them exactly when a token's state gets the same weight."""
        digest = hashlib.sha256(self.framing.tokenizer.digest.encode())
        if self.states is not None and self.projection is not None:
            digest.update(self.states.digest.encode() + np.ascontiguousarray(self.projection).tobytes())
        return digest.hexdigest()

    def entries(self, items: Sequence[Item], call: Call | None = None) -> _terms.Entries:
        """The weight of every term of every passage; rows count from 0."""
        rows = self.framing.rows(items, call)
        return _terms.pooled(rows, self.weights(rows, call), self.stopped)

    def weights(self, rows: Sequence[Sequence[int]], call: Call | None = None) -> list[np.ndarray]:
        """One float32 >= 0 for each id."""
        if self.states is None or self.projection is None:
            return [np.ones(len(row), np.float32) for row in rows]
        direction, bias = self.projection[:-1], self.projection[-1]
        found: list[np.ndarray] = [np.empty(0, np.float32)] * len(rows)
        for row, states in self.states.states(rows, call):
            found[row] = np.maximum(states @ direction + bias, 0)
        return found
