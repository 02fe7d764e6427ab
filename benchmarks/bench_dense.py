"""dense: encoding against sentence-transformers, exact search against one plain product, and the graph's recall."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np

import pickaxe
from benchmarks._pairs import alternate, rate
from pickaxe.artifact import Artifact, writing
from pickaxe.encoder.graph import Precision
from pickaxe.index import ApproximateIndex, DenseIndex, VectorWriter, write_graph
from pickaxe.models import ModelStore
from pickaxe.onnx_runtime import cores

TEXTS = int(os.environ.get("PICKAXE_BENCH_TEXTS", "2000"))
VECTORS = int(os.environ.get("PICKAXE_BENCH_VECTORS", "20000"))
WIDTH, QUERIES, K = 384, 500, 10
SENTENCE = "Green tea is brewed at about {} degrees and black tea with boiling water, as {} of {} people say. "


def run() -> Iterator[dict[str, Any]]:
    yield from (encoding(precision) for precision in get_args(Precision))
    vectors, queries = clumps(VECTORS, 1), clumps(QUERIES, 2)
    dense = DenseIndex(vectors)
    exact, _ = dense.search(queries, K)
    seconds = alternate(lambda: dense.search(queries, K), lambda: product(vectors, queries))
    name = f"exact search of {VECTORS:,} x {WIDTH}, peer: one product and argpartition"
    yield rate(name, QUERIES, seconds, "queries/s")
    yield from graph(vectors, queries, exact)


def encoding(precision: Precision) -> dict[str, Any]:
    texts = [SENTENCE.format(row, row % 7, row % 11) * (1 + row % 4) for row in range(TEXTS)]
    encoder = pickaxe.Host().encoder(precision=precision)
    encode = partial(encoder.encode, texts)
    peer, note = sentence_transformers(texts, encoder.max_tokens)
    if peer is not None:
        cosines = (encode() * np.asarray(peer())).sum(axis=1)
        note = f"both on {cores()} threads, texts to unit vectors; their cosines at least {cosines.min():.6f}"
    return rate(f"encode {TEXTS:,} texts in {precision}", TEXTS, alternate(encode, peer, 3), "texts/s", note)


def sentence_transformers(texts: list[str], max_tokens: int) -> tuple[Callable[[], object] | None, str]:
    """The same weights, texts, longest text and threads, in its batches of 32 (it sorts by length too)."""
    if importlib.util.find_spec("sentence_transformers") is None:
        return None, "sentence-transformers is not installed"
    importlib.import_module("torch").set_num_threads(cores())
    library = importlib.import_module("sentence_transformers")
    model = library.SentenceTransformer(str(ModelStore().path("encoder")), device="cpu")
    model.max_seq_length = max_tokens
    return partial(model.encode, texts, batch_size=32, normalize_embeddings=True), ""


def graph(vectors: np.ndarray, queries: np.ndarray, exact: np.ndarray) -> Iterator[dict[str, Any]]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        start = time.perf_counter()
        with writing(path, kind="index", method="bench", method_version=1, params={}) as out:
            with VectorWriter(out, WIDTH) as writer:
                writer.add(vectors, [str(row) for row in range(len(vectors))])
            for _ in write_graph(out, np.load(out.file("vectors.npy"), mmap_mode="r")):
                pass
        taken = time.perf_counter() - start
        yield rate("graph, build", len(vectors), (taken, None), "vectors/s", "no peer")
        artifact = Artifact.open(path)
        index = ApproximateIndex(DenseIndex.open(artifact), artifact)
        for effort in (32, 128, 512):
            found, _ = index.search(queries, K, effort)
            recall = float(np.mean([len(set(one) & set(two)) / K for one, two in zip(found, exact, strict=True)]))
            seconds = alternate(partial(index.search, queries, K, effort), partial(index.dense.search, queries, K), 3)
            name = f"graph, effort {effort}, peer: exact"
            yield rate(name, QUERIES, seconds, "queries/s", f"recall@{K} {recall:.4f}")


def clumps(n: int, seed: int) -> np.ndarray:
    """Unit vectors around 200 centres, as those of texts lie."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((200, WIDTH))
    vectors = centres[random.integers(0, 200, n)] + 0.7 * random.standard_normal((n, WIDTH))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def product(vectors: np.ndarray, queries: np.ndarray) -> np.ndarray:
    scores = queries @ vectors.T
    best = np.argpartition(-scores, K, axis=1)[:, :K]
    return np.take_along_axis(best, np.argsort(-np.take_along_axis(scores, best, 1), axis=1), 1)
