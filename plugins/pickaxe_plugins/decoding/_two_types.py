"""Easy and hard tasks: resampling until a verifier passes, in closed form (arXiv 2411.17501)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pickaxe_plugins.decoding._resampling import Counts, Curves, Stakes


@dataclass(frozen=True)
class Types:
    """Types of tasks, (J,) each: their shares `prior`, and how often a sample of each is correct, `r`.

    `completeness` is P(pass | correct), `soundness` P(reject | wrong).
    """

    prior: np.ndarray
    r: np.ndarray
    completeness: float = 1.0
    soundness: float = 1.0

    @property
    def right(self) -> np.ndarray:
        """a, (J,): chance that an attempt is correct and passes."""
        return self.completeness * self.r

    @property
    def wrong(self) -> np.ndarray:
        """w, (J,): chance that it is wrong and passes."""
        return (1 - self.r) * (1 - self.soundness)

    @property
    def limit(self) -> float:
        """Accuracy of endless attempts, sum of p a / (a + w); a type that never passes counts as wrong."""
        passing = self.right + self.wrong
        return float(self.prior @ np.divide(self.right, passing, out=np.zeros(len(self.r)), where=passing > 0))

    def _failing(self, top: int) -> np.ndarray:
        """beta^k for k = 0..top, (J, top+1): chance that k attempts all fail."""
        powers: np.ndarray = np.clip(1 - self.right - self.wrong, 0, 1)[:, None] ** np.arange(top + 1)
        return powers

    def curves(self, top: int) -> Curves:
        """Exact expectations within K = 1..top attempts."""
        reached = np.cumsum(self._failing(top)[:, :-1], axis=1)  # (1 - beta^K) / (1 - beta), or K where beta is 1
        accuracy = (self.prior * self.right) @ reached
        return Curves(accuracy + (self.prior * self.wrong) @ reached, accuracy, self.prior @ reached)

    def notebook_curves(self, top: int) -> Curves:
        """The public notebook's recursion, which weighs the k-th attempt by the updated belief in the types and
        then by the chance of getting there under that belief too: too high a reward from k = 2 on.

        For comparison only; the number of attempts is the exact one.
        """
        failing = self._failing(top)[:, :-1]
        weights = self.prior[:, None] * failing
        belief = np.divide(weights, weights.sum(axis=0), out=np.zeros_like(weights), where=weights.sum(axis=0) > 0)
        reached = (belief * failing).sum(axis=0)
        accuracy = np.cumsum(reached * (self.right @ belief))
        return Curves(accuracy + np.cumsum(reached * (self.wrong @ belief)), accuracy, self.curves(top).attempts)


@dataclass(frozen=True)
class Plan:
    """A deployment: types of tasks, what answers are worth, and the most attempts."""

    types: Types
    stakes: Stakes
    max_attempts: int

    def curves(self, notebook: bool) -> Curves:
        make = self.types.notebook_curves if notebook else self.types.curves
        return make(self.max_attempts)


def estimated(counts: Counts, completeness: float, soundness: float) -> Types:
    """Types from a run: those of easy tasks, with more than half of the samples correct, and of hard ones."""
    rates = counts.u / counts.n
    parts = [rates[rates > 0.5], rates[rates <= 0.5]]
    kept = [part for part in parts if len(part)]
    return Types(
        np.array([len(part) / len(rates) for part in kept]),
        np.array([part.mean() for part in kept]),
        completeness,
        soundness,
    )
