"""tildev2: reranking by its index against the official way, Python dictionaries; and what it finds on four corpora.

`PICKAXE_BENCH_DOCUMENTS` names another size of the index (100,000 passages by default), `PICKAXE_BENCH_QUALITY=1` adds
the study on questions over four corpora, which encodes 2,600 passages twice (some minutes on two cores).
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

import pickaxe
from benchmarks import _tildev2_quality
from benchmarks._pairs import alternate
from pickaxe import Item
from pickaxe_plugins.reranking.tildev2._postings import Postings
from pickaxe_plugins.reranking.tildev2._terms import Entries

DOCUMENTS = int(os.environ.get("PICKAXE_BENCH_DOCUMENTS", "100000").split(",")[0])
VOCABULARY, TERMS, QUERIES, CANDIDATES, WORDS = 30522, 80, 100, 1000, 8


def run() -> Iterator[dict[str, Any]]:
    entries = drawn()
    postings = Postings.of(entries._replace(weights=entries.weights.astype(np.float16)), VOCABULARY, DOCUMENTS)
    random = np.random.default_rng(1)
    count = min(CANDIDATES, DOCUMENTS)
    queries = [zipf(random, WORDS) for _ in range(QUERIES)]
    candidates = [random.choice(DOCUMENTS, count, replace=False) for _ in queries]
    tables = dictionaries(entries)

    def ours() -> list[np.ndarray]:
        return [postings.scores(asked, rows) for asked, rows in zip(queries, candidates, strict=True)]

    def theirs() -> list[list[float]]:
        return [
            [sum(tables[row].get(term, 0.0) for term in asked.tolist()) for row in rows.tolist()]
            for asked, rows in zip(queries, candidates, strict=True)
        ]

    far = max(float(np.abs(one - np.array(other)).max()) for one, other in zip(ours(), theirs(), strict=True))
    seconds, other = alternate(ours, theirs, 3)
    yield {
        "name": f"score {count:,} candidates of {DOCUMENTS:,} passages",
        "ours": 1e3 * seconds / QUERIES,
        "peer": 1e3 * (other or 0) / QUERIES,
        "ratio": (other or 0) / seconds,
        "unit": "ms/query",
        "n": QUERIES,
        "note": f"peer: a Python dictionary per passage; scores differ by at most {far:.1e}",
    }
    held = sum(each.nbytes for each in (postings.entries().weights, postings.entries().rows)) + 8 * (VOCABULARY + 1)
    sampled = random.choice(DOCUMENTS, min(1000, DOCUMENTS), replace=False).tolist()
    size = statistics.mean(
        sys.getsizeof(tables[row]) + sum(map(sys.getsizeof, tables[row].values())) for row in sampled
    )
    yield {
        "name": f"index of {DOCUMENTS:,} passages of {TERMS} terms",
        "ours": held / 1e6,
        "peer": size * DOCUMENTS / 1e6,
        "ratio": size * DOCUMENTS / held,
        "unit": "MB",
        "n": DOCUMENTS,
        "note": f"{100 * held / (2 * VOCABULARY * DOCUMENTS):.2f}% of a dense half-precision table",
    }
    yield from whole()
    if os.environ.get("PICKAXE_BENCH_QUALITY") == "1":
        yield from _tildev2_quality.run()


def whole() -> Iterator[dict[str, Any]]:
    """The handle's call, candidates by id, from query text to ranking; and how fast passages are encoded."""
    words = np.random.default_rng(2).choice(list("abcdefghijklmnopqrstuvwxyz"), (1000, 60, 5))
    documents = [Item(str(row), " ".join(map("".join, each))) for row, each in enumerate(words)]
    index = pickaxe.retriever("tildev2").index(documents)
    reranker = pickaxe.reranker("tildev2", artifact=index.artifact.path)
    named = [Item(item.id) for item in documents]
    seconds, _ = alternate(
        lambda: reranker.rerank("where is the first word " + str(documents[0].text)[:40], named), None
    )
    yield row("rerank 1,000 candidates by id, whole call", 1e3 * seconds, "ms/query", 1)
    examples = [Item(str(each), f"what is {each}", {"positives": [documents[each].text]}) for each in range(16)]
    fitted = pickaxe.reranker("tildev2", epochs=1).fit(examples)
    assert fitted.artifact is not None
    learned = pickaxe.retriever("tildev2", artifact=fitted.artifact.path)
    start = time.perf_counter()
    learned.index(documents[:200])
    yield row("index passages of about 180 tokens", 200 / (time.perf_counter() - start), "passages/s", 200)


def row(name: str, ours: float, unit: str, n: int) -> dict[str, Any]:
    return {"name": name, "ours": ours, "peer": None, "ratio": None, "unit": unit, "n": n, "note": ""}


def drawn() -> Entries:
    """80 different terms a passage by Zipf's law, with weights of any size."""
    random = np.random.default_rng(0)
    rows = np.repeat(np.arange(DOCUMENTS, dtype=np.int32), TERMS)
    terms = np.concatenate([zipf(random, TERMS) for _ in range(DOCUMENTS)]).astype(np.int32)
    return Entries(rows, terms, random.exponential(size=len(rows)).astype(np.float32))


def zipf(random: np.random.Generator, count: int) -> np.ndarray:
    found = np.unique((VOCABULARY ** random.random(3 * count)).astype(np.int64))
    while len(found) < count:
        found = np.union1d(found, random.integers(VOCABULARY, size=count))
    return random.permutation(found)[:count]


def dictionaries(entries: Entries) -> Sequence[dict[int, float]]:
    terms, weights = entries.terms.reshape(-1, TERMS).tolist(), entries.weights.reshape(-1, TERMS).tolist()
    return [dict(zip(one, other, strict=True)) for one, other in zip(terms, weights, strict=True)]
