"""Rerankers: candidates in, the same candidates out in a better order."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pickaxe.call import Call
from pickaxe.data import Item, Items, Ranking
from pickaxe.errors import InvalidItems, InvalidParams, Violation
from pickaxe.handle.base import ItemLike, MethodHandle, as_item, violations
from pickaxe.jsonable import jsonable


class RerankerHandle(MethodHandle):
    """A reranker."""

    def rerank(
        self,
        query: ItemLike,
        candidates: Iterable[ItemLike],
        top_n: int = 0,
        *,
        timeout: float | None = None,
        seed: int = 0,
        budget: int | None = None,
        call: Call | None = None,
    ) -> Ranking:
        """The best `top_n` candidates (0: all), best first.  Candidate ids must be unique."""
        if top_n < 0:
            raise InvalidParams("top_n", f"must be 0 (all) or more (got {top_n})")
        question, items = self.check_pair(query, candidates)
        self._ready_to_answer()
        call = call or Call(timeout=timeout, seed=seed, budget=budget)
        call.check()
        wanted = min(top_n, len(items)) if top_n else len(items)
        if not items:
            return Ranking(())
        result = self.opened.call("rerank", query=question, candidates=items, top_n=wanted, call=call)
        call.check()
        with self.opened.guard():
            return self._checked(result, items, wanted)

    def _ready_to_answer(self) -> None:
        """A method that retrieves as well may rerank by its index, in place of what `fit` made."""
        if self.artifact is not None and self.artifact.kind == "index" and self.opened.relay.implements("index"):
            self._ready("index", required=True)
        else:
            super()._ready_to_answer()

    def check_pair(self, query: ItemLike, candidates: Iterable[ItemLike]) -> tuple[Item, Items]:
        """Query and candidates once all declared fields are there and ids are unique."""
        question = as_item(query, "query")
        items = self.check_items(candidates, "candidates")
        found = list(violations(question, self.opened.method.reads, "query"))
        seen: set[str] = set()
        for row, item in enumerate(items):
            if item.id in seen:
                found.append(Violation(f"candidates[{row}].id", f"{item.id!r} was used before"))
            seen.add(item.id)
        if found:
            raise InvalidItems(found)
        return question, items

    def _checked(self, result: object, items: Items, wanted: int) -> Ranking:
        if not isinstance(result, Ranking):
            raise self.opened.nonsense(f"rerank returned {type(result).__name__}, wanted Ranking")
        rows = [entry.index for entry in result.ranked]
        if len(rows) > wanted or len(set(rows)) < len(rows) or not all(0 <= row < len(items) for row in rows):
            raise self.opened.nonsense(f"the ranking {rows} is no selection of {len(items)} candidates")
        if any(items[entry.index].id != entry.id for entry in result.ranked):
            raise self.opened.nonsense("ranked ids are not those of the candidates")
        if len(rows) < wanted and not result.cut:
            raise self.opened.nonsense(f"{len(rows)} of {wanted} candidates came back and `cut` does not say why")
        scores = np.asarray(result.scores, np.float32)
        if scores.shape != (len(items),):
            scores = np.full(len(items), np.nan, np.float32)
            scores[rows] = [entry.score for entry in result.ranked]
        return Ranking(
            result.ranked,
            scores,
            result.cut,
            dict(result.usage),
            jsonable(dict(result.record)),
            result.timings,
        )
