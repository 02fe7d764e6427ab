"""qta: searching 2,400 tools, baselines of real tool sets, an oracle among rewrites, and DPO steps."""

from __future__ import annotations

import importlib.util
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import pickaxe
from benchmarks._pairs import alternate, rate
from pickaxe import Item
from pickaxe_plugins.retrieval.qta._pairs import dpo_loss, margins
from pickaxe_plugins.retrieval.qta._rewrite import Desk, rewritten

FILES = Path(__file__).parents[1] / "tests" / "golden" / "files" / "26-tool-retrieval"
SETS = {
    "TMDB": ("restbench_tmdb_tools", "restbench_tmdb_queries"),
    "Spotify": ("restbench_spotify_tools", "restbench_spotify_queries"),
}
QUERIES = int(os.environ.get("PICKAXE_BENCH_QUERIES", "10"))
MODEL = os.environ.get("PICKAXE_BENCH_MODEL", "lm")
TOOLS, MOST = 2400, 8


def run() -> Iterator[dict[str, Any]]:
    yield search()
    yield from baselines()
    yield dpo()
    yield from oracle()
    yield training()


def search() -> dict[str, Any]:
    tools = [Item(str(row), f"tool {row}: does {row % 97} things for {row % 31} users") for row in range(TOOLS)]
    index = pickaxe.retriever("dense").index(tools)
    seconds = alternate(lambda: index.search(["which tool does 5 things"], 10), None)
    return rate(f"search of {TOOLS} tools without a rewrite", 1, seconds, "queries/s", f"{1000 * seconds[0]:.1f} ms")


def baselines() -> Iterator[dict[str, Any]]:
    for name, (tools, queries) in SETS.items():
        items = [Item(each["id"], f"{each['id']} {each['text']}") for each in _read(tools)]
        asked = _read(queries)
        for retriever in ("dense", "bm25"):
            found = pickaxe.retriever(retriever).index(items).search([each["query"] for each in asked], 10)
            for k in (5, 10):
                whole = [
                    set(each["relevant"]) <= {hit.id for hit in hits[:k]}
                    for each, hits in zip(asked, found, strict=True)
                ]
                yield _row(f"{name}, {retriever}", float(np.mean(whole)), f"S@{k}", len(asked))


def dpo() -> dict[str, Any]:
    """The loss of given log-probabilities; TRL has the same formula."""
    values = np.random.default_rng(0).normal(-20, 5, (4, 1000))
    note = "" if importlib.util.find_spec("trl") else "trl is not installed"
    return _row("DPO loss of 1,000 pairs", dpo_loss(margins(*values, 0.1)), "nats", 1000, note)


def oracle() -> Iterator[dict[str, Any]]:
    """S@5 of the best of m sampled rewrites, by the ranks of the needed tools; m = 0 is the query alone."""
    tools, queries = (_read(name) for name in SETS["TMDB"])
    items = [Item(each["id"], f"{each['id']} {each['text']}") for each in tools]
    index = pickaxe.retriever("dense").index(items)
    asked, lm = queries[:QUERIES], pickaxe.Host().lm(MODEL)
    desk = Desk(items, 5, chat=MODEL != "draft", max_new_tokens=48)
    sampling = pickaxe.Sampling(max_tokens=48, temperature=0.9, n=MOST, seed=0)
    prompts = [desk.prompt(each["query"], 0, sampling) for each in asked]
    start = time.perf_counter()
    rewrites = rewritten(prompts, lm, pickaxe.Call())
    seconds = time.perf_counter() - start
    yield rate("rewrites of 48 tokens", MOST * len(asked), (seconds, None), "rewrites/s", MODEL)
    ranks = []
    for each, texts in zip(asked, rewrites, strict=True):
        found = index.search([each["query"], *(text or each["query"] for text in texts)], len(items))
        places = [{hit.id: place for place, hit in enumerate(hits, 1)} for hits in found]
        ranks.append([max(place[name] for name in each["relevant"]) for place in places])
    for m in (0, 1, 2, 4, MOST):
        whole = [min(worst[: m + 1]) <= 5 for worst in ranks]
        yield _row(f"TMDB, best of the query and {m} rewrites", float(np.mean(whole)), "S@5", len(asked), MODEL)
    alone = [worst[1] <= 5 for worst in ranks]
    yield _row("TMDB, one sampled rewrite in place of the query", float(np.mean(alone)), "S@5", len(asked), MODEL)


def training() -> dict[str, Any]:
    tools, queries = (_read(name) for name in SETS["TMDB"])
    items = [Item(each["id"], f"{each['id']} {each['text']}") for each in tools]
    examples = [Item(each["id"], each["query"], {"relevant": tuple(each["relevant"])}) for each in queries[-4:]]
    settings = {"model": "draft", "chat": False, "max_new_tokens": 24, "m": 4}
    qta = pickaxe.retriever("qta", **settings, recipe={"epochs": 6, "batch": 2, "rate": 2e-3, "warmup": 1})
    times, margin = [], 0.0
    last = time.perf_counter()
    for step in qta.fitting(examples, Path(_scratch()) / "fit", unlabelled=items):
        now = time.perf_counter()
        if step.stage == "train":
            times.append(now - last)
            margin = step.metrics["margin"]
        last = now
    note = f"the shipped draft model, batches of 2 pairs; margin of the last step {margin:.3f}"
    return rate("DPO steps", 1, (float(np.median(times[1:])), None), "steps/s", note)


def _scratch() -> str:
    from tempfile import mkdtemp

    return mkdtemp(prefix="pickaxe-bench-")


def _row(name: str, ours: float, unit: str, n: int, note: str = "") -> dict[str, Any]:
    return {"name": name, "ours": ours, "peer": None, "ratio": None, "unit": unit, "n": n, "note": note}


def _read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FILES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
