"""Deflate sizes of a source followed by many targets, without writing a bit of output.

The matches of zlib's levels 4 to 9 and the code lengths of its blocks, as zlib finds them, but counted only: what the
source alone decides is found once for all targets, and no state is set up for a pair.  Sizes are those of the library
to the byte; `DeflateLoop` compares them on a few texts before it is used, since other builds of zlib match otherwise.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable

import numpy as np

from pickaxe_plugins.selection.zip_fit._code_lengths import (
    ALL_NODES,
    DISTANCE_EXTRA,
    DISTANCES,
    LENGTH_EXTRA,
    LENGTHS,
    block_bytes,
    compiled,
)
from pickaxe_plugins.selection.zip_fit._texts import Texts

LEVELS = range(4, 10)
TUNING = {4: (4, 4, 16, 16), 5: (8, 16, 32, 32), 6: (8, 16, 128, 128), 7: (8, 32, 128, 256), 8: (32, 128, 258, 1024),
          9: (32, 258, 258, 4096)}  # fmt: skip
"""By level: a match that is good (search less), lazy (take it), nice (stop there), and links followed."""

LEAST_MATCH, MOST_MATCH, TOO_FAR = 3, 258, 4096
HASH_MASK = (1 << 15) - 1


def _symbols(bases: int, extra: np.ndarray, size: int) -> np.ndarray:
    """The symbol of each length less 3, or distance less 1."""
    table = np.zeros(size, np.int64)
    start = 0
    for symbol, bits in enumerate(extra):
        table[start : start + (1 << int(bits))] = bases + symbol
        start += 1 << int(bits)
    return table


LENGTH_SYMBOL = _symbols(257, LENGTH_EXTRA[257:285], 256)
LENGTH_SYMBOL[255] = 285
DISTANCE_SYMBOL = _symbols(0, DISTANCE_EXTRA, 1 << 15)

# What the scan of a text holds between two positions: place, match and its start, whether a literal waits.
PLACE, MATCH, START, WAITING = range(4)


class DeflateLoop:
    """The loop at one level, whose sizes count `container` bytes more.  Safe to share between threads."""

    longest = 16_000
    """Bytes of source and target: more could be cut into several blocks."""

    def __init__(self, level: int, container: int = 0) -> None:
        self._tuning = np.array(TUNING[level])
        self._level, self._container = level, container

    def agrees(self) -> bool:
        """Whether the zlib of this process gives the same sizes on 64 texts of all kinds."""
        draw = random.Random(0)
        words = [bytes(draw.choices(b"etaoinshrdlu", k=draw.randint(1, 9))) for _ in range(300)]
        texts = [
            b"",
            b"a" * 700,
            draw.randbytes(900),
            *(bytes(draw.choices(kind, k=4000)) for kind in (b"ab", b"abcd")),
        ]
        texts += [b" ".join(draw.choices(words, k=size)) for size in (1, 9, 1200)]
        targets = Texts(texts)
        return all(
            self.after(source, targets)(0, len(texts)).tolist()
            == [len(zlib.compress(source + target, self._level, -15)) + self._container for target in texts]
            for source in texts
        )

    def after(self, source: bytes, targets: Texts) -> Callable[[int, int], np.ndarray]:
        """The sizes of `source + target`, which have at most `self.longest` bytes."""
        text = np.zeros(len(source) + targets.longest, np.uint8)
        text[: len(source)] = np.frombuffer(source, np.uint8)
        head, before = np.zeros(HASH_MASK + 1, np.uint16), np.zeros(len(text) + 1, np.uint16)
        state = np.array([0, LEAST_MATCH - 1, 0, 0])
        lengths, distances = np.zeros(LENGTHS, np.int64), np.zeros(DISTANCES, np.int64)
        _scan(text, len(source), True, self._tuning, head, before, state, lengths, distances)

        def sizes(start: int, stop: int) -> np.ndarray:
            found = np.empty(stop - start, np.int64)
            _sizes(
                text, len(source), targets.joined, targets.bounds[start : stop + 1], self._tuning, head, before, state,
                lengths, distances, found,
            )  # fmt: skip
            return found + self._container

        return sizes


@compiled
def _sizes(
    text: np.ndarray, source: int, joined: np.ndarray, bounds: np.ndarray, tuning: np.ndarray, head: np.ndarray,
    before: np.ndarray, state: np.ndarray, lengths: np.ndarray, distances: np.ndarray, sizes: np.ndarray,
) -> None:  # fmt: skip
    own_lengths, own_distances, own_state = np.empty_like(lengths), np.empty_like(distances), np.empty_like(state)
    room = np.empty((5, ALL_NODES), np.int64)
    for row in range(len(sizes)):
        length = bounds[row + 1] - bounds[row]
        text[source : source + length] = joined[bounds[row] : bounds[row + 1]]
        own_lengths[:], own_distances[:], own_state[:] = lengths, distances, state
        last = _scan(text, source + length, False, tuning, head, before, own_state, own_lengths, own_distances)
        for place in range(last, state[PLACE] - 1, -1):
            head[_hash(text, place)] = before[place]
        sizes[row] = block_bytes(source + length, own_lengths, own_distances, room)


# ---------------------------------------------------------------- matches


@compiled
def _hash(text: np.ndarray, place: int) -> int:
    return ((text[place] << 10) ^ (text[place + 1] << 5) ^ text[place + 2]) & HASH_MASK


@compiled
def _scan(
    text: np.ndarray, end: int, open_end: bool, tuning: np.ndarray, head: np.ndarray, before: np.ndarray,
    state: np.ndarray, lengths: np.ndarray, distances: np.ndarray,
) -> int:  # fmt: skip
    """Count the symbols of `text[:end]` from the state on, and return the last place entered into the chains.

    With an open end it stops, and leaves the state, before the first place whose symbols depend on what comes later.
    """
    lazy = tuning[1]
    place, match, start, waiting = state[PLACE], state[MATCH], state[START], state[WAITING]
    last = place - 1
    while place < end:
        if open_end and place + 2 >= end:
            break
        candidate = 0
        if end - place >= LEAST_MATCH:
            key = _hash(text, place)
            candidate = head[key]
            before[place] = candidate
            head[key] = place
            last = place
        previous, previous_start = match, start
        match = LEAST_MATCH - 1
        if candidate != 0 and previous < lazy:
            match, start = _longest(text, place, candidate, previous, start, end, open_end, tuning, before)
            if match == LEAST_MATCH and place - start > TOO_FAR:
                match = LEAST_MATCH - 1
        taken, stop = previous >= LEAST_MATCH and match <= previous, place - 1 + previous
        if open_end and (match < 0 or (taken and stop + 1 >= end)):
            head[key] = candidate
            match, start = previous, previous_start
            break
        if taken:
            lengths[LENGTH_SYMBOL[previous - LEAST_MATCH]] += 1
            distances[DISTANCE_SYMBOL[place - 2 - previous_start]] += 1
            for inner in range(place + 1, min(stop, end - LEAST_MATCH + 1)):
                key = _hash(text, inner)
                before[inner] = head[key]
                head[key] = inner
                last = inner
            waiting, match, place = 0, LEAST_MATCH - 1, stop
        else:
            if waiting:
                lengths[text[place - 1]] += 1
            waiting = 1
            place += 1
    if open_end:
        state[PLACE], state[MATCH], state[START], state[WAITING] = place, match, start, waiting
    elif waiting:
        lengths[text[place - 1]] += 1
    return last


@compiled
def _longest(
    text: np.ndarray, place: int, candidate: int, previous: int, start: int, end: int, open_end: bool,
    tuning: np.ndarray, before: np.ndarray,
) -> tuple[int, int]:  # fmt: skip
    """Length and start of the longest earlier match that beats `previous`; length -1 when it depends on an open end."""
    best, links = previous, tuning[3]
    if previous >= tuning[0]:
        links >>= 2
    ahead = end - place
    most = min(MOST_MATCH, ahead)
    nice = min(tuning[2], ahead)
    if place + best >= end:
        return (-1 if open_end else min(best, ahead)), start
    last_byte, byte_before = text[place + best], text[place + best - 1]
    while True:
        # Unsigned indices: numba looks at the sign of others, which doubles the time of this loop.
        if text[np.uintp(candidate + best)] == last_byte and text[np.uintp(candidate + best - 1)] == byte_before:
            size = 0
            while size < most and text[np.uintp(candidate + size)] == text[np.uintp(place + size)]:
                size += 1
            if open_end and size == ahead:
                return -1, start
            if size > best:
                start, best = candidate, size
                if size >= nice:
                    break
                last_byte, byte_before = text[place + best], text[place + best - 1]
        candidate = before[np.uintp(candidate)]
        links -= 1
        if candidate == 0 or links == 0:
            break
    return best, start
