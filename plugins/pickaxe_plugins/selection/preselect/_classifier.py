"""What a fastText classifier likes, word by word, and how well it tells labelled texts apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pickaxe import Call
from pickaxe.errors import Unmet
from pickaxe_plugins.selection._roc import roc

if TYPE_CHECKING:
    from pickaxe.fasttext_model import FastText

SHOWN = 200
"""Words listed at either end."""
_BATCH = 4096


def contributions(model: FastText, label: str, call: Call) -> np.ndarray:
    """What each of `model.words` adds to the label's logit against the mean of the other labels': float32 (words,).

    Raises `Unmet` when the model is quantised or has no other label.
    """
    if len(model.labels) < 2:
        raise Unmet(f"a model with the one label {label!r} prefers no word")
    vectors = model.label_vectors()
    row = model.labels.index(model.label(label))
    direction = vectors[row] - np.delete(vectors, row, axis=0).mean(axis=0)
    parts = []
    for start in range(0, len(model.words), _BATCH):
        call.check()
        parts.append(model.word_vectors(model.words[start : start + _BATCH]) @ direction)
    return np.concatenate(parts)


def liked_and_disliked(model: FastText, label: str, call: Call) -> dict[str, list[list[Any]]]:
    """The words that speak most for and against the label, with their contributions, strongest first."""
    values = contributions(model, label, call)
    order = [row for row in np.argsort(-values, kind="stable") if model.words[row] != "</s>"]
    pairs = [[model.words[row], round(float(values[row]), 6)] for row in order]
    return {"for": pairs[:SHOWN], "against": pairs[::-1][:SHOWN]}


def agreement(quality: np.ndarray, positive: np.ndarray) -> dict[str, float | int]:
    """Accuracy at 0.5 and area under the ROC on labelled texts; the area needs both labels."""
    found: dict[str, float | int] = {
        "documents": len(quality),
        "accuracy": float(((quality >= 0.5) == positive).mean()),
    }
    if positive.any() and not positive.all():
        found["auc"] = roc(quality, positive).auc
    return found
