"""one-epoch: laws of many curves against numpy.polyfit, the recipe against a bare loop, one pass against many."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import pickaxe
from benchmarks import _tiny_net as net
from benchmarks._rows import median, row
from pickaxe import Item
from pickaxe.extras import require
from pickaxe_plugins.scaling import _pretraining
from pickaxe_plugins.scaling._one_epoch_plan import power_law

STEPS, BATCH = 1500, 128


def run() -> Iterator[dict[str, Any]]:
    yield laws(curves=100_000, points=50)
    yield recipe()
    yield from passes(seeds=3)


def laws(curves: int, points: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    iterations = np.geomspace(1000, 100_000, points)
    loss = 9 * iterations ** -rng.uniform(0.05, 0.2, (curves, 1)) * np.exp(rng.normal(0, 0.01, (curves, points)))
    seconds = median(lambda: power_law(iterations, loss), 3)
    sample = loss[:2000]
    peer = median(lambda: [np.polyfit(np.log(iterations), np.log(each), 1) for each in sample], 3) * curves / 2000
    note = f"aim: 0.5 s for all of ours (took {seconds:.2f} s)"
    return row(
        f"power laws, {curves} curves of {points} points", curves / seconds, curves / peer, "curves/s", curves, note
    )


def recipe() -> dict[str, Any]:
    """Seconds of a step of the recipe, and of the same network and optimiser in a bare jitted loop, by turns."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghijklmnop"), 5)) for _ in range(2000)]  # enough to fill the vocabulary
    documents = [Item(str(place), " ".join(rng.choice(words, 300))) for place in range(150)]
    settings = {"budget": 4e11, "batch": 16, "context": 128, "vocab": 512, "measure": 50}
    bare = bare_step(budget=4e11)
    taken: dict[str, list[float]] = {"ours": [], "bare": []}
    with tempfile.TemporaryDirectory() as folder:
        steps = pickaxe.scorer("one-epoch", recipe=settings).fitting(documents, Path(folder) / "art")
        assert next(steps).metrics["tokens"] == 512
        for _ in range(45):
            for name, work in (("ours", lambda: next(steps)), ("bare", bare)):
                begin = time.perf_counter()
                work()
                taken[name].append(time.perf_counter() - begin)
    ours, peer = (16 * 128 / statistics.median(taken[name][5:]) for name in ("ours", "bare"))
    return row("recipe", ours, peer, "tokens/s", 40, "aim: within 5 % of a bare loop with the same optimiser")


def bare_step(budget: float) -> Callable[[], object]:
    jax, optax = require("jax", extra="train"), require("optax", extra="train")
    from pickaxe_plugins.train import llama
    from pickaxe_plugins.train.descent import adamw
    from pickaxe_plugins.train.settings import Recipe

    architecture = _pretraining.network((budget / 5) ** 0.5, 512, 128, 512)
    loss, optimiser = _pretraining.next_token_loss(architecture, 0.0), adamw(Recipe(), 100)

    @jax.jit
    def step(weights: Any, state: Any, rows: Any) -> Any:
        value, slope = jax.value_and_grad(loss)(weights, rows, None)
        change, state = optimiser.update(slope, state, weights)
        return optax.apply_updates(weights, change), state, value

    weights = llama.initial(architecture, 0)
    held: list[Any] = [weights, optimiser.init(weights)]
    rows = np.random.default_rng(0).integers(0, 512, (16, 129)).astype(np.int32)

    def work() -> None:
        *held[:], value = step(*held, rows)
        jax.block_until_ready(value)

    return work


def passes(seeds: int) -> Iterator[dict[str, Any]]:
    """Test losses after the same number of steps: fresh data, many passes over a tenth, fresh data with dropout."""
    test = net.text(20_000, 10_000)
    for seed in range(seeds):
        data = net.text(STEPS * BATCH, seed)
        rng = np.random.default_rng(seed)
        tenth = data[: len(data) // 10]
        many = np.concatenate([tenth[rng.permutation(len(tenth))] for _ in range(10)])
        losses = {}
        for name, rows, dropout in (("once", data, 0.0), ("ten times", many, 0.0), ("with dropout", data, 0.1)):
            batches = rows[: STEPS * BATCH].reshape(-1, BATCH, net.CONTEXT + 1)
            weights, course = net.train(net.initial(256, seed), batches, net.adam(STEPS), dropout, seed)
            losses[name] = float(net.loss(weights, test)), float(course[-100:].mean())
        gap = losses["ten times"][0] - losses["once"][0]
        told = ", ".join(f"{name} {test_loss:.3f} (train {last:.3f})" for name, (test_loss, last) in losses.items())
        yield row(f"ten passes against one, seed {seed}", gap, None, "nats", STEPS, f"aim: 0.1; test loss {told}")
