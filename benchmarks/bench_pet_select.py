"""pet-select: complexity against radon and cognitive_complexity, routing in batches against one query at a time, and
whether the router saves tokens on queries of 1 to 8 operations."""

from __future__ import annotations

import ast
import importlib
import os
import statistics
import tempfile
import textwrap
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import pickaxe
from pickaxe import Artifact, Item
from pickaxe_plugins.reranking.pet_select import complexity

PHRASES = (
    "sort the list", "drop duplicates", "reverse it", "sum the numbers", "keep the even ones", "square each number",
    "take the first ten", "count the words", "merge it with another list", "find the largest", "shuffle it",
    "split it in halves",
)  # fmt: skip
SEEDS, TRAIN, TEST, QUERIES = 2, 600, 300, 200


def run() -> Iterator[dict[str, Any]]:
    yield solutions()
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(SEEDS):
            yield from routed(seed, Path(folder) / f"art{seed}")
        yield batches(Path(folder) / "art0")


def solutions() -> dict[str, Any]:
    """Functions of the standard library a second, none of them seen before."""
    codes = list(functions(250))
    complexity.cache_clear()
    ours = len(codes) / seconds(lambda: [complexity(code) for code in codes], before=complexity.cache_clear)
    found = {"name": "complexity", "ours": ours, "peer": None, "ratio": None, "unit": "solutions/s", "n": len(codes)}
    try:
        metrics, blocks = importlib.import_module("radon.metrics"), importlib.import_module("radon.complexity")
        cognitive = importlib.import_module("cognitive_complexity.api")
    except ImportError:
        return {**found, "note": "radon and cognitive_complexity are not installed"}

    def all_of(code: str) -> None:
        metrics.mi_visit(code, True)
        metrics.h_visit(code)
        blocks.cc_visit(code)
        cognitive.get_cognitive_complexity(ast.parse("def w():\n" + textwrap.indent(code, "    ")).body[0])

    peer = len(codes) / seconds(lambda: [all_of(code) for code in codes])
    return {
        **found,
        "peer": peer,
        "ratio": ours / peer,
        "note": "against radon and cognitive_complexity called directly",
    }


def functions(count: int) -> Iterator[str]:
    for path in sorted(Path(os.__file__).parent.glob("*.py")):
        source = path.read_text("utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                if not count:
                    return
                count -= 1
                yield ast.get_source_segment(source, node) or ""


def tasks(count: int, *key: int) -> list[Item]:
    """Queries of 1 to 8 operations; the cheap technique fails the long ones."""
    rng = np.random.default_rng(key)
    found = []
    for row in range(count):
        d = int(rng.integers(1, 9))
        query = f"Write a function that will {', then '.join(rng.choice(PHRASES, d, replace=False))}."
        chances = {"cheap": np.clip(1.05 - 0.12 * d, 0.02, 0.98), "costly": 0.80 - 0.03 * d}
        passed = {name: bool(rng.random() < chance) for name, chance in chances.items()}
        tokens = {"cheap": 600.0, "costly": 3000.0}
        found.append(Item(str(row), query, {"passed": passed, "tokens": tokens, "complexity": d / 8}))
    return found


def routed(seed: int, out: Path) -> Iterator[dict[str, Any]]:
    """Easy are up to 4 operations, which is what the threshold says."""
    scorer = pickaxe.scorer("pet-select", threshold=4.5 / 8)
    scorer.fit(tasks(TRAIN, seed, 0), validation=tasks(TEST, seed, 1), out=out, seed=seed)
    found = Artifact.open(out).notes["measured"]
    single = max(found["single"].values(), key=lambda each: each["accuracy"])
    pairs = (
        ("accuracy", found["router"]["accuracy"], single["accuracy"], "share", "against the better single technique"),
        ("tokens", found["router"]["tokens"], single["tokens"], "tokens", "against the better single technique"),
        (
            "triplet accuracy",
            found["triplet_accuracy"],
            found["triplet_accuracy_untuned"],
            "share",
            "tuned against untuned",
        ),
    )
    for name, ours, peer, unit, note in pairs:
        ratio = peer / ours if name == "tokens" else ours / peer
        yield {
            "name": f"{name}, seed {seed}",
            "ours": ours,
            "peer": peer,
            "ratio": ratio,
            "unit": unit,
            "n": TEST,
            "note": note,
        }


def batches(artifact: Path) -> dict[str, Any]:
    """Queries a second in one call, against one call a query as the authors' code encodes them."""
    scorer = pickaxe.scorer("pet-select", artifact=artifact)
    queries = [item.text or "" for item in tasks(QUERIES, 9)]
    scorer.score(queries)
    ours = QUERIES / seconds(lambda: scorer.score(queries))
    peer = QUERIES / seconds(lambda: [scorer.score([query]) for query in queries])
    note = "peer: the same, one query at a time"
    row = {"name": "routing", "ours": ours, "peer": peer, "ratio": ours / peer, "unit": "queries/s", "n": QUERIES}
    return {**row, "note": note}


def seconds(work: Callable[[], object], before: Callable[[], object] = lambda: None) -> float:
    """Median of 3 runs."""
    taken = []
    for _ in range(3):
        before()
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)
