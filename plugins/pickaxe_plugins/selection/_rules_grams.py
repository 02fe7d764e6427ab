"""How much of each text its repeated n-grams take, in characters (Gopher, arXiv:2112.11446, as datatrove counts)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, count

import numpy as np

from pickaxe_plugins.selection._numbered_words import Words

_WINDOW = 8
"""Bytes at the start and at the end of an n-gram that are compared first."""
_ODD = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)


_PLACE = 40
"""Bits for the place of a word among all words of a block."""


_LARGEST = 24
"""Bits of the largest table that keys meet in."""
_SOME = 1 << 16


def top_gram_chars(words: Words, sizes: Sequence[int]) -> dict[int, np.ndarray]:
    """Characters of each text's most frequent n-gram, its words joined by one blank, times its count, per n of `sizes`.

    Of n-grams equally frequent the one seen first; 0 where the text has fewer than n words.
    """
    starts = words.starts()
    found = {n: np.zeros(len(words.counts), np.int64) for n in sizes}
    repeated = _repeated_grams(words)
    for n in range(2, min(max(sizes, default=0), int(words.counts.max(initial=0))) + 1):
        first, times = next(repeated)
        if n not in found:
            continue
        at, most = words.bounds[:-1].copy(), np.ones(len(words.counts), np.int64)
        if len(first):  # texts are in order
            owners = words.owners[first]
            begins = np.flatnonzero(np.diff(owners, prepend=-1))
            best = np.minimum.reduceat(first - (times << _PLACE), begins)
            at[owners[begins]], most[owners[begins]] = best & ((1 << _PLACE) - 1), -(best >> _PLACE)
        held = np.flatnonzero(words.counts >= n)
        at = at[held]
        found[n][held] = (starts[at + n] - starts[at] + n - 1) * most[held]
    return found


def _repeated_grams(words: Words) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For n = 2, 3 … the n-grams that a text has more than once: where the first begins, and how many there are.

    Texts are in order; their n-grams are not.  Only where an n-gram is repeated can one of n + 1 words be.
    """
    width = max(1, len(words.lexicon.words)).bit_length()
    keys = (words.owners.astype(np.uint64) << np.uint64(width)) | words.ids.astype(np.uint64)
    if len(words.counts).bit_length() + 2 * width > 64:
        keys = np.unique(keys, return_inverse=True)[1].astype(np.uint64)
    rows = np.arange(len(keys))
    ends = np.repeat(words.bounds[1:], words.counts)
    for n in count(2):
        fits = rows + n <= ends[rows]
        rows, keys = rows[fits], keys[fits]
        keys = (keys << np.uint64(width)) | words.ids[rows + (n - 1)].astype(np.uint64)
        likely = _may_repeat(keys)
        order = likely[np.argsort(keys[likely])]
        begins = np.flatnonzero(np.diff(keys[order], prepend=~keys[order[:1]]))
        times = np.diff(begins, append=len(order))
        several = times > 1
        yield np.minimum.reduceat(rows[order], begins)[several] if len(order) else order, times[several]
        kept = np.repeat(several, times)
        rows = rows[order[kept]]
        keys = np.repeat(np.arange(several.sum(), dtype=np.uint64), times[several])


def _may_repeat(keys: np.ndarray) -> np.ndarray:
    """Rows of all keys that occur more than once, and of few others: equal keys meet in two tables."""
    rows = np.arange(len(keys))
    for odd in _ODD[:2]:
        shift = 64 - min(len(keys).bit_length() + 2, _LARGEST)
        places = ((keys * odd) >> np.uint64(shift)).astype(np.int64)
        meet = np.bincount(places)[places] > 1
        rows, keys = rows[meet], keys[meet]
    return rows


def repeated_gram_chars(words: Words, sizes: Sequence[int]) -> dict[int, np.ndarray]:
    """Characters of each text's n-grams, joined without blanks, that repeat an earlier one, for each n of `sizes`.

    The scan goes on behind a repeated n-gram and one word further after any other.  Only n-grams that may have an
    equal are looked at: those that share their first 8 bytes, their last 8 and their length with another of the
    text, and those shorter than that.
    """
    found = {n: np.zeros(len(words.counts), np.int64) for n in sizes}
    if not len(words.ids) or not sizes:
        return found
    joined, starts = words.joined, words.starts()
    likely = _Likely(words, joined.encode("utf-8", "surrogatepass"), min(sizes))
    for n in sizes:
        rows = likely(n)
        sums = _scan(joined, _spans(words, rows, starts, n), n)
        found[n][list(sums)] = list(sums.values())
    return found


def _spans(words: Words, rows: np.ndarray, starts: np.ndarray, n: int) -> Iterable[tuple[int, int, int, int]]:
    """(text, first word, start, end) of the n-grams that begin at these rows, of a huge text not all at once."""
    parts = (rows[at : at + _SOME] for at in range(0, len(rows), _SOME))
    columns = ((words.owners[part], part, starts[part], starts[part + n]) for part in parts)
    return chain.from_iterable(zip(*(each.tolist() for each in four), strict=True) for four in columns)


class _Likely:
    """Called with n, at least `least`: first words of the n-grams that may have an equal, ascending."""

    def __init__(self, words: Words, data: bytes, least: int) -> None:
        self._starts = words.starts("bytes")
        padded = data + bytes(_WINDOW)
        self._windows = np.ndarray((len(data) + 1,), "<u8", padded, strides=(1,))  # the 8 bytes from each byte on
        self._heads = self._windows[self._starts[:-1]] + words.owners.astype(np.uint64) * _ODD[2]
        likely = np.zeros(len(self._heads), bool)
        likely[_may_repeat(self._heads)] = True
        short = max(0, len(self._starts) - least)
        likely[:short] |= self._starts[least:] - self._starts[:short] < _WINDOW
        self._rows = np.flatnonzero(likely)
        self._left = np.repeat(words.bounds[1:], words.counts)[self._rows] - self._rows

    def __call__(self, n: int) -> np.ndarray:
        rows = self._rows[self._left >= n]
        begins, ends = self._starts[rows], self._starts[rows + n]
        lengths = ends - begins
        tails = self._windows[np.maximum(ends - _WINDOW, 0)]
        keys = self._heads[rows] + tails * _ODD[0] + lengths.astype(np.uint64) * _ODD[1]
        likely = lengths < _WINDOW
        likely[_may_repeat(keys)] = True
        return rows[likely]


def _scan(joined: str, grams: Iterable[tuple[int, int, int, int]], n: int) -> dict[int, int]:
    """Text → characters of its repeated n-grams, among these (text, first word, start, end), all that may repeat."""
    found: dict[int, int] = {}
    seen: set[str] = set()
    text, free = -1, 0
    for owner, at, start, end in grams:
        if at < free:
            continue
        if owner != text:
            seen, text = set(), owner
            found[owner] = 0
        gram = joined[start:end]
        if gram in seen:
            found[owner] += end - start
            free = at + n
        else:
            seen.add(gram)
    return found
