"""Where a text is cut, given how well each sentence goes on from the one before (arXiv:2503.01713)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pickaxe_plugins.retrieval.sage_segment._sentences import Breaks, Span, paragraphs, sentences


@dataclass(frozen=True)
class Cutting:
    """What decides beside the scores."""

    ss: float = 0.55
    coarse_tokens: int = 400
    min_chars: int = 0
    max_tokens: int = 0


@dataclass(frozen=True)
class Chunk:
    """Sentences [first, last) of a text, and how well the text goes on after them; 0 at its end."""

    first: int
    last: int
    goes_on: float


def split(text: str, breaks: Breaks) -> tuple[list[Span], list[int]]:
    """Sentences of all paragraphs, and the numbers of those that begin a paragraph."""
    found: list[Span] = []
    begins: list[int] = []
    for start, end in paragraphs(text, breaks):
        begins.append(len(found))
        found += sentences(text, start, end)
    return found, begins


def chunks(
    scores: np.ndarray, begins: Sequence[int], tokens: Sequence[int], characters: Sequence[int], cutting: Cutting
) -> list[Chunk]:
    """Runs of sentences, in order; together they are all sentences.

    `scores` (n - 1,) of each sentence with the next; `tokens`, `characters` (n,) of each sentence.  A score below
    `ss` cuts; so do paragraphs, and a run of a paragraph's sentences that would grow beyond `coarse_tokens`.
    """
    count = len(tokens)
    if not count:
        return []
    coarse = _coarse(begins, tokens, cutting.coarse_tokens)
    places = sorted({0, count, *coarse, *(np.flatnonzero(scores < cutting.ss) + 1).tolist()})
    runs = list(pairwise(places))
    sums = np.concatenate([[0], np.cumsum(tokens)])
    if cutting.max_tokens:
        runs = [part for run in runs for part in _cut(run, scores, sums, cutting.max_tokens)]
    if cutting.min_chars:
        most = cutting.max_tokens or cutting.coarse_tokens
        runs = _joined(runs, scores, sums, np.concatenate([[0], np.cumsum(characters)]), cutting.min_chars, most)
    return [Chunk(first, last, float(scores[last - 1]) if last < count else 0.0) for first, last in runs]


def _coarse(begins: Sequence[int], tokens: Sequence[int], most: int) -> list[int]:
    """Sentences that begin a coarse piece: a paragraph, or what is left of a long one."""
    starts, held, new = [], 0, set(begins)
    for number, size in enumerate(tokens):
        if number in new or (held and held + size > most):
            starts.append(number)
            held = 0
        held += size
    return starts


def _cut(run: Span, scores: np.ndarray, sums: np.ndarray, most: int) -> list[Span]:
    """The run, cut at its lowest score until no part has more tokens; a sentence alone may have."""
    done, left = [], [run]
    while left:
        first, last = left.pop()
        if last - first == 1 or sums[last] - sums[first] <= most:
            done.append((first, last))
            continue
        place = first + 1 + int(np.argmin(scores[first : last - 1]))
        left += [(place, last), (first, place)]
    return done


def _joined(
    runs: list[Span], scores: np.ndarray, sums: np.ndarray, lengths: np.ndarray, least: int, most: int
) -> list[Span]:
    """Runs of fewer than `least` characters put to the neighbour that they go with better, from left to right.

    Not where the two together would have more than `most` tokens.
    """

    def score(place: int, one: Span, two: Span) -> float:
        return float(scores[place - 1]) if sums[two[1]] - sums[one[0]] <= most else -1.0

    done: list[Span] = []
    waiting = runs[::-1]
    while waiting:
        run = waiting.pop()
        if lengths[run[1]] - lengths[run[0]] < least:
            before = score(run[0], done[-1], run) if done else -1.0
            after = score(run[1], run, waiting[-1]) if waiting else -1.0
            if after >= 0 and after > before:
                waiting.append((run[0], waiting.pop()[1]))
                continue
            if before >= 0:
                run = (done.pop()[0], run[1])
        done.append(run)
    return done
