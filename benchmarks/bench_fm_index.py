"""The FM-index on 50 MB of text: size, build, count and locate of 10,000 patterns, against a suffix array.

The text is what the packages of this machine have under /usr/share/doc (changelogs unpacked), in the order of their
paths, and from the beginning again if that is not enough; where there is none, the pages of this project.
"""

from __future__ import annotations

import gzip
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pydivsufsort

from pickaxe.fm_index import FMIndex
from pickaxe.threads import shared_out

SIZE = 50_000_000
PATTERNS = 10_000
LENGTHS = (4, 8, 16, 32)
DOCUMENTATION = Path("/usr/share/doc")
PAGES = Path(__file__).parents[1] / "docs"
RUNS = 5


def run() -> Iterator[dict[str, Any]]:
    text, source = corpus(SIZE)
    FMIndex.build(text[:10_000])  # compiles
    begun = time.perf_counter()
    array = pydivsufsort.divsufsort(text)
    sorted_in = time.perf_counter() - begun
    begun = time.perf_counter()
    index = FMIndex.build(text)
    built_in = time.perf_counter() - begun
    mb = len(text) / 1e6
    yield row("FM-index: size beside the suffix array", index.nbytes / 1e6, array.nbytes / 1e6, "MB", len(text),
              f"{source}; the suffix array needs the text too ({mb:.0f} MB), the index does not")  # fmt: skip
    yield row("FM-index: build, beside sorting suffixes alone", built_in, sorted_in, "s", len(text))
    for length in LENGTHS:
        yield from patterns_of(text, array, index, length)
    yield extraction(text, index)


def patterns_of(text: np.ndarray, array: np.ndarray, index: FMIndex, length: int) -> Iterator[dict[str, Any]]:
    """Patterns cut out of the text at random, all in one call on both sides."""
    random = np.random.default_rng(length)
    starts = random.integers(0, len(text) - length, PATTERNS)
    patterns = text[starts[:, None] + np.arange(length)]
    flat, offsets = patterns.ravel(), np.arange(PATTERNS + 1) * length
    low, high = index.find_packed(flat, offsets)
    assert (high - low == binary_search(text, array, flat, offsets)).all()
    ours, peer = alternate(
        lambda: index.find_packed(flat, offsets), lambda: binary_search(text, array, flat, offsets)
    )  # fmt: skip
    begun = time.perf_counter()
    for pattern in patterns[:1000]:
        pydivsufsort.sa_search(text, array, np.ascontiguousarray(pattern))
    library = (time.perf_counter() - begun) / 1000
    micro = 1e6 / PATTERNS
    yield row(f"FM-index: count, patterns of {length} bytes", micro * ours, micro * peer, "µs/pattern", PATTERNS,
              f"binary search compiled too, both on all cores; sa_search alone: {1e6 * library:.1f} µs")  # fmt: skip
    rows = low + (random.random(PATTERNS) * (high - low)).astype(np.int64)
    begun = time.perf_counter()
    places = index.locate(rows)
    seconds = time.perf_counter() - begun
    assert all((text[at : at + length] == patterns[which]).all() for which, at in enumerate(places[:100].tolist()))
    yield row(f"FM-index: locate one place, patterns of {length} bytes", micro * seconds, None, "µs/place", PATTERNS,
              "a suffix array reads it off; fm-index of PyPI is not installed")  # fmt: skip


def extraction(text: np.ndarray, index: FMIndex) -> dict[str, Any]:
    """Stretches of 1,000 bytes read back."""
    starts = np.random.default_rng(0).integers(0, len(text) - 1000, 200).tolist()
    begun = time.perf_counter()
    for start in starts:
        assert index.extract(start, start + 1000)[0] == text[start]
    return row("FM-index: extract", 0.2 / (time.perf_counter() - begun), None, "MB/s", 200, "no peer")


def binary_search(text: np.ndarray, array: np.ndarray, flat: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """How often each pattern occurs, on all cores as the index does it."""
    counts = np.empty(len(offsets) - 1, np.int64)
    shared_out(
        lambda start, end: _binary_search(text, array, flat, offsets[start : end + 1], counts[start:end]), len(counts)
    )
    return counts


@numba.njit(nogil=True)  # type: ignore[untyped-decorator,unused-ignore]
def _binary_search(
    text: np.ndarray, array: np.ndarray, flat: np.ndarray, offsets: np.ndarray, counts: np.ndarray
) -> None:
    """The two ends of each pattern's range in the suffix array."""
    for which in range(len(counts)):
        pattern = flat[offsets[which] : offsets[which + 1]]
        ends = np.zeros(2, np.int64)
        for side in range(2):
            low, high = ends[0], len(array)
            while low < high:
                middle = (low + high) // 2
                at, same = array[middle], 0
                while same < len(pattern) and at + same < len(text) and text[at + same] == pattern[same]:
                    same += 1
                if same == len(pattern):
                    before = side == 1
                else:
                    before = at + same == len(text) or text[at + same] < pattern[same]
                if before:
                    low = middle + 1
                else:
                    high = middle
            ends[side] = low
        counts[which] = ends[1] - ends[0]


def corpus(size: int) -> tuple[np.ndarray, str]:
    """uint8 (size,), and where it is from."""
    parts: list[bytes] = []
    total = 0
    paths = sorted(path for path in DOCUMENTATION.rglob("*") if path.is_file() and not path.is_symlink())
    source = f"{len(paths)} files under {DOCUMENTATION}"
    if not paths:
        paths = sorted(PAGES.rglob("*.md"))
        source = f"{len(paths)} pages of this project"
    for path in paths:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        if b"\0" not in data[:1000]:
            parts.append(data)
            total += len(data)
        if total >= size:
            break
    whole = b"".join(parts)
    times = -(-size // len(whole))
    return np.frombuffer(whole * times, np.uint8)[:size].copy(), source + (f", {times} times" if times > 1 else "")


def alternate(ours: Callable[[], Any], peer: Callable[[], Any]) -> tuple[float, float]:
    """Median seconds of both, taken in turns so that both see the same machine."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(RUNS):
        for side, function in enumerate((ours, peer)):
            begun = time.perf_counter()
            function()
            seconds[side].append(time.perf_counter() - begun)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def row(name: str, ours: float, peer: float | None, unit: str, n: int, note: str = "") -> dict[str, Any]:
    """Less is better but for MB/s."""
    found = {"name": name, "ours": ours, "peer": peer, "ratio": peer and peer / ours, "unit": unit, "n": n}
    return {**found, "note": note} if note else found
