"""zip-fit against the authors' package (PyPI zip-fit, if installed), and copied deflate states against one-shot."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import pydoc_data.topics
import random
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pickaxe
from pickaxe_plugins.selection.zip_fit import _compressors
from pickaxe_plugins.selection.zip_fit._texts import Texts

PROSE = "\n".join(pydoc_data.topics.topics.values())
CODE = "".join(path.read_text("utf-8") for path in sorted(Path(os.__file__).parent.glob("*.py"))[:80])
NO_PEER = "the package zip-fit is not installed"
TARGETS = 60


SMALL = (("gzip", 600, 300), ("gzip", 6000, 60), ("lz4", 600, 300), ("lz4", 6000, 60))
LARGE = (("gzip", 600, 5000), ("gzip", 6000, 600), ("lz4", 600, 10_000), ("lz4", 6000, 2000))
"""Compressor, characters of a text, sources.  A small job of the package is mostly the start of its processes, and
ours has no compiled loop yet."""


def run() -> Iterator[dict[str, Any]]:
    for compressor, length, sources in (*SMALL, *LARGE):
        yield pairs(compressor, length, sources)
    yield memory()
    for length in (600, 1600, 6000):
        yield copied(length)


def texts(count: int, length: int, seed: int) -> list[str]:
    """Half code, half prose."""
    draw = random.Random(seed)
    sources = [(CODE, PROSE)[row % 2] for row in range(count)]
    starts = [draw.randrange(len(source) - length) for source in sources]
    return [source[start : start + length] for source, start in zip(sources, starts, strict=True)]


def pairs(compressor: str, length: int, count: int) -> dict[str, Any]:
    """Pairs of a source and a target a second, both of `length` characters."""
    sources, targets = texts(count, length, 0), texts(TARGETS, length, 1)
    n = count * TARGETS
    ours, peer = alternate(lambda: ours_on(sources, targets, compressor), peer_on(sources, targets, compressor))
    rate, other = n / ours, None if peer is None else n / peer
    return row(f"{compressor}, {length} characters, {count} texts", rate, other, "pairs/s", n)


def memory() -> dict[str, Any]:
    """Peak of the Python heap of the calling process, in MiB."""
    sources, targets = texts(1000, 600, 0), texts(200, 600, 1)
    peaks = []
    for work in (lambda: ours_on(sources, targets, "lz4"), peer_on(sources, targets, "lz4")):
        if work is None:
            continue
        tracemalloc.start()
        work()
        peaks.append(tracemalloc.get_traced_memory()[1] / 2**20)
        tracemalloc.stop()
    ours, peer = (*peaks, None)[:2]
    found = row("memory, lz4, 600 characters", ours, peer, "MiB", len(sources) * len(targets))
    return {**found, "ratio": None if peer is None or ours is None else peer / ours}


def copied(length: int) -> dict[str, Any]:
    """One thread, gzip 6: a copied state per pair against compressing source and target anew."""
    sources, targets = ([text.encode() for text in texts(TARGETS, length, seed)] for seed in (0, 1))
    compressor, together = _compressors.Gzip(6), Texts(targets)

    def sizes(from_bytes: int) -> None:
        before, _compressors.COPY_FROM = _compressors.COPY_FROM, from_bytes
        try:
            for source in sources:
                compressor.one_by_one(source, together)(0, len(targets))
        finally:
            _compressors.COPY_FROM = before

    n = len(sources) * len(targets)
    ours, peer = alternate(lambda: sizes(0), lambda: sizes(1 << 30))
    assert peer is not None
    return row(f"copied state against one-shot, {length} characters", n / ours, n / peer, "pairs/s", n)


def ours_on(sources: Sequence[str], targets: Sequence[str], compressor: str) -> None:
    scorer = pickaxe.scorer("zip-fit", compressor=compressor, level=6 if compressor == "gzip" else 0).fit(targets)
    for _ in scorer.stream(sources):
        pass


def peer_on(sources: list[str], targets: list[str], compressor: str) -> Callable[[], None] | None:
    try:
        official = importlib.import_module("zip_fit.zipfit")
    except ImportError:
        return None

    def work() -> None:
        level = 6 if compressor == "gzip" else 0
        peer = official.ZIPFIT("", "", k=10, compression_algorithm=compressor, compress_level=level)
        with contextlib.redirect_stdout(io.StringIO()):
            peer.rank_sequences_by_alignment(sources, targets)

    return work


def alternate(ours: Callable[[], None], peer: Callable[[], None] | None, runs: int = 5) -> tuple[float, float | None]:
    """Median seconds of both, run in turns so that a busy machine slows both alike."""
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs):
        for work, times in zip((ours, peer), taken, strict=True):
            if work is not None:
                start = time.perf_counter()
                work()
                times.append(time.perf_counter() - start)
    return statistics.median(taken[0]), statistics.median(taken[1]) if peer else None


def row(name: str, ours: float | None, peer: float | None, unit: str, n: int) -> dict[str, Any]:
    ratio = None if ours is None or peer is None else ours / peer
    found = {"name": name, "ours": ours, "peer": peer, "ratio": ratio, "unit": unit, "n": n}
    return found if peer is not None else {**found, "note": NO_PEER}
