"""calibration-sets: documents a second per strategy, against the same search one subset at a time.

The authors' collator is not a package; the peer follows its description: random subsets (5000 for gaps, 200 for
diversity, 100 for surprise), each measured on its own.  Ours looks at every subset.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from pickaxe.randomness import generator
from pickaxe_plugins.reranking.calibration_sets import Pool, relevant_set
from pickaxe_plugins.reranking.calibration_sets._strategies import RELEVANCE, Search

N, K, LIMIT = 20, 4, 5000
DRAWN = {"max_gap": 5000, "min_gap": 5000, "max_diversity": 200, "max_surprise": 100}


def run() -> Iterator[dict[str, Any]]:
    """Groups of 20 candidates of about 60 words, sets of 4."""
    pools = [pool(seed) for seed in range(30)]
    for strategy in RELEVANCE:
        if strategy in ("extreme", "average", "min_diversity", "min_surprise"):
            continue  # the same code as another one
        yield row(strategy, pools)


def pool(seed: int) -> Pool:
    rng = np.random.default_rng(seed)
    words = [f"w{number}" for number in range(60)]
    texts = [" ".join(rng.choice(words, 60)) for _ in range(N)]
    values = np.sort(rng.normal(size=N))[::-1]
    return Pool(
        values, texts, rng.permutation(N).astype(float), rng.normal(size=N), rng.normal(size=N), np.ones(N, bool)
    )


def row(strategy: str, pools: list[Pool]) -> dict[str, Any]:
    slow = strategy in ("max_diversity",)
    ours_on = pools[:3] if slow else pools
    ours = rate(lambda each: chosen(each, strategy), ours_on)
    peer = rate(lambda each: by_search(each, strategy), pools[:3]) if strategy in DRAWN else None
    found = {
        "name": strategy,
        "ours": ours,
        "peer": peer,
        "ratio": None if peer is None else ours / peer,
        "unit": "documents/s",
        "n": len(ours_on),
    }
    if peer is None:
        return {**found, "note": "the published way is a sort, too: no peer is installed"}
    return {**found, "note": f"peer: {DRAWN[strategy]} random subsets, one by one; ours: all {math.comb(N, K)}"}


def chosen(each: Pool, strategy: str) -> None:
    fresh = Pool(each.aggregate, each.texts, each.sample_idx, each.likelihood, each.density, each.own)  # no kept BLEU
    relevant_set(fresh, strategy, K, Search(LIMIT, lambda: generator(0, "bench")))


def rate(work: Callable[[Pool], None], pools: list[Pool]) -> float:
    """Median of 3 runs."""
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        for each in pools:
            work(each)
        taken.append(time.perf_counter() - start)
    return len(pools) / statistics.median(taken)


def by_search(each: Pool, strategy: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(DRAWN[strategy]):
        rows = np.sort(rng.choice(N, K, replace=False))
        if strategy.endswith("gap"):
            np.abs(np.diff(each.aggregate[rows])).mean()
        elif strategy.endswith("surprise"):
            from scipy.stats import spearmanr

            spearmanr(each.aggregate[rows], -each.sample_idx[rows])
        else:
            tokens = [each.texts[place].split() for place in rows]
            for at, text in enumerate(tokens):
                bleu(text, [other for place, other in enumerate(tokens) if place != at])


def bleu(text: list[str], references: list[list[str]]) -> float:
    """BLEU-4 of one text, its n-grams counted anew."""
    total = 0.0
    for n in range(1, 5):
        ours = Counter(zip(*(text[place:] for place in range(n)), strict=False))
        best: Counter[tuple[str, ...]] = Counter()
        for reference in references:
            best |= Counter(zip(*(reference[place:] for place in range(n)), strict=False))
        total += math.log(((ours & best).total() + 1) / (ours.total() + 1))
    return math.exp(total / 4)
