"""anncur: time of search and index without a model, and recall at equal calls on MetaTool."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import pickaxe
from benchmarks import _metatool
from benchmarks._pairs import alternate, rate
from pickaxe import Call, InputField, Item, Items, Method, Params, Ranked, Ranking, catalog, generator, hookimpl
from pickaxe_plugins.retrieval.anncur._cur import Inverse, best

DOCUMENTS = int(os.environ.get("PICKAXE_BENCH_DOCUMENTS", "100000"))
ANCHORS, ANCHOR_QUERIES = 200, 500
LEARNED, TESTS, DRAWS, WIDTH = 500, 400, 3, 64


def run() -> Iterator[dict[str, Any]]:
    yield from searching()
    yield from indexing()
    yield from quality()


# ---------------------------------------------------------------- time


def searching() -> Iterator[dict[str, Any]]:
    random = np.random.default_rng(0)
    embeddings = random.standard_normal((DOCUMENTS, ANCHORS)).astype(np.float32)
    for count in (1, 100):
        scores = random.standard_normal((count, ANCHORS)).astype(np.float32)
        seconds = alternate(
            lambda scores=scores: [best(row, ANCHORS) for row in scores @ embeddings.T],
            lambda scores=scores: np.argsort(-(scores @ embeddings.T), axis=1)[:, :ANCHORS],
            3,
        )
        name = f"search of {DOCUMENTS:,} documents, {ANCHORS} anchors, {count} at once; peer: a product and a full sort"
        yield rate(name, count, seconds, "queries/s", f"{1e3 * seconds[0]:.1f} ms")


def indexing() -> Iterator[dict[str, Any]]:
    n = DOCUMENTS // 10
    scores = np.random.default_rng(1).standard_normal((ANCHOR_QUERIES, n))

    def ours() -> np.ndarray:
        return Inverse.of(scores[:, :ANCHORS], 1e-15).embed(scores.T)

    seconds = alternate(ours, lambda: np.linalg.pinv(scores[:, :ANCHORS]) @ scores, 3)
    yield rate(f"embeddings of {n:,} documents, {ANCHOR_QUERIES} anchor queries; peer: pinv and product", n, seconds,
               "documents/s")  # fmt: skip


# ---------------------------------------------------------------- quality


class Box(Method[Params]):
    """idf-weighted MaxSim of word vectors by latent semantic analysis: the card's black box, as a table."""

    reads = (InputField("text", "text", "Text."),)
    table: np.ndarray = np.empty((0, 0))
    asked = 0

    @hookimpl
    def rerank(self, query: Item, candidates: Items, top_n: int, call: Call) -> Ranking:
        Box.asked += len(candidates)
        scores = self.table[int(query.text or "")][[int(item.id) for item in candidates]]
        return Ranking(
            tuple(Ranked(int(row), candidates[row].id, float(scores[row])) for row in np.argsort(-scores)[:top_n])
        )


def black_box(tools: list[str], questions: list[str]) -> np.ndarray:
    """(questions, tools) scores: sum over a question's words of idf times the highest cosine with a tool's word.

    Word vectors are of the tools alone; words that no tool has count nothing.
    """
    texts = [re.findall(r"\w\w+", text.lower()) for text in (*tools, *questions)]
    words = {word: place for place, word in enumerate(sorted({word for text in texts for word in text}))}
    there = np.zeros((len(texts), len(words)))
    for row, text in enumerate(texts):
        there[row, [words[word] for word in text]] = 1
    weighed = there * (np.log((1 + len(texts)) / (1 + there.sum(0))) + 1)
    described, asked = weighed[: len(tools)], weighed[len(tools) :]
    described = described / np.linalg.norm(described, axis=1, keepdims=True)
    _, spread, axes = np.linalg.svd(described, full_matrices=False)
    vectors = (axes[:WIDTH] * spread[:WIDTH, None]).T
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    vectors[(described > 0).sum(0) == 0] = 0
    nearest = np.stack([(vectors @ vectors[row > 0].T).max(axis=1) for row in described])
    return asked @ nearest.T


