"""The loops of the index, compiled.  Imported where they are used: this module needs numba.

Bits lie in blocks of 8 words of 64: the first counts the ones before the block, seven hold 448 bits, so that
counting up to a place touches one line of the processor's cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pickaxe.extras import loop_compiler, require

numba = require("numba", extra="retrieval")
extending = require("numba.extending", extra="retrieval")
cgutils = require("numba.core.cgutils", extra="retrieval")
ir = require("llvmlite.ir", extra="retrieval")

WORDS = 8
BITS = 64 * (WORDS - 1)
LANES = 16
"""Walks that take turns."""


compiled = loop_compiler("retrieval")


@extending.intrinsic
def popcount(context: Any, word: Any) -> Any:  # type: ignore[no-untyped-def,unused-ignore]
    """Ones of a uint64: the processor's own instruction."""
    kind = numba.types.uint64

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return kind(kind), emit


@extending.intrinsic
def fetch(context: Any, words: Any, place: Any) -> Any:
    """Begin to bring words[place] into the processor's cache."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        pointer = builder.bitcast(builder.gep(array.data, [arguments[1]]), byte)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(function, [pointer, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return numba.types.none(words, place), emit


@extending.intrinsic
def ones_of_block(context: Any, words: Any, base: Any, rest: Any) -> Any:
    """words[base] and the ones in the first `rest` bits of the seven words after it.

    All eight words at once and without a branch: how far to count is as random as the text.
    """

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        word = ir.IntType(64)
        eight = ir.VectorType(word, WORDS)

        def constant(values: list[int]) -> Any:
            return ir.Constant(eight, values)

        def call(name: str, kind: Any, *given: Any) -> Any:
            function = ir.FunctionType(kind, [each.type for each in given])
            return builder.call(cgutils.get_or_insert_function(builder.module, function, name), given)

        place = builder.gep(array.data, [arguments[1]])
        block = builder.load(builder.bitcast(place, eight.as_pointer()), align=8)
        wanted = builder.insert_element(ir.Constant(eight, ir.Undefined), arguments[2], ir.Constant(ir.IntType(32), 0))
        wanted = builder.shuffle_vector(wanted, wanted, ir.Constant(ir.VectorType(ir.IntType(32), WORDS), [0] * WORDS))
        # Bits wanted of each word; none of the first, which is the count.
        bits = builder.sub(wanted, constant([2 * BITS, *range(0, BITS, 64)]))
        none, every, one = (constant([value] * WORDS) for value in (0, 2**64 - 1, 1))
        mask = builder.sub(builder.shl(one, builder.and_(bits, constant([63] * WORDS))), one)
        mask = builder.select(builder.icmp_signed(">=", bits, constant([64] * WORDS)), every, mask)
        mask = builder.select(builder.icmp_signed("<=", bits, none), none, mask)
        counts = call(f"llvm.ctpop.v{WORDS}i64", eight, builder.and_(block, mask))
        found = call(f"llvm.vector.reduce.add.v{WORDS}i64", word, counts)
        return builder.add(found, builder.extract_element(block, ir.Constant(ir.IntType(32), 0)))

    return numba.types.int64(words, numba.types.uint64, numba.types.uint64), emit


@compiled
def ones(words: np.ndarray, place: Any) -> Any:
    """Ones in the bits [0, place)."""
    at = np.uint64(place)
    block = at // np.uint64(BITS)
    return ones_of_block(words, block * np.uint64(WORDS), at - block * np.uint64(BITS))


@compiled
def call_in(words: np.ndarray, place: int) -> None:
    """Begin to bring the block of a bit into the cache."""
    fetch(words, np.int64(np.uint64(place) // np.uint64(BITS) * np.uint64(WORDS)))


@compiled
def bit(words: np.ndarray, place: Any) -> Any:
    at = np.uint64(place)
    block = at // np.uint64(BITS)
    rest = at - block * np.uint64(BITS)
    word = words[block * np.uint64(WORDS) + (rest >> np.uint64(6)) + np.uint64(1)]
    return np.int64(word >> (rest & np.uint64(63)) & np.uint64(1))


@compiled
def put(words: np.ndarray, place: int) -> None:
    """Set one bit; `count_blocks` comes after the last."""
    block = place // BITS
    rest = place - block * BITS
    words[block * WORDS + 1 + (rest >> 6)] |= np.uint64(1) << np.uint64(rest & 63)


@compiled
def count_blocks(words: np.ndarray) -> None:
    total = np.uint64(0)
    for block in range(len(words) // WORDS):
        words[block * WORDS] = total
        for word in range(block * WORDS + 1, (block + 1) * WORDS):
            total += popcount(words[word])


@compiled
def put_all(words: np.ndarray, flags: np.ndarray) -> None:
    for place in range(len(flags)):
        if flags[place]:
            put(words, place)
    count_blocks(words)


@compiled
def plant(
    words: np.ndarray, transform: np.ndarray, paths: np.ndarray, depths: np.ndarray, children: np.ndarray,
    starts: np.ndarray,
) -> None:  # fmt: skip
    """Write the bits of the wavelet tree, symbol by symbol; each node's bits lie together, in the text's order."""
    cursors = starts.copy()
    for row in range(len(transform)):
        symbol = transform[row]
        path = paths[symbol]
        node = len(children) - 1
        for _ in range(depths[symbol]):
            turn = np.int64(path & np.uint64(1))
            path >>= np.uint64(1)
            if turn:
                put(words, cursors[node])
            cursors[node] += 1
            node = children[node, turn]
    count_blocks(words)


@compiled
def narrow(
    words: np.ndarray, starts: np.ndarray, before: np.ndarray, children: np.ndarray, paths: np.ndarray,
    depths: np.ndarray, smaller: np.ndarray, symbol: int, low: int, high: int,
) -> tuple[int, int]:  # fmt: skip
    """The suffixes that begin with this number and go on with one of [low, high); (0, 0) for none."""
    node = len(children) - 1
    path = paths[symbol]
    for _ in range(depths[symbol]):
        start = starts[node]
        first = ones(words, start + low) - before[node]
        last = ones(words, start + high) - before[node]
        turn = np.int64(path & np.uint64(1))
        path >>= np.uint64(1)
        if turn:
            low, high = first, last
        else:
            low -= first
            high -= last
        if low == high:
            return 0, 0
        node = children[node, turn]
    return smaller[symbol] + low, smaller[symbol] + high


@compiled
def narrow_all(
    words: np.ndarray, starts: np.ndarray, before: np.ndarray, children: np.ndarray, paths: np.ndarray,
    depths: np.ndarray, smaller: np.ndarray, symbols: np.ndarray, low: np.ndarray, high: np.ndarray,
) -> None:  # fmt: skip
    for row in range(len(symbols)):
        if symbols[row] > 0 and low[row] < high[row]:
            low[row], high[row] = narrow(
                words, starts, before, children, paths, depths, smaller, symbols[row], low[row], high[row]
            )
        else:
            low[row], high[row] = 0, 0


@compiled
def find_all(
    words: np.ndarray, starts: np.ndarray, before: np.ndarray, children: np.ndarray, paths: np.ndarray,
    depths: np.ndarray, smaller: np.ndarray, numbers: np.ndarray, offsets: np.ndarray, low: np.ndarray,
    high: np.ndarray,
) -> None:  # fmt: skip
    """Ranges of whole patterns, from their last number to their first; low and high hold where each begins.

    `LANES` patterns take turns, one level of the tree at a time: what each waits for comes from memory while the
    others go on.
    """
    root = len(children) - 1
    owner, place, node = np.full(LANES, -1, np.int64), np.zeros(LANES, np.int64), np.zeros(LANES, np.int64)
    left, first, last = np.zeros(LANES, np.int64), np.zeros(LANES, np.int64), np.zeros(LANES, np.int64)
    path = np.zeros(LANES, np.uint64)
    waiting, busy = 0, 1
    while busy:
        busy = 0
        for lane in range(LANES):
            row = owner[lane]
            if row < 0:
                if waiting == len(low):
                    continue
                row = owner[lane] = waiting
                waiting += 1
                place[lane], left[lane] = offsets[row + 1], 0
                first[lane], last[lane] = low[row], high[row]
            busy = 1
            if left[lane] == 0:  # the next number of the pattern
                if place[lane] == offsets[row] or first[lane] == last[lane]:
                    low[row], high[row] = first[lane], last[lane]
                    owner[lane] = -1
                    continue
                place[lane] -= 1
                number = numbers[place[lane]]
                if number <= 0:
                    low[row], high[row] = 0, 0
                    owner[lane] = -1
                    continue
                path[lane], left[lane], node[lane] = paths[number], depths[number], root
            start = starts[node[lane]]
            one = ones(words, start + first[lane]) - before[node[lane]]
            two = ones(words, start + last[lane]) - before[node[lane]]
            turn = np.int64(path[lane] & np.uint64(1))
            path[lane] >>= np.uint64(1)
            if turn:
                first[lane], last[lane] = one, two
            else:
                first[lane] -= one
                last[lane] -= two
            left[lane] -= 1
            node[lane] = children[node[lane], turn]
            if node[lane] >= 0:
                call_in(words, starts[node[lane]] + first[lane])
                call_in(words, starts[node[lane]] + last[lane])
            if first[lane] == last[lane]:
                first[lane], last[lane], left[lane] = 0, 0, 0
            elif left[lane] == 0:
                first[lane] += smaller[-1 - node[lane]]
                last[lane] += smaller[-1 - node[lane]]
                call_in(words, starts[root] + first[lane])
                call_in(words, starts[root] + last[lane])


@compiled
def back(
    words: np.ndarray, starts: np.ndarray, before: np.ndarray, children: np.ndarray, smaller: np.ndarray, row: int
) -> tuple[int, int]:
    """The number before a suffix, and the place of the suffix that begins with it."""
    node = len(children) - 1
    while node >= 0:
        place = starts[node] + row
        found = ones(words, place) - before[node]
        if bit(words, place):
            row = found
            node = children[node, 1]
        else:
            row -= found
            node = children[node, 0]
    return -1 - node, smaller[-1 - node] + row


@compiled
def locate_all(
    words: np.ndarray, starts: np.ndarray, before: np.ndarray, children: np.ndarray, smaller: np.ndarray,
    marks: np.ndarray, samples: np.ndarray, step: int, rows: np.ndarray, found: np.ndarray,
) -> None:  # fmt: skip
    """Where the suffixes of these places start: backwards until one whose start is kept; in turns, as `find_all`."""
    root = len(children) - 1
    owner, place, walked = np.full(LANES, -1, np.int64), np.zeros(LANES, np.int64), np.zeros(LANES, np.int64)
    node = np.full(LANES, -1, np.int64)
    waiting, busy = 0, 1
    while busy:
        busy = 0
        for lane in range(LANES):
            if owner[lane] < 0:
                if waiting == len(rows):
                    continue
                owner[lane], place[lane], walked[lane], node[lane] = waiting, rows[waiting], 0, -1
                waiting += 1
            busy = 1
            if node[lane] < 0:
                if bit(marks, place[lane]):
                    sample = np.int64(samples[ones(marks, place[lane])])
                    found[owner[lane]] = sample * step + walked[lane]
                    owner[lane] = -1
                    continue
                walked[lane] += 1
                node[lane] = root
            at = starts[node[lane]] + place[lane]
            one = ones(words, at) - before[node[lane]]
            turn = bit(words, at)
            place[lane] = one if turn else place[lane] - one
            node[lane] = children[node[lane], turn]
            if node[lane] < 0:
                place[lane] += smaller[-1 - node[lane]]
                call_in(marks, place[lane])
                call_in(words, starts[root] + place[lane])
            else:
                call_in(words, starts[node[lane]] + place[lane])


@compiled
def extract(
    words: np.ndarray, starts: np.ndarray, before: np.ndarray, children: np.ndarray, smaller: np.ndarray, row: int,
    skip: int, numbers: np.ndarray,
) -> None:  # fmt: skip
    """The numbers before a suffix, the last `skip` of them left out, in the text's order."""
    for _ in range(skip):
        row = back(words, starts, before, children, smaller, row)[1]
    for place in range(len(numbers) - 1, -1, -1):
        numbers[place], row = back(words, starts, before, children, smaller, row)


