"""chronicles on FaQuAD: BM25 against bm25s, training W, and what each mode finds and costs."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bm25s
import numpy as np

import pickaxe
from pickaxe import Item, SearchResults, metrics
from pickaxe_plugins.retrieval._fusion import best
from pickaxe_plugins.retrieval._windows import words
from pickaxe_plugins.retrieval.chronicles._bm25 import Bm25
from pickaxe_plugins.retrieval.chronicles._customise import custom_cosine, labelled_pairs, train

FILES = Path(__file__).parents[1] / "tests" / "golden" / "files" / "30-faquad-pt"
K = 10


def run() -> Iterator[dict[str, Any]]:
    documents, queries = lines("docs.jsonl"), lines("queries.jsonl")
    yield from lexical([each["text"] for each in documents], [each["query"] for each in queries])
    yield training(documents, queries)
    yield from negatives(documents, queries)
    yield from end_to_end(documents, queries)
    yield from rerankers(documents, queries)


def lexical(documents: list[str], queries: list[str]) -> Iterator[dict[str, Any]]:
    """Indexing and searching of tokens; tokenising is the same work on both sides and left out."""
    tokens, asked = [words(text) for text in documents], [words(text) for text in queries]

    def ours_index() -> Bm25:
        numbers: dict[str, int] = {}
        rows = [np.array([numbers.setdefault(word, len(numbers)) for word in row], np.int64) for row in tokens]
        return Bm25.build(rows, list(numbers), 1.5, 0.75)

    def peer_index() -> bm25s.BM25:
        peer = bm25s.BM25(k1=1.5, b=0.75, method="atire", idf_method="lucene")
        peer.index(tokens, show_progress=False)
        return peer

    own, peer = ours_index(), peer_index()
    ties = np.arange(len(documents))

    def ours_search() -> None:
        for row in own.scores(asked):
            best(row, K, ties, 0.0)

    ours_s, peer_s = alternate(ours_index, peer_index)
    yield row("BM25 index of 249 passages", len(documents) / ours_s, len(documents) / peer_s, "passages/s", 249)
    ours_s, peer_s = alternate(ours_search, lambda: peer.retrieve(asked, k=K, show_progress=False))
    yield row("BM25 top 10 of 900 queries", len(asked) / ours_s, len(asked) / peer_s, "queries/s", 900)


def training(documents: list[dict[str, Any]], queries: list[dict[str, Any]]) -> dict[str, Any]:
    """Seconds of 50 epochs of W on 450 questions with 16 random negatives each, on ready embeddings."""
    gold = {each["id"]: place for place, each in enumerate(documents)}
    asked = np.load(FILES / "minilm_queries.npy").astype(np.float32)[:450]
    texts = np.load(FILES / "minilm_docs.npy").astype(np.float32)
    rows = np.array([gold[each["relevant"][0]] for each in queries[:450]])
    pairs = labelled_pairs(asked, texts, rows, negatives=16, hard=False, negative_target=0, seed=0, key="bench")
    start = time.perf_counter()
    for _ in train(pairs, pairs, matrix_dim=None, lr=0.001, epochs=50, dropout=0.2, batch=2048, seed=0):
        pass
    return row("W, 50 epochs of 7,650 pairs", time.perf_counter() - start, None, "s", len(pairs), "no peer")


def negatives(documents: list[dict[str, Any]], queries: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Held-out MRR@10 of W by random and by hard negatives, on ready embeddings; the plain cosine as peer."""
    place = {each["id"]: row for row, each in enumerate(documents)}
    gold = np.array([place[each["relevant"][0]] for each in queries])
    asked = np.load(FILES / "minilm_queries.npy").astype(np.float32)
    texts = np.load(FILES / "minilm_docs.npy").astype(np.float32)
    order = np.random.default_rng(0).permutation(len(queries))
    learned, checked, held = order[:360], order[360:450], order[450:]

    def reached(matrix: np.ndarray | None) -> float:
        cosines = custom_cosine(asked[held], texts, matrix)
        ranks = 1 + (cosines > cosines[np.arange(len(held)), gold[held]][:, None]).sum(1)
        return float(np.where(ranks <= K, 1 / ranks, 0).mean())

    for hard in (False, True):
        found = []
        for seed in range(3):
            halves = [
                labelled_pairs(
                    asked[rows], texts, gold[rows], negatives=16, hard=hard, negative_target=0, seed=seed, key=key
                )
                for rows, key in ((learned, "training"), (checked, "validation"))
            ]
            epochs = train(*halves, matrix_dim=None, lr=0.001, epochs=50, dropout=0.2, batch=2048, seed=seed)
            found.append(reached(max(epochs, key=lambda epoch: epoch.accuracy).matrix))
        name = f"W by {'hard' if hard else 'random'} negatives against plain cosine"
        note = "mean of three seeds: " + " ".join(f"{value:.3f}" for value in found)
        yield row(name, statistics.fmean(found), reached(None), "MRR@10", len(held), note)


