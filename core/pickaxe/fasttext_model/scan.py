"""fastText's prediction on all cores, with the matrices left in the file.

The library holds the interpreter's lock while it predicts, so that threads take turns, and reads a model into memory
for each process.  Here the same sums (arXiv:1607.01759) are made by compiled loops over the file, mapped.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pickaxe.threads import shared_out

_MAGIC, _VERSION = 793712314, 12
_SUPERVISED, _SOFTMAX, _ONE_VS_ALL = 3, 3, 4
_EPSILON = np.float32(1e-5)
"""What fastText adds to every probability, against the logarithm of 0."""


@dataclass(frozen=True)
class Scan:
    """A supervised model with words and word n-grams, and softmax or one-vs-all loss, read from its `.bin` file."""

    labels: int
    count: int
    ngrams: int
    buckets: int
    softmax: bool
    words: np.ndarray
    """uint8: all entries of the vocabulary, one after the other; the first `count` are words, then labels."""
    bounds: np.ndarray
    table: np.ndarray
    inputs: np.ndarray
    outputs: np.ndarray

    @classmethod
    def open(cls, path: Path) -> Scan | None:
        """The model, or None where it is of another kind: quantised, with character n-grams or another loss."""
        from pickaxe.fasttext_model import kernel

        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as file:
            magic, version, *fields = struct.unpack("<14id", file.read(64))
            ngrams, loss, model, buckets, longest = fields[5], fields[6], fields[7], fields[8], fields[10]
            size, count, labels, _, pruned = struct.unpack("<iiiqq", file.read(28))
            known = (magic, version, model, longest) == (_MAGIC, _VERSION, _SUPERVISED, 0)
            if not known or loss not in (_SOFTMAX, _ONE_VS_ALL) or pruned >= 0:
                return None
            words, bounds = _entries(file, size)
            inputs = _matrix(file, path)
            outputs = None if inputs is None else _matrix(file, path)
        if inputs is None or outputs is None:
            return None
        table = np.full(1 << max(4, (2 * size - 1).bit_length()), -1, np.int32)
        kernel.fill(table, words, bounds)
        return cls(labels, count, ngrams, buckets, loss == _SOFTMAX, words, bounds, table, inputs, np.array(outputs))

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """The probability of each label for each text, (n, labels) float32; zeros for a text that says nothing."""
        from pickaxe.fasttext_model import kernel

        encoded = [text.encode("utf-8", "replace") for text in texts]
        places = np.zeros(len(texts) + 1, np.int64)
        np.cumsum(list(map(len, encoded)), out=places[1:])
        data = np.frombuffer(b"".join(encoded) or b"\0", np.uint8)
        logits, parts = np.empty((len(texts), self.labels), np.float32), np.zeros(len(texts), np.int64)

        def work(first: int, last: int) -> None:
            kernel.score(
                data, places, first, last, self.table, self.words, self.bounds, self.count, self.inputs, self.ngrams,
                self.buckets, self.outputs, logits, parts,
            )  # fmt: skip

        shared_out(work, len(texts), least=16)
        found = self._normed(logits)
        found[parts == 0] = 0
        return found

    def _normed(self, logits: np.ndarray) -> np.ndarray:
        if self.softmax:
            values = np.exp(logits - logits.max(axis=1, keepdims=True))
            values /= values.sum(axis=1, keepdims=True)
        else:
            values = _SIGMOIDS[((np.clip(logits, -8, 8) + 8) * 32).astype(np.int64)]
        capped: np.ndarray = np.minimum(values + _EPSILON, np.float32(1))
        return capped


_SIGMOIDS = (1 / (1 + np.exp(8 - np.arange(513) / 32))).astype(np.float32)
"""fastText looks its sigmoids up: 32 steps from one whole number to the next, from -8 to 8."""


def _entries(file: mmap.mmap, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The vocabulary: behind each entry a zero byte, its count (8 bytes) and its kind (1 byte)."""
    words, bounds = bytearray(), np.zeros(size + 1, np.int64)
    for row in range(size):
        start = file.tell()
        end = file.find(b"\0", start)
        words += file[start:end]
        bounds[row + 1] = len(words)
        file.seek(end + 10)
    return np.frombuffer(bytes(words), np.uint8), bounds


def _matrix(file: mmap.mmap, path: Path) -> np.ndarray | None:
    """A float32 matrix, mapped, behind a byte that says whether it is quantised: then None."""
    quantised, rows, columns = struct.unpack("<?qq", file.read(17))
    if quantised:
        return None
    matrix = np.memmap(path, np.float32, "r", file.tell(), (rows, columns))
    file.seek(4 * rows * columns, 1)
    return np.asarray(matrix)
