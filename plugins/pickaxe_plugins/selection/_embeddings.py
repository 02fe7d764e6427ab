"""Vectors of items: from the field `embedding`, or from texts through a sentence encoder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from pickaxe import Call, Host, InputField, Item
from pickaxe.errors import InvalidItems

EMBEDDING = InputField("embedding", "tensor", "Vector of the item, (d,); absent: its text is encoded.", False)
TEXT = InputField("text", "text", "The text, where there is no embedding.", False)

BLOCK = 4096
"""Items that are read, and encoded, at a time."""


class Embedder:
    """Turns items into rows of one length; either all items have an embedding, or none has."""

    def __init__(self, host: Host, model: str, *, unit: bool, width: int | None = None) -> None:
        self._host, self._model, self._unit = host, model, unit
        self._given: bool | None = None
        self.width = width
        """Length of a vector, once one was seen."""
        self.dtype: np.dtype[np.floating] | None = None
        """float32, or float64 where the first item's embedding is not of 32 bits or fewer."""

    def rows(self, items: Sequence[Item], where: str, call: Call, first: int = 0) -> np.ndarray:
        """(n, d) vectors; raises `InvalidItems` naming `where[first + row]`."""
        if not items:
            return np.empty((0, self.width or 0), self.dtype or np.float32)
        if self._given is None:
            self._given = any(item.get("embedding") is not None for item in items)
        if self._given:
            found = [self._vector(item, f"{where}[{first + row}]") for row, item in enumerate(items)]
            vectors = np.stack(found)
        else:
            vectors = self.encode([self._text(item, f"{where}[{first + row}]") for row, item in enumerate(items)], call)
            self._check_width(vectors.shape[1], f"{where}[{first}].text", items[0])
        if self.dtype is None:
            self.dtype = np.dtype(np.float32 if vectors.dtype.kind == "f" and vectors.itemsize <= 4 else np.float64)
        vectors = vectors.astype(self.dtype)
        return unit_rows(vectors, where, items, first) if self._unit else vectors

    def encode(self, texts: Sequence[str], call: Call) -> np.ndarray:
        return self._host.encoder(self._model).encode(texts, call)

    def _text(self, item: Item, place: str) -> str:
        if item.get("embedding") is not None:
            raise InvalidItems(f"{place}.fields.embedding", f"is there, earlier items have none (item {item.id!r})")
        if item.text is None:
            raise InvalidItems(place, f"has neither embedding nor text (item {item.id!r})")
        return item.text

    def _vector(self, item: Item, place: str) -> np.ndarray:
        value, place = item.get("embedding"), f"{place}.fields.embedding"
        if value is None:
            raise InvalidItems(place, f"is missing, other items have one (item {item.id!r})")
        vector = np.asarray(value)
        if vector.ndim != 1 or not vector.size or vector.dtype.kind not in "fiu" or not np.isfinite(vector).all():
            raise InvalidItems(place, f"must be finite numbers, (d,) (item {item.id!r})")
        self._check_width(len(vector), place, item)
        return vector

    def _check_width(self, width: int, place: str, item: Item) -> None:
        if self.width not in (None, width):
            raise InvalidItems(place, f"has {width} numbers, the first has {self.width} (item {item.id!r})")
        self.width = width


def unit_rows(vectors: np.ndarray, where: str, items: Sequence[Item], first: int = 0) -> np.ndarray:
    """Rows of length 1; raises `InvalidItems` for a row of zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if len(zeros := np.flatnonzero(lengths[:, 0] == 0)):
        row = int(zeros[0])
        raise InvalidItems(f"{where}[{first + row}].fields.embedding", f"is all 0 (item {items[row].id!r})")
    return np.asarray(vectors / lengths)


def blocks(items: Iterable[Item], size: int = BLOCK) -> Iterator[tuple[int, list[Item]]]:
    """(number of the first, items) of consecutive stretches."""
    remaining, start = iter(items), 0
    while block := list(islice(remaining, size)):
        yield start, block
        start += len(block)


def mapped(path: Path, dtype: np.dtype[np.floating], width: int) -> np.ndarray:
    """The rows of a file of plain numbers, read from the disk as they are used."""
    return np.memmap(path, dtype, "r").reshape(-1, width)
