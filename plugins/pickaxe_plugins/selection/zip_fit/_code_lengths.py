"""How many bytes deflate needs for one block, from how often each symbol occurs: zlib's code lengths, not its codes."""

from __future__ import annotations

import numpy as np

from pickaxe.extras import loop_compiler

compiled = loop_compiler("compressors")

END_BLOCK, LENGTHS, DISTANCES, REPEATS = 256, 286, 30, 19
ALL_NODES = 2 * LENGTHS + 1
MOST_BITS, MOST_REPEAT_BITS = 15, 7
NUMBER, DEPTH = (1 << 10) - 1, ((1 << 10) - 1) << 10
REPEAT_ORDER = np.array([16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15])
LENGTH_EXTRA = np.array([0] * 257 + [0] * 8 + [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4 + [5] * 4 + [0])
DISTANCE_EXTRA = np.array([0, 0] + [bits for bits in range(14) for _ in range(2)])
REPEAT_EXTRA = np.array([0] * 16 + [2, 3, 7])
FIXED_LENGTHS = np.array([8] * 144 + [9] * 112 + [7] * 24 + [8] * 6)
FIXED_DISTANCES = np.array([5] * DISTANCES)
NO_FIXED = np.zeros(REPEATS, np.int64)


@compiled
def block_bytes(stored: int, lengths: np.ndarray, distances: np.ndarray, room: np.ndarray) -> int:
    """The smallest of the three forms of a block, in bytes, from how often each symbol occurs.

    `room` (5, ALL_NODES) is overwritten.
    """
    length_bits, distance_bits, repeats = room[2], room[3], room[4, :REPEATS]
    repeats[:] = 0
    lengths[END_BLOCK] = 1
    most_length, bits, fixed = _tree(lengths, LENGTH_EXTRA, FIXED_LENGTHS, MOST_BITS, length_bits, room)
    most_distance, more, more_fixed = _tree(distances, DISTANCE_EXTRA, FIXED_DISTANCES, MOST_BITS, distance_bits, room)
    bits, fixed = bits + more, fixed + more_fixed
    _count_repeats(length_bits, most_length, repeats)
    _count_repeats(distance_bits, most_distance, repeats)
    bits += _tree(repeats, REPEAT_EXTRA, NO_FIXED, MOST_REPEAT_BITS, length_bits, room)[1]
    written = REPEATS
    while written > 4 and length_bits[REPEAT_ORDER[written - 1]] == 0:
        written -= 1
    bits += 3 * written + 14
    smallest = min((bits + 10) >> 3, (fixed + 10) >> 3)
    return stored + 5 if stored + 4 <= smallest else smallest


@compiled
def _tree(
    counts: np.ndarray, extra: np.ndarray, fixed: np.ndarray, most: int, bits: np.ndarray, room: np.ndarray
) -> tuple[int, int, int]:
    """Code lengths into `bits`; the last symbol used, and the bits of all symbols in this code and in the fixed one.

    A node of the heap is its count, depth and number in one integer.
    """
    heap, parent = room[0], room[1]
    size, last = 0, -1
    for symbol in range(len(counts)):
        bits[symbol] = 0
        if counts[symbol]:
            size += 1
            heap[size] = counts[symbol] << 20 | symbol
            last = symbol
    forced, forced_fixed = 0, 0
    while size < 2:
        symbol = 0
        if last < 2:
            last += 1
            symbol = last
        size += 1
        counts[symbol] = 1
        heap[size] = 1 << 20 | symbol
        forced, forced_fixed = forced + 1, forced_fixed + fixed[symbol]
    for root in range(size // 2, 0, -1):
        _sink(heap, size, root)
    number, top = len(counts), ALL_NODES
    while size >= 2:
        least = heap[1]
        heap[1] = heap[size]
        size -= 1
        _sink(heap, size, 1)
        second = heap[1]
        heap[top - 1], heap[top - 2] = least & NUMBER, second & NUMBER
        top -= 2
        parent[least & NUMBER] = parent[second & NUMBER] = number
        depth = max(least & DEPTH, second & DEPTH) + (1 << 10)
        heap[1] = ((least >> 20) + (second >> 20)) << 20 | depth | number
        number += 1
        _sink(heap, size, 1)
    top -= 1
    heap[top] = heap[1] & NUMBER
    total, total_fixed = _lengths(counts, last, extra, fixed, most, bits, heap, parent, top)
    return last, total - forced, total_fixed - forced_fixed


@compiled
def _sink(heap: np.ndarray, size: int, root: int) -> None:
    """Move the root down to where both sons are more frequent, or as frequent and at least as deep."""
    value = heap[root]
    rank = value >> 10
    son = 2 * root
    while son <= size:
        least = heap[son] >> 10
        if son < size and heap[son + 1] >> 10 <= least:
            son += 1
            least = heap[son] >> 10
        if rank <= least:
            break
        heap[root] = heap[son]
        root, son = son, 2 * son
    heap[root] = value


@compiled
def _lengths(
    counts: np.ndarray, last: int, extra: np.ndarray, fixed: np.ndarray, most: int, bits: np.ndarray, heap: np.ndarray,
    parent: np.ndarray, top: int,
) -> tuple[int, int]:  # fmt: skip
    of_length = np.zeros(MOST_BITS + 1, np.int64)
    total, total_fixed, overflow = 0, 0, 0
    bits[heap[top]] = 0
    for place in range(top + 1, ALL_NODES):
        symbol = heap[place]
        length = bits[parent[symbol]] + 1
        if length > most:
            length = most
            overflow += 1
        bits[symbol] = length
        if symbol <= last:
            of_length[length] += 1
            total += counts[symbol] * (length + extra[symbol])
            total_fixed += counts[symbol] * (fixed[symbol] + extra[symbol])
    if overflow == 0:
        return total, total_fixed
    while overflow > 0:
        length = most - 1
        while of_length[length] == 0:
            length -= 1
        of_length[length] -= 1
        of_length[length + 1] += 2
        of_length[most] -= 1
        overflow -= 2
    place = ALL_NODES
    for length in range(most, 0, -1):
        left = of_length[length]
        while left:
            place -= 1
            symbol = heap[place]
            if symbol <= last:
                total += (length - bits[symbol]) * counts[symbol]
                bits[symbol] = length
                left -= 1
    return total, total_fixed


@compiled
def _count_repeats(bits: np.ndarray, last: int, repeats: np.ndarray) -> None:
    """How often each symbol of the code of code lengths occurs: lengths themselves, and runs of one length."""
    previous, following, run = -1, bits[0], 0
    most, least = (138, 3) if following == 0 else (7, 4)
    for symbol in range(last + 1):
        length = following
        following = bits[symbol + 1] if symbol < last else -2
        run += 1
        if run < most and length == following:
            continue
        if run < least:
            repeats[length] += run
        elif length != 0:
            if length != previous:
                repeats[length] += 1
            repeats[16] += 1
        elif run <= 10:
            repeats[17] += 1
        else:
            repeats[18] += 1
        run, previous = 0, length
        if following == 0:
            most, least = 138, 3
        elif length == following:
            most, least = 6, 3
        else:
            most, least = 7, 4
