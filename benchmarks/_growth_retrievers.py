"""What `benchmarks.growth` gives to each retriever, and what its card says of the growth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from benchmarks._growth_inputs import WIDTH, encoder, items, texts, vectors
from benchmarks._growth_kinds import MIDDLE, SMALL, Growth, searched
from benchmarks._growth_scorers import noise, with_fields
from pickaxe import Item

WORDS, VECTORS = "Retrievers by words", "Retrievers by vectors"
TINY = "an untrained encoder of one layer"
CARD = {"index": "linear", "search": "linear"}
MODEL = "a pass of the encoder for every document"


def asked(n: int, length: int = 5) -> Callable[[], list[Item]]:
    return lambda: items(texts(n, length, seed=9))


def wanted(n: int) -> Callable[[], list[Item]]:
    """Queries with vectors."""
    return lambda: list(with_fields(n, texts(n, seed=9), embedding=vectors(n, seed=9)))


def tiny(key: str, **params: Any) -> Callable[[], Mapping[str, Any]]:
    return lambda: {key: encoder(), **params}


def embedded(n: int) -> Iterator[Item]:
    return with_fields(n, embedding=vectors(n))


def questions(n: int) -> Iterator[Item]:
    """The documents, and a question to each of a hundred."""
    yield from (Item(f"q{row}", text, {"relevant": [str(row)]}) for row, text in enumerate(texts(min(n, 100), 5, 9)))


def wiki(n: int) -> Iterator[Item]:
    """Pages of two paragraphs, for pre-training that is not measured."""
    for row, text in enumerate(texts(40, 24, seed=3)):
        words = text.split()
        half = len(words) // 2
        yield Item(f"p{row}", f"{' '.join(words[:half])}. {words[0]} was.\n\n{' '.join(words[half:])}. So it is.",
                   {"title": words[0], "links": [f"p{(row + 1) % 40}"]})  # fmt: skip


RETRIEVERS: dict[str, Growth] = {
    "bm25": searched("bm25", WORDS, "documents of 12 words; 100 queries", CARD, lambda n: items(texts(n)), asked(100)),
    "chronicles": searched(
        "chronicles", WORDS, "documents of 12 words; 100 queries (BM25)", CARD, lambda n: items(texts(n)), asked(100),
    ),
    "tildev2": searched(
        "tildev2", WORDS, f"documents of 12 words; 100 queries; {TINY}", CARD, lambda n: items(texts(n)), asked(100),
        params=tiny("base"), sizes=MIDDLE, why=MODEL,
    ),
    "seal": searched(
        "seal", WORDS, "documents of 12 words in an FM-index; keys of 20 queries, without a model",
        {"index": "n log n", "search": "linear"}, lambda n: items(texts(n)), asked(20),
        params=lambda: {"model": "draft", "generate": False, "query_logprob": -1.0, "use_titles": False},
    ),
    "qta": searched(
        "qta", WORDS, "tools of 12 words, BM25 behind rewrites of 4 tokens; 4 queries", CARD,
        lambda n: items(texts(n)), asked(4),
        params=lambda: {"model": "draft", "retriever": "bm25", "chat": False, "few_tools": 2,
                               "max_new_tokens": 4},
    ),
    "star-adore": searched(
        "star-adore", VECTORS, f"given {WIDTH}-dimensional vectors, exact search; 100 queries", CARD,
        embedded, wanted(100), params=lambda: {"base": None},
    ),
    "dense": searched(
        "dense", VECTORS, f"documents of 12 words, exact search; 100 queries; {TINY}", CARD,
        lambda n: items(texts(n)), asked(100), params=tiny("encoder"),
    ),
    "dense-approximate": searched(
        "dense", VECTORS, f"as dense, with the graph; {TINY}", {"index": "n log n", "search": "log n"},
        lambda n: items(texts(n)), asked(100), params=tiny("encoder", approximate=True), sizes=MIDDLE,
        why="the graph takes some 5,000 vectors a second",
    ),
    "ict-bfs-wlp": searched(
        "ict-bfs-wlp", VECTORS, "documents of 12 words; 100 queries; one layer of width 16, hardly trained", CARD,
        lambda n: items(texts(n)), asked(100), wiki,
        params=lambda: {"layers": 1, "width": 16, "vocab": 500, "dim": 16, "query_len": 16, "doc_len": 32,
                               "batch": 4, "steps": 3},
        sizes=MIDDLE, why=MODEL,
    ),
    "clustered-rag": searched(
        "clustered-rag", VECTORS, f"texts with {WIDTH}-dimensional vectors, 8 clusters, 10 rounds; 100 queries",
        CARD, lambda n: with_fields(n, texts(n), embedding=vectors(n)), wanted(100),
        params=lambda: {"k": 8, "n_init": 1, "max_iter": 10},
    ),
    "anncur": searched(
        "anncur", VECTORS, f"given scores of 40 anchor queries, 20 anchors; 20 queries, 40 calls each; {TINY}", CARD,
        lambda n: with_fields(n, texts(n), anchor_scores=noise(n, 40)), asked(20),
        params=tiny("encoder", scorer="maxsim", anchors=20, budget=40),
    ),
    "dsi": searched(
        "dsi", VECTORS, "documents of 12 words, one made-up question each, one epoch of one layer; 20 queries",
        {"fit": "linear", **CARD}, lambda n: items(texts(n)), asked(20),
        lambda n: [*items(texts(n)), *questions(n)],
        params=lambda: {"c": 30, "beam": 10, "vocab": 1000, "span_len": 16, "m_queries": 1,
                               "encoder": encoder(),
                               "network": {"layers": 1, "width": 32, "heads": 2, "kv_heads": 1},
                               "recipe": {"epochs": 1, "batch": 32, "warmup": 1}},
        sizes=SMALL, why="a network learns every document",
    ),
}  # fmt: skip
