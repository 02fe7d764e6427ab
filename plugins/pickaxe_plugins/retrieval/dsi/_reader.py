"""The trained model at search: it reads queries through ONNX Runtime, then says identifiers token by token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pickaxe import Call
from pickaxe_plugins.retrieval.dsi import _heads

if TYPE_CHECKING:
    from pickaxe.lm import LM
    from pickaxe.lm.cache import KV


@dataclass(frozen=True)
class Model:
    """The language model, the head over identifier tokens, and where both meet in the vocabulary."""

    lm: LM
    head: Mapping[str, np.ndarray]
    """As `_heads.initial` makes it."""
    span: int
    """Most tokens that are read of a query."""

    @property
    def start(self) -> int:
        """The token that asks for an identifier; those of identifiers come behind it."""
        return self.lm.tokenizer.vocab_size

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of queries, cut, each with the start token behind."""
        return [[*row[: self.span], self.start] for row in self.lm.tokenizer.encode_batch(list(texts))]

    def logprobs(self, hidden: np.ndarray, prefixes: np.ndarray) -> np.ndarray:
        """float64 (rows, V) after these prefixes (rows, L); the head's adaptation is made once for equal ones."""
        states = np.asarray(hidden, np.float32)
        found = np.asarray(_heads.logits(states, self.head["head"]))
        if "out" in self.head:
            distinct, place = np.unique(prefixes, axis=0, return_inverse=True)
            made = _heads.adaptation(self.head, distinct)
            assert made is not None
            for row in range(len(distinct)):  # one at a time: all matrices together would be large
                mine = np.flatnonzero(place.ravel() == row)
                found[mine] = _heads.logits(states[mine], self.head["head"], made[row, -1])
        return np.asarray(_heads.log_softmax(found.astype(np.float64)))

    def score(self, prompt: Sequence[int], identifiers: Sequence[Sequence[int]], call: Call) -> np.ndarray:
        """float64 (m,): log-probabilities of identifiers, every one read anew and as a whole, without a cache."""
        totals = np.zeros(len(identifiers))
        for row, tokens in enumerate(identifiers):
            said = [self.start + 1 + token for token in tokens[:-1]]
            ids = np.array([[*prompt, *said]])
            places = np.arange(len(prompt) - 1, ids.shape[1])
            hidden = _read(self.lm, ids, np.array([ids.shape[1]]), None, places, call)[0]
            for depth, token in enumerate(tokens):
                prefix = np.array([tokens[:depth]], np.int64).reshape(1, depth)
                totals[row] += self.logprobs(hidden[depth : depth + 1], prefix)[0, token]
        return totals


@dataclass
class Reading:
    """A `Stepper` over one batch of prompts; `calls` counts runs of the model, `tokens` what they read."""

    model: Model
    prompts: Sequence[Sequence[int]]
    call: Call | None = None
    calls: int = 0
    tokens: int = 0
    _cache: KV | None = field(default=None, init=False)
    _prefixes: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64), init=False)

    def begin(self) -> np.ndarray:
        lengths = np.array([len(each) for each in self.prompts])
        ids = np.zeros((len(lengths), int(lengths.max())), np.int64)
        for row, each in enumerate(self.prompts):
            ids[row, : len(each)] = each
        self._prefixes = np.zeros((len(lengths), 0), np.int64)
        return self._next(ids, lengths)

    def step(self, owner: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        assert self._cache is not None
        self._prefixes = np.concatenate([self._prefixes[owner], tokens[:, None]], 1)
        self._cache = self._cache.gather(owner)
        return self._next(tokens[:, None] + self.model.start + 1, np.ones(len(tokens), np.int64))

    def _next(self, ids: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        last = np.arange(len(ids)) * ids.shape[1] + lengths - 1
        hidden, self._cache = _read(self.model.lm, ids, lengths, self._cache, last, self.call)
        self.calls += 1
        self.tokens += int(lengths.sum())
        return self.model.logprobs(hidden, self._prefixes)


def _read(
    lm: LM, ids: np.ndarray, lengths: np.ndarray, past: KV | None, places: np.ndarray, call: Call | None
) -> tuple[np.ndarray, KV]:
    """Hidden states (places, width) at these flat places of ids (B, T), and the longer cache."""
    from pickaxe.lm.cache import KV

    cache = past or KV.empty(lm.network.architecture, ids.shape[0], ids.shape[1], lm.network.dtype)
    with lm.turn(call):
        return lm.network.read(ids, lengths, cache, places, call=call)
