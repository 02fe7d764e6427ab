"""token-iou: the four corpora at ten chunk sizes, large inputs, and loops over questions, chunks and references."""

from __future__ import annotations

import csv
import json
import re
import statistics
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

import pickaxe
from pickaxe import Item, Scores
from pickaxe_plugins.evaluation.token_iou import sentences

DATA = Path(__file__).parent.parent / "tests" / "golden" / "files" / "22-token-iou"
SIZES = (1, 2, 3, 4, 5, 6, 8, 10, 15, 20)
PEER_LOOP = "the published loops, written anew: every question against every chunk and reference"


def run() -> Iterator[dict[str, Any]]:
    yield from corpora()
    yield from large()


# ---------------------------------------------------------------- the four corpora


def texts() -> dict[str, str]:
    return {path.stem: path.read_bytes().decode("utf-8") for path in sorted(DATA.glob("[a-z]*.md"))}


def questions() -> list[Item]:
    """The 373 questions; references are places in the corpus of that name."""
    with (DATA / "questions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        Item(
            f"question {row}",
            each["question"],
            {
                "references": np.array([[x["start_index"], x["end_index"]] for x in json.loads(each["references"])]),
                "corpus": each["corpus_id"],
            },
        )
        for row, each in enumerate(rows)
    ]


def retrieved(size: int, asked: Sequence[Item], corpora: dict[str, str], k: int = 5) -> list[Item]:
    """The questions with the k nearest chunks of `size` sentences, by cosine of TF-IDF over all corpora."""
    cut = sentences(size)
    chunks = [(span.start, span.end, name) for name, text in corpora.items() for span in cut(text)]
    documents, queries = tf_idf(
        [corpora[name][start:end] for start, end, name in chunks], [item.text or "" for item in asked]
    )
    similar = np.asarray((queries @ documents.T).todense())
    best = np.argsort(-similar, axis=1, kind="stable")[:, :k]
    everything: dict[str, Any] = {"all_chunks": chunks}
    return [
        Item(
            item.id,
            item.text,
            {
                **item.fields,
                "retrieved": {"retrieved": [chunks[chunk] for chunk in row]},
                "all_chunks": everything,
                "group": f"{size} sentences",
            },
        )
        for item, row in zip(asked, best.tolist(), strict=True)
    ]


