"""Retrievers: build an index, open it, search it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import TypeVar

from pickaxe.call import Call
from pickaxe.data import Hit, Progress, SearchResults
from pickaxe.errors import InvalidParams
from pickaxe.handle.base import Checked, ItemLike, MethodHandle, OnProgress

R = TypeVar("R", bound="RetrieverHandle")


class RetrieverHandle(MethodHandle):
    """A retriever: `index` documents once, `search` the index as often as you like."""

    def index(
        self: R,
        documents: Iterable[ItemLike],
        *,
        out: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        timeout: float | None = None,
        seed: int = 0,
        call: Call | None = None,
        progress: OnProgress | None = None,
    ) -> R:
        """Index the documents (ids unique) and return the handle that searches them.

        A fitted artifact that this handle holds goes into the index.  Without `out` the index is temporary.
        """
        call = call or Call(timeout=timeout, seed=seed)
        return self._made(lambda path: self.indexing(documents, path, overwrite=overwrite, call=call), out, progress)

    def indexing(
        self,
        documents: Iterable[ItemLike],
        out: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        call: Call | None = None,
    ) -> Iterator[Progress]:
        """`index` as a generator of progress."""
        self.opened.require("index")
        self._ready("fit", required=False)
        checked = Checked(documents, self.opened.method.reads, "documents", unique=True)
        yield from self._making(
            "index", "index", out, {"documents": checked, "base": None, "remove": frozenset()}, overwrite, call
        )

    def search(
        self,
        queries: Iterable[ItemLike],
        k: int = 10,
        *,
        budget: int | None = None,
        timeout: float | None = None,
        seed: int = 0,
        call: Call | None = None,
    ) -> SearchResults:
        """At most `k` hits per query, best first.  `budget` bounds the model calls of methods that make some."""
        if k < 1:
            raise InvalidParams("k", f"must be at least 1 (got {k})")
        checked = self.check_items(queries, "queries")
        self._ready("index", required=True)
        call = call or Call(timeout=timeout, seed=seed, budget=budget)
        call.check()
        result = self.opened.call("search", queries=checked, k=k, call=call)
        call.check()
        with self.opened.guard():
            self._check(result, len(checked), k)
        return result

    def _check(self, result: object, n: int, k: int) -> None:
        if not isinstance(result, SearchResults) or len(result.results) != n:
            raise self.opened.nonsense(f"search returned {type(result).__name__}, wanted SearchResults of {n} queries")
        for row, hits in enumerate(result.results):
            ids = [hit.id for hit in hits]
            scores = [hit.score for hit in hits]
            if len(hits) > k or len(set(ids)) < len(ids) or not all(isinstance(hit, Hit) for hit in hits):
                raise self.opened.nonsense(f"results[{row}] has more than {k} hits or an id twice")
            if any(map(math.isnan, scores)) or any(a < b for a, b in pairwise(scores)):
                raise self.opened.nonsense(f"results[{row}] is not in order of falling scores")