def end_to_end(documents: list[dict[str, Any]], queries: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Queries a second with everything in them, and the MRR@10 on the half that W was not fitted on."""
    items = [Item(each["id"], each["text"]) for each in documents]
    gold = {each["id"]: each["text"] for each in documents}
    questions = [Item(each["id"], each["query"], {"gold": gold[each["relevant"][0]]}) for each in queries]
    order = np.random.default_rng(0).permutation(len(questions))
    learned, asked = [questions[place] for place in order[:450]], [questions[place] for place in order[450:]]
    qrels = {each["id"]: dict.fromkeys(each["relevant"], 1) for each in queries}
    fitted = pickaxe.retriever("chronicles", mode="custom").fit(learned)
    assert fitted.artifact is not None
    for name, made in (
        ("bm25", pickaxe.retriever("chronicles")),
        ("dense", pickaxe.retriever("chronicles", mode="dense")),
        ("custom", fitted),
        ("hybrid", pickaxe.retriever("chronicles", mode="hybrid")),
        ("hybrid after W", pickaxe.retriever("chronicles", mode="hybrid", artifact=fitted.artifact.path)),
    ):
        index = made.index(items)
        index.search(asked[:2], K)
        start = time.perf_counter()
        results = index.search(asked, K)
        taken = time.perf_counter() - start
        yield row(f"{name}, end to end", len(asked) / taken, None, "queries/s", len(asked), "no peer")
        yield row(f"{name}, quality", quality(asked, results, qrels), None, "MRR@10", len(asked), "held-out half")


def rerankers(documents: list[dict[str, Any]], queries: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """BM25 top 50, then the encoder's order of it: the pipeline the paper recommends, with an English encoder."""
    items = [Item(each["id"], each["text"]) for each in documents]
    asked = [Item(each["id"], each["query"]) for each in queries[:100]]
    qrels = {each["id"]: dict.fromkeys(each["relevant"], 1) for each in queries[:100]}
    reranker = {"name": "fullrank", "params": {"ranker": "encoder"}}
    before = pickaxe.retriever("chronicles").index(items)
    after = pickaxe.retriever("chronicles", depth=10, reranker=reranker).index(items)
    reranked, alone = (quality(asked, index.search(asked, K), qrels) for index in (after, before))
    yield row("BM25 top 10 reranked by the encoder, against BM25 alone", reranked, alone, "MRR@10", len(asked))


def quality(asked: list[Item], results: SearchResults, qrels: dict[str, dict[str, int]]) -> float:
    run = {item.id: [hit.id for hit in hits] for item, hits in zip(asked, results, strict=True)}
    return metrics.mean(metrics.mrr(run, {item.id: qrels[item.id] for item in asked}, K))


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FILES / name).read_text(encoding="utf-8").splitlines()]


def alternate(ours: Callable[[], Any], peer: Callable[[], Any], runs: int = 5) -> tuple[float, float]:
    """Median seconds of both, run in turns so that a busy machine slows both alike."""
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs):
        for work, times in zip((ours, peer), taken, strict=True):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
    return statistics.median(taken[0]), statistics.median(taken[1])


def row(name: str, ours: float, peer: float | None, unit: str, n: int, note: str = "") -> dict[str, Any]:
    ratio = None if peer is None else ours / peer
    found = {"name": name, "ours": ours, "peer": peer, "ratio": ratio, "unit": unit, "n": n}
    return {**found, "note": note} if note else found
