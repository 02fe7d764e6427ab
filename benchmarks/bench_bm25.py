"""bm25 through its handle against bm25s (numba) and tantivy, each used alone: documents of words drawn by Zipf's law.

The timed region begins with the texts of the queries and ends with lists of ids (strings) and scores, on both sides:
cutting into words, search and looking up ids are inside, each side uses all cores.  Tantivy parses the query, searches
on one thread and may keep to its own addresses of documents, whose ids it would have to read one by one.  Indexing
begins with texts; ours ends with a checked artifact in a temporary folder, bm25s in memory.  `PICKAXE_BENCH_DOCUMENTS`
names other sizes.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import bm25s
import numpy as np

import pickaxe
from benchmarks._pairs import alternate, rate

SIZES = tuple(int(part) for part in os.environ.get("PICKAXE_BENCH_DOCUMENTS", "1000,100000").split(","))
QUERIES, WORDS, K = 1000, 50_000, 10


def run() -> Iterator[dict[str, Any]]:
    for size in SIZES:
        documents, queries = texts(size, 20, 100, 1), texts(QUERIES, 3, 8, 2)
        method = pickaxe.retriever("bm25", variant="lucene")
        taken = alternate(
            partial(method.index, documents),
            partial(library, documents),
            max(1, min(5, 100_000 // size)),
        )
        yield rate(f"index {size:,} documents, peer bm25s", size, taken, "documents/s")
        index, search = method.index(documents), library(documents)

        def answer(index: Any = index, queries: list[str] = queries) -> object:
            found = index.search(queries, K)
            return found.ids, found.scores

        peers = {"bm25s (numba)": search, "tantivy": tantivy(documents)}
        for name, peer in peers.items():
            asked = None if peer is None else lambda peer=peer, queries=queries: peer(queries)
            note = "" if peer else "tantivy is not installed"
            yield rate(
                f"{QUERIES:,} queries over {size:,} documents, peer {name}",
                QUERIES,
                alternate(answer, asked, 15),
                "queries/s",
                note,
            )


def texts(n: int, least: int, most: int, seed: int) -> list[str]:
    random = np.random.default_rng(seed)
    chances = 1 / np.arange(1, WORDS + 1) ** 1.1
    lengths = random.integers(least, most, n)
    words = random.choice(WORDS, lengths.sum(), p=chances / chances.sum())
    return [" ".join(f"w{word}" for word in part) for part in np.split(words, np.cumsum(lengths)[:-1])]


def library(documents: list[str]) -> Callable[[list[str]], object]:
    def tokens(texts: list[str]) -> Any:
        return bm25s.tokenize(texts, stopwords=None, token_pattern=r"\w+", show_progress=False)

    made = bm25s.BM25(method="lucene", k1=1.5, b=0.75, backend="numba")
    made.index(tokens(documents), show_progress=False)
    threads, names = len(os.sched_getaffinity(0)), [str(row) for row in range(len(documents))]

    def search(queries: list[str]) -> object:
        rows, scores = made.retrieve(tokens(queries), k=K, n_threads=threads, show_progress=False)
        return [[names[row] for row in found] for found in rows.tolist()], scores.tolist()

    return search


def tantivy(documents: list[str]) -> Callable[[list[str]], object] | None:
    if importlib.util.find_spec("tantivy") is None:
        return None
    import tantivy as engine

    schema = engine.SchemaBuilder().add_text_field("body", stored=False).add_integer_field("row", stored=True).build()
    index = engine.Index(schema)
    writer = index.writer()
    for row, text in enumerate(documents):
        writer.add_document(engine.Document(body=text, row=row))
    writer.commit()
    index.reload()
    searcher = index.searcher()
    return lambda queries: [searcher.search(index.parse_query(query, ["body"]), K).hits for query in queries]
