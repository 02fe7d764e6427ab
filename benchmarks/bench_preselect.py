"""preselect: documents scored a second against fastText called bare and through datatrove; strengths a second."""

from __future__ import annotations

import importlib
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import pickaxe
from pickaxe_plugins.selection.preselect._strength import strength

BENCHMARK = (75.38, 76.30, 77.27, 79.46, 80.47, 81.19)
DOCUMENTS = 20_000


def run() -> Iterator[dict[str, Any]]:
    draw = random.Random(0)
    words = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 9))) for _ in range(20_000)]
    texts = [" ".join(draw.choices(words, k=60)) for _ in range(DOCUMENTS)]
    with tempfile.TemporaryDirectory() as folder:
        yield from scoring(texts, Path(folder) / "artifact")
    yield strengths()


def scoring(texts: list[str], out: Path) -> Iterator[dict[str, Any]]:
    noise = np.random.default_rng(0)
    items = [pickaxe.Item(str(row), text, {"losses": noise.random(6)}) for row, text in enumerate(texts[:2000])]
    fitted = pickaxe.scorer("preselect", benchmark_scores=BENCHMARK, positive=0.2, bucket=200_000).fit(items, out=out)
    assert fitted.artifact is not None
    pool = [pickaxe.Item(str(row), text) for row, text in enumerate(texts)]
    model = importlib.import_module("fasttext").load_model(str(fitted.artifact.file("model.bin")))

    def ours() -> None:
        for _ in fitted.stream(pool):
            pass

    def bare() -> None:
        model.predict(texts, k=-1)

    def one_by_one() -> None:
        for text in texts:
            model.predict([text], k=-1)

    peers = {"fastText, one batch": bare, "fastText, one text a call": one_by_one, "datatrove": datatrove(out, texts)}
    for name, peer in peers.items():
        yield row(f"scoring against {name}", *alternate(ours, peer), "documents/s", DOCUMENTS)


def datatrove(artifact: Path, texts: list[str]) -> Callable[[], None] | None:
    try:
        filters = importlib.import_module("datatrove.pipeline.filters.fasttext_filter")
        data = importlib.import_module("datatrove.data")
        peer = filters.FastTextClassifierFilter(str(artifact / "model.bin"), keep_labels=[("1", 0.5)])
    except ImportError:  # itself, or a library that it needs for this filter
        return None
    documents = [data.Document(text=text, id=str(row)) for row, text in enumerate(texts)]

    def work() -> None:
        for document in documents:
            peer.filter(document)

    return work


def strengths() -> dict[str, Any]:
    """A million documents, six models; the peer loops over pairs of each document in Python."""
    losses = np.random.default_rng(0).random((1_000_000, 6))
    few = losses[:5000]

    def looped() -> None:
        for each in few.tolist():
            sum(each[i] > each[j] for j in range(6) for i in range(j))

    ours, peer = alternate(lambda: strength(losses, BENCHMARK), looped)
    assert peer is not None
    return row("strength of 6 losses", ours, peer * len(losses) / len(few), "documents/s", len(losses))


def alternate(ours: Callable[[], Any], peer: Callable[[], Any] | None, runs: int = 5) -> tuple[float, float | None]:
    """Median seconds of both, run in turns so that a busy machine slows both alike."""
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs):
        for work, times in zip((ours, peer), taken, strict=True):
            if work is not None:
                start = time.perf_counter()
                work()
                times.append(time.perf_counter() - start)
    return statistics.median(taken[0]), statistics.median(taken[1]) if peer else None


def row(name: str, ours: float, peer: float | None, unit: str, n: int) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "ours": n / ours, "peer": None, "ratio": None, "unit": unit, "n": n}
    if peer is None:
        return {**found, "note": "the package is not installed"}
    return {**found, "peer": n / peer, "ratio": peer / ours}
