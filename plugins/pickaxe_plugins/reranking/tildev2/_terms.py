"""What counts as a term: stop ids, the terms of a query, and one weight per passage and term."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

_ENGLISH = """
    i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers herself
    it its itself they them their theirs themselves what which who whom this that these those am is are was were be
    been being have has had having do does did doing a an the and but if or because as until while of at by for with
    about against between into through during before after above below to from up down in out on off over under again
    further then once here there when where why how all any both each few more most other some such no nor not only
    own same so than too very s t can will just don should now d ll m o re ve y ain aren couldn didn doesn hadn hasn
    haven isn ma mightn mustn needn shan shouldn wasn weren won wouldn
"""
STOP_WORDS = frozenset(_ENGLISH.split())
"""NLTK's English list without its contractions, which no vocabulary holds as single tokens."""
QUESTION_WORDS = frozenset(("where", "how", "what", "when", "which", "why", "who"))
"""Stop words that stay in queries and in the index."""
_PLAIN = re.compile(r"[A-Za-z0-9_-]*")


def stop_ids(vocabulary: Mapping[str, int], words: Collection[str] = STOP_WORDS - QUESTION_WORDS) -> np.ndarray:
    """Ids that are no terms, rising: of `words`, of "##s", and of whole tokens outside of [A-Za-z0-9_-]*.

    Pieces, which begin with ##, are no whole tokens.
    """
    found = [
        index
        for token, index in vocabulary.items()
        if token in words
        or token == "##s"
        or ((not token.startswith("#") or token == "#") and not _PLAIN.fullmatch(token))
    ]
    return np.array(sorted(found), np.int64)


def unlikely_ids(vocabulary: Mapping[str, int]) -> np.ndarray:
    """Ids that a passage is never expanded with: stop ids, question words and "definition"."""
    return stop_ids(vocabulary, STOP_WORDS | {"definition"})


def mask(ids: np.ndarray, size: int) -> np.ndarray:
    """(size,) bool, true at the ids."""
    found = np.zeros(size, bool)
    found[ids] = True
    return found


def query_terms(ids: Sequence[int], stopped: np.ndarray) -> np.ndarray:
    """The ids of a query without special tokens that are terms, in order; one that comes again counts again."""
    given = np.array(ids, np.int64)
    return given[~stopped[given]]


class Entries(NamedTuple):
    """Weights of (row, term) pairs, each pair once, ordered by row and term; all (e,)."""

    rows: np.ndarray
    terms: np.ndarray
    weights: np.ndarray


def pooled(rows: Sequence[Sequence[int]], weights: Sequence[np.ndarray], stopped: np.ndarray) -> Entries:
    """The highest weight of every term of every row; terms of weight 0 stay.

    `rows` are ids, `weights` a number >= 0 for each; stopped ids (a mask over the vocabulary) are left out.
    """
    counts = [len(row) for row in rows]
    if not sum(counts):
        return Entries(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32))
    terms = np.concatenate([np.asarray(row, np.int64) for row in rows])
    places = np.repeat(np.arange(len(rows)), counts)
    values = np.concatenate([np.asarray(each) for each in weights])
    kept = ~stopped[terms]
    keys, values = places[kept] * len(stopped) + terms[kept], values[kept]
    order = np.argsort(keys, kind="stable")
    keys, starts = np.unique(keys[order], return_index=True)
    highest = np.maximum.reduceat(values[order], starts) if len(keys) else values
    found, ids = np.divmod(keys, len(stopped))
    return Entries(found.astype(np.int32), ids.astype(np.int32), highest)


def quantised(weights: np.ndarray, bits: int, highest: float | None = None) -> np.ndarray:
    """floor(w / highest (2^bits - 1)) as the smallest unsigned integers; `highest` is that of all weights by default.

    Weights above `highest` count as it.
    """
    most = float(weights.max(initial=0)) if highest is None else highest
    dtype = np.uint8 if bits <= 8 else np.uint16
    if most <= 0:
        return np.zeros(len(weights), dtype)
    steps = 2**bits - 1
    return np.floor(np.minimum(weights.astype(np.float64) / most, 1) * steps).astype(dtype)
