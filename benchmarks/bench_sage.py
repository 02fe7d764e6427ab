"""sage: segmenting speed and overhead, selections a second, and the card's claims on XQuAD-en."""

from __future__ import annotations

import importlib.util
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import pickaxe
from benchmarks._pairs import alternate, rate
from pickaxe import Item
from pickaxe_plugins.retrieval._sage_network import Network, training_pairs
from pickaxe_plugins.retrieval._sage_selection import SelectionParams
from pickaxe_plugins.retrieval.sage_segment._chunks import Cutting, chunks, split

XQUAD = Path(__file__).parents[1] / "tests" / "golden" / "files" / "71-xquad-en"
QUESTIONS = int(os.environ.get("PICKAXE_BENCH_QUESTIONS", "100"))
SEEDS = (0, 1)
LISTS, LONG, WIDTH, HIDDEN = 20_000, 100, 384, 256


def run() -> Iterator[dict[str, Any]]:
    yield from selections()
    documents = _read("docs.jsonl")
    yield overhead(documents)
    yield from separation(documents)
    yield from passages(documents)


def selections() -> Iterator[dict[str, Any]]:
    scores = np.random.default_rng(0).random((LISTS, LONG))
    params = SelectionParams()
    seconds = alternate(lambda: params.counts(-np.sort(-scores, axis=1)), None)
    yield rate("select from lists of 100 scores", LISTS, seconds, "lists/s", "no peer")


def overhead(documents: list[dict[str, Any]]) -> dict[str, Any]:
    """All that is not the encoder: splitting, the network and the cuts, against the time of the encoder."""
    texts = [each["text"] for each in documents[:40]]
    sentences = [text[start:end] for text in texts for start, end in split(text, "line")[0]]
    encoder = pickaxe.Host().encoder()
    start = time.perf_counter()
    vectors = encoder.encode(sentences)
    encoding = time.perf_counter() - start
    random = np.random.default_rng(0)
    network = Network(
        random.standard_normal((4 * WIDTH, HIDDEN), np.float32), np.zeros(HIDDEN, np.float32),
        random.standard_normal(HIDDEN, np.float32), np.zeros((), np.float32),
    )  # fmt: skip

    def rest() -> None:
        ones = [1] * len(sentences)
        for text in texts:
            split(text, "line")
        chunks(network.neighbours(vectors), [0], ones, ones, Cutting())

    own, _ = alternate(rest, None)
    note = f"{len(sentences) / encoding:.0f} sentences/s in the encoder; all else takes {own / encoding:.2%} of that"
    if importlib.util.find_spec("langchain_experimental") is None:
        note += "; langchain-experimental is not installed"
    return rate("segment without the encoder", len(sentences), (own, None), "sentences/s", note)


def separation(documents: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """AUC of same paragraph or not on 12 unseen articles, fitted on 36."""
    from pickaxe_plugins.retrieval._sage_network import train
    from pickaxe_plugins.retrieval.sage_segment import Params

    articles: dict[str, list[list[int]]] = {}
    sentences: list[str] = []
    for each in documents:
        spans, _ = split(each["text"], "line")
        articles.setdefault(each["title"], []).append([len(sentences) + row for row in range(len(spans))])
        sentences += [each["text"][start:end] for start, end in spans]
    vectors = pickaxe.Host().encoder().encode(sentences)
    titles = list(articles)
    for seed in SEEDS:
        order = [titles[place] for place in pickaxe.generator(seed, "articles").permutation(len(titles))]
        learned, tested = ([articles[title] for title in part] for part in (order[:36], order[36:]))
        pairs = training_pairs(learned, seed)
        left, right, labels = np.array(training_pairs(tested, seed + 10)).T
        values = {"cosine": (vectors[left] * vectors[right]).sum(1)}
        for features in ("augmented", "concatenation"):
            network = _trained(train, vectors, pairs, features, Params(), seed)
            values[features] = network.pairs(vectors[left], vectors[right])
        near = np.abs(right - left) == 1
        for name, scores in values.items():
            note = f"adjacent pairs alone: {_auc(scores[near], labels[near]):.3f}; {len(pairs)} training pairs"
            yield _row(f"XQuAD-en, seed {seed}, {name}", _auc(scores, labels), "AUC", len(labels), note)


def _trained(train: Any, vectors: np.ndarray, pairs: Any, features: str, params: Any, seed: int) -> Network:
    from tempfile import TemporaryDirectory

    from pickaxe.artifact import writing
    from pickaxe_plugins.train.descent import finished

    with (
        TemporaryDirectory() as folder,
        writing(Path(folder) / "fit", kind="fit", method="bench", method_version=1, params={}) as out,
    ):
        network: Network = finished(train(vectors, pairs, params.hidden, features, params.recipe, out, seed))
        network.write(out)
    return network


def passages(documents: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Mean size of the selection, and how often it has the gold passage, against the five best."""
    items = [Item(each["id"], each["text"]) for each in documents]
    texts = {item.id: item for item in items}
    queries = _read("queries.jsonl")
    asked = [queries[row] for row in np.linspace(0, len(queries) - 1, min(QUESTIONS, len(queries))).astype(int)]
    found = pickaxe.retriever("bm25").index(items).search([Item(each["id"], each["query"]) for each in asked], 10)
    select = pickaxe.reranker("sage-select", min_k=1)
    sizes, held, five, words, five_words = [], [], [], [], []
    for each, hits in zip(asked, found, strict=True):
        candidates = [texts[hit.id] for hit in hits]
        ranking = select.rerank(each["query"], candidates)
        best = [candidates[row] for row in np.argsort(-ranking.scores, kind="stable")[:5]]
        gold = set(each["relevant"])
        sizes.append(len(ranking))
        held.append(bool(gold & set(ranking.ids)))
        five.append(any(item.id in gold for item in best))
        words.append(sum(len((texts[name].text or "").split()) for name in ranking.ids))
        five_words.append(sum(len((item.text or "").split()) for item in best))
    n = len(asked)
    yield _row("chunks selected at min_k=1, g=0.3 (peer: 5)", float(np.mean(sizes)), "chunks", n, "", 5.0)
    yield _row("gold passage among them (peer: top 5)", float(np.mean(held)), "recall", n, "", float(np.mean(five)))
    yield _row("words sent (peer: top 5)", float(np.mean(words)), "words", n, "", float(np.mean(five_words)))


def _row(name: str, ours: float, unit: str, n: int, note: str, peer: float | None = None) -> dict[str, Any]:
    return {"name": name, "ours": ours, "peer": peer, "ratio": None, "unit": unit, "n": n, "note": note}


def _auc(scores: np.ndarray, labels: np.ndarray) -> float:
    above = scores[labels == 1][:, None] - scores[labels == 0]
    return float(np.mean((above > 0) + 0.5 * (above == 0)))


def _read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (XQUAD / name).read_text(encoding="utf-8").splitlines()]
