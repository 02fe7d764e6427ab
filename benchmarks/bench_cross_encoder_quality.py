"""The shipped cross-encoder behind two first stages, on passages and questions that it was not trained on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pickaxe
from benchmarks.recipe_cross_encoder import halves, read
from pickaxe.encoder.graph import Precision
from pickaxe.metrics import mean, mrr

FILES = Path(__file__).parent.parent / "tests" / "golden" / "files"
QUERIES = int(os.environ.get("PICKAXE_BENCH_QUERIES", "100"))
DEPTH = 20


def run() -> Iterator[dict[str, Any]]:
    for name, (passages, questions) in collections().items():
        _, held = halves(passages)
        asked = [row for row in questions if row["relevant"][0] in held]
        order = pickaxe.generator(5, "asked").permutation(len(asked))[:QUERIES]
        yield from measured(name, {each: passages[each] for each in sorted(held)}, [asked[row] for row in order])


def collections() -> dict[str, tuple[dict[str, str], list[dict[str, Any]]]]:
    tools = FILES / "26-tool-retrieval"
    rows = map(json.loads, (tools / "metatool_tools.jsonl").open(encoding="utf-8"))
    described = {row["id"]: f"{row['id']}: {row['text']}" for row in rows}
    asked = list(map(json.loads, (tools / "metatool_single_queries.jsonl").open(encoding="utf-8")))
    return {"XQuAD-en": read(FILES / "71-xquad-en"), "MetaTool": (described, asked)}


def measured(name: str, passages: dict[str, str], questions: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    documents = [pickaxe.Item(each, text) for each, text in passages.items()]
    queries = [pickaxe.Item(row["id"], row["query"]) for row in questions]
    for stage, precision in product(("bm25", "dense"), get_args(Precision)):
        reranker = pickaxe.reranker("cross-encoder", precision=precision)
        found = [
            [hit.id for hit in hits] for hits in pickaxe.retriever(stage).index(documents).search(queries, k=DEPTH)
        ]
        ranked = [
            reranker.rerank(query, [pickaxe.Item(each, passages[each]) for each in ids]).ids
            for query, ids in zip(queries, found, strict=True)
        ]
        qrels = {row["id"]: {row["relevant"][0]: 1} for row in questions}
        ours, alone = (mean(mrr(dict(zip(qrels, each, strict=True)), qrels)) for each in (ranked, found))
        note = f"{len(documents)} passages; peer: {stage} alone"
        yield {"name": f"cross-encoder in {precision}: {name}, behind {stage}", "ours": ours, "peer": alone,
               "ratio": ours / alone, "unit": "MRR@10", "n": len(queries), "note": note}  # fmt: skip
