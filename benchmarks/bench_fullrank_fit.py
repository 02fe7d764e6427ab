"""fullrank's fit: importance against plain loss, complete against one-pass labels, on lists of numbers to sort.

A passage is "value v"; the query asks for the largest first.  A new decoder is trained on each kind of label or
loss and measured on lists that it has not seen.  Smaller than the card's task (12 passages, 4 layers of 128), so
that a run takes about two minutes on two cores.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

import pickaxe
from pickaxe import Item, Items
from pickaxe_plugins.reranking.fullrank import complete_order, one_pass

PASSAGES, VALUES = 6, 20
"""Passages of the longest list, and how many values there are."""
WINDOW, STEP = 4, 2
LISTS, TESTS, SEEDS = 9600, 60, 3
NOISE = 2.0
"""Deviation of the noise on the values that the noisy teacher compares."""
KINDS = ("importance", "lm", "complete", "one-pass")
NET = {"layers": 3, "width": 64, "heads": 4, "kv_heads": 2, "vocab": 1200, "context": 512}
RECIPE = {"epochs": 1, "batch": 16, "rate": 3e-3, "warmup": 40}


def run() -> Iterator[dict[str, Any]]:
    """Each row: the mean over seeds, with the seeds' own figures in the note."""
    yield from rows({kind: [trained(kind, seed) for seed in range(SEEDS)] for kind in KINDS})


def rows(found: dict[str, list[dict[str, float]]]) -> Iterator[dict[str, Any]]:
    for ours, peer in (("importance", "lm"), ("complete", "one-pass")):
        for measure in found[ours][0]:
            mine, other = ([each[measure] for each in found[kind]] for kind in (ours, peer))
            yield {
                "name": f"fit, {ours} against {peer}, {measure}",
                "ours": statistics.fmean(mine),
                "peer": statistics.fmean(other),
                "ratio": statistics.fmean(mine) / statistics.fmean(other),
                "unit": "share",
                "n": len(mine),
                "note": f"seeds {shown(mine)} against {shown(other)}",
            }


def trained(kind: str, seed: int) -> dict[str, float]:
    """How well a decoder orders that was trained so: exact labels with a loss, or noisy ones of a kind."""
    loss = "lm" if kind == "lm" else "importance"
    reranker = pickaxe.reranker("fullrank", loss=loss, net=NET, recipe=RECIPE, precision="fp32")
    fitted = reranker.fit([example(kind, seed, row) for row in range(LISTS)], seed=seed)
    reached = []
    for row in range(TESTS):
        values = drawn(PASSAGES, "test", row)
        ranking = fitted.rerank("largest first", Items(Item(str(value), f"value {value}") for value in values))
        reached.append(measures([values[entry.index] for entry in ranking]))
    return {name: statistics.fmean(each[name] for each in reached) for name in reached[0]}


def example(kind: str, seed: int, row: int) -> Item:
    """A list of 2 to `PASSAGES` values with its label."""
    n = int(pickaxe.generator(seed, "length", row).integers(2, PASSAGES + 1))
    values = drawn(n, "train", seed, row)
    noise = pickaxe.generator(seed, "noise", row)

    def noisy(places: Sequence[int]) -> list[int]:
        """A window's order by values that are misread anew in every look."""
        misread = {place: values[place] + NOISE * noise.standard_normal() for place in places}
        return sorted(places, key=lambda place: -misread[place])

    if kind == "one-pass":
        order = one_pass(range(n), noisy, WINDOW, STEP)
    elif kind == "complete":
        order, _ = complete_order(noisy, n, WINDOW, STEP)
    else:
        order = sorted(range(n), key=lambda place: -values[place])
    fields = {"passages": [f"value {value}" for value in values], "permutation": np.array(order)}
    return Item(f"{seed}-{row}", "largest first", fields)


def drawn(n: int, *key: str | int) -> list[int]:
    """Different whole numbers below `VALUES`."""
    return [int(value) for value in pickaxe.generator(0, *key).choice(VALUES, n, replace=False)]


def measures(values: list[int]) -> dict[str, float]:
    """Of values in the order they were put: nDCG with the values as linear gains, and pairs in the right order."""
    pairs = list(itertools.combinations(values, 2))
    tail = list(itertools.combinations(values[WINDOW - STEP :], 2))
    return {
        "nDCG@3": ndcg(values, 3),
        "nDCG": ndcg(values, len(values)),
        "pairs in order": statistics.fmean(first > second for first, second in pairs),
        "pairs in order below the first window - step": statistics.fmean(first > second for first, second in tail),
    }


def ndcg(values: list[int], depth: int) -> float:
    gains, best = np.array(values[:depth]), np.sort(values)[::-1][:depth]
    discount = 1 / np.log2(np.arange(2, depth + 2))
    return float((gains * discount).sum() / (best * discount).sum())


def shown(values: list[float]) -> str:
    return " ".join(f"{value:.3f}" for value in values)
