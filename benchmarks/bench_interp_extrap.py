"""interp-extrap: time and memory of the splits, a flat search beside it, released id files, ADORE on MetaTool."""

from __future__ import annotations

import importlib
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import pickaxe
from benchmarks._metatool import items, mrr10
from benchmarks._rows import row
from pickaxe import Artifact, Call, Item, metrics
from pickaxe_plugins.evaluation.interp_extrap import Data, evaluate, label_overlap
from pickaxe_plugins.evaluation.interp_extrap import _similarity as similarity
from pickaxe_plugins.evaluation.interp_extrap import _splits as splits

FILES = Path(__file__).parent.parent / "tests" / "golden" / "files" / "25-extrapolate-eval"
ADORE = pickaxe.MethodRef(
    name="star-adore", params={"base": None, "head_scale": 10, "neg_topk": 30, "adore": {"epochs": 20}}
)
"""As in the bench of star-adore."""


def run() -> Iterator[dict[str, Any]]:
    yield released()
    yield from extrapolating(seeds=3)
    train, test = vectors(100_000, 1), vectors(10_000, 2)
    how = splits.Resample(15, "ascending", 0.5, True)
    seconds = once(lambda: splits.restrain(train, test[:500], how, 0, Call()))
    yield timed(
        "ReSTrain, 500 x 100,000 x 384", seconds, flat(train, test[:500]), 500, "peer: sorted rows of one product"
    )
    seconds = once(lambda: similarity.neighbours(train, test[:500], 15, Call()))
    yield timed("neighbours of it", seconds, faiss(train, test[:500]), 500, "peer: faiss-cpu, flat search")
    both = np.concatenate([train, test])
    found: list[np.ndarray] = []
    begin = time.process_time()
    means = once(lambda: found.append(similarity.spherical_kmeans(both, 5, 10, 0, Call())))
    parts = once(lambda: splits.resttest(train, test, found[0], Call()))
    spent = time.process_time() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    note = f"aim: 60 s, 1 GB; {spent:.0f} s of one processor; peak {peak:.2f} GB"
    yield timed("ReSTTest, 10,000 x 100,000 x 384", means + parts, None, len(test), note)
    name = "k-means of it, 5 buckets, 10 runs"
    yield timed(name, means, lloyd(both), len(both), "peer: one run of scikit-learn (Lloyd, k-means++), times ten")


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
    return timed(f"label overlap of {len(test):,} dev queries", seconds, None, len(test), told)


def extrapolating(seeds: int) -> Iterator[dict[str, Any]]:
    """MRR@10 of 200 questions: ADORE trained on those like them, on as many at random, on those unlike them."""
    tools, questions = items()
    reached: dict[str, list[float]] = {"interpolation": [], "random": [], "extrapolation": []}
    sizes = []
    for seed in range(seeds):
        order = pickaxe.generator(seed, "interp-extrap").permutation(len(questions))
        test, train = ([questions[row] for row in part] for part in (order[:200], order[200:]))
        qrels = {each.id: dict.fromkeys(each.fields["relevant"], 1) for each in test}
        (near, far), size = restrained(Data(tools, train, test, qrels), seed)
        drawn = [train[row] for row in pickaxe.generator(seed, "random").choice(len(train), size, replace=False)]
        fitted = pickaxe.retriever(ADORE.name, **ADORE.params).fit(drawn, unlabelled=tools, seed=seed)
        middle = mrr10(fitted, tools, test)
        for values, value in zip(reached.values(), (near, middle, far), strict=True):
            values.append(value)
        sizes.append(size)
    random = statistics.mean(reached["random"])
    for name, values in reached.items():
        told = ", ".join(f"{value:.3f}" for value in values)
        note = f"per seed: {told}; peer: trained on random ones; {min(sizes)} to {max(sizes)} training questions"
        yield row(f"MetaTool, ADORE, {name}", statistics.mean(values), random, "MRR@10", 200, note)
    gap = statistics.mean(reached["interpolation"]) - statistics.mean(reached["extrapolation"])
    yield row("MetaTool, ADORE, the gap", gap, None, "MRR@10", 200, "wanted: 0.01 or more")


def restrained(data: Data, seed: int) -> tuple[list[float], int]:
    """MRR@10 of ADORE trained on the three questions nearest to each test question, and on far ones; how many."""
    splitter = pickaxe.scorer("interp-extrap", protocol="restrain", n_per_query=3, seed=seed)
    train, test = ([Item(each.id, None, {"embedding": each.fields["embedding"]}) for each in part]
                   for part in (data.train, data.test))  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        splits, runs = Path(folder) / "splits", Path(folder) / "runs"
        splitter.fit(train, validation=test, out=splits)
        results = evaluate(ADORE, data, splits, runs, call=Call(seed=seed))
        size = int(Artifact.open(splits).read_array("training.npy")[0].sum())
    return [
        statistics.mean(each.fields["metric"] for each in results if each.fields["fold"] == n) for n in (0, 1)
    ], size


def flat(train: np.ndarray, test: np.ndarray) -> float:
    """The peer sorts a tenth of the rows."""
    part = test[: len(test) // 10]
    return 10 * once(lambda: np.argsort(-(part @ train.T), axis=1)[:, :15])


def faiss(train: np.ndarray, test: np.ndarray) -> float | None:
    """The peer, where faiss-cpu is installed."""
    try:
        index = importlib.import_module("faiss").IndexFlatIP(train.shape[1])
    except ImportError:
        return None
    index.add(train)
    return once(lambda: index.search(test, 15))


def lloyd(both: np.ndarray) -> float | None:
    """The peer, where scikit-learn is installed."""
    try:
        means = importlib.import_module("sklearn.cluster").KMeans
    except ImportError:
        return None
    return 10 * once(lambda: means(5, n_init=1, max_iter=50, tol=1e-5, random_state=0).fit(both))


def vectors(n: int, seed: int) -> np.ndarray:
    """Around fifty topics, as queries are."""
    rng = np.random.default_rng(seed)
    topics = np.random.default_rng(0).standard_normal((50, 384), np.float32)
    return similarity.unit(topics[rng.integers(0, 50, n)] + rng.standard_normal((n, 384), np.float32))


def once(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def timed(name: str, ours: float, peer: float | None, n: int, note: str) -> dict[str, Any]:
    return row(name, ours, peer, "s", n, note, less=True)
