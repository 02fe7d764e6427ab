"""The loop of sparse search, compiled.  Imported where it is used: this module needs numba."""

from __future__ import annotations

import numpy as np

from pickaxe.extras import loop_compiler

compiled = loop_compiler("retrieval")

FEW = 64
"""Up to so many hits are kept in order; more of them in a heap."""


@compiled
def _sink(scores: np.ndarray, rows: np.ndarray, place: int, size: int) -> None:
    """Restore the heap below `place`: the worst entry on top, which of equal scores is the highest row."""
    while True:
        child = 2 * place + 1
        if child >= size:
            return
        other = child + 1
        if other < size and (
            scores[other] < scores[child] or (scores[other] == scores[child] and rows[other] > rows[child])
        ):
            child = other
        if scores[child] > scores[place] or (scores[child] == scores[place] and rows[child] < rows[place]):
            return
        scores[child], scores[place] = scores[place], scores[child]
        rows[child], rows[place] = rows[place], rows[child]
        place = child


@compiled
def _best_few(sums: np.ndarray, scores: np.ndarray, rows: np.ndarray) -> int:
    """The same as `_best`, kept in order all the time: quicker while there are few."""
    most, size, floor = len(scores), 0, np.float32(0)
    for row in range(len(sums)):
        score = sums[row]
        if score <= floor:
            continue
        place = size if size < most else most - 1
        while place > 0 and scores[place - 1] < score:
            scores[place], rows[place] = scores[place - 1], rows[place - 1]
            place -= 1
        scores[place], rows[place] = score, row
        size = min(size + 1, most)
        if size == most:
            floor = scores[most - 1]
    return size


@compiled
def _best(sums: np.ndarray, scores: np.ndarray, rows: np.ndarray) -> int:
    """Put the best positive sums and their rows into `scores` and `rows`, best first; return how many there are."""
    most, size, floor = len(scores), 0, np.float32(0)
    for row in range(len(sums)):
        if sums[row] <= floor:
            continue
        if size < most:
            scores[size], rows[size] = sums[row], row
            size += 1
            if size == most:
                for place in range(most // 2 - 1, -1, -1):
                    _sink(scores, rows, place, most)
                floor = scores[0]
        else:
            scores[0], rows[0] = sums[row], row
            _sink(scores, rows, 0, most)
            floor = scores[0]
    if size < most:
        for place in range(size // 2 - 1, -1, -1):
            _sink(scores, rows, place, size)
    for last in range(size - 1, 0, -1):
        scores[0], scores[last] = scores[last], scores[0]
        rows[0], rows[last] = rows[last], rows[0]
        _sink(scores, rows, 0, last)
    return size


@compiled
def search(
    pointers: np.ndarray,
    terms: np.ndarray,
    weights: np.ndarray,
    data: np.ndarray,
    indices: np.ndarray,
    indptr: np.ndarray,
    sums: np.ndarray,
    scores: np.ndarray,
    rows: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Queries [pointers[i], pointers[i + 1]) of `terms` and `weights`; `sums` (n,) is room to work in."""
    for query in range(len(pointers) - 1):
        sums[:] = 0
        for entry in range(pointers[query], pointers[query + 1]):
            weight = weights[entry]
            for place in range(indptr[terms[entry]], indptr[terms[entry] + 1]):
                sums[indices[place]] += weight * data[place]
        if rows.shape[1] <= FEW:
            counts[query] = _best_few(sums, scores[query], rows[query])
        else:
            counts[query] = _best(sums, scores[query], rows[query])
