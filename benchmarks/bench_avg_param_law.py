"""avg-param-law: the fit from 4,500 starts against scipy's L-BFGS, masks, and sparse against dense training."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks import _tiny_net as net
from benchmarks._rows import median, row
from pickaxe.extras import require
from pickaxe_plugins.scaling._laws import resampled_counts
from pickaxe_plugins.scaling.avg_param_law._law import CHINCHILLA, STARTS, fit, refit
from pickaxe_plugins.scaling.avg_param_law._pruning import Course, magnitude_mask, pruning, schedule

STEPS, BATCH, HIDDEN = 1400, 128, 224


def run() -> Iterator[dict[str, Any]]:
    yield law(200)
    yield bootstrap(200, 200)
    yield mask(10_000_000)
    for sparsity in (0.5, 0.8):
        for seed in (0, 1):
            yield sparse(sparsity, seed)


def runs(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    params, tokens = 10 ** rng.uniform(7, 10, count), 10 ** rng.uniform(9, 11.5, count)
    return params, tokens, CHINCHILLA.loss(params, tokens) * np.exp(rng.normal(0, 0.01, count))


def law(count: int) -> dict[str, Any]:
    """The peer runs a sample of the starts, one after the other, with the gradient in closed form."""
    params, tokens, loss = runs(count)
    seconds = median(lambda: fit(params, tokens, loss, 1e-3), 3)
    reached = fit(params, tokens, loss, 1e-3).objective
    log_n, log_d, log_l = np.log(params), np.log(tokens), np.log(loss)
    minimize = require("scipy.optimize", extra="scaling").minimize

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        a, b, e, alpha, beta = theta
        terms = np.stack([a - alpha * log_n, b - beta * log_d, np.full(count, e)])
        top = terms.max(0)
        shares = np.exp(terms - top)
        off = top + np.log(shares.sum(0)) - log_l
        shares /= shares.sum(0)
        size = np.abs(off)
        value = np.where(size <= 1e-3, 0.5 * off**2, 1e-3 * (size - 5e-4)).sum()
        pull = np.clip(off, -1e-3, 1e-3)
        slope = [shares[0] @ pull, shares[1] @ pull, shares[2] @ pull]
        return float(value), np.array([*slope, -(shares[0] * log_n) @ pull, -(shares[1] * log_d) @ pull])

    sample = STARTS[::75]
    begin = time.perf_counter()
    best = min(minimize(objective, start, jac=True, method="L-BFGS-B").fun for start in sample)
    peer = (time.perf_counter() - begin) * len(STARTS) / len(sample)
    note = f"aim: 5 s (took {seconds:.2f} s); objective {reached:.6e}, peer {best:.6e} from {len(sample)} of the starts"
    return row(f"law of {count} runs, {len(STARTS)} starts", 1 / seconds, 1 / peer, "fits/s", count, note)


def bootstrap(count: int, draws: int) -> dict[str, Any]:
    params, tokens, loss = runs(count)
    found = fit(params, tokens, loss, 1e-3).law
    weights = resampled_counts(count, draws, np.random.default_rng(0))
    seconds = median(lambda: refit(found, params, tokens, loss, 1e-3, weights), 3)
    return row(f"{draws} bootstrap fits of {count} runs", seconds, None, "s", draws, "")


def mask(weights: int) -> dict[str, Any]:
    values = np.random.default_rng(0).normal(size=weights).astype(np.float32)
    seconds = median(lambda: magnitude_mask(values, weights // 2), 5)
    peer = median(lambda: np.argsort(np.abs(values), kind="stable"), 1)
    note = f"aim: 100 ms (took {1e3 * seconds:.0f} ms); the peer sorts"
    return row(f"mask of {weights} weights", 1 / seconds, 1 / peer, "masks/s", weights, note)


def sparse(sparsity: float, seed: int) -> dict[str, Any]:
    """Test loss of a pruned run, of a dense one of its average size, and of a dense one of its final size."""
    test = net.text(20_000, 10_000)
    batches = net.text(STEPS * BATCH, seed).reshape(STEPS, BATCH, -1)
    plan = schedule(sparsity)
    course = Course.of(STEPS, plan.start * STEPS, plan.end * STEPS, sparsity, "cubic", STEPS // 100)
    optimiser = pruning(net.adam(STEPS), net.prunable(HIDDEN), course, "layer")

    def trained(hidden: int, optimiser: Any) -> float:
        weights, _ = net.train(net.initial(hidden, seed), batches, optimiser, seed=seed)
        return float(net.loss(weights, test))

    average, final = round(HIDDEN * plan.density), round(HIDDEN * (1 - sparsity))
    pruned = trained(HIDDEN, optimiser)
    by_average, by_final = trained(average, net.adam(STEPS)), trained(final, net.adam(STEPS))
    nearer = abs(pruned - by_average) < abs(pruned - by_final)
    note = (
        f"sparse {pruned:.3f}, dense of average size {by_average:.3f}, dense of final size {by_final:.3f}; "
        f"nearer to the average: {'yes' if nearer else 'no'}"
    )
    return row(
        f"sparsity {sparsity}, seed {seed}: distance to average size, final size as peer",
        abs(pruned - by_average),
        abs(pruned - by_final),
        "nats",
        STEPS,
        note,
    ) | {"ratio": abs(pruned - by_final) / max(abs(pruned - by_average), 1e-9)}
