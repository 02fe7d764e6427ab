"""idealized-runtime: estimates against a function called per request, published fits, and a profile of a model here."""

from __future__ import annotations

import bisect
import statistics
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

import pickaxe
from benchmarks._rows import median
from pickaxe import Prompt
from pickaxe_plugins.scaling.idealized_runtime._model import (
    Deployment,
    Rules,
    aggregated,
    estimate,
    fit_deployment,
    presets,
)
from pickaxe_plugins.scaling.idealized_runtime._profile import Grid, profile

QUERIES = 1_000_000


def run() -> Iterator[dict[str, Any]]:
    yield estimates()
    yield saw_tooth()
    for model in ("draft", "lm"):
        yield from profiled(model)


def estimates() -> dict[str, Any]:
    """A million requests at once; the peer walks over them in Python, a sample of them timed."""
    rng = np.random.default_rng(0)
    davinci = presets("idealized")["openai/davinci"]
    p, o = rng.integers(1, 2500, QUERIES), rng.integers(0, 200, QUERIES)
    seconds = median(lambda: estimate(davinci, p, o).total, 5)
    sample = list(zip(p[:20_000].tolist(), o[:20_000].tolist(), strict=True))
    theirs = median(lambda: [one_by_one(davinci, *each) for each in sample], 5) * QUERIES / len(sample)
    note = "aims: 0.2 s and 50 times; the peer is a Python function called for each request"
    return row("1e6 estimates", seconds, theirs, "s", QUERIES, note)


def one_by_one(deployment: Deployment, p: int, o: int) -> float:
    """The same estimate for one request, in plain Python."""
    table = deployment.runtime_for_prompt_tokens
    sizes = list(table)
    size = sizes[min(bisect.bisect_left(sizes, p), len(sizes) - 1)]
    decode = deployment.runtime_per_output_token * (o - 1) if o > 0 else 0.0
    return table[size] * p / size + decode + deployment.overhead


def saw_tooth() -> dict[str, Any]:
    """How far the estimate falls right behind a measured size, at most, over all published tables."""
    falls = []
    for deployment in presets("idealized").values():
        sizes = np.array(list(deployment.runtime_for_prompt_tokens)[:-1])
        at, behind = (estimate(deployment, sizes + step, np.ones(len(sizes))).total for step in (0, 1))
        falls.append(float(np.max(1 - behind / at)))
    note = "share by which one more prompt token lowers the estimate, worst of the published tables"
    return row("saw-tooth", max(falls), None, "share", len(falls), note)


def profiled(model: str) -> Iterator[dict[str, Any]]:
    """Fit on a small grid, predict an output size that it lacks, twice: spread of runs against models."""
    decoder = pickaxe.decoder("repeated-sampling", model=model)
    tokenizer = pickaxe.host.default_host().lm(model).tokenizer
    found = []
    for seed in (0, 1):
        grid = Grid((16, 64, 256), (1, 4, 16, 32), 2, 3, 90)
        trials = drain(profile(decoder, tokenizer, grid, pickaxe.Call(seed=seed)))
        found.append(fitted(trials))
    unseen = drain(profile(decoder, tokenizer, Grid((16, 64, 256, 100), (24,), 1, 3, 60), pickaxe.Call(seed=2)))
    law = found[0]
    assert law.quality is not None
    measured = aggregated(by_size(unseen), "min")
    p, o, seconds = measured.T
    errors = np.abs(estimate(law, p, o).total / seconds - 1)
    between = [1 / each.runtime_per_output_token for each in found]
    name = f"{model}: grid 3 x 4, 3 trials"
    yield row(f"{name}, R2 of the line", float(law.quality.r2 or 0), None, "R2", 12, "aim: 0.98")
    yield row(f"{name}, 24 tokens unseen", float(np.median(errors)), None, "median error", len(errors), "aim: 0.15")
    note = f"two runs gave {between[0]:.1f} and {between[1]:.1f}"
    yield row(f"{name}, speed", statistics.fmean(between), None, "tokens/s", 2, note)
    yield row(f"{model}: harness, of the time of a token", harness(decoder), None, "share", 32, "aim: 0.01")


def harness(decoder: Any) -> float:
    """Time that the profiler adds to a request of 32 tokens, a token, over the time of a token."""
    tokenizer = pickaxe.host.default_host().lm("draft").tokenizer
    spent: list[float] = []

    class Timed:
        def complete(self, prompts: list[Prompt], call: Any) -> Any:
            begun = time.perf_counter()
            done = decoder.complete(prompts, call=call)
            spent.append(time.perf_counter() - begun)
            return done

    grid = Grid((64,), (32,), 0, 5, 60)
    counted = [seconds for _, _, seconds in drain(profile(Timed(), tokenizer, grid, pickaxe.Call()))]  # type: ignore[arg-type]
    return max(0.0, (statistics.median(counted) - statistics.median(spent)) / statistics.median(spent))


def fitted(trials: list[tuple[int, int, float]]) -> Deployment:
    # Other work runs beside this: the least time of a point is the one without it.
    points = aggregated(by_size(trials), "min")
    return fit_deployment("it", points, Rules(bootstrap=200), np.random.default_rng(0))


def by_size(trials: list[tuple[int, int, float]]) -> dict[tuple[int, int], np.ndarray]:
    gathered: dict[tuple[int, int], list[float]] = {}
    for p, o, seconds in trials:
        gathered.setdefault((p, o), []).append(seconds)
    return {key: np.array(values) for key, values in gathered.items()}


def drain(steps: Any) -> Any:
    """What a generator returns."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value


def row(name: str, ours: float, peer: float | None, unit: str, n: int, note: str) -> dict[str, Any]:
    ratio = None if peer is None else peer / ours
    return {"name": name, "ours": ours, "peer": peer, "ratio": ratio, "unit": unit, "n": n, "note": note}
