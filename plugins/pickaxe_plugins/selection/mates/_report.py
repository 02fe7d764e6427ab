"""What `mates` tells about a draw: the answer in words, and what was drawn from the pool."""

from __future__ import annotations

from typing import Any

import numpy as np

from pickaxe.report import Axis, Figure, Series, explain, number

_BINS = 30


def tell(influence: np.ndarray, select: np.ndarray, temperature: float, spearman: float | None) -> dict[str, Any]:
    """`influence` (n,) in standard units; `select` (n,) bool; `spearman` of the influence model on held-out probes."""
    count, n = int(select.sum()), len(influence)
    how = "the highest predictions" if temperature == 0 else f"a Gumbel draw at temperature {number(temperature, 3)}"
    mean, whole = float(influence[select].mean()), float(influence.mean())
    answer = [
        f"Train on the {count} selected of {n} items: {how}.",
        f"Their mean predicted influence is {number(mean, 3)} standard deviations of the probes, that of the pool "
        f"{number(whole, 3)}.",
        _trust(spearman),
    ]
    low, high = float(influence.min()), float(influence.max())
    edges = np.linspace(low, high, _BINS + 1) if high > low else np.array([low - 0.5, low + 0.5])
    middles = (edges[:-1] + edges[1:]) / 2
    series = [
        Series(name, "line", middles, np.histogram(each, edges)[0] / len(each))
        for name, each in (("pool", influence), ("selected", influence[select]))
    ]
    figure = Figure(
        "Predicted influence of the pool and of the selected items",
        Axis("predicted influence", "standard deviations"),
        Axis("share of the items"),
        series,
    )
    means = {"selected": mean, "pool": whole}
    return explain(answer, [figure]) | {"Mean influence": means, "Selected": {"items": count, "of": n}}


def _trust(spearman: float | None) -> str:
    if spearman is None:
        return "How well the predictions rank is not known: the held-out probes or their predictions are all alike."
    warning = " That is little: probe more items, or a later checkpoint." if spearman < 0.1 else ""
    return f"On held-out probes the predictions rank with a Spearman correlation of {number(spearman, 3)}.{warning}"