@compiled
def before_ranges(
    words: np.ndarray, starts: np.ndarray, before: np.ndarray, children: np.ndarray, low: np.ndarray,
    high: np.ndarray, offsets: np.ndarray, room: int,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """The distinct numbers before each range of suffixes and how often each stands there, range after range."""
    numbers, counts = np.empty(room, np.int64), np.empty(room, np.int64)
    stack = np.empty((66, 3), np.int64)
    size = 0
    for row in range(len(low)):
        offsets[row] = size
        if low[row] >= high[row]:
            continue
        stack[0, 0], stack[0, 1], stack[0, 2] = len(children) - 1, low[row], high[row]
        top = 1
        while top:
            top -= 1
            node, first, last = stack[top, 0], stack[top, 1], stack[top, 2]
            if node < 0:
                if size == len(numbers):
                    more = np.empty(size, np.int64)
                    numbers, counts = np.concatenate((numbers, more)), np.concatenate((counts, more))
                numbers[size], counts[size] = -1 - node, last - first
                size += 1
                continue
            left = ones(words, starts[node] + first) - before[node]
            right = ones(words, starts[node] + last) - before[node]
            if right > left:
                stack[top, 0], stack[top, 1], stack[top, 2] = children[node, 1], left, right
                top += 1
            if last - right > first - left:
                stack[top, 0], stack[top, 1], stack[top, 2] = children[node, 0], first - left, last - right
                top += 1
    offsets[len(low)] = size
    return numbers[:size], counts[:size]
