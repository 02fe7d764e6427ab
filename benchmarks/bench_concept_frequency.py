"""concept-frequency against a dict of sets, as the reference searches, and bins against plain NumPy."""

from __future__ import annotations

import os
import pickle
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import pickaxe
from benchmarks._rows import row
from pickaxe import Item
from pickaxe.artifact import Artifact
from pickaxe_plugins.selection.concept_frequency._log_linear import log_linear
from pickaxe_plugins.selection.concept_frequency._nouns import Rules
from pickaxe_plugins.selection.concept_frequency._postings import Index
from pickaxe_plugins.selection.concept_frequency._search import Search, words

CAPTIONS = int(os.environ.get("PICKAXE_BENCH_CAPTIONS", "1000000"))
CONCEPTS, WORDS = 4000, 20_000
CHILD = (sys.executable, "-m", "benchmarks.bench_concept_frequency")


def run() -> Iterator[dict[str, Any]]:
    start = time.perf_counter()
    handle = pickaxe.scorer("concept-frequency").fit(Item(str(row), text) for row, text in enumerate(captions()))
    note = "texts of 6 words, their making included; no peer: the reference tags with spaCy"
    yield row("index", CAPTIONS / (time.perf_counter() - start), None, "texts/s", CAPTIONS, note)
    assert handle.artifact is not None
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*CHILD, str(handle.artifact.path), folder, "write"], check=True)
        ours, peer = (measured(str(handle.artifact.path), folder, which) for which in ("ours", "sets"))
    for name, mine, other in zip(("opening and first search", "second search"), ours, peer, strict=False):
        yield row(name, CONCEPTS / mine, CONCEPTS / other, "concepts/s", CONCEPTS, "against pickled sets")
    found = row("memory of the index when searched", ours[2], peer[2], "MiB", CAPTIONS, "growth of the process")
    yield {**found, "ratio": peer[2] / ours[2]}
    yield binning()
    for rate in (0.05, 0.5):
        note = f"learning rate {rate}; claim: > 0.8"
        yield row("r of a pair model's accuracy over log frequency", pair_model(rate), None, "", 50_000, note)


def captions() -> Iterator[str]:
    """Six Zipf-distributed words each."""
    draw = np.random.default_rng(0)
    weights = 1 / np.arange(1, WORDS + 1) ** 1.05
    names = [word(place) for place in range(WORDS)]
    for start in range(0, CAPTIONS, 10_000):
        drawn = draw.choice(WORDS, (min(10_000, CAPTIONS - start), 6), p=weights / weights.sum())
        yield from (" ".join(names[place] for place in line) for line in drawn.tolist())


def concepts() -> list[str]:
    """One to three words each, of the more frequent tenth."""
    draw = np.random.default_rng(1)
    sizes = draw.choice([1, 2, 3], CONCEPTS, p=[0.6, 0.3, 0.1])
    return [" ".join(word(place) for place in draw.integers(0, WORDS // 10, size)) for size in sizes.tolist()]


def word(place: int) -> str:
    """Letters alone, and nothing that a plural could end in."""
    return "k" + "".join("bcdfghjklm"[int(digit)] + "a" for digit in str(place)) + "k"


def measured(path: str, folder: str, which: str) -> tuple[float, float, float]:
    """(seconds to open and count all concepts, to count them again, MiB of growth), in a process of its own."""
    command = [*CHILD, path, folder, which]
    first, second, memory = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(first), float(second), float(memory)


def child(path: str, folder: str, which: str) -> None:
    artifact, rules, pickled = Artifact.open(path, verify=False), Rules(), Path(folder) / "sets.pickle"
    if which == "write":
        index = Index(artifact)
        sets = {lemma: set(index.documents(lemma).tolist()) for lemma in index.lemmas}
        pickled.write_bytes(pickle.dumps(sets))
        return
    wanted = concepts()
    before, start = resident(), time.perf_counter()
    if which == "ours":
        count = ours(Search(Index(artifact), (), 0.7, rules.lemma, True))
    else:
        with pickled.open("rb") as stream:
            count = in_sets(pickle.load(stream), rules)
    for name in wanted:
        count(name)
    first = time.perf_counter() - start
    again = seconds(lambda: [count(name) for name in wanted])
    print(first, again, resident() - before)


def ours(search: Search) -> Callable[[str], int]:
    return lambda name: len(search.texts(name))


def in_sets(sets: dict[str, set[int]], rules: Rules) -> Callable[[str], int]:
    """The reference's search: the intersection of the sets of the known words."""

    def count(name: str) -> int:
        lemmas = [rules.lemma(each) for each in words(name)]
        known = [sets[lemma] for lemma in lemmas if lemma in sets]
        return len(set.intersection(*known)) if known else 0

    return count


def resident() -> float:
    """MiB: what the process takes now, files mapped by it included."""
    with open("/proc/self/statm", encoding="ascii") as stream:
        return int(stream.read().split()[1]) * resource.getpagesize() / 2**20


def binning() -> dict[str, Any]:
    """A million concepts into bins with means, deviations and line, against one np.digitize."""
    draw = np.random.default_rng(0)
    counts, accuracy = np.exp(draw.uniform(0, 15, 1_000_000)).round(), draw.uniform(0, 100, 1_000_000)
    x = np.log(counts)
    edges = np.linspace(x.min(), x.max(), 12)
    ours, peer = (
        statistics.median(seconds(work) for _ in range(5))
        for work in (lambda: log_linear(counts, accuracy), lambda: np.digitize(np.log(counts), edges, right=True))
    )
    found = row(
        "bins and line", 1000 * ours, 1000 * peer, "ms", len(counts), "against the logarithm and digitize alone"
    )
    return {**found, "ratio": peer / ours}


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def pair_model(rate: float, concepts: int = 300, samples: int = 50_000, width: int = 64) -> float:
    """r of accuracy over log frequency for a linear model of (image, caption) pairs, trained by a contrastive loss.

    Concepts are Zipf-distributed; an image is its concept's direction and noise, a caption the name of the concept.
    """
    draw = np.random.default_rng(0)
    weights = 1 / np.arange(1, concepts + 1) ** 1.1
    truth = draw.normal(0, 1, (concepts, width)) / np.sqrt(width)

    def images(of: np.ndarray) -> np.ndarray:
        return truth[of] + draw.normal(0, 0.3, (len(of), width))

    texts, mapping = draw.normal(0, 0.1, (concepts, width)), np.eye(width)
    for batch in draw.choice(concepts, samples, p=weights / weights.sum()).reshape(-1, 250):
        seen = images(batch)
        shown, told = seen @ mapping, texts[batch]
        logits = 5 * shown @ told.T
        same = batch[:, None] == batch
        wanted = same / same.sum(1, keepdims=True)
        error = softmax(logits) - wanted + (softmax(logits.T) - wanted).T
        np.add.at(texts, batch, -rate * 5 * (error.T @ shown) / len(batch))
        mapping -= 0.1 * rate * 5 * (seen.T @ (error @ told)) / len(batch)
    tested = np.repeat(np.arange(concepts), 100)
    right = (images(tested) @ mapping @ texts.T).argmax(1) == tested
    frequency = np.round(samples * weights / weights.sum())
    return log_linear(frequency, 100 * right.reshape(concepts, 100).mean(1)).r


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(1, keepdims=True)
    return shares


if __name__ == "__main__":
    child(*sys.argv[1:])
