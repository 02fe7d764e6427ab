"""metaclip against pyahocorasick (if installed), the authors' scan and a hash of token n-grams, on made captions."""

from __future__ import annotations

import importlib
import itertools
import os
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import pickaxe
from benchmarks._rows import row
from pickaxe import Item
from pickaxe_plugins.selection._curation import spaced
from pickaxe_plugins.selection._entries import Matcher

ENTRIES = int(os.environ.get("PICKAXE_BENCH_ENTRIES", "500000"))
CAPTIONS = int(os.environ.get("PICKAXE_BENCH_CAPTIONS", "100000"))
SYLLABLES = ["".join(pair) for pair in itertools.product("bcdfghjklmnprstvwz", "aeiou")]


def run() -> Iterator[dict[str, Any]]:
    words, entries = vocabulary()
    texts = captions(words, CAPTIONS)
    start = time.perf_counter()
    matcher = Matcher([f" {entry} ".encode() for entry in entries])
    yield row("load entries", time.perf_counter() - start, None, "s", len(entries), "no peer: absolute")
    peers = {"pyahocorasick": pyahocorasick(entries), "hash of token n-grams": ngrams(entries)}
    finders = [lambda text: matcher.found(text.encode()), *filter(None, peers.values())]
    rates = iter(alternate([lambda find=find: [find(spaced(text)) for text in texts] for find in finders], len(texts)))
    ours = next(rates)
    for name, peer in peers.items():
        note = f"against {name}" + ("" if peer else ", which is not installed")
        yield row(f"matching, {name}", ours, next(rates) if peer else None, "texts/s", len(texts), note)
    some = texts[:5]
    (scan,) = alternate([lambda: [naive(entries, spaced(text)) for text in some]], len(some), runs=1)
    yield row("matching, the authors' scan", ours, scan, "texts/s", len(some), "their loop over all entries")
    del peers
    yield from whole(entries, texts)
    for each in (1, 2):
        yield balance(each)


def whole(entries: Sequence[str], texts: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Fit and score through the handle, everything included."""
    items = [Item(str(place), text) for place, text in enumerate(texts)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "entries.txt"
        file.write_text("\n".join(entries), "utf-8")
        start = time.perf_counter()
        handle = pickaxe.scorer("metaclip", metadata_file=str(file), t=20).fit(items)
        yield row("fit, with loading", len(items) / (time.perf_counter() - start), None, "texts/s", len(items), "")
        handle.score(items[:1])
        start = time.perf_counter()
        for _ in handle.stream(items):
            pass
        yield row("score, loaded", len(items) / (time.perf_counter() - start), None, "texts/s", len(items), "")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    yield row("peak memory of all of this", peak, None, "MiB", len(entries), "captions and peers included")


def balance(each: int) -> dict[str, Any]:
    """How many times fewer texts hold the most frequent entry, at t of a tenth of its count."""
    weights = 1 / np.arange(1, 5001) ** 1.1
    drawn = np.random.default_rng(0).choice(5000, (CAPTIONS, each), p=weights / weights.sum())
    pool = [" ".join(f"w{entry}" for entry in line) for line in drawn]
    handle = pickaxe.scorer("metaclip", metadata=[f"w{entry}" for entry in range(5000)], t=1).fit(pool)
    assert handle.artifact is not None
    counts = handle.artifact.read_array("counts.npy")
    opened = pickaxe.scorer("metaclip", artifact=str(handle.artifact.path), t=int(counts.max()) // 10)
    kept = np.concatenate([part["keep"] for part in opened.stream(pool)]) == 1
    after = int((drawn[kept] == 0).any(axis=1).sum())
    return row(
        f"cut of the head, {each} entries a text", int(counts[0]) / after, None, "times", len(pool), "claim: > 3"
    )


def vocabulary() -> tuple[list[str], list[str]]:
    """Words, and entries: half of them words, the others two to four words."""
    draw = random.Random(0)
    words = list(
        dict.fromkeys("".join(draw.choices(SYLLABLES, k=draw.choice([1, 2, 2, 3, 3, 4]))) for _ in range(400000))
    )
    entries = dict.fromkeys(words[: ENTRIES // 2])
    while len(entries) < ENTRIES:
        entries[" ".join(draw.choices(words[:60_000], k=draw.choice([2, 2, 2, 3, 4])))] = None
    return words, list(entries)


def captions(words: Sequence[str], count: int) -> list[str]:
    """Twelve words each, Zipf-distributed."""
    weights = 1 / np.arange(1, len(words) + 1) ** 1.05
    drawn = np.random.default_rng(0).choice(len(words), (count, 12), p=weights / weights.sum())
    return [" ".join(words[place] for place in line) + "." for line in drawn]


def pyahocorasick(entries: Sequence[str]) -> Callable[[str], Any] | None:
    try:
        library = importlib.import_module("ahocorasick")
    except ImportError:
        return None
    automaton = library.Automaton()
    for place, entry in enumerate(entries):
        automaton.add_word(f" {entry} ", place)
    automaton.make_automaton()
    return lambda text: sorted({place for _, place in automaton.iter(text)})


def ngrams(entries: Sequence[str]) -> Callable[[str], list[int]]:
    """Look up every run of tokens that begins some entry."""
    places = {entry: place for place, entry in enumerate(entries)}
    begins = {entry[:at] for entry in entries for at, mark in enumerate(entry) if mark == " "}

    def find(text: str) -> list[int]:
        tokens, found = text.split(" "), set()
        for start, run_of in enumerate(tokens):
            end = start + 1
            while True:
                if (place := places.get(run_of)) is not None:
                    found.add(place)
                if end == len(tokens) or run_of not in begins:
                    break
                run_of, end = f"{run_of} {tokens[end]}", end + 1
        return sorted(found)

    return find


def naive(entries: Sequence[str], text: str) -> list[int]:
    return [place for place, entry in enumerate(entries) if f" {entry} " in text]


def alternate(works: Sequence[Callable[[], Any]], n: int, runs: int = 3) -> list[float]:
    """Median rate of each, run in turns so that a busy machine slows all alike."""
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(runs):
        for work, times in zip(works, taken, strict=True):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
    return [n / statistics.median(times) for times in taken]
