"""How Languini reads books and counts: queues of books, rows of workers, sliding windows, learning rate, steps."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

Rounding = Literal["round", "floor"]
END, PAD = 2, 0
"""Token between books, and token after the last one."""


def distribute(lengths: Sequence[int], queues: int) -> list[list[int]]:
    """Books by their place, for each queue: every book goes to the queue with the fewest tokens, the first on ties."""
    shortest = [(0, queue) for queue in range(queues)]
    found: list[list[int]] = [[] for _ in range(queues)]
    for book, length in enumerate(lengths):
        total, queue = shortest[0]
        heapq.heapreplace(shortest, (total + int(length), queue))
        found[queue].append(book)
    return found


def stream(books: Sequence[np.ndarray], end: int = END) -> np.ndarray:
    """The books of a queue as one row of tokens, an end token behind each, (n,) int32."""
    return np.concatenate([part for book in books for part in (book, [end])]).astype(np.int32)


def worker_rows(batch: int, workers: int, worker: int, accumulation: int = 1) -> list[np.ndarray]:
    """Rows of the batch that a worker takes: those i with i mod workers = worker, in `accumulation` parts."""
    return list(np.array_split(np.arange(worker, batch, workers), accumulation))


def windows(tokens: int, seq_len: int, last_n: int) -> np.ndarray:
    """Starts of the full windows over a stream of so many tokens, (w,).

    A window at s reads tokens s .. s + seq_len - 1 and its targets are one further; the last `last_n` of them are
    scored.  `last_n` = seq_len scores every target but leaves the first ones of each window little context.
    """
    if not 1 <= last_n <= seq_len or seq_len % last_n:
        raise ValueError(f"last_n must divide seq_len={seq_len} (got {last_n})")
    return np.arange(0, max(tokens - seq_len, 0), last_n)


def scored_targets(tokens: int, seq_len: int, last_n: int) -> np.ndarray:
    """Positions in the stream of the scored targets of each window, (w, last_n)."""
    starts = windows(tokens, seq_len, last_n)
    places: np.ndarray = starts[:, None] + np.arange(seq_len - last_n + 1, seq_len + 1)
    return places


def learning_rate(
    step: np.ndarray, max_steps: int, highest: float = 6e-4, lowest: float = 6e-6, warmup: int = 200
) -> np.ndarray:
    """The rate at a step, counted from 1: the warm-up multiplies a cosine that ends at `max_steps` and stays there."""
    step = np.asarray(step, np.float64)
    cosine = lowest + (1 + np.cos(math.pi * np.minimum(step, max_steps) / max_steps)) / 2 * (highest - lowest)
    rate: np.ndarray = np.minimum(step, warmup) / warmup * cosine if warmup else cosine
    return rate


def steps_for(tokens_per_second: int, hours: float, batch: int, seq_len: int, rounding: Rounding) -> tuple[int, int]:
    """(tokens, steps) that a throughput makes of some accelerator hours."""
    tokens = tokens_per_second * 3600 * hours
    steps = tokens / batch / seq_len
    return round(tokens), math.floor(steps) if rounding == "floor" else round(steps)
