"""s2l: k-means beside scikit-learn and faiss (if installed), loss passes in batches, what a selection is worth."""

from __future__ import annotations

import importlib
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import pickaxe
from pickaxe import Call, Item, kmeans
from pickaxe.artifact import ArtifactWriter
from pickaxe_plugins.selection.s2l import _proxy
from pickaxe_plugins.selection.s2l._balance import order
from pickaxe_plugins.train import llama, loop
from pickaxe_plugins.train.loop import Text
from pickaxe_plugins.train.settings import Net, Recipe

NET = Net(layers=2, width=64, heads=2, kv_heads=1, vocab=400, context=64)
RECIPE = Recipe(epochs=4, batch=16, warmup=10, rate=3e-3, checkpoint=10_000)
WORDS = ["river", "stone", "lamp", "garden", "winter", "copper", "thread", "signal", "orchard", "harbour", "candle"]


def run() -> Iterator[dict[str, Any]]:
    yield from clustering(262_000, 12, 100)
    yield selection(262_000)
    yield passes(256)
    yield from worth(3)


def row(name: str, ours: float, peer: float | None, unit: str, n: int, note: str, less: bool = True) -> dict[str, Any]:
    ratio = None if peer is None else (peer / ours if less else ours / peer)
    return {"name": name, "ours": ours, "peer": peer, "ratio": ratio, "unit": unit, "n": n, "note": note}


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def clustering(n: int, d: int, k: int) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(0)
    vectors = np.cumsum(rng.normal(0, 0.3, (n, d)), axis=1).astype(np.float32)
    name = f"k-means {n:,} x {d}, K = {k}, 20 rounds"
    ours = seconds(lambda: kmeans.kmeans(vectors, k, 20, np.random.default_rng(0), Call()))
    sampled = f"{kmeans.PER_CENTROID * k:,} vectors learned from, all assigned"
    try:
        faiss = importlib.import_module("faiss")
    except ImportError:
        yield row(name, ours, None, "s", n, f"{sampled}; faiss-cpu is not installed")
    else:

        def theirs() -> None:
            learner = faiss.Kmeans(d, k, niter=20, seed=0)
            learner.train(vectors)
            learner.index.search(vectors, 1)

        yield row(name, ours, seconds(theirs), "s", n, f"faiss-cpu; {sampled} on both sides")
    cluster = importlib.import_module("sklearn.cluster")
    drawn = vectors[rng.choice(n, kmeans.PER_CENTROID * k, replace=False)]
    theirs_s = seconds(
        lambda: cluster.KMeans(k, n_init=1, max_iter=20, tol=0, random_state=0).fit(drawn).predict(vectors)
    )
    yield row(name, ours, theirs_s, "s", n, "scikit-learn KMeans on as many vectors, all assigned")


def selection(n: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    sources, labels = rng.integers(0, 3, n), rng.integers(0, 100, n)
    took = seconds(lambda: order(sources, labels, 3, 0))
    return row("balanced order of the pool", took, None, "s", n, "serves every budget")


def talks(count: int, draw: random.Random, hard: bool) -> list[Item]:
    """Easy ones are copies of one template, hard ones spell words backwards."""
    found = []
    for at in range(count):
        words = draw.sample(WORDS, 3)
        prompt, answer = (f"Reverse {' '.join(words)}", " ".join(word[::-1] for word in words[::-1]))
        if not hard:
            prompt, answer = f"Say hello to {words[0]}", f"Hello, dear {words[0]}! How are you?"
        found.append(Item(f"{'hard' if hard else 'easy'}{at:04}", fields={"prompt": prompt, "answer": answer}))
    return found


def passes(count: int) -> dict[str, Any]:
    """Loss passes over examples of many lengths: batches of like length against one example at a time."""
    draw = random.Random(0)
    items = [
        Item(str(at), fields={"prompt": "Go on", "answer": " ".join(draw.choices(WORDS, k=draw.randint(1, 12)))})
        for at in range(count)
    ]
    architecture, found = _proxy.texts(items, NET)
    texts = [text for text in found if text is not None]
    weights = llama.initial(architecture, 0)
    tokens = sum(len(text.ids) for text in texts)
    many, one = (
        tokens / warm(lambda size=size: _proxy.losses(architecture, weights, texts, Call(), size))  # type: ignore[misc]  # the default binds the size
        for size in (_proxy.BATCH, 1)
    )
    return row("loss pass", many, one, "tokens/s", tokens, "peer: the same network, one example at a time", less=False)


def warm(work: Callable[[], object]) -> float:
    work()
    return seconds(work)


def worth(seeds: int) -> Iterator[dict[str, Any]]:
    """Held-out loss on the hard tenth of a pool after training on a fifth of it: S2L's choice and a random one."""
    for seed in range(seeds):
        draw = random.Random(seed)
        pool, held = talks(540, draw, False) + talks(60, draw, True), talks(60, draw, True)
        scorer = pickaxe.scorer("s2l", budget=0.2, clusters=20, checkpoints=6, proxy=NET, recipe=RECIPE)
        chosen = scorer.fit(pool, seed=seed).score(pool)["selected"] == 1
        chance = np.zeros(len(pool), bool)
        chance[draw.sample(range(len(pool)), int(chosen.sum()))] = True
        architecture, found = _proxy.texts([*pool, *held], NET)
        texts = [text for text in found if text is not None]
        ours, random_ = (
            after([texts[at] for at in np.flatnonzero(rows)], texts[len(pool) :], architecture, seed)
            for rows in (chosen, chance)
        )
        hard = [sum(rows[at] for at in range(540, 600)) for rows in (chosen, chance)]
        note = f"peer: a random fifth; {hard[0]} and {hard[1]} of 60 hard items chosen"
        yield row(f"held-out loss on hard items, seed {seed}", ours, random_, "nats", int(chosen.sum()), note)


def after(learned: Sequence[Text], held: Sequence[Text], architecture: Any, seed: int) -> float:
    """Mean loss on `held` after training a fresh net on `learned`."""
    recipe = RECIPE.model_copy(update={"epochs": 20})
    with tempfile.TemporaryDirectory() as folder:
        out = ArtifactWriter(Path(folder), {"stages": {}, "files": [], "notes": {}})
        steps = loop.train(architecture, llama.initial(architecture, seed), learned, recipe, out, seed)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return float(loop.mean_loss(architecture, end.value, held))
