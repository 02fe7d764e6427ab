"""Domain upsampling: speed of the draws, and the paper's direction on two synthetic sources."""

from __future__ import annotations

import importlib.util
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import pickaxe
from benchmarks._rows import median
from pickaxe import Item
from pickaxe_plugins.scaling.domain_upsampling import Credits, schedule

RUNS, DRAWS = 3, 500_000
LETTERS = "abcdefghijklmnopqrstuvwx"
SIZES = {"web": 1000, "domain": 200}
STEPS, BATCH, LENGTH = 800, 16, 32


def run() -> Iterator[dict[str, Any]]:
    mix = np.random.default_rng(0).dirichlet(np.ones(9))
    yield throughput("draws of domains", lambda: Credits(9).draw(mix, DRAWS), peer_note())
    documents = [10_000] * 9
    one_by_one = "draws of documents, one by one"
    yield throughput(one_by_one, lambda: deque(schedule(documents, mix.tolist(), DRAWS), maxlen=0), "")
    before = Credits(9, np.zeros(9), np.full(9, 10**8 // 9))
    again = median(lambda: Credits(9, before.credits, before.counts).draw(mix, 1), RUNS)
    yield row("going on after 100,000,000 draws", again * 1e6, "us", 10**8, "from the kept credits; aim: 1 s")
    for seed in (0, 1):
        yield from direction(seed)


def throughput(name: str, work: Callable[[], object], note: str) -> dict[str, Any]:
    spent = time.process_time()
    seconds = median(work, RUNS)
    alone = DRAWS * RUNS / (time.process_time() - spent)
    return row(name, DRAWS / seconds, "draws/s", DRAWS, f"{alone:.3g} a second of one processor; aim: 1,000,000{note}")


def peer_note() -> str:
    if importlib.util.find_spec("streaming") is None:
        return "; peer mosaicml-streaming is not installed"
    return "; mosaicml-streaming has no draws without shards on disk, so it is not timed"


def direction(seed: int) -> Iterator[dict[str, Any]]:
    """Losses in nats a token of the base run and its branches: a tenth of the tokens are of the domain."""
    rng, sources = np.random.default_rng(0), {"web": source(1), "domain": source(2)}
    documents = [
        Item(f"{name}-{place}", sources[name](400, rng), {"domain": name})
        for name in SIZES
        for place in range(SIZES[name])
    ]
    held = [
        Item(f"{name}-{place}", sources[name](400, rng), {"benchmark": name}) for name in SIZES for place in range(10)
    ]
    begin = time.perf_counter()
    found = pickaxe.scorer(
        "domain-upsampling",
        base_mix={"web": 0.9, "domain": 0.1},
        group_share={"web": 0.5, "domain": 0.5},
        sweep=(0.1, 0.3),
        net={"layers": 1, "width": 64, "heads": 1, "kv_heads": 1, "vocab": 260, "context": LENGTH},
        length=LENGTH,
        batch=BATCH,
        total_tokens=STEPS * BATCH * LENGTH,
    ).fit(documents, validation=held, seed=seed)
    seconds = time.perf_counter() - begin
    measured = found.score([Item("domain")]).summary["measured"]
    for branch, values in sorted(measured.items()):
        note = f"web {values['web']:.3f} nats"
        yield row(f"seed {seed}: loss on the domain, {branch}", values["domain"], "nats", STEPS, note)
    yield row(f"seed {seed}: base run and {len(measured) - 1} branches", seconds, "s", STEPS, "")


def source(seed: int) -> Callable[[int, np.random.Generator], str]:
    """Texts in which the two letters before decide how likely each next one is."""
    chances = np.random.default_rng(seed).dirichlet(np.full(24, 0.15), (24, 24)).cumsum(-1)

    def text(length: int, rng: np.random.Generator) -> str:
        drawn = [0, 1]
        for chance in rng.random(length):
            drawn.append(min(int(np.searchsorted(chances[drawn[-2], drawn[-1]], chance)), 23))
        return "".join(LETTERS[each] for each in drawn)

    return text


def row(name: str, ours: float, unit: str, n: int, note: str) -> dict[str, Any]:
    return {"name": name, "ours": ours, "peer": None, "ratio": None, "unit": unit, "n": n, "note": note}
