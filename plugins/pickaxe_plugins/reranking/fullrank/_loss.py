"""The importance-aware loss of the listwise decoder, in float64: what training minimises, and its yardstick.

    L = -(1 / T) sum_k w_k log p(y_k)        w_k = 1 for the separator, else 1 + 1 / log2(r + 1)

over the T target tokens, r being the rank (from 1) of the identifier that token k belongs to.  The sum is divided
by T, not by the weights.
"""

from __future__ import annotations

import numpy as np

from pickaxe.errors import InvalidItems

IGNORED = -100
"""Target of a token that does not count: the prompt."""


def importance_weights(targets: np.ndarray, separator: int) -> np.ndarray:
    """Weights (T,) float64 of the target tokens (T,): identifiers grow in rank after each separator."""
    targets = np.asarray(targets)
    separators = targets == separator
    rank = 1 + np.cumsum(separators)
    return np.where(separators, 1.0, 1.0 + 1.0 / np.log2(rank + 1))


def listwise_loss(logits: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The loss of logits (n, V) for targets (n,), `IGNORED` where nothing counts; logits[p - 1] predict targets[p].

    `weights` (T,) belong to the T targets that count; None: all 1, the plain language-model loss.
    """
    targets = np.asarray(targets)
    positions = np.flatnonzero(targets != IGNORED)
    if not len(positions) or positions[0] == 0:
        raise InvalidItems("targets", "need at least one token that counts, and none at the first place")
    rows = np.asarray(logits, np.float64)[positions - 1]
    top = rows.max(1, keepdims=True)
    log_total = (top + np.log(np.exp(rows - top).sum(1, keepdims=True)))[:, 0]
    logprobs = rows[np.arange(len(rows)), targets[positions]] - log_total
    return float(-((1.0 if weights is None else weights) * logprobs).sum() / len(positions))
