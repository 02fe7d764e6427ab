"""Compression distances between texts and a set of targets, in threads and in constant memory."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pickaxe import Call, Segment
from pickaxe_plugins.selection.zip_fit._compressors import Compressor, Sizer
from pickaxe_plugins.selection.zip_fit._texts import Texts

PAIRS = 256
"""Pairs between two looks at the deadline, and about the least that is worth a task of its own."""


@dataclass(frozen=True)
class Targets:
    """Target texts and their compressed sizes (n,)."""

    texts: Texts
    sizes: np.ndarray

    @classmethod
    def measured(cls, texts: Sequence[bytes], compressor: Compressor) -> Targets:
        size = compressor.sizer()
        return cls(Texts(texts), np.array([size(text) for text in texts], np.int64))


@dataclass(frozen=True, slots=True)
class Row:
    """What is known of one text: `ratio` is NaN when it is empty, `segments` are its pieces."""

    alignment: float
    nearest: float
    ratio: float
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class Aligner:
    """Aligns texts with targets: 1 less the mean compression distance."""

    compressor: Compressor
    targets: Targets
    chunk: int | None = None
    pool: Literal["mean", "max"] = "mean"
    threads: int = 0

    def rows(self, texts: Sequence[bytes], call: Call) -> list[Row]:
        """One row per text.  A task is a run of whole texts, so neither tasks nor threads change a number."""
        several = max(1, PAIRS // len(self.targets.texts.each))
        tasks = [texts[start : start + several] for start in range(0, len(texts), several)]
        threads = min(self.threads or _cores(), len(tasks))
        if threads <= 1 or _mean_bytes(texts) + _mean_bytes(self.targets.texts.each) < self.compressor.parallel_from:
            return self._run(texts, call)
        with ThreadPoolExecutor(threads, "compress") as executor:
            return [row for part in executor.map(lambda task: self._run(task, call), tasks) for row in part]

    def _run(self, texts: Sequence[bytes], call: Call) -> list[Row]:
        size = self.compressor.sizer()
        return [self._row(text, size, call) for text in texts]

    def _row(self, text: bytes, size: Sizer, call: Call) -> Row:
        whole = size(text)
        parts = list(pieces(text, self.chunk))
        alignments, nearest = [], math.inf
        for part in parts:
            distances = self._distances(part, whole if len(parts) == 1 else size(part), call)
            alignments.append(_alignment(distances))
            nearest = min(nearest, float(distances.min()))
        pooled = max(alignments) if self.pool == "max" else math.fsum(alignments) / len(alignments)
        return Row(pooled, nearest, whole / len(text) if text else math.nan, tuple(_segments(parts, alignments)))

    def _distances(self, source: bytes, size: int, call: Call) -> np.ndarray:
        """NCD of the source to every target: (n,) float64."""
        sizes = self.targets.sizes
        together = self.compressor.after(source, self.targets.texts)
        joint = np.empty(len(sizes), np.int64)
        for start in range(0, len(sizes), PAIRS):
            call.check()
            stop = min(start + PAIRS, len(sizes))
            joint[start:stop] = together(start, stop)
        distances: np.ndarray = (joint - np.minimum(size, sizes)) / np.maximum(size, sizes)
        return distances


def _alignment(distances: np.ndarray) -> float:
    """An exact sum, so that the order of the targets does not matter to the last bit."""
    return 1 - math.fsum(distances.tolist()) / len(distances)


def _mean_bytes(texts: Sequence[bytes]) -> float:
    return sum(map(len, texts)) / len(texts)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ---------------------------------------------------------------- bytes of whole characters


def head(text: bytes, limit: int | None) -> bytes:
    """The longest start of UTF-8 `text` of at most `limit` bytes that splits no character."""
    return text if limit is None else text[: _boundary(text, limit)]


def pieces(text: bytes, limit: int | None) -> Iterator[bytes]:
    """The text in as few nearly equal pieces of `limit` bytes as it takes, cut at the start of a character."""
    count = 1 if limit is None else max(1, -(-len(text) // limit))
    cuts = [_boundary(text, len(text) * step // count) for step in range(count + 1)]
    return (text[start:end] for start, end in itertools.pairwise(cuts) if end > start or count == 1)


def _boundary(text: bytes, at: int) -> int:
    """The last start of a character (or the end) at or before byte `at`."""
    at = min(at, len(text))
    while 0 < at < len(text) and text[at] & 0xC0 == 0x80:
        at -= 1
    return at


def _segments(parts: Sequence[bytes], alignments: Sequence[float]) -> Iterator[Segment]:
    start = 0
    for part, alignment in zip(parts, alignments, strict=True):
        end = start + len(part.decode("utf-8", "surrogatepass"))
        yield Segment(start, end, alignment)
        start = end
