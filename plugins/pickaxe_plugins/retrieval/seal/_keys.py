"""The n-grams a language model would say for a query: beams that can only say what the documents hold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from pickaxe.errors import InvalidItems
from pickaxe_plugins.retrieval._token_index import TokenIndex
from pickaxe_plugins.retrieval.seal._score import Key

if TYPE_CHECKING:
    from pickaxe import Call
    from pickaxe.lm import LM

WORD = re.compile(r"\w(?:\S*\w)?")
LONGEST_SPAN = 3
"""Words of a query that make a key together."""


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """float64, over the last axis; raises `InvalidItems` for NaN."""
    if np.isnan(logits).any():
        raise InvalidItems("logprobs", "hold NaN: the language model's output is broken")
    from pickaxe.lm import logsumexp

    return np.asarray(logits.astype(np.float64) - logsumexp(logits)[..., None])


def query_spans(query: str) -> list[str]:
    """Spans of 1 to 3 words, each word as it is and with a capital first letter, without repeats."""
    words = WORD.findall(query)
    variants = [tuple(dict.fromkeys((word, word[0].upper() + word[1:]))) for word in words]
    found: dict[str, None] = {}
    for length in range(1, LONGEST_SPAN + 1):
        for start in range(len(words) - length + 1):
            found |= dict.fromkeys(" ".join(chosen) for chosen in product(*variants[start : start + length]))
    return list(found)


@dataclass
class Beams:
    """Beam search for one query at a time; `calls` counts runs of the model, `tokens` what they read."""

    lm: LM
    index: TokenIndex
    beam: int
    forbidden: Sequence[int]
    """Tokens that no key goes on with: ends of documents."""
    calls: int = 0
    tokens: int = field(default=0)

    @cached_property
    def _anything(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What may follow nothing: every token of the documents.  The widest range of all, asked for once."""
        low, high = self.index.index.everything
        return self.index.following(np.array([low]), np.array([high]))

    def keys(
        self,
        prompt: Sequence[int],
        steps: int,
        call: Call,
        start: Sequence[int] = (),
        ending: Sequence[int] = (),
        partial: bool = True,
    ) -> tuple[dict[Key, float], np.ndarray]:
        """Every hypothesis of every step with its log-probability, and those of single first tokens (vocab,).

        Log-probabilities are those of the whole vocabulary.  Keys begin with `start`, which costs nothing; those
        that end with `ending` are not gone on with, and without `partial` only these are returned.
        """
        logits, cache = self.lm.prefill(prompt, call)
        self._count(len(prompt))
        first = log_softmax(logits)
        found: dict[Key, float] = {}
        beams: list[Key] = [tuple(start)]
        totals = np.zeros(1)
        low, high = self.index.ranges([start])
        logprobs = first[None]
        rows = np.zeros(1, np.int64)
        cache = cache.tile(1)
        for step in range(steps):
            call.check()
            owner, token, total = self._best(logprobs, totals, low, high, whole=not start and step == 0)
            if not len(token):
                break
            low, high = self.index.index.extend(low[owner], high[owner], token)
            grown = [(*beams[row], one) for row, one in zip(owner.tolist(), token.tolist(), strict=True)]
            complete = np.array([bool(ending) and key[-len(ending) :] == tuple(ending) for key in grown])
            found |= {key: value for key, value, done in zip(grown, total.tolist(), complete, strict=True)
                      if partial or done}  # fmt: skip
            open_ = np.flatnonzero(~complete)[: self.beam]
            if step + 1 == steps or not len(open_):
                break
            beams, totals, low, high = [grown[row] for row in open_], total[open_], low[open_], high[open_]
            rows, token = owner[open_], token[open_]
            cache = cache.gather(rows)
            following, cache = self.lm.forward(token[:, None], past=cache, call=call)
            self._count(len(token))
            assert following is not None
            logprobs = log_softmax(following)
        return found, first

    def first(self, prompt: Sequence[int], call: Call) -> np.ndarray:
        """log P of every first token after the prompt (vocab,)."""
        logits, _ = self.lm.prefill(prompt, call)
        self._count(len(prompt))
        return log_softmax(logits)

    def _best(
        self, logprobs: np.ndarray, totals: np.ndarray, low: np.ndarray, high: np.ndarray, whole: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The 2 * beam best continuations: (hypothesis, token, log-probability), best first."""
        tokens, _, offsets = self._anything if whole else self.index.following(low, high)
        owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        legal = ~np.isin(tokens, self.forbidden) & (tokens < logprobs.shape[1])
        owner, tokens = owner[legal], tokens[legal]
        total = totals[owner] + logprobs[owner, tokens]
        size = min(2 * self.beam, len(total))
        if not size:
            return owner, tokens, total
        chosen = np.flatnonzero(total >= np.partition(total, len(total) - size)[len(total) - size])
        picked = chosen[np.lexsort((tokens[chosen], owner[chosen], -total[chosen]))[:size]]
        return owner[picked], tokens[picked], total[picked]

    def score(self, prompt: Sequence[int], keys: Sequence[Key], call: Call) -> dict[Key, float]:
        """log P of each key after the prompt, token by token as given."""
        if not keys:
            return {}
        logprobs = self.lm.choose(prompt, keys, call)
        self._count(len(prompt) + sum(map(len, keys)))
        return dict(zip(keys, logprobs.tolist(), strict=True))

    def _count(self, tokens: int) -> None:
        self.calls += 1
        self.tokens += tokens
