"""The loops of SEAL's full score, compiled.  Imported where they are used: this module needs numba."""

from __future__ import annotations

import numpy as np

from pickaxe.extras import loop_compiler

compiled = loop_compiler("retrieval")


@compiled
def step(node: int, token: int, edges: np.ndarray, offsets: np.ndarray, targets: np.ndarray) -> int:
    """The child of a trie's node behind a token, or -1: edges of a node are sorted."""
    low, high = offsets[node], offsets[node + 1]
    while low < high:
        middle = (low + high) // 2
        if edges[middle] < token:
            low = middle + 1
        else:
            high = middle
    if low < offsets[node + 1] and edges[low] == token:
        return targets[low]
    return -1


@compiled
def matches(
    tokens: np.ndarray, roots: np.ndarray, edges: np.ndarray, offsets: np.ndarray, targets: np.ndarray,
    ends: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """All occurrences of keys, as key * length + place, sorted.

    `roots` holds the node behind each first token, or -1; `ends` the key that ends at a node, or -1.
    """
    size = len(tokens)
    found = np.empty(64, np.int64)
    count = 0
    for place in range(size):
        node, at = roots[tokens[place]], place
        while node >= 0:
            at += 1
            if ends[node] >= 0:
                if count == len(found):
                    found = np.concatenate((found, np.empty(count, np.int64)))
                found[count] = ends[node] * size + place
                count += 1
            if at == size:
                break
            node = step(node, tokens[at], edges, offsets, targets)
    return np.sort(found[:count])


@compiled
def greedy(
    found: np.ndarray, size: int, weights: np.ndarray, lengths: np.ndarray, types: np.ndarray, spread: np.ndarray,
    beta: float, overlaps: bool, mark: int, seen: np.ndarray, free: np.ndarray, gains: np.ndarray, tells: bool,
) -> tuple[float, float]:  # fmt: skip
    """Take occurrences key by key; (sum of what keys add, the best key's weight).

    `types[spread[k] : spread[k + 1]]` are the distinct tokens of key k; `seen[t] == mark` once token t belongs to a key
    that was taken.  With `tells`, gains[i] becomes what occurrence i added, NaN where it took nothing.
    """
    total, best = 0.0, 0.0
    last, factor, added = -1, 0.0, False
    for item in range(len(found)):
        key, place = found[item] // size, found[item] % size
        if tells:
            gains[item] = np.nan
        if key != last:
            last, added = key, False
            new = 0
            for at in range(spread[key], spread[key + 1]):
                new += seen[types[at]] != mark
            factor = 1 - beta + beta * new / (spread[key + 1] - spread[key])
        if weights[key] * factor <= 0:
            continue
        whole = True
        if not overlaps:
            for at in range(place, place + lengths[key]):
                whole = whole and free[at]
        if not whole:
            continue
        for at in range(place, place + lengths[key]):
            free[at] = False
        if tells:
            gains[item] = 0.0
        if not added:
            added = True
            total += weights[key] * factor
            best = max(best, weights[key])
            if tells:
                gains[item] = weights[key] * factor
            for at in range(spread[key], spread[key + 1]):
                seen[types[at]] = mark
    return total, best


@compiled
def score_all(
    tokens: np.ndarray, starts: np.ndarray, documents: np.ndarray, end: int, roots: np.ndarray, edges: np.ndarray,
    offsets: np.ndarray, targets: np.ndarray, ends: np.ndarray, weights: np.ndarray, lengths: np.ndarray,
    types: np.ndarray, spread: np.ndarray, unigrams: np.ndarray, beta: float, overlaps: bool, single: float,
    scores: np.ndarray,
) -> None:  # fmt: skip
    """The full score of each document; 0 where no key occurs."""
    seen, used = np.full(len(unigrams), -1, np.int64), np.full(len(unigrams), -1, np.int64)
    none = np.empty(0)
    for item in range(len(documents)):
        body = read(tokens, starts, documents[item], end)
        size = len(body)
        found = matches(body, roots, edges, offsets, targets, ends)
        free = np.ones(size, np.bool_)
        total, best = greedy(
            found, size, weights, lengths, types, spread, beta, overlaps, item, seen, free, none, False
        )  # fmt: skip
        if best > 0:
            for place in range(size):
                token = body[place]
                if free[place] and used[token] != item:
                    used[token] = item
                    total += unigrams[token] * (1 - beta * (seen[token] == item))
        scores[item] = (1 - single) * total + single * best


@compiled
def read(tokens: np.ndarray, starts: np.ndarray, document: int, end: int) -> np.ndarray:
    """The end token, then the document without its own."""
    first, last = starts[document], starts[document + 1]
    body = np.empty(max(last - first, 1), np.int64)
    body[0] = end
    for place in range(1, len(body)):
        body[place] = tokens[first + place - 1]
    return body


@compiled
def first_stage(
    found: np.ndarray, bounds: np.ndarray, size: int, weights: np.ndarray, lengths: np.ndarray, types: np.ndarray,
    spread: np.ndarray, vocabulary: int, beta: float, overlaps: bool, scores: np.ndarray,
) -> None:  # fmt: skip
    """The sum of rare keys of each document, from occurrences found[bounds[i] : bounds[i + 1]] of documents in turn."""
    seen = np.full(vocabulary, -1, np.int64)
    free = np.ones(size, np.bool_)
    none = np.empty(0)
    for item in range(len(scores)):
        mine = found[bounds[item] : bounds[item + 1]]
        free[:] = True
        scores[item] = greedy(
            mine, size, weights, lengths, types, spread, beta, overlaps, item, seen, free, none, False
        )[0]  # fmt: skip
