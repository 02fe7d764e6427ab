"""pretrainers-guide: quality scoring beside fastText, blocklist and features beside datatrove (if installed)."""

from __future__ import annotations

import importlib
import random
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import pickaxe
from pickaxe import Item
from pickaxe_plugins.selection.pretrainers_guide._classifier import chances
from pickaxe_plugins.selection.pretrainers_guide._text import Blocklist, features

CORPORA = Path(__file__).parents[1] / "tests" / "golden" / "files" / "22-token-iou"
LENGTH = 3000


def run(documents: int = 1000) -> Iterator[dict[str, Any]]:
    finance, wiki = (cut((CORPORA / f"{name}.md").read_text("utf-8")) for name in ("finance", "wikitexts"))
    examples = [Item(f"p{row}", text, {"quality": "positive"}) for row, text in enumerate(wiki[::2])]
    examples += [Item(f"n{row}", text, {"quality": "negative"}) for row, text in enumerate(finance[::2])]
    start = time.perf_counter()
    handle = pickaxe.scorer("pretrainers-guide").fit(examples)
    yield row("fit", time.perf_counter() - start, None, "s", len(examples), "documents of 3 kB, 2^18 weights")
    held = [*wiki[1::2], *finance[1::2]]
    risks = handle.score(held)["quality_risk"]
    n_good = len(wiki[1::2])
    auc = float((risks[n_good:, None] > risks[:n_good]).mean())
    yield row("AUC, finance as low quality, wiki as high", auc, None, "", len(held), "held-out documents of 3 kB")
    yield row("AUC by fastText", *fasttext_auc(examples, held, n_good))
    texts = (held * (1 + documents // len(held)))[:documents]
    yield scoring(handle, texts)
    yield listed(texts)


def cut(text: str) -> list[str]:
    return [text[start : start + LENGTH] for start in range(0, len(text) - LENGTH + 1, LENGTH)]


def row(name: str, ours: float | None, peer: float | None, unit: str, n: int, note: str) -> dict[str, Any]:
    ratio = None if ours is None or peer is None else ours / peer
    return {"name": name, "ours": ours, "peer": peer, "ratio": ratio, "unit": unit, "n": n, "note": note}


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def scoring(handle: Any, texts: list[str]) -> dict[str, Any]:
    """The classifier alone, on one core."""
    artifact = handle.artifact
    weights, bias = np.asarray(artifact.read_array("quality.npy")), artifact.notes["biases"]["quality"]
    size = sum(map(len, texts)) / 1e6
    taken = seconds(lambda: chances(texts, [weights], [bias], artifact.notes["hash_bits"]))
    return row("quality scoring", size / taken, None, "MB/s", len(texts), "one core; 20 MB/s on two were asked for")


def fasttext_auc(
    examples: list[Item], held: list[str], n_good: int
) -> tuple[float | None, float | None, str, int, str]:
    try:
        library = importlib.import_module("fasttext")
    except ImportError:
        return None, None, "", len(held), "fasttext-community is not installed"
    import tempfile

    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as stream:
        for item in examples:
            stream.write(f"__label__{item.fields['quality']} {' '.join((item.text or '').lower().split())}\n")
        stream.flush()
        model = library.train_supervised(stream.name, wordNgrams=2, bucket=1 << 18, epoch=25, thread=1, verbose=0)

    def risk(text: str) -> float:
        labels, values = model.predict(" ".join(text.lower().split()), k=2)
        return float(dict(zip(labels, values, strict=True))["__label__negative"])

    risks = np.array([risk(text) for text in held])
    auc = float((risks[n_good:, None] > risks[:n_good]).mean())
    return None, auc, "", len(held), "peer: fastText, 25 epochs of the same documents"


def listed(texts: list[str]) -> dict[str, Any]:
    """400 entries and all features of each document."""
    vocabulary = sorted({word for text in texts[:50] for word in text.split() if word.isalpha()})
    entries = random.Random(0).sample(vocabulary, min(400, len(vocabulary)))
    blocklist = Blocklist(entries)
    ours = len(texts) / seconds(lambda: [(blocklist.hits(text), features(text)) for text in texts])
    try:
        filters = importlib.import_module("datatrove.pipeline.filters")
        data = importlib.import_module("datatrove.data")
    except ImportError:
        return row("blocklist and features", ours, None, "documents/s", len(texts), "datatrove is not installed")
    rule = filters.GopherQualityFilter()
    documents = [data.Document(text=text, id=str(at)) for at, text in enumerate(texts)]
    peer = len(texts) / seconds(lambda: [rule.filter(each) for each in documents])
    return row(
        "blocklist and features", ours, peer, "documents/s", len(texts), "peer: datatrove's Gopher quality filter"
    )
