"""What `calibration-sets` tells: the answer in words, and its figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pickaxe.report import Axis, Figure, Series, explain, number
from pickaxe_plugins.reranking.calibration_sets._sets import Chosen

if TYPE_CHECKING:
    from pickaxe_plugins.reranking.calibration_sets._method import Params


def told(
    chosen: Sequence[Chosen], aggregate: np.ndarray, params: Params, model: str, flat: Sequence[str]
) -> dict[str, Any]:
    """The entries `answer` and `figures` of the summary; `flat` are the metrics without spread."""
    if not chosen:
        return explain(["There are no candidates, so there are no sets."], [])
    members = np.array([[aggregate[row] for row in each.rows] for each in chosen])
    sizes = (
        f"{params.n_pos} positives and {params.n_neg} negatives" if chosen[0].positives else f"{params.k} candidates"
    )
    answer = [
        f"{params.strategy_used} took {sizes} for each of {len(chosen)} documents: mean margin "
        f"{_mean(chosen, 'margin')}, mean quality {_mean(chosen, 'quality')}, both in standard deviations of the "
        "metrics.",
        f"The sets' mean diversity is {_mean(chosen, 'diversity')}, their mean surprise {_mean(chosen, 'surprise')}"
        f"{model}.",
    ]
    padded = sum(each.padded for each in chosen)
    if padded:
        answer.append(f"{padded} sets had too few candidates and repeat their last one.")
    if flat:
        answer.append(f"Without spread, and so without a say: {', '.join(flat)}.")
    low, middle, high = np.quantile(members, [0.1, 0.5, 0.9], axis=0)
    figure = Figure(
        "Aggregate by place in the set",
        Axis("place in the set"),
        Axis("aggregate", "standard deviations"),
        (Series("median document", "points", range(1, members.shape[1] + 1), middle, low=low, high=high),),
        note="Whiskers: from the 10th to the 90th of 100 documents.",
    )
    return explain(answer, [figure])


def _mean(chosen: Sequence[Chosen], name: str) -> str:
    values = np.array([each.statistics[name] for each in chosen])
    values = values[np.isfinite(values)]
    return number(float(values.mean()), 3) if len(values) else "unknown (the items lack what it needs)"
