"""What `pcb` tells: the answer in words and a figure of labels per class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pickaxe.report import Axis, Figure, Series, explain, number

_MOST = 40


def tell(classes: Sequence[str], before: np.ndarray, picked: np.ndarray, random: int, note: str) -> dict[str, Any]:
    """`before`: labelled items per class; `picked`: picks by pseudo label; `random`: picks that were not balanced."""
    after = before + picked
    hungry = int(before.argmin())
    answer = [
        f"Label the {int(picked.sum())} selected items next; {random} of them were picked at random, the others for "
        "the classes with the fewest labels.",
        f"The class with the fewest labels is {classes[hungry]} ({int(before[hungry])} of {int(before.sum())}).",
        f"The imbalance (standard deviation of the labels per class) is {number(float(before.std()), 3)}; it will be "
        f"{number(float(after.std()), 3)} if the pseudo labels are right.",
    ]
    if note:
        answer.append(note)
    shown = np.argsort(before, kind="stable")[:_MOST]
    rows = range(len(shown))
    figure = Figure(
        "Labels per class",
        Axis("labelled items"),
        Axis("class", categories=[classes[at] for at in shown]),
        [
            Series("now", "points", before[shown].tolist(), rows),
            Series("with the selected items", "points", after[shown].tolist(), rows),
        ],
        "Classes with the fewest labels first; selected items count by their pseudo label.",
    )
    table = {"class": list(classes), "labelled": before.tolist(), "selected by pseudo label": picked.tolist()}
    return explain(answer, [figure]) | {"Classes": table, "Imbalance": {"now": float(before.std())}}
