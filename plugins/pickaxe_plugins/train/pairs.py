"""Batches for BERT-shaped networks: texts and pairs of texts as padded arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pickaxe.tokenizers import Tokenizer

ROOM = 16
"""Batches are padded to multiples of so many tokens, so that few shapes are compiled."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One input: `ids` (n,) and `segments` (n,), int32."""

    ids: np.ndarray
    segments: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


class Framing:
    """How a tokenizer frames texts: [CLS] a [SEP], and [CLS] a [SEP] b [SEP] with b in segment 1."""

    def __init__(self, tokenizer: Tokenizer, limit: int) -> None:
        """`limit` is the most tokens of an input, the framing ones included."""
        ends = tokenizer.encode("", add_special=True)
        if len(ends) != 2:
            raise ValueError(f"a tokenizer of BERT's form puts two tokens around a text, this one {len(ends)}")
        self._tokenizer, self._limit = tokenizer, limit
        self._first, self._last = ends

    def texts(self, texts: Sequence[str]) -> list[Encoded]:
        """Each text on its own; one that is too long loses its end."""
        return [self.single(ids) for ids in self._tokenizer.encode_batch(texts)]

    def pairs(self, first: Sequence[str], second: Sequence[str]) -> list[Encoded]:
        """Each first with its second text."""
        encoded = zip(self._tokenizer.encode_batch(first), self._tokenizer.encode_batch(second), strict=True)
        return [self.pair(a, b) for a, b in encoded]

    def single(self, ids: Sequence[int]) -> Encoded:
        """The frame around token ids."""
        framed = np.array([self._first, *ids[: self._limit - 2], self._last], np.int32)
        return Encoded(framed, np.zeros(len(framed), np.int32))

    def pair(self, first: Sequence[int], second: Sequence[int]) -> Encoded:
        """The frame around two lists of token ids, cut as `pickaxe.cross_encoder` cuts them.

        The second text loses its end; only when the first leaves it no room, the longer of the two does.
        """
        room = self._limit - 3
        if len(first) >= room:
            first = first[: room - min(len(second), room // 2)]
        second = second[: room - len(first)]
        ids = np.array([self._first, *first, self._last, *second, self._last], np.int32)
        segments = np.zeros(len(ids), np.int32)
        segments[len(first) + 2 :] = 1
        return Encoded(ids, segments)


def batch(rows: Sequence[Encoded], size: int | None = None) -> dict[str, np.ndarray]:
    """`ids` and `segments` (size, T), `lengths` (size,); rows beyond those given are of length 0."""
    size = size or len(rows)
    width = ROOM * -(-max(map(len, rows)) // ROOM)
    ids, segments = np.zeros((size, width), np.int32), np.zeros((size, width), np.int32)
    lengths = np.zeros(size, np.int32)
    for place, row in enumerate(rows):
        ids[place, : len(row)], segments[place, : len(row)], lengths[place] = row.ids, row.segments, len(row)
    return {"ids": ids, "segments": segments, "lengths": lengths}
