"""How much of a text its repeated n-grams take, in characters (Gopher, arXiv:2112.11446, as datatrove counts)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from pickaxe_plugins.selection._text_units import Words

_BASE = 0x9E3779B97F4A7C15
"""Base of the rolling hash; odd, so that it has an inverse modulo 2^64."""
_TABLE = 1 << 12


def _powers(base: int, count: int) -> np.ndarray:
    table = np.full(count, base, np.uint64)
    table[:1] = 1
    return np.multiply.accumulate(table)


_UP, _DOWN = (_powers(base, _TABLE) for base in (_BASE, pow(_BASE, -1, 1 << 64)))


def _up_down(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Powers of the base and of its inverse, the first `count` of each."""
    if count <= _TABLE:
        return _UP[:count], _DOWN[:count]
    return _powers(_BASE, count), _powers(pow(_BASE, -1, 1 << 64), count)


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
    starts = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    runs = np.diff(starts, prepend=0, append=len(keys))
    most = int(runs.max())
    if most == 1:
        return 0, 1
    likely = ordered[np.append(0, starts)[runs == most]]
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

    The scan goes on behind a repeated n-gram and one word further after any other.  A rolling hash of the
    characters finds the sizes of which two n-grams may be equal; only those are scanned.
    """
    found = dict.fromkeys(sizes, 0)
    fitting = [n for n in sizes if n < len(words)]
    if not fitting:
        return found
    ends = _ends(words)
    keys = _joined_keys(words, ends)
    for n in fitting:
        ordered = np.sort(keys(n))
        if (ordered[1:] == ordered[:-1]).any():
            found[n] = _scan(words, ends, n)
    return found


def _ends(words: Words) -> np.ndarray:
    """Where each word begins when all are joined without blanks, and the end of the last."""
    ends = np.zeros(len(words) + 1, np.int64)
    np.cumsum(words.lengths[words.ids], out=ends[1:])
    return ends


class _joined_keys:
    """Called with n: the hash of each n-gram's characters, equal wherever the characters are."""

    def __init__(self, words: Words, ends: np.ndarray) -> None:
        lengths = words.lengths
        up, down = _up_down(max(int(lengths.sum()), int(lengths.max())) + 1)
        letters = np.frombuffer("".join(words.vocabulary).encode("utf-32-le", "surrogatepass"), np.uint32)
        sums = np.zeros(len(letters) + 1, np.uint64)
        np.cumsum((letters + np.uint64(1)) * up[: len(letters)], out=sums[1:])
        after = np.cumsum(lengths)
        hashes = (sums[after] - sums[after - lengths]) * down[after - lengths]
        self._inverse = np.ones(len(words) + 1, np.uint64)
        np.multiply.accumulate(down[lengths][words.ids], out=self._inverse[1:])
        offset = np.ones(len(words) + 1, np.uint64)
        np.multiply.accumulate(up[lengths][words.ids], out=offset[1:])
        self._sums = np.zeros(len(words) + 1, np.uint64)
        np.cumsum(hashes[words.ids] * offset[:-1], out=self._sums[1:])

    def __call__(self, n: int) -> np.ndarray:
        return (self._sums[n:] - self._sums[:-n]) * self._inverse[:-n]


def _scan(words: Words, ends: np.ndarray, n: int) -> int:
    joined = "".join(map(words.vocabulary.__getitem__, words.ids.tolist()))
    bounds = ends.tolist()
    seen: set[str] = set()
    characters = at = 0
    while at + n < len(bounds):
        gram = joined[bounds[at] : bounds[at + n]]
        if gram in seen:
            characters += len(gram)
            at += n
        else:
            seen.add(gram)
            at += 1
    return characters
