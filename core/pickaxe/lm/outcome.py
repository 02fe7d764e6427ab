"""What a step of the model says may follow each of its rows."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pickaxe.lm.sampling import logsumexp


@dataclass(frozen=True, eq=False)
class Outcome:
    """Per row: the `best` id (the first of equals), its logit `peak`, and the log-sum-exp `total` of all logits.

    That is all that greedy rows ask for; the logits of all rows are fetched once, if somebody asks.
    """

    best: np.ndarray
    peak: np.ndarray
    total: np.ndarray
    fetch: Callable[[], np.ndarray]

    @classmethod
    def of(cls, logits: np.ndarray) -> Outcome:
        """From float32 logits (rows, vocab)."""
        peak = logits.max(axis=1)
        return cls(logits.argmax(axis=1), peak, logsumexp(logits, peak), lambda: logits)

    @functools.cached_property
    def logits(self) -> np.ndarray:
        """float32 (rows, vocab)."""
        return self.fetch()
