"""selector: MinHash-LSH against datasketch (if installed), and mechanisms of the whole pool on a million scores."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import pickaxe
from benchmarks._rows import median
from pickaxe_plugins.selection.selector import _mechanisms as by
from pickaxe_plugins.selection.selector import _minhash

RUNS = 3
BANDS, ROWS, SHINGLE = 14, 8, 5


def run(texts: int = 2000, scores: int = 1_000_000) -> Iterator[dict[str, Any]]:
    yield near_duplicates(texts)
    yield from pool(scores)


def corpus(n: int, words: int = 500) -> list[str]:
    """Texts of a Zipf vocabulary; every tenth is the one before it with a few words changed."""
    rng = np.random.default_rng(0)
    vocabulary = np.array([f"word{row}" for row in range(20_000)])
    made: list[str] = []
    for row in range(n):
        drawn = np.minimum(rng.zipf(1.3, words), len(vocabulary)) - 1
        if row % 10 == 9:
            chosen = np.array(made[-1].split())
            chosen[rng.integers(0, words, 3)] = "changed"
        else:
            chosen = vocabulary[drawn]
        made.append(" ".join(chosen))
    return made


def near_duplicates(n: int) -> dict[str, Any]:
    """Documents a second from text to clusters; both sides cut the same shingles into 14 bands of 8."""
    texts = corpus(n)

    def ours() -> int:
        hasher = _minhash.MinHash(BANDS, ROWS, SHINGLE)
        keys = np.stack([hasher.band_keys(hasher.signature(text)) for text in texts])
        return len(np.unique(_minhash.clusters(keys)))

    name = f"MinHash-LSH, texts of 500 words, {BANDS} bands of {ROWS}"
    seconds = median(ours, RUNS)
    try:
        sketch = importlib.import_module("datasketch")
    except ImportError:
        return row(name, n / seconds, None, "docs/s", n, "the package datasketch is not installed")

    def theirs() -> int:
        index = sketch.MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
        kept = 0
        for place, text in enumerate(texts):
            words = _minhash.words(text)
            signature = sketch.MinHash(num_perm=BANDS * ROWS)
            signature.update_batch([" ".join(words[at : at + SHINGLE]).encode() for at in range(len(words) - 4)])
            kept += not index.query(signature)
            index.insert(str(place), signature)
        return kept

    peer = median(theirs, 1)
    return row(name, n / seconds, n / peer, "docs/s", n, f"distinct: ours {ours()}, datasketch {theirs()}")


def pool(n: int) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(1)
    scores, sizes, groups = rng.normal(size=n), rng.integers(10, 1000, n), rng.integers(0, 20, n)
    ids = [f"d{place}" for place in range(n)]
    noise = by.gumbel(by.draws(0, "bench", ids))
    hashes = rng.integers(0, n // 2, n)
    cases: dict[str, Callable[[], object]] = {
        "top_k": lambda: by.top_k(scores, n // 10),
        "top_fraction by tokens": lambda: by.top_fraction(scores, 0.1, sizes),
        "per_group": lambda: by.per_group(scores, groups, 0.1),
        "keyed draws": lambda: by.draws(0, "bench", ids),
        "gumbel_top_k": lambda: by.gumbel_top_k(scores, n // 10, noise),
        "resample": lambda: by.resample(scores, n, pickaxe.generator(0, "bench")),
        "epochs": lambda: by.epochs(scores, groups, 2 * n, temperature=2.0),
        "rank_shares": lambda: by.rank_shares(scores),
        "first_of groups": lambda: _minhash.first_of(hashes, scores),
    }
    for name, work in cases.items():
        yield row(name, median(work, RUNS) * 1e3, None, "ms", n, "no peer")


def row(name: str, ours: float, peer: float | None, unit: str, n: int, note: str) -> dict[str, Any]:
    ratio = None if peer is None else ours / peer
    return {"name": f"selector: {name}", "ours": ours, "peer": peer, "ratio": ratio, "unit": unit, "n": n, "note": note}
