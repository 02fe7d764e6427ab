"""pcb: time and memory of choosing by each base method, explicit BADGE embeddings beside it, and labels on digits."""

from __future__ import annotations

import importlib
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pickaxe import Call
from pickaxe_plugins.selection.pcb import _classes, _pick
from pickaxe_plugins.selection.pcb._pick import Base, balanced

HERE = Path(__file__).parent.parent / "tests" / "plugins" / "selection"
BASES: tuple[Base, ...] = ("entropy", "coreset", "badge", "random")


def run() -> Iterator[dict[str, Any]]:
    for base in BASES:
        yield from choosing(base, 50_000, 100, 512, 100)
    yield from explicit(5_000, 20, 64, 100)
    yield from digits(5)


def row(name: str, ours: float, peer: float | None, unit: str, n: int, note: str) -> dict[str, Any]:
    return {"name": name, "ours": ours, "peer": peer, "ratio": None if peer is None else peer / ours, "unit": unit,
            "n": n, "note": note}  # fmt: skip


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def data(n: int, k: int, d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    features = _classes.unit(rng.normal(size=(n, d))).astype(np.float32)
    matrix = _classes.unit(rng.normal(size=(k, d)))
    return features, matrix, _classes.unit(rng.normal(size=(2 * k, d))).astype(np.float32)


def choosing(base: Base, n: int, k: int, d: int, q: int) -> Iterator[dict[str, Any]]:
    """From features to picks, the probabilities included."""
    features, matrix, labelled = data(n, k, d)

    def work() -> None:
        rng = np.random.default_rng(0)
        p = _classes.probabilities(features, matrix, 20.0, Call())
        best = _pick.informative(base, p, features, labelled, q, rng, Call())
        balanced(p.argmax(axis=1)[best], np.full(k, 2), q, rng, "reference")

    name, note = f"{base}: {n:,} x {d}, {k} classes, subset {q}", "the official code was not installed"
    yield row(name, seconds(work), None, "s", n, note)
    tracemalloc.start()
    work()
    yield row(f"{name}, peak", tracemalloc.get_traced_memory()[1] / 2**20, None, "MiB", n, "besides the features")
    tracemalloc.stop()


def explicit(n: int, k: int, d: int, q: int) -> Iterator[dict[str, Any]]:
    """BADGE on factored and on explicit embeddings, (n, k d)."""
    features, matrix, _ = data(n, k, d)
    p = _classes.probabilities(features, matrix, 20.0, Call())

    def whole() -> None:
        rng, factors = np.random.default_rng(0), _pick.badge_factors(p)
        made = (factors[:, :, None] * features[:, None]).reshape(n, -1)
        chosen, apart = int((made**2).sum(axis=1).argmax()), np.full(n, np.inf)
        for _ in range(q - 1):
            apart = np.minimum(apart, ((made - made[chosen]) ** 2).sum(axis=1))
            chosen = int(rng.choice(n, p=apart / apart.sum()))

    ours = seconds(lambda: _pick.badge(p, features, q, np.random.default_rng(0), Call()))
    yield row(f"badge: {n:,}, K d = {k * d:,}", ours, seconds(whole, 1), "s", n, "peer: explicit embeddings in NumPy")


def digits(seeds: int) -> Iterator[dict[str, Any]]:
    """Errors after 80 labels, by how they were chosen: PCB beside each other way."""
    sys.path.insert(0, str(HERE))
    split = importlib.import_module("digits").Digits
    found = {how: np.array([split(seed).run(how) for seed in range(seeds)]) for how in ("pcb", "entropy", "random")}
    error = {how: 1 - each[:, 0] for how, each in found.items()}
    for how in ("entropy", "random"):
        uneven = found["pcb"][:, 1].mean(), found[how][:, 1].mean()
        note = (
            f"fewer errors on {(error['pcb'] < error[how]).sum()} of {seeds} seeds; imbalance {uneven[0]:.2f} and "
            f"{uneven[1]:.2f}, lower on {(found['pcb'][:, 1] < found[how][:, 1]).sum()}"
        )
        yield row(f"digits, error after 80 labels, {how}", error["pcb"].mean(), error[how].mean(), "", seeds, note)
