"""BM25 scores against the library bm25s and the formula, and growth against indexing anew."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import bm25s
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pickaxe.artifact import Artifact, writing
from pickaxe.index import Bm25Index, Bm25Writer, bm25
from pickaxe.index.bm25 import Variant

Texts = Sequence[Sequence[str]]


def made(
    path: Path, texts: Texts, variant: Variant = "okapi", base: Bm25Index | None = None, kept: Sequence[int] = ()
) -> Bm25Index:
    writer = Bm25Writer(base, np.array(kept, np.int64))
    for text in texts:
        writer.add(text)
    with writing(path, kind="index", method="m", method_version=1, params={}) as out:
        writer.finish(out, 1.2, 0.75, variant)
    return Bm25Index(Artifact.open(path))


def texts(seed: int, n: int) -> list[list[str]]:
    random = np.random.default_rng(seed)
    return [[f"w{word}" for word in random.zipf(1.5, random.integers(1, 30)) if word < 60] for _ in range(n)]


def all_scores(index: Bm25Index, queries: Texts) -> np.ndarray:
    rows, scores, counts = index.search(queries, len(index))
    dense = np.zeros((len(queries), len(index)), np.float32)
    for query in range(len(queries)):
        dense[query, rows[query, : counts[query]]] = scores[query, : counts[query]]
    return dense


@pytest.mark.parametrize("variant", ["lucene", "robertson", "atire"])
def test_equals_the_library(tmp_path: Path, variant: Variant) -> None:
    documents, queries = texts(1, 80), texts(2, 20)
    peer = bm25s.BM25(method=variant, k1=1.2, b=0.75)
    peer.index(documents, show_progress=False)
    expected = np.stack([peer.get_scores(query) if query else np.zeros(80) for query in queries])
    np.testing.assert_allclose(all_scores(made(tmp_path / "a", documents, variant), queries), expected, atol=2e-5)


def test_okapi_is_its_formula(tmp_path: Path) -> None:
    index = made(tmp_path / "a", [["a", "b", "a"], ["b"], ["c", "d"]])
    (row,) = all_scores(index, [["a", "b", "b", "never seen"]])
    mean = 2
    idf_a, idf_b = math.log(1 + 2.5 / 1.5), math.log(1 + 1.5 / 2.5)
    long, short = 1.2 * (0.25 + 0.75 * 3 / mean), 1.2 * (0.25 + 0.75 / mean)
    first = idf_a * 2 * 2.2 / (2 + long) + 2 * idf_b * 2.2 / (1 + long)
    np.testing.assert_allclose(row, [first, 2 * idf_b * 2.2 / (1 + short), 0], rtol=1e-6)


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.integers(1, 20), st.integers(0, 20), st.integers(1, 40), st.data())
def test_growing_equals_indexing_what_is_left(
    tmp_path_factory: pytest.TempPathFactory, seed: int, n: int, more: int, block: int, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("grow")
    old, new = texts(seed, n), texts(seed + 1, more)
    kept = sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=0 if more else 1)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bm25, "BLOCK", block)
        grown = made(path / "grown", new, base=made(path / "base", old), kept=kept)
    anew = made(path / "anew", [*(old[row] for row in kept), *new])
    queries = texts(seed + 2, 5)
    np.testing.assert_array_equal(all_scores(grown, queries), all_scores(anew, queries))
    again = made(path / "again", [["w1"]], base=grown, kept=range(len(grown)))
    np.testing.assert_array_equal(
        all_scores(again, queries),
        all_scores(made(path / "last", [*(old[row] for row in kept), *new, ["w1"]]), queries),
    )


def test_documents_without_words(tmp_path: Path) -> None:
    index = made(tmp_path / "a", [[], []])
    assert all_scores(index, [["a"], []]).tolist() == [[0, 0], [0, 0]]
    some = made(tmp_path / "b", [[], ["a"], []])
    assert (all_scores(some, [["a"]]) > 0).tolist() == [[False, True, False]]
