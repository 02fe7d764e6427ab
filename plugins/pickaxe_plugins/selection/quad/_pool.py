"""The pool of `quad`: read once, vectors and texts kept on the disk, grouped into clusters."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from pickaxe import ArtifactWriter, Call, Item, Progress
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe.kmeans import kmeans
from pickaxe_plugins.selection._embeddings import Embedder, blocks, mapped
from pickaxe_plugins.selection.quad._bandit import Neighbours

VECTORS, TEXTS, ROWS = "vectors.bin", "texts.bin", "rows.json"
SCRATCH = (VECTORS, TEXTS, ROWS)
"""Files that only an unfinished fit has."""
ITERATIONS = 25
"""Most rounds of k-means."""


@dataclass(slots=True)
class Rows:
    """One entry an item, in the order of the pool."""

    ids: list[str] = field(default_factory=list)
    clusters: list[str] = field(default_factory=list)
    """Names, where items bring their cluster; else empty."""
    influence: list[float] = field(default_factory=list)
    """Where items bring it; else empty."""
    amounts: list[int] = field(default_factory=list)
    """Tokens, where the budget counts them; else empty."""
    ends: list[int] = field(default_factory=list)
    """Where each text ends in the file of texts; empty without one."""
    width: int = 0
    """Numbers of a vector; 0: there are none."""
    dtype: str = "float32"


@dataclass(frozen=True, slots=True)
class Clusters:
    """Clusters of the pool: names, the one of each item, and who is near whom."""

    names: list[str]
    labels: np.ndarray
    centres: np.ndarray | None
    neighbours: Neighbours


class Reader:
    """Reads the examples of a fit."""

    def __init__(
        self, out: ArtifactWriter, embedder: Embedder, near: bool, tokens: Callable[[Item, str], int] | None
    ) -> None:
        """`near`: vectors are wanted even of items that bring their cluster; `tokens` counts what a budget counts."""
        self._out, self._embedder, self._near, self._tokens = out, embedder, near, tokens

    def read(self, examples: Iterable[Item], call: Call) -> Generator[Progress, None, Rows]:
        """Read the pool, or what an interrupted fit read of it."""
        if self._out.done("read") and all(self._out.file(name).is_file() for name in SCRATCH):
            return Rows(**json.loads(self._out.file(ROWS).read_text(encoding="utf-8")))
        rows, seen, first = Rows(), set[str](), None
        with self._out.file(VECTORS).open("wb") as vectors, self._out.file(TEXTS).open("wb") as texts:
            for start, block in blocks(examples):
                call.check()
                first = first or _Form.of(block[0], self._near)
                for number, item in enumerate(block):
                    self._row(item, f"examples[{start + number}]", first, rows, seen, texts)
                if first.vector:
                    self._embedder.rows(block, "examples", call, start).tofile(vectors)
                yield Progress("read", len(rows.ids))
        if not rows.ids:
            raise InvalidItems("examples", "are empty: give the pool as examples")
        if first is not None and first.vector:
            rows.width, rows.dtype = self._embedder.width or 0, np.dtype(self._embedder.dtype).name
        self._out.write_json(ROWS, {name: getattr(rows, name) for name in Rows.__slots__})
        self._out.finish("read")
        return rows

    def _row(self, item: Item, place: str, form: _Form, rows: Rows, seen: set[str], texts: BinaryIO) -> None:
        if item.id in seen:
            raise InvalidItems(f"{place}.id", f"{item.id!r} is there twice: documents are selected by their id")
        seen.add(item.id)
        rows.ids.append(item.id)
        for name, wanted in (("cluster", form.cluster), ("influence", form.influence)):
            if (item.get(name) is not None) != wanted:
                raise InvalidItems(f"{place}.fields.{name}", f"either all items have it or none (item {item.id!r})")
        if form.cluster:
            rows.clusters.append(str(item.get("cluster")))
        if form.influence:
            rows.influence.append(_number(item, place))
        else:
            if item.text is None:
                raise InvalidItems(f"{place}.text", f"is missing, and so is an influence (item {item.id!r})")
            raw = item.text.encode("utf-8", "surrogatepass")
            texts.write(raw)
            rows.ends.append((rows.ends[-1] if rows.ends else 0) + len(raw))
        if self._tokens is not None:
            rows.amounts.append(self._tokens(item, place))


@dataclass(frozen=True, slots=True)
class _Form:
    """What the first item has, and all must have."""

    cluster: bool
    influence: bool
    vector: bool

    @classmethod
    def of(cls, item: Item, near: bool) -> _Form:
        cluster, embedding = item.get("cluster") is not None, item.get("embedding") is not None
        vector = not cluster or (near and (embedding or item.text is not None))
        return cls(cluster, item.get("influence") is not None, vector)


def _number(item: Item, place: str) -> float:
    value = item.get("influence")
    if not isinstance(value, (int, float, np.integer, np.floating)) or not np.isfinite(value):
        raise InvalidItems(f"{place}.fields.influence", f"must be a finite number (item {item.id!r})")
    return float(value)


def text_of(out: ArtifactWriter, rows: Rows, row: int) -> str:
    """The text of an item, from the disk."""
    start = rows.ends[row - 1] if row else 0
    with out.file(TEXTS).open("rb") as file:
        file.seek(start)
        return file.read(rows.ends[row] - start).decode("utf-8", "surrogatepass")


def clustered(
    out: ArtifactWriter, rows: Rows, k: int | None, threshold: float, rng: np.random.Generator, call: Call
) -> Clusters:
    """By the items' own clusters, or by k-means; the same ones when an interrupted fit had them."""
    vectors = mapped(out.file(VECTORS), np.dtype(rows.dtype), rows.width) if rows.width else None
    if rows.clusters:
        if k is not None:
            raise InvalidParams("k", "is for items without a cluster; these have one")
        names = sorted(set(rows.clusters))
        number = {name: place for place, name in enumerate(names)}
        labels = np.array([number[name] for name in rows.clusters])
        centres = None if vectors is None else _means(vectors, labels, len(names))
    else:
        assert vectors is not None  # the reader sees to it
        k = k or max(1, round(len(rows.ids) ** 0.5))
        if k > len(rows.ids):
            raise InvalidParams("k", f"is {k}, the pool has {len(rows.ids)} items")
        if out.done("cluster"):
            labels, centres = np.load(out.file("labels.npy")), np.load(out.file("centres.npy"))
        else:
            found = kmeans(vectors, k, ITERATIONS, rng, call)
            labels, centres = found.labels, found.centroids
        names = [str(number) for number in range(len(centres))]
    if centres is None or not threshold:
        neighbours = Neighbours.alone(len(names))
    else:
        neighbours = Neighbours.from_centres(centres, threshold)
    out.write_array("labels.npy", labels)
    if centres is not None:
        out.write_array("centres.npy", centres)
    out.finish("cluster")
    return Clusters(names, labels, centres, neighbours)


def _means(vectors: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    sums = np.zeros((count, vectors.shape[1]))
    for start in range(0, len(vectors), 4096):
        np.add.at(sums, labels[start : start + 4096], vectors[start : start + 4096])
    return np.asarray(sums / np.bincount(labels, minlength=count)[:, None])
