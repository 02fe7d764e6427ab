"""seal on XQuAD-en: building the index, a constrained step, the scoring, and what the three ways of scoring find."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

import pickaxe
from pickaxe import Item
from pickaxe.host import default_host
from pickaxe_plugins.retrieval._token_index import TokenIndex
from pickaxe_plugins.retrieval.seal._keys import query_spans
from pickaxe_plugins.retrieval.seal._score import Key, Scorer, Settings, Weighed

FILES = Path(__file__).parents[1] / "tests" / "golden" / "files" / "71-xquad-en"
QUESTIONS = 100
K = 10
TOKENS = 1_000_000


def run() -> Iterator[dict[str, Any]]:
    documents, queries = lines("docs.jsonl"), lines("queries.jsonl")
    tokenizer = default_host().lm("draft").tokenizer
    rows = [[*tokenizer.encode(f" {each['text']}"), tokenizer.eos_ids[0]] for each in documents]
    yield from building(rows)
    index = TokenIndex.build(rows)
    yield stepping(index)
    yield from scoring(index, [tokens_of(each["query"], tokenizer, index) for each in queries[:QUESTIONS]])
    yield from quality(documents, queries)


def building(rows: list[list[int]]) -> Iterator[dict[str, Any]]:
    """The passages again and again until there are a million tokens: large, but as repetitive as it sounds."""
    whole = sum(map(len, rows))
    repeated = rows * -(-TOKENS // whole)
    begun = time.perf_counter()
    index = TokenIndex.build(repeated)
    seconds = time.perf_counter() - begun
    n = len(index)
    size = index.index.nbytes + index.tokens.nbytes + index.starts.nbytes
    yield row("seal: index of tokens", n / seconds, None, "tokens/s", n, "goal: 50,000 tokens/s")
    yield row("seal: index on disk", size / n, None, "bytes/token", n, "goal: 6; without tokens.npy "
              f"{index.index.nbytes / n:.2f}")  # fmt: skip


def stepping(index: TokenIndex) -> dict[str, Any]:
    """What may follow 15 hypotheses, and their extension, without the model."""
    random = np.random.default_rng(0)
    firsts = random.choice(index.index.symbols, 15, replace=False)
    ranges = index.ranges([[int(token)] for token in firsts])

    def step() -> None:
        tokens, _, offsets = index.following(*ranges)
        index.index.extend(*ranges, tokens[offsets[:-1]])

    return row("seal: constrained step, beam 15", 1e3 * median(step, 20), None, "ms", 15, "goal: under 2 ms")


def scoring(index: TokenIndex, asked: list[list[Key]]) -> Iterator[dict[str, Any]]:
    """The query's own spans as keys, all equally likely, against the plain loop over documents and keys."""
    settings = Settings(unigrams=0)
    scorer = Scorer(index, settings, 2)
    weighed = [Weighed.of(index, dict.fromkeys(keys, -1.0), None, settings) for keys in asked]

    def ours() -> None:
        for each in weighed:
            scorer.best(each, K)

    def plain() -> None:
        for each in weighed[:5]:
            for document in range(len(index.starts) - 1):
                plain_score([2, *index.document(document).tolist()[:-1]], each, settings.beta)

    keys = statistics.mean(len(each.keys) for each in weighed)
    mine, theirs = 1e3 * median(ours, 3) / len(weighed), 1e3 * median(plain, 1) / 5
    yield row("seal: scoring a query", mine, theirs, "ms", len(index.starts) - 1,
              f"{keys:.0f} keys a query; against the same rules in plain Python")  # fmt: skip


def plain_score(tokens: list[int], weighed: Weighed, beta: float) -> float:
    """The rules of the full score as one would write them down, without leftover tokens."""
    places: dict[int, list[int]] = {}
    for at, token in enumerate(tokens):
        places.setdefault(token, []).append(at)
    free, seen, total = [True] * len(tokens), set(), 0.0
    for key, weight in zip(weighed.keys, weighed.weights.tolist(), strict=True):
        added = False
        types = set(key)
        cover = 1 - beta + beta * len(types - seen) / len(types)
        for at in places.get(key[0], ()):
            if tuple(tokens[at : at + len(key)]) == key and all(free[at : at + len(key)]):
                free[at : at + len(key)] = [False] * len(key)
                total += 0.0 if added else weight * cover
                added = True
        seen |= types if added else set()
    return total


def quality(documents: list[dict[str, Any]], queries: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Hits@10 with keys from the queries alone, of the passages without titles; the directions of the card."""
    items = [Item(each["id"], each["text"]) for each in documents]
    order = np.random.default_rng(0).permutation(len(queries))[:QUESTIONS]
    asked = [queries[place] for place in order.tolist()]
    texts = [Item(each["id"], each["query"]) for each in asked]
    index = pickaxe.retriever("seal", use_titles=False).index(items)
    for scoring, unigrams in product(("intersective", "lm_fm", "lm"), (5000, 0)):
        if scoring != "intersective" and unigrams:
            continue
        opened = pickaxe.retriever(
            "seal", generate=False, use_titles=False, scoring=scoring, unigrams=unigrams, artifact=index.artifact.path
        )
        begun = time.perf_counter()
        found = opened.search(texts, K)
        seconds = (time.perf_counter() - begun) / len(asked)
        share = statistics.mean(
            any(hit.id in each["relevant"] for hit in hits) for each, hits in zip(asked, found, strict=True)
        )
        note = f"{seconds:.2f} s a query; random finds {K / len(documents):.3f}"
        yield row(f"seal: {scoring}, unigrams={unigrams}, hits@{K}", share, None, "share", len(asked), note)
    bm25 = pickaxe.retriever("chronicles").index(items).search(texts, K)
    share = statistics.mean(
        any(hit.id in each["relevant"] for hit in hits) for each, hits in zip(asked, bm25, strict=True)
    )
    yield row(f"BM25 (chronicles), hits@{K}", share, None, "share", len(asked), "beside seal, for comparison")


def tokens_of(query: str, tokenizer: Any, index: TokenIndex) -> list[Key]:
    keys = [tuple(ids) for ids in tokenizer.encode_batch([f" {span}" for span in query_spans(query)])]
    return [key for key, count in zip(keys, index.counts(keys), strict=True) if count]


def median(function: Callable[[], None], runs: int) -> float:
    function()
    seconds = []
    for _ in range(runs):
        begun = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FILES / name).read_text(encoding="utf-8").splitlines()]


def row(name: str, ours: float, peer: float | None, unit: str, n: int, note: str) -> dict[str, Any]:
    ratio = None if peer is None else (peer / ours if unit == "ms" else ours / peer)
    return {"name": name, "ours": ours, "peer": peer, "ratio": ratio, "unit": unit, "n": n, "note": note}
