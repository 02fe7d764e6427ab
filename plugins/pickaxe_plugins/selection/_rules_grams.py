"""How much of a text its repeated n-grams take, in characters (Gopher, arXiv:2112.11446, as datatrove counts)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from pickaxe_plugins.selection._text_units import Words

_WINDOW = 8
"""Bytes at the start and at the end of an n-gram that are compared first."""
_ODD = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], np.uint64)


def gram_keys(words: Words, most: int) -> Iterator[np.ndarray]:
    """For n = 2 … most one integer per n-gram of the text, equal exactly where the n words are equal."""
    ids, size = words.ids.astype(np.uint64), len(words.vocabulary)
    width = max(1, (size - 1).bit_length())
    keys, bits = ids, width
    for n in range(2, most + 1):
        if bits + width > 64:
            keys = np.unique(keys, return_inverse=True)[1].astype(np.uint64)
            bits = max(1, len(keys).bit_length())
        keys = (keys[:-1] << np.uint64(width)) | ids[n - 1 :]
        bits += width
        yield keys


def top_gram(keys: np.ndarray) -> tuple[int, int]:
    """Where the most frequent key is first, and how often it is there; of equals the one seen first."""
    ordered = np.sort(keys)
    last = np.flatnonzero(ordered[1:] != ordered[:-1])
    if len(last) == len(keys) - 1:
        return 0, 1
    bounds = np.empty(len(last) + 2, np.int64)
    bounds[0], bounds[1:-1], bounds[-1] = -1, last, len(keys) - 1
    runs = bounds[1:] - bounds[:-1]
    most = int(runs.max())
    likely = ordered[bounds[1:][runs == most]]
    near = likely[np.minimum(np.searchsorted(likely, keys), len(likely) - 1)]
    return int((near == keys).argmax()), most


def top_gram_chars(words: Words, sizes: Sequence[int]) -> dict[int, int]:
    """Characters of the most frequent n-gram, its words joined by one blank, times its count, for each n of `sizes`.

    0 where the text has fewer than n words.
    """
    ends = _ends(words)
    found = dict.fromkeys(sizes, 0)
    for n, keys in enumerate(gram_keys(words, min(max(sizes, default=0), len(words))), 2):
        if n in found:
            at, times = top_gram(keys)
            found[n] = int(ends[at + n] - ends[at] + n - 1) * times
    return found


def repeated_gram_chars(words: Words, sizes: Sequence[int]) -> dict[int, int]:
    """Characters of n-grams, joined without blanks, that repeat an earlier one, for each n of `sizes`.

    The scan goes on behind a repeated n-gram and one word further after any other.  Only n-grams that may have an
    equal are looked at: those that share their first 8 bytes, their last 8 and their length with another, and
    those shorter than that.
    """
    found = dict.fromkeys(sizes, 0)
    fitting = [n for n in sizes if n < len(words)]
    if not fitting:
        return found
    joined = "".join(map(words.vocabulary.__getitem__, words.ids.tolist()))
    ends = _ends(words)
    likely = _Likely(joined, ends if joined.isascii() else _ends(words, _byte_lengths(words)), min(fitting))
    for n in fitting:
        rows = likely(n)
        if len(rows):
            found[n] = _scan(joined, zip(rows.tolist(), ends[rows].tolist(), ends[rows + n].tolist(), strict=True), n)
    return found


def _ends(words: Words, lengths: np.ndarray | None = None) -> np.ndarray:
    """Where each word begins when all are joined without blanks, and the end of the last."""
    ends = np.zeros(len(words) + 1, np.int64)
    np.cumsum((words.lengths if lengths is None else lengths)[words.ids], out=ends[1:])
    return ends


def _byte_lengths(words: Words) -> np.ndarray:
    return np.array([len(word.encode("utf-8", "surrogatepass")) for word in words.vocabulary], np.int64)


class _Likely:
    """Called with n, at least `least`: first words of the n-grams that may have an equal, ascending."""

    def __init__(self, joined: str, ends: np.ndarray, least: int) -> None:
        data = joined.encode("utf-8", "surrogatepass") + bytes(_WINDOW)
        self._ends = ends
        self._windows = np.ndarray((len(data) - 7,), "<u8", data, strides=(1,))  # the 8 bytes from each byte on
        starts = ends[:-1]
        self._heads = self._windows[starts]
        likely = _occurs_twice(self._heads)
        short = len(ends) - least
        likely[:short] |= ends[least:] - starts[:short] < _WINDOW
        self._rows = np.flatnonzero(likely)

    def __call__(self, n: int) -> np.ndarray:
        rows = self._rows[: np.searchsorted(self._rows, len(self._ends) - n)]
        ends = self._ends[rows + n]
        lengths = ends - self._ends[rows]
        tails = self._windows[np.maximum(ends - _WINDOW, 0)]
        keys = self._heads[rows] + tails * _ODD[0] + lengths.astype(np.uint64) * _ODD[1]
        return rows[_occurs_twice(keys) | (lengths < _WINDOW)]


def _occurs_twice(keys: np.ndarray) -> np.ndarray:
    """Which of the keys occur more than once."""
    order = np.argsort(keys)
    ordered = keys[order]
    same = np.zeros(len(keys) + 1, bool)
    np.equal(ordered[1:], ordered[:-1], out=same[1:-1])
    found = np.empty(len(keys), bool)
    found[order] = same[1:] | same[:-1]
    return found


def _scan(joined: str, grams: Iterable[tuple[int, int, int]], n: int) -> int:
    """Characters of repeated n-grams among these (first word, start, end), the only ones that may repeat."""
    seen: set[str] = set()
    characters = free = 0
    for at, start, end in grams:
        if at < free:
            continue
        gram = joined[start:end]
        if gram in seen:
            characters += end - start
            free = at + n
        else:
            seen.add(gram)
    return characters
