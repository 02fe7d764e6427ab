"""The ROC of one score against 0/1 labels, with the figures that membership papers report."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Roc:
    """Operating points from "nothing is positive" to "everything is": score >= thresholds[i] is positive.

    `thresholds` falls; `fpr` and `tpr` rise from 0 to 1.
    """

    thresholds: np.ndarray
    fpr: np.ndarray
    tpr: np.ndarray

    @property
    def auc(self) -> float:
        """Area under the curve: P(positive scores higher), ties counting half."""
        return float(np.sum(np.diff(self.fpr) * (self.tpr[1:] + self.tpr[:-1]) / 2))

    @property
    def balanced_accuracy(self) -> np.ndarray:
        """1 - (FPR + 1 - TPR) / 2 at every point."""
        return 1 - (self.fpr + 1 - self.tpr) / 2

    def tpr_below(self, fpr: float) -> float:
        """TPR at the last point whose FPR is strictly below `fpr`, as the official sweep has it."""
        return float(self.tpr[np.flatnonzero(self.fpr < fpr)[-1]])

    def best(self, max_fpr: float | None = None) -> int:
        """The point of best balanced accuracy, or the last one with FPR <= `max_fpr`."""
        if max_fpr is None:
            return int(np.argmax(self.balanced_accuracy))
        return int(np.flatnonzero(self.fpr <= max_fpr)[-1])

    def threshold(self, point: int) -> float:
        """A cut for new scores: halfway between the point's score and the next lower one."""
        here = float(self.thresholds[point])
        if point == 0 or point + 1 == len(self.thresholds):
            return here
        below = float(self.thresholds[point + 1])
        middle = (here + below) / 2
        return middle if below < middle < np.inf else here


def roc(scores: np.ndarray, labels: np.ndarray) -> Roc:
    """The curve of float `scores` (n,), none of them NaN, and 0/1 `labels` (n,) with both values present."""
    order = np.argsort(-scores, kind="stable")
    ranked, positive = scores[order], labels[order].astype(bool)
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    tps = np.cumsum(positive)[last]
    fps = last + 1 - tps
    return Roc(
        np.concatenate([[np.nextafter(ranked[0], np.inf)], ranked[last]]),
        np.concatenate([[0.0], fps / fps[-1]]),
        np.concatenate([[0.0], tps / tps[-1]]),
    )