def tf_idf(documents: Sequence[str], queries: Sequence[str]) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Unit rows of (1 + ln tf) idf, idf = 1 + ln((1 + n) / (1 + df)), without English stop words."""
    from bm25s.stopwords import STOPWORDS_EN_PLUS

    vocabulary: dict[str, int] = {}

    def counts(text: str) -> Counter[str]:
        return Counter(word for word in re.findall(r"\b\w\w+\b", text.lower()) if word not in stop)

    stop = frozenset(STOPWORDS_EN_PLUS)
    read = [counts(text) for text in documents]
    for each in read:
        for word in each:
            vocabulary.setdefault(word, len(vocabulary))
    found = np.bincount([vocabulary[word] for each in read for word in each], minlength=len(vocabulary))
    idf = 1 + np.log((1 + len(read)) / (1 + found))

    def rows(of: Sequence[Counter[str]]) -> sparse.csr_matrix:
        known = [[(vocabulary[word], count) for word, count in each.items() if word in vocabulary] for each in of]
        ends = np.cumsum([0, *map(len, known)])
        words = np.array([word for each in known for word, _ in each], np.int64)
        weights = (1 + np.log([count for each in known for _, count in each])) * idf[words]
        matrix = sparse.csr_matrix((weights, words, ends), shape=(len(of), len(vocabulary)))
        lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(1)).ravel())
        return sparse.csr_matrix(sparse.diags(1 / np.where(lengths == 0, 1, lengths)) @ matrix)

    return rows(read), rows([counts(text) for text in queries])


def corpora() -> Iterator[dict[str, Any]]:
    started = time.perf_counter()
    asked, given = questions(), texts()
    runs = [item for size in SIZES for item in retrieved(size, asked, given)]
    scoring = time.perf_counter()
    scores = pickaxe.scorer("token-iou").score(runs)
    ended = time.perf_counter()
    n = len(runs)
    yield row("four corpora, ten sizes: cutting, TF-IDF, search and scores", ended - started, "s", n)
    yield row("four corpora, ten sizes: scores alone", ended - scoring, "s", n)
    for line in scores.summary["Overall"]:
        for name in ("iou", "recall", "precision", "precision_omega"):
            yield row(f"{line['group']}: mean {name}", line[f"mean_{name}"], "", line["questions"])


# ---------------------------------------------------------------- large inputs


def large() -> Iterator[dict[str, Any]]:
    small = made(1_000, 4_000)
    ours = seconds(lambda: pickaxe.scorer("token-iou").score(small))
    peer = seconds(lambda: loops(small), 3)
    found = row("1,000 questions, 5 chunks each, Omega over 4,000 chunks", ours, "s", 1_000)
    yield {**found, "peer": peer, "ratio": peer / ours, "note": PEER_LOOP}
    for count, chunks in ((10_000, 200_000), (10_000, 1_000_000)):
        items = made(count, chunks)
        name = f"10,000 questions, 5 chunks each, Omega over {chunks:,} chunks"
        yield row(name, seconds(partial(pickaxe.scorer("token-iou").score, items), 3), "s", count)
        if chunks == 200_000:
            tracemalloc.start()
            pickaxe.scorer("token-iou").score(items)
            yield row(f"{name}: peak of the Python heap", tracemalloc.get_traced_memory()[1] / 2**20, "MiB", count)
            tracemalloc.stop()


def made(count: int, chunks: int) -> list[Item]:
    """Questions with three references each in one corpus of chunks of 200 characters that overlap by 50."""
    rng = np.random.default_rng(0)
    everything = {"all_chunks": [[start, start + 200, "a"] for start in range(0, chunks * 150, 150)]}
    starts = rng.integers(0, chunks * 150 - 400, (count, 3))
    spans = np.stack([starts, starts + rng.integers(20, 300, starts.shape)], -1)
    picks = rng.integers(0, chunks, (count, 5))
    picks[:, 0] = starts[:, 0] // 150
    return [
        Item(
            str(at),
            fields={
                "references": spans[at],
                "corpus": "a",
                "retrieved": {"retrieved": [everything["all_chunks"][chunk] for chunk in picks[at]]},
                **({"all_chunks": everything} if at == 0 else {}),
            },
        )
        for at in range(count)
    ]


def loops(items: Sequence[Item]) -> None:
    """Omega and IoU as the published code goes about them."""
    fields: list[Any] = [item.fields for item in items]
    chunks = fields[0]["all_chunks"]["all_chunks"]
    for each in fields:
        references = [(low, high) for low, high in each["references"].tolist()]
        for spans in (chunks, each["retrieved"]["retrieved"]):
            shared: list[tuple[int, int]] = []
            unused = list(references)
            for start, end, _ in spans:
                for low, high in references:
                    both = max(start, low), min(end, high)
                    if both[0] <= both[1]:
                        unused = without(unused, both)
                        shared = merged([both, *shared])


def merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return found


def without(ranges: list[tuple[int, int]], hole: tuple[int, int]) -> list[tuple[int, int]]:
    cut = [((low, min(high, hole[0])), (max(low, hole[1]), high)) for low, high in ranges]
    return [part for pair in cut for part in pair if part[0] < part[1]]


def seconds(work: Callable[[], Scores | None], runs: int = 5) -> float:
    taken = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def row(name: str, ours: float, unit: str, n: int) -> dict[str, Any]:
    return {"name": name, "ours": ours, "peer": None, "ratio": None, "unit": unit, "n": n}
