"""languini: queues of books against the arg-min rule, scoring of runs, the published plans from measured speeds, slow
evaluation with a carried state against windows that are read anew, and two small networks at equal compute."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import pickaxe
from benchmarks._rows import median
from pickaxe import Item
from pickaxe_plugins.scaling.languini._stream import distribute, windows

TABLE = Path(__file__).parent.parent / "tests" / "golden" / "files" / "65-languini" / "throughput.csv"
PUBLISHED = {("gpt", "small"): 55_416, ("gpt", "medium"): 16_618, ("lstm", "mini"): 94_781, ("lstm", "tiny"): 36_930,
             ("lstm", "small"): 11_143}  # fmt: skip


def run() -> Iterator[dict[str, Any]]:
    yield queues(books=100_000, batch=128)
    yield runs(count=20_000)
    yield from plans()
    yield evaluation(seq_len=512, last_n=128, tokens=20_000)
    yield from equal_compute(minutes=(0.25, 0.5, 1.0))


def queues(books: int, batch: int) -> dict[str, Any]:
    """The peer looks for the smallest total of all queues for each book."""
    lengths = np.random.default_rng(0).integers(1_000, 200_000, books).tolist()
    seconds = median(lambda: distribute(lengths, batch), 3)

    def peer() -> None:
        totals: list[int] = [0] * batch
        for length in lengths:
            totals[totals.index(min(totals))] += length

    return row(f"{books} books in {batch} queues", seconds, median(peer, 3), "s", books, "aim: 0.3 s")


def runs(count: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    items = [
        Item(str(place), fields={
            "model": f"model {place % 20}", "total_nll": float(nll), "string_length": 1e6, "tokens_per_second": 50_000,
            "steps": hours * 2746, "batch": 128, "seq_len": 512,
        })
        for place, (nll, hours) in enumerate(
            zip(rng.uniform(9e5, 1.1e6, count), rng.choice([6, 12, 24, 48, 96], count).tolist(), strict=True)
        )
    ]  # fmt: skip
    handle = pickaxe.scorer("languini")
    return row("runs scored", median(lambda: handle.score(items), 3), None, "s", count, "with trends and report")


def plans() -> Iterator[dict[str, Any]]:
    """Highest measured throughputs on the RTX 3090 against the published ones."""
    with TABLE.open(encoding="utf-8") as stream:
        measured = list(csv.DictReader(stream))
    items = [
        Item(str(place), fields={
            **{name: each[name] for name in ("model", "config", "device")}, "batch_size": float(each["batch_size"]),
            "tokens_per_second": float(each["tokens_per_second"]),
        })
        for place, each in enumerate(measured)
    ]  # fmt: skip
    found = pickaxe.scorer("languini", mode="plan", reference_device="RTX 3090").score(items)
    for (model, config), published in PUBLISHED.items():
        place = next(
            place for place, each in enumerate(measured)
            if (each["model"], each["config"]) == (model, config) and "RTX 3090" in each["device"]
        )  # fmt: skip
        note = f"{found['steps'][place]} steps of 128 x 512 in 6 hours; peer: as published"
        speed = float(found["best_tokens_per_second"][place])
        yield row(f"{model} {config} on RTX 3090", speed, published, "tokens/s", len(items), note)


def evaluation(seq_len: int, last_n: int, tokens: int) -> dict[str, Any]:
    """The peer reads every window of the recurrent network from its first token, as a network without state must."""
    from pickaxe_plugins.scaling.languini import _train as training
    from pickaxe_plugins.scaling.languini._nets import network
    from pickaxe_plugins.train.settings import Shape

    net = network("qlstm", Shape(layers=2, width=64, heads=2, kv_heads=2), 512, seq_len)
    weights, ids = net.initial(0), np.random.default_rng(0).integers(512, size=tokens).astype(np.int32)
    starts = windows(tokens, seq_len, last_n)
    parts = np.array_split(ids[starts[:, None] + np.arange(seq_len + 1)], max(1, len(starts) // 2))
    read = training._reading(net)

    def peer() -> None:
        for part in parts:
            np.asarray(read(weights, part, net.start(len(part)))[0])

    def ours() -> None:
        training.target_logprobs(net, weights, ids, seq_len, last_n)

    ours(), peer()  # compile
    note = f"windows of {seq_len}, the last {last_n} targets of each; aim: a ratio of 3"
    return row("slow evaluation with a carried state", median(ours, 3), median(peer, 3), "s", tokens, note)


def equal_compute(minutes: tuple[float, ...]) -> Iterator[dict[str, Any]]:
    """The claim: the perplexity of both falls with the minutes, on a line in ln-ln with r2 of 0.95 or more.

    The documents are the sections of this project's pages.
    """
    pages = sorted((Path(__file__).parent.parent / "docs").rglob("*.md"))
    texts = [text for page in pages for text in page.read_text(encoding="utf-8").split("\n## ") if len(text) > 200]
    held = [Item(f"v{place}", text) for place, text in enumerate(texts[::10])]
    documents = [Item(str(place), text) for place, text in enumerate(texts) if place % 10]
    handle = pickaxe.scorer("languini", recipe={"minutes": minutes}).fit(documents, validation=held)
    assert handle.artifact is not None
    notes = handle.artifact.notes
    for trend in handle.artifact.read_json("trends.json")["trends"]:
        model, ppl = trend["model"], " ".join(f"{each:.3f}" for each in trend["ppl"])
        speed = notes["tokens_per_second"][model]
        note = (
            f"perplexity per character {ppl} at {' '.join(f'{each:g}' for each in minutes)} minutes; "
            f"{speed:,} tokens/s, {notes['parameters'][model]:,} parameters, slope {trend['slope']:.3f}; "
            f"{notes['device']}"
        )
        yield row(f"{model} at equal compute, r2 of the trend", trend["r2"], None, "", len(documents), note)


def row(name: str, ours: float, peer: float | None, unit: str, n: int, note: str) -> dict[str, Any]:
    ratio = None if peer is None else (peer / ours if unit == "s" else ours / peer)
    return {"name": name, "ours": ours, "peer": peer, "ratio": ratio, "unit": unit, "n": n, "note": note}
