"""interp-extrap: time and memory of the splits, a flat search of NumPy beside it, and the released id files."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pickaxe import Call, metrics
from pickaxe_plugins.evaluation import _extrap_similarity as similarity
from pickaxe_plugins.evaluation import _extrap_splits as splits
from pickaxe_plugins.evaluation.interp_extrap import label_overlap

FILES = Path(__file__).parent.parent / "tests" / "golden" / "files" / "25-extrapolate-eval"


def run() -> Iterator[dict[str, Any]]:
    yield released()
    train, test = vectors(100_000, 1), vectors(10_000, 2)
    how = splits.Resample(15, "ascending", 0.5, True)
    seconds = once(lambda: splits.restrain(train, test[:500], how, 0, Call()))
    yield row(
        "ReSTrain, 500 x 100,000 x 384", seconds, flat(train, test[:500]), 500, "peer: sorted rows of one product"
    )
    both = np.concatenate([train, test])
    found: list[np.ndarray] = []
    means = once(lambda: found.append(similarity.spherical_kmeans(both, 5, 10, 0, Call())))
    yield row(
        "k-means, 110,000 x 384, 5 buckets, 10 runs", means, None, len(both), "faiss and scikit-learn not installed"
    )
    parts = once(lambda: splits.resttest(train, test, found[0], Call()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    yield row(
        "ReSTTest, 10,000 x 100,000 x 384", means + parts, None, len(test), f"aim: 60 s, 1 GB; peak {peak:.2f} GB"
    )


def released() -> dict[str, Any]:
    """Label overlap of the released ReSTTest test queries with the released ReSTrain training sets."""
    sets = [
        metrics.read_qrels(FILES / f"restrain.14k.{part}.train-qrel.txt") for part in ("interpolate", "extrapolate")
    ]
    test: dict[str, dict[str, int]] = {}
    for bucket in range(1, 6):
        test |= metrics.read_qrels(FILES / f"resttest.bucket-{bucket}.extrapolate.dev-qrel.txt")
    shares: list[float] = []
    seconds = once(lambda: shares.extend(len(label_overlap(each, test)) / len(test) for each in sets))
    told = "interpolation set {:.2%}, extrapolation set {:.2%}".format(*shares)
    return row(f"label overlap of {len(test):,} dev queries", seconds, None, len(test), told)


def flat(train: np.ndarray, test: np.ndarray) -> float:
    """The peer sorts a tenth of the rows."""
    part = test[: len(test) // 10]
    return 10 * once(lambda: np.argsort(-(part @ train.T), axis=1)[:, :15])


def vectors(n: int, seed: int) -> np.ndarray:
    """Around fifty topics, as queries are."""
    rng = np.random.default_rng(seed)
    topics = np.random.default_rng(0).standard_normal((50, 384), np.float32)
    return similarity.unit(topics[rng.integers(0, 50, n)] + rng.standard_normal((n, 384), np.float32))


def once(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def row(name: str, ours: float, peer: float | None, n: int, note: str) -> dict[str, Any]:
    ratio = None if peer is None else peer / ours
    return {"name": name, "ours": ours, "peer": peer, "ratio": ratio, "unit": "s", "n": n, "note": note}
