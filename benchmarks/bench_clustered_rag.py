"""clustered-rag: time of its k-means against scikit-learn, and tokens saved on XQuAD's questions."""

from __future__ import annotations

import importlib.util
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import pickaxe
from benchmarks._pairs import alternate
from pickaxe import Call, Item
from pickaxe_plugins.retrieval.clustered_rag._clusters import Settings, agreement, cluster

VECTORS = int(os.environ.get("PICKAXE_BENCH_VECTORS", "10000"))
ARTICLES = int(os.environ.get("PICKAXE_BENCH_ARTICLES", "48"))
WIDTH, RUNS, ROUNDS = 384, 3, 300
XQUAD = Path(__file__).parents[1] / "tests" / "golden" / "files" / "71-xquad-en"


def run() -> Iterator[dict[str, Any]]:
    random = np.random.default_rng(0)
    centres = random.standard_normal((100, WIDTH))
    vectors = (centres[random.integers(0, 100, VECTORS)] + random.standard_normal((VECTORS, WIDTH))).astype(np.float32)
    for k in (4, 16, 64):
        yield clustering(vectors, k)
    yield from tokens()
    yield growth()


def clustering(vectors: np.ndarray, k: int) -> dict[str, Any]:
    found: dict[str, float] = {}

    def ours() -> None:
        found["ours"] = cluster(vectors, Settings(k, RUNS, ROUNDS, "size"), 0, Call()).inertia

    peer: Callable[[], object] | None = None
    if importlib.util.find_spec("sklearn"):
        library = importlib.import_module("sklearn.cluster")

        def peer() -> None:
            fitted = library.KMeans(k, n_init=RUNS, max_iter=ROUNDS, tol=0, random_state=0).fit(vectors)
            found["peer"] = fitted.inertia_

    mine, theirs = alternate(ours, peer, 1)
    note = "scikit-learn is not installed" if peer is None else f"inertia {found['ours'] / found['peer']:.4f} of its"
    return {
        "name": f"k-means, {len(vectors):,} x {WIDTH}, k={k}, {RUNS} runs, peer: scikit-learn",
        "ours": mine, "peer": theirs, "ratio": None if theirs is None else theirs / mine,
        "unit": "s", "n": len(vectors), "note": note,
    }  # fmt: skip


def questions() -> list[Item]:
    """The questions of XQuAD by article."""
    articles = {each["id"]: each["title"] for each in _lines("docs.jsonl")}
    asked = _lines("queries.jsonl")
    return [Item(each["id"], each["query"], {"group": articles[each["relevant"][0]]}) for each in asked]


def tokens() -> Iterator[dict[str, Any]]:
    """Tokens of the medoids' context against all texts, and how near both are in meaning."""
    items = questions()
    articles = list(dict.fromkeys(str(item.get("group")) for item in items))[:ARTICLES]
    items = [item for item in items if item.get("group") in articles]
    encoder = pickaxe.Host().encoder()
    for extract in ("medoid", "sentences"):
        index = pickaxe.retriever("clustered-rag", extract=extract).index(items)
        assert index.artifact is not None
        told = index.artifact.read_json("groups.json")
        large = [name for name, each in told.items() if each["documents"] >= 20]
        before = sum(told[name]["tokens_documents"] for name in large)
        after = sum(told[name]["tokens_context"] for name in large)
        lines = [json.loads(line) for line in index.artifact.file("documents.jsonl").read_text().splitlines()]
        contexts = [" ".join(each["text"] for each in lines if each["group"] == name) for name in large]
        whole = [" ".join(item.text or "" for item in items if item.get("group") == name) for name in large]
        near = float(agreement(encoder.encode(contexts), encoder.encode(whole)).mean())
        yield {
            "name": f"XQuAD, questions of an article, {extract}: words of the context; peer: of all questions",
            "ours": after, "peer": before, "ratio": before / after, "unit": "words", "n": len(large),
            "note": f"reduction {1 - after / before:.3f}, least {min(told[name]['reduction'] for name in large):.3f}; "
                    f"cosine of both contexts {near:.3f}; index_tokens 0",
        }  # fmt: skip


def growth() -> dict[str, Any]:
    """From four to 72 texts of one group."""
    items = questions()
    (name, _), *_ = Counter(str(item.get("group")) for item in items).most_common(1)
    group = [item for item in items if item.get("group") == name]
    group = [*group, *(other for other in items if other.get("group") != name)][:72]
    sizes = {}
    for n in (4, 72):
        index = pickaxe.retriever("clustered-rag").index([Item(each.id, each.text) for each in group[:n]])
        assert index.artifact is not None
        sizes[n] = index.artifact.notes
    ours = sizes[72]["tokens_context"] / sizes[4]["tokens_context"]
    peer = sizes[72]["tokens_documents"] / sizes[4]["tokens_documents"]
    return {"name": "words of the context at 72 texts over those at 4; peer: all texts", "ours": ours, "peer": peer,
            "ratio": peer / ours, "unit": "times", "n": 72, "note": ""}  # fmt: skip


def _lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (XQUAD / name).read_text(encoding="utf-8").splitlines()]
