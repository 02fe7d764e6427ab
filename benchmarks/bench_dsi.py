"""dsi on XQuAD-en: what real questions teach against the passages' beginnings, and what search and k-means cost.

The quality rows train small networks: they take several minutes on one core.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

import pickaxe
from pickaxe import Call, Item
from pickaxe_plugins.retrieval.dsi import _beams
from pickaxe_plugins.retrieval.dsi._clustering import semantic
from pickaxe_plugins.retrieval.dsi._trie import Trie

FILES = Path(__file__).parents[1] / "tests" / "golden" / "files" / "71-xquad-en"
NETWORK = {"layers": 1, "width": 64, "heads": 4, "kv_heads": 4}
STEPS, BATCH = 500, 32
SEEDS = (0, 1)
SIZES = (60, 240)


def run() -> Iterator[dict[str, Any]]:
    yield from quality()
    yield from latency()
    yield clustering()


# ------------------------------------------------------------ quality


def quality(sizes: tuple[int, ...] = SIZES, seeds: tuple[int, ...] = SEEDS) -> Iterator[dict[str, Any]]:
    """Hits@10 on held-out questions, mean over the seeds; every network is trained for the same number of steps."""
    gaps = {}
    for size in sizes:
        told = {}
        for name, sources in (("d2q+labeled", ["d2q", "labeled"]), ("firstp", ["firstp"])):
            found = [hits_at_10(size, tuple(sources), seed) for seed in seeds]
            told[name] = statistics.mean(found)
            yield row(f"dsi: Hits@10, {name}, {size} passages", told[name], None, "share", size,
                      "by seed: " + ", ".join(f"{each:.3f}" for each in found))  # fmt: skip
        gaps[size] = told["d2q+labeled"] - told["firstp"]
        note = "goal at 240 passages: 0.10 or more"
        yield row(f"dsi: gap of d2q+labeled over firstp, {size} passages", gaps[size], None, "share", size, note)


def hits_at_10(size: int, sources: tuple[str, ...], seed: int, **params: Any) -> float:
    """Half of each passage's questions are learned, as real ones and as synthetic ones in turn; the rest is asked."""
    passages, learned, asked = halves(size)
    pairs = size if sources == ("firstp",) else len(learned) + sum(len(texts(each, "synthetic")) for each in passages)
    epochs = -(-STEPS // -(-pairs // BATCH))
    recipe = {"epochs": epochs, "batch": BATCH, "rate": 1e-3, "warmup": 50, "decay": 0.01, "checkpoint": 10_000}
    fitted = pickaxe.retriever("dsi", sources=list(sources), synthesis="given", network=NETWORK, vocab=4096,
                               c=10, recipe=recipe, **params).fit(learned, unlabelled=passages, seed=seed)  # fmt: skip
    results = fitted.index(passages).search(asked, 10)
    right = [texts(item, "relevant") for item in asked]
    return statistics.mean(
        float(any(hit.id in known for hit in hits)) for hits, known in zip(results, right, strict=True)
    )


@cache
def halves(size: int) -> tuple[list[Item], list[Item], list[Item]]:
    """Passages with every fourth question as a synthetic query, every fourth as a real one, and what is asked."""
    documents, queries = lines("docs.jsonl")[:size], lines("queries.jsonl")
    learned: list[Item] = []
    asked: list[Item] = []
    synthetic: dict[str, list[str]] = {}
    place: dict[str, int] = {}
    for query in queries:
        name = query["relevant"][0]
        place[name] = place.get(name, -1) + 1
        item = Item(query["id"], query["query"], {"relevant": [name]})
        if place[name] % 2:
            asked.append(item)
        elif place[name] % 4:
            learned.append(item)
        else:
            synthetic.setdefault(name, []).append(query["query"])
    names = {each["id"] for each in documents}
    passages = [Item(each["id"], each["text"], {"title": each["title"], "synthetic": synthetic.get(each["id"], [])})
                for each in documents]  # fmt: skip
    return passages, _about(learned, names), _about(asked, names)


def _about(queries: list[Item], names: set[str]) -> list[Item]:
    return [item for item in queries if texts(item, "relevant")[0] in names]


# ------------------------------------------------------------ cost


class Drawn:
    """A model that costs nothing: the trie's own time is what remains."""

    def __init__(self, queries: int, vocabulary: int) -> None:
        self._queries, self._table = queries, np.random.default_rng(0).standard_normal((64, vocabulary)) - 4

    def begin(self) -> np.ndarray:
        return self._table[:1].repeat(self._queries, 0)

    def step(self, owner: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        return np.asarray(self._table[tokens % 64])


def latency() -> Iterator[dict[str, Any]]:
    """Of one query, with the model and without."""
    passages, learned, asked = halves(240)
    recipe = {"epochs": 1, "batch": 32, "warmup": 1}
    fitted = pickaxe.retriever("dsi", sources=["labeled"], c=10, recipe=recipe).fit(learned, unlabelled=passages)
    index = fitted.index(passages)
    assert index.artifact is not None
    path = str(index.artifact.path)
    sequences = Trie.open(index.artifact)
    large = np.random.default_rng(0).permutation(10_000)
    tries = {240: sequences, 10_000: Trie.build([(*(int(d) + 2 for d in f"{each:04d}"), 1) for each in large])}
    for beam in (10, 100):
        narrow = pickaxe.retriever("dsi", artifact=path, beam=beam)
        whole = seconds(partial(narrow.search, asked[:1], 10))
        yield row(f"dsi: search, beam {beam}, 240 passages", 1e3 * whole, None, "ms", 240, "with the model")
        for size, trie in tries.items():
            alone = seconds(partial(_walk, trie, beam))
            note = f"{alone / whole:.1%} of the search with the model over 240 passages; goal: under 10 %"
            yield row(f"dsi: trie alone, beam {beam}, {size} documents", 1e3 * alone, None, "ms", size, note)


def _walk(trie: Trie, beam: int) -> None:
    _beams.search(trie, Drawn(1, 200), beam, 5, True, Call())


def clustering() -> dict[str, Any]:
    """The tree over 10,000 vectors like those of an encoder: 100 heaps on the sphere."""
    from sklearn.cluster import MiniBatchKMeans

    random = np.random.default_rng(0)
    vectors = random.standard_normal((100, 384))[random.integers(0, 100, 10_000)]
    vectors = vectors + 0.7 * random.standard_normal((10_000, 384))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    ids = [str(each) for each in range(len(vectors))]
    ours = seconds(lambda: semantic("semantic", ids, vectors, 10, 100, 0, Call()), 1)
    peer = seconds(lambda: MiniBatchKMeans(100, n_init=1, random_state=0).fit(vectors), 1)
    return row("dsi: semantic identifiers, k 10, c 100", ours, peer, "s", 10_000,
               "peer: one flat MiniBatchKMeans of 100 groups; goal: 10 s")  # fmt: skip


def seconds(action: Callable[[], Any], times: int = 5) -> float:
    action()
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        action()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def texts(item: Item, name: str) -> list[str]:
    """A field of texts."""
    found = item.get(name)
    assert isinstance(found, list)
    return found


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FILES / name).read_text(encoding="utf-8").splitlines()]


def row(name: str, ours: float, peer: float | None, unit: str, n: int, note: str) -> dict[str, Any]:
    return {"name": name, "ours": ours, "peer": peer, "ratio": None if peer is None else ours / peer, "unit": unit,
            "n": n, "note": note}  # fmt: skip


if __name__ == "__main__":
    for each in run():
        print(each)
