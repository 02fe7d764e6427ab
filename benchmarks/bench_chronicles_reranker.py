"""chronicles on FaQuAD: rerankers fitted on half of the questions behind BM25's best 50, on the other half.

The claim of arXiv:2401.07883: BM25 and a reranker are at least as good as BM25.  The reranker is the shipped
cross-encoder, which knows English, as it is and trained further on windows as BM25 finds them.
`PICKAXE_BENCH_LEARNED`, `PICKAXE_BENCH_QUERIES` and `PICKAXE_BENCH_SEEDS` say on how many questions it is fitted and
measured, and how often.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import pickaxe
from benchmarks.bench_chronicles import K, lines, quality, row
from pickaxe import Item

LEARNED = int(os.environ.get("PICKAXE_BENCH_LEARNED", "450"))
QUERIES = int(os.environ.get("PICKAXE_BENCH_QUERIES", "100"))
SEEDS = tuple(range(int(os.environ.get("PICKAXE_BENCH_SEEDS", "3"))))
DEPTH, WINDOW, NEGATIVES = 50, 40, 3
FIT: dict[str, Any] = {
    "base": "cross-encoder", "max_tokens": 128, "negatives": NEGATIVES, "epochs": 1, "batch": 8, "rate": 5e-5
}  # fmt: skip


def run() -> Iterator[dict[str, Any]]:
    documents = [Item(each["id"], each["text"]) for each in lines("docs.jsonl")]
    queries = lines("queries.jsonl")
    gold = {each["id"]: each["relevant"][0] for each in queries}
    qrels = {each["id"]: dict.fromkeys(each["relevant"], 1) for each in queries}
    order = np.random.default_rng(0).permutation(len(queries))
    questions = [Item(queries[place]["id"], queries[place]["query"]) for place in order]
    learned, asked = questions[:450][:LEARNED], questions[450:][:QUERIES]
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        plain = pickaxe.retriever("chronicles", chunk_size=WINDOW).index(documents, out=index)
        alone = quality(asked, plain.search(asked, K), qrels)

        def reached(reranker: dict[str, str]) -> float:
            both = pickaxe.retriever("chronicles", artifact=index, depth=DEPTH, reranker=reranker)
            return quality(asked, both.search(asked, K), qrels)

        behind = f"behind BM25's best {DEPTH} windows of {WINDOW} words"
        note = "peer: BM25 alone"
        found = reached({"name": "cross-encoder"})
        yield row(f"the shipped cross-encoder {behind}", found, alone, "MRR@10", len(asked), note)
        examples = lessons(plain, {item.id: item.text or "" for item in documents}, learned, gold)
        for seed in SEEDS:
            fitted, start = Path(folder) / f"fitted{seed}", time.perf_counter()
            pickaxe.reranker("cross-encoder", **FIT).fit(examples, out=fitted, seed=seed)
            note = f"peer: BM25 alone; fitted on {len(examples)} questions in {time.perf_counter() - start:.0f} s"
            found = reached({"name": "cross-encoder", "artifact": str(fitted)})
            yield row(f"fitted {behind}, seed {seed}", found, alone, "MRR@10", len(asked), note)


def lessons(index: Any, texts: dict[str, str], questions: list[Item], gold: dict[str, str]) -> list[Item]:
    """Each question whose gold passage BM25 finds: its best window, against the best windows of other passages."""
    found = []
    for question, hits in zip(questions, index.search(questions, DEPTH), strict=True):
        shown = {hit.id: texts[hit.id][hit.spans[0].start : hit.spans[0].end] for hit in hits}
        right = shown.pop(gold[question.id], None)
        if right is not None and len(shown) >= NEGATIVES:
            fields: dict[str, Any] = {"positive": right, "negatives": list(shown.values())[: 3 * NEGATIVES]}
            found.append(Item(question.id, question.text, fields))
    return found