def quality() -> Iterator[dict[str, Any]]:
    shortlist = prepared()
    for budget, anchors, k in ((60, 30, 10), (20, 10, 10), (60, 30, 1), (100, 50, 50)):
        ours, theirs = recalls(shortlist, budget, anchors, k)
        name = f"MetaTool Recall@{k}, {budget} calls, {anchors} anchors; peer: TF-IDF shortlist, reranked"
        note = f"mean of {DRAWS} draws of the anchors"
        yield {"name": name, "ours": ours, "peer": theirs, "ratio": ours / theirs, "unit": "recall", "n": TESTS,
               "note": note}  # fmt: skip
    for queries in (20, 60, 100, LEARNED):
        errors = [error(queries, 60, draw) for draw in range(DRAWS)]
        yield {"name": f"MetaTool relative error, 60 anchors, {queries} anchor queries", "ours": float(np.mean(errors)),
               "peer": None, "ratio": None, "unit": "", "n": TESTS, "note": ""}  # fmt: skip


def prepared() -> np.ndarray:
    """Fill the black box; TF-IDF scores (test questions, tools) for the peer."""
    tools = [each["text"] for each in _metatool.lines("metatool_tools.jsonl")]
    asked = [each["query"] for each in _metatool.lines("metatool_single_queries.jsonl")]
    order = generator(0, "anncur", "bench").permutation(len(asked))[: LEARNED + TESTS]
    asked = [asked[row] for row in order]
    Box.table = black_box(tools, asked)
    lexical = _metatool.weighted([*tools, *asked])
    return lexical[len(tools) + LEARNED :] @ lexical[: len(tools)].T


def recalls(shortlist: np.ndarray, budget: int, anchors: int, k: int, draws: int = DRAWS) -> tuple[float, float]:
    """Recall@k of anncur and of the reranked shortlist, at equal calls."""
    with catalog.register(Box, "bench-box", "reranker"):
        ours = [recall(budget, anchors, k, draw, shortlist.shape[1]) for draw in range(draws)]
    theirs = [reranked(LEARNED + row, first, budget, k) for row, first in enumerate(shortlist)]
    return float(np.mean(ours)), float(np.mean(theirs))


def recall(budget: int, anchors: int, k: int, draw: int, tools: int) -> float:
    documents = [Item(str(column), "", {"anchor_scores": Box.table[:LEARNED, column]}) for column in range(tools)]
    with TemporaryDirectory() as folder:
        index = pickaxe.retriever("anncur", scorer="bench-box", anchors=anchors, budget=budget).index(
            documents, out=f"{folder}/index", seed=draw
        )
        Box.asked = 0
        found = index.search([str(row) for row in range(LEARNED, LEARNED + TESTS)], k)
    assert Box.asked == budget * TESTS
    right = [len(true(row, k) & {int(hit.id) for hit in hits}) for row, hits in enumerate(found, LEARNED)]
    return float(np.mean(right)) / k


def true(row: int, k: int) -> set[int]:
    return set(np.argsort(-Box.table[row], kind="stable")[:k].tolist())


def reranked(row: int, first: np.ndarray, budget: int, k: int) -> float:
    """Recall of the best `budget` of the first stage, ordered by the black box."""
    chosen = best(first, budget)
    return len(true(row, k) & set(chosen[best(Box.table[row][chosen], k)].tolist())) / k


def error(queries: int, anchors: int, draw: int) -> float:
    chosen = generator(draw, "anncur", "anchors").choice(Box.table.shape[1], anchors, replace=False)
    tests = Box.table[LEARNED:]
    embeddings = Inverse.of(Box.table[:queries, chosen], 1e-15).embed(Box.table[:queries].T)
    return float(np.linalg.norm(tests[:, chosen] @ embeddings.T - tests) / np.linalg.norm(tests))
