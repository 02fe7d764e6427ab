"""ict-bfs-wlp on XQuAD-en: pairs a second, steps a second, documents a second, and what pre-training brings."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

import pickaxe
from pickaxe import Item, Progress
from pickaxe.metrics import mean, recall
from pickaxe_plugins.retrieval.ict_bfs_wlp._page_pairs import page, pretraining_pairs

FILES = Path(__file__).parents[1] / "tests" / "golden" / "files" / "71-xquad-en"
PAIRS = 50_000
STEPS, TUNE = 500, 200
# Without dropout and at these rates so few steps teach a network from scratch something; at 1e-3 they do not.
SMALL: dict[str, Any] = {
    "layers": 1, "width": 64, "vocab": 2000, "dim": 64, "batch": 32, "query_len": 32, "doc_len": 64, "lr": 1e-2,
    "dropout": 0.0, "steps": STEPS, "tune": {"steps": TUNE, "batch": 32, "lr": 3e-3},
}  # fmt: skip
MANNERS: dict[str, list[str] | None] = {"from scratch": None, "ICT and BFS": ["ict", "bfs"], "MLM": ["mlm"]}
SEEDS = (0, 1, 2)


def run() -> Iterator[dict[str, Any]]:
    passages, questions = lines("docs.jsonl"), lines("queries.jsonl")
    articles: dict[str, list[str]] = {}
    for each in passages:
        articles.setdefault(each["title"], []).append(each["text"])
    pages = [Item(title, "\n\n".join(texts)) for title, texts in articles.items()]
    yield sampling(pages)
    documents = [Item(each["id"], each["text"]) for each in passages]
    yield from quality(pages, documents, questions)


def sampling(pages: list[Item]) -> dict[str, Any]:
    stream = pretraining_pairs([page(item, row) for row, item in enumerate(pages)], ["ict", "bfs"])
    next(stream)
    begun = time.perf_counter()
    for _ in islice(stream, PAIRS):
        pass
    rate = PAIRS / (time.perf_counter() - begun)
    return row("ict-bfs-wlp: pairs", rate, None, "pairs/s", PAIRS, "ict and bfs; goal: 50,000")


def quality(pages: list[Item], documents: list[Item], questions: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Recall@10 of nine tenths of the questions, fine-tuned on the other tenth."""
    texts = {item.id: item.text or "" for item in documents}
    qrels = {each["id"]: dict.fromkeys(each["relevant"], 1) for each in questions}
    reached: dict[str, list[float]] = {}
    for seed in SEEDS:
        order = pickaxe.generator(seed, "tenth").permutation(len(questions)).tolist()
        asked = [Item(each["id"], each["query"], {"positive": texts[each["relevant"][0]]}) for each in questions]
        learned, tested = (
            [asked[place] for place in part] for part in (order[: len(order) // 10], order[len(order) // 10 :])
        )
        for name, tasks in MANNERS.items():
            times: list[tuple[str, float]] = []

            def tick(progress: Progress, times: list[tuple[str, float]] = times) -> None:
                times.append((progress.stage, time.perf_counter()))

            # Pages are read for their words by all three, so that the vocabulary is the same.
            given = {**SMALL, "tasks": tasks or ["mlm"], "steps": STEPS if tasks else 1}
            fitted = pickaxe.retriever("ict-bfs-wlp", **given).fit(learned, unlabelled=pages, seed=seed, progress=tick)
            begun = time.perf_counter()
            index = fitted.index(documents)
            seconds = time.perf_counter() - begun
            found = index.search(tested, 10)
            hits = {query.id: [hit.id for hit in each] for query, each in zip(tested, found, strict=True)}
            reached.setdefault(name, []).append(mean(recall(hits, {query.id: qrels[query.id] for query in tested})))
            if tasks and seed == SEEDS[0]:
                gaps = np.diff([at for stage, at in times if stage == "pretrain"])
                yield row(
                    f"ict-bfs-wlp: training, {name}",
                    float(1 / np.median(gaps)),
                    None,
                    "steps/s",
                    STEPS,
                    f"batch {SMALL['batch']}; sentence-transformers is not measured",
                )
                if "ict" in tasks:
                    yield row("ict-bfs-wlp: index", len(documents) / seconds, None, "documents/s", len(documents), "")
    words = (
        pickaxe.retriever("bm25").index(documents).search([Item(each["id"], each["query"]) for each in questions], 10)
    )
    bm25 = mean(
        recall({each["id"]: [hit.id for hit in hits] for each, hits in zip(questions, words, strict=True)}, qrels)
    )
    note = f"peer: bm25; {TUNE} steps on a tenth of the questions; by chance {10 / len(documents):.3f}"
    for name, values in reached.items():
        yield row(f"ict-bfs-wlp: XQuAD-en, {name}", float(np.mean(values)), bm25, "recall@10", len(values), note)


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FILES / name).read_text(encoding="utf-8").splitlines()]


def row(name: str, ours: float, peer: float | None, unit: str, n: int, note: str) -> dict[str, Any]:
    return {
        "name": name,
        "ours": ours,
        "peer": peer,
        "ratio": None if peer is None else ours / peer,
        "unit": unit,
        "n": n,
        "note": note,
    }
