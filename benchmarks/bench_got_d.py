"""got-d: potentials against POT's log-domain Sinkhorn (PyPI POT, if installed), a large pool, scoring of new items."""

from __future__ import annotations

import importlib
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import pickaxe
from pickaxe import Call, Item
from pickaxe_plugins.selection.got_d import _transport
from pickaxe_plugins.selection.got_d._transport import Costs, Settings

EPSILON = 0.05
NO_PEER = "POT is not installed"


def run() -> Iterator[dict[str, Any]]:
    yield from against_pot(1000, 10_000, 64)
    yield from against_pot(1000, 20_000, 384)
    yield large(200, 100_000, 384)
    yield scoring(1000, 4096, 384)


def vectors(n: int, m: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Targets of one distribution, candidates of another, of about unit length."""
    rng = np.random.default_rng(0)
    shift = rng.normal(0, 0.5 / d**0.5, d)
    return (rng.normal(0, d**-0.5, (n, d)) + shift).astype(np.float32), rng.normal(0, d**-0.5, (m, d)).astype(
        np.float32
    )


def solved(targets: np.ndarray, pool: np.ndarray, tolerance: float) -> np.ndarray:
    """The centred potentials of the pool."""
    costs = Costs(pool, targets, np.float64, keep_bytes=1 << 30)
    settings = Settings(EPSILON, tolerance)
    solution = _transport.finished(_transport.solve(costs, targets, settings, np.random.default_rng(0), Call()))
    g = np.empty(len(pool))

    def work(rows: slice, products: np.ndarray, norms: np.ndarray) -> None:
        g[rows] = _transport.transformed(products, norms, costs, solution.f, EPSILON, len(pool))[0]

    for _ in costs.over(work, Call()):
        pass
    return g


def peer(targets: np.ndarray, pool: np.ndarray) -> np.ndarray:
    ot = importlib.import_module("ot")
    left, right = targets.astype(np.float64), pool.astype(np.float64)
    even = [np.full(len(each), 1 / len(each)) for each in (left, right)]
    cost = ot.dist(left, right)
    log = ot.sinkhorn(*even, cost, EPSILON, method="sinkhorn_log", numItermax=2000, stopThr=1e-8, log=True)[1]
    g = EPSILON * np.asarray(log["log_v"])
    return g - g.mean()


def against_pot(n: int, m: int, d: int) -> Iterator[dict[str, Any]]:
    targets, pool = vectors(n, m, d)
    name = f"{m:,} x {n:,} x {d}"
    start = time.perf_counter()
    ours = solved(targets, pool, 1e-6)
    took = time.perf_counter() - start
    peak = peak_of(lambda: solved(targets, pool, 1e-6))
    try:
        start = time.perf_counter()
        theirs = peer(targets, pool)
    except ImportError:
        yield {"name": name, "ours": took, "peer": None, "ratio": None, "unit": "s", "n": 1, "note": NO_PEER}
        return
    other = time.perf_counter() - start
    note = f"POT; potentials differ by at most {np.abs(ours - theirs).max():.1e}"
    yield {"name": name, "ours": took, "peer": other, "ratio": other / took, "unit": "s", "n": 1, "note": note}
    other_peak = peak_of(lambda: peer(targets, pool))
    row = {"name": f"{name}, peak", "ours": peak, "peer": other_peak, "ratio": other_peak / peak, "unit": "MiB", "n": 1}
    yield {**row, "note": "of the Python heap; ours keeps the costs"}


def peak_of(work: Any) -> float:
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def large(n: int, m: int, d: int) -> dict[str, Any]:
    """A whole fit whose costs are computed anew in every iteration; to 1e-4."""
    targets, pool = vectors(n, m, d)
    given = [[Item(str(at), fields={"embedding": row}) for at, row in enumerate(each)] for each in (targets, pool)]
    scorer = pickaxe.scorer("got-d", epsilon=EPSILON, tolerance=1e-4, memory=0, precision="float32")
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        steps = list(scorer.fitting(given[1], Path(folder) / "a", validation=given[0]))
        took = time.perf_counter() - start
    passes = sum(step.stage == "transport" for step in steps)
    note = f"{passes} iterations, the first ones on a sample of {_transport.SAMPLE:,}; no costs kept"
    return {"name": f"fit, {m:,} x {n:,} x {d}", "ours": took, "peer": None, "ratio": None, "unit": "s", "n": 1,
            "note": note}  # fmt: skip


def scoring(n: int, m: int, d: int) -> dict[str, Any]:
    targets, pool = vectors(n, m, d)
    given = [[Item(str(at), fields={"embedding": row}) for at, row in enumerate(each)] for each in (targets, pool)]
    handle = pickaxe.scorer("got-d", epsilon=EPSILON, tolerance=1e-3, precision="float32")
    handle = handle.fit(given[1], validation=given[0])
    start = time.perf_counter()
    handle.score(given[1])
    rate = m / (time.perf_counter() - start)
    return {
        "name": f"scoring against {n:,} x {d}",
        "ours": rate,
        "peer": None,
        "ratio": None,
        "unit": "items/s",
        "n": m,
    }
