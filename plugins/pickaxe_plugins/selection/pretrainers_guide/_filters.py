"""A threshold on a risk, and the threshold that keeps a number of tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Filter:
    """Keeps risks up to the threshold, or from it on; without one it keeps everything."""

    name: str
    threshold: float | None
    direction: str
    risks: np.ndarray

    @property
    def told(self) -> str:
        """Its name and rule, for a report."""
        return f"{self.name} {'<=' if self.direction == 'normal' else '>='} {self.threshold:.4g}"

    @property
    def kept(self) -> np.ndarray:
        """bool (n,)."""
        if self.threshold is None:
            return np.ones(len(self.risks), bool)
        kept: np.ndarray = self.margin >= 0
        return kept

    @property
    def margin(self) -> np.ndarray:
        """How far inside each document is; NaN (n,) without a threshold."""
        if self.threshold is None:
            return np.full(len(self.risks), np.nan)
        return self.threshold - self.risks if self.direction == "normal" else self.risks - self.threshold


def budgeted(wanted: Filter, others: np.ndarray, tokens: np.ndarray, budget: int) -> Filter:
    """The filter with the widest threshold that keeps at most `budget` tokens of what the others keep.

    Documents of equal risk are kept or dropped together.  A budget that nothing fits gives a threshold outside [0, 1]
    by the smallest step.
    """
    sign = 1.0 if wanted.direction == "normal" else -1.0
    rows = np.flatnonzero(others)
    levels, inverse = np.unique(sign * wanted.risks[rows], return_inverse=True)
    totals = np.cumsum(np.bincount(inverse, tokens[rows], len(levels)))
    fitting = int(np.searchsorted(totals, budget, side="right"))
    if fitting == len(levels):
        return replace(wanted, threshold=1.0 if sign > 0 else 0.0)
    level = levels[fitting - 1] if fitting else np.nextafter(levels[0], -np.inf)
    return replace(wanted, threshold=float(sign * level))
