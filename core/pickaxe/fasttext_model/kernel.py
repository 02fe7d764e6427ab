"""The loop of fastText's prediction, compiled.  Imported where it is used: this module needs numba."""

from __future__ import annotations

import numpy as np

from pickaxe.extras import loop_compiler

compiled = loop_compiler("fasttext")

OFFSET, PRIME, NGRAM = np.uint32(2166136261), np.uint32(16777619), np.uint64(116049371)
END = np.frombuffer(b"</s>", np.uint8)
LABEL = np.frombuffer(b"__label__", np.uint8)


@compiled
def hashed(text: np.ndarray, start: int, end: int) -> np.uint32:
    """FNV-1a over bytes that are taken as signed, as fastText has it."""
    value = OFFSET
    for place in range(start, end):
        value = np.uint32((value ^ np.uint32(np.int8(text[place]))) * PRIME)
    return value


@compiled
def fill(table: np.ndarray, words: np.ndarray, bounds: np.ndarray) -> None:
    """Put the numbers of the words, `words[bounds[i] : bounds[i + 1]]`, into a table of a power of two places."""
    for number in range(len(bounds) - 1):
        place = hashed(words, bounds[number], bounds[number + 1]) & (len(table) - 1)
        while table[place] >= 0:
            place = (place + 1) & (len(table) - 1)
        table[place] = number


@compiled
def _same(one: np.ndarray, start: int, other: np.ndarray, begin: int, size: int) -> bool:
    place = 0
    while place < size and one[start + place] == other[begin + place]:
        place += 1
    return place == size


@compiled
def _find(
    text: np.ndarray, start: int, end: int, value: np.uint32, table: np.ndarray, words: np.ndarray, bounds: np.ndarray
) -> int:
    place = value & (len(table) - 1)
    while table[place] >= 0:
        number = table[place]
        begin = bounds[number]
        if bounds[number + 1] - begin == end - start and _same(text, start, words, begin, end - start):
            return number
        place = (place + 1) & (len(table) - 1)
    return -1


@compiled
def _is_blank(byte: int) -> bool:
    return byte == 32 or 9 <= byte <= 13 or byte == 0


@compiled
def _add(total: np.ndarray, row: np.ndarray) -> None:
    for column in range(len(total)):
        total[column] += row[column]


@compiled
def score(
    text: np.ndarray, places: np.ndarray, first: int, last: int, table: np.ndarray, words: np.ndarray,
    bounds: np.ndarray, count: int, matrix: np.ndarray, ngrams: int, buckets: int, outputs: np.ndarray,
    logits: np.ndarray, parts: np.ndarray,
) -> None:  # fmt: skip
    """Logits of texts `first` to `last`: of the mean of the vectors of words and word n-grams, `parts` of them.

    Text i is `text[places[i] : places[i + 1]]`; of the vocabulary's entries the first `count` are words, the others
    labels.  After the last word comes the end of the line, which is a word.
    """
    total = np.empty(matrix.shape[1], np.float32)
    for row in range(first, last):
        recent = np.empty(places[row + 1] - places[row] + 1, np.int32)
        seen = 0
        total[:] = 0
        place, stop = places[row], places[row + 1]
        while place <= stop:
            while place < stop and _is_blank(text[place]):
                place += 1
            start = place
            while place < stop and not _is_blank(text[place]):
                place += 1
            if place > start:
                value = hashed(text, start, place)
                number = _find(text, start, place, value, table, words, bounds)
                label = place - start >= len(LABEL) and _same(text, start, LABEL, 0, len(LABEL))
                ending = place - start == len(END) and _same(text, start, END, 0, len(END))
            else:
                value = hashed(END, 0, len(END))
                number = _find(END, 0, len(END), value, table, words, bounds)
                label, ending = False, True
            if number >= 0:
                label = number >= count
            if not label:
                if number >= 0:
                    _add(total, matrix[number])
                    parts[row] += 1
                recent[seen] = np.int32(value)
                seen += 1
            if ending:
                break
        for begin in range(seen):
            mixed = np.uint64(np.int64(recent[begin]))
            for end in range(begin + 1, min(seen, begin + ngrams)):
                mixed = mixed * NGRAM + np.uint64(np.int64(recent[end]))
                _add(total, matrix[count + np.int64(mixed % np.uint64(buckets))])
                parts[row] += 1
        for label in range(len(outputs)):
            product = np.float32(0)
            for column in range(len(total)):
                product += total[column] * outputs[label, column]
            logits[row, label] = product / np.float32(max(parts[row], 1))
