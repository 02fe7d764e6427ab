"""Black boxes for tests of methods that count model calls: rerankers that look scores up or compute simple ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from pickaxe import Call, InputField, Item, Items, Method, Params, Ranked, Ranking, catalog, hookimpl

Score = Callable[[Item, Item], float]


class Box:
    """What a registered reranker answers, and how often it was asked."""

    def __init__(self, score: Score) -> None:
        self.score = score
        self.pairs: list[tuple[str, str]] = []

    def calls(self) -> int:
        """Pairs scored since the last look."""
        count = len(self.pairs)
        self.pairs.clear()
        return count


def of_table(table: np.ndarray) -> Score:
    """f(query, document) from a matrix; texts of queries, and ids of documents, are numbers of row and column."""
    return lambda query, document: float(table[int(query.text or "0"), int(document.id)])


@contextmanager
def registered(name: str, score: Score, version: int = 1) -> Iterator[Box]:
    """A reranker of that name for as long as the block runs."""
    box = Box(score)

    class Reranker(Method[Params]):
        """A black box."""

        reads = (InputField("text", "text", "Text."), InputField("tag", "text", "A tag.", required=False))

        @hookimpl
        def rerank(self, query: Item, candidates: Items, top_n: int, call: Call) -> Ranking:
            box.pairs.extend((query.id, item.id) for item in candidates)
            scores = [box.score(query, item) for item in candidates]
            order = sorted(range(len(scores)), key=lambda row: -scores[row])
            return Ranking(tuple(Ranked(row, candidates[row].id, scores[row]) for row in order[:top_n]))

    Reranker.version = version
    with catalog.register(Reranker, name, "reranker"):
        yield box
