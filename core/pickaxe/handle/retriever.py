"""Retrievers: build an index, open it, search it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import TypeVar

from pickaxe.artifact import Artifact
from pickaxe.call import Call
from pickaxe.data import Hit, HitTable, Progress, SearchResults
from pickaxe.errors import InvalidParams, Unmet
from pickaxe.handle.base import Checked, ItemLike, MethodHandle, OnProgress
from pickaxe.opened import open_method

ArtifactPath = str | os.PathLike[str] | Artifact

R = TypeVar("R", bound="RetrieverHandle")


class RetrieverHandle(MethodHandle):
    """A retriever: `index` documents once, `search` the index as often as you like."""

    def index(
        self: R,
        documents: Iterable[ItemLike],
        *,
        out: str | os.PathLike[str] | None = None,
        base: ArtifactPath | None = None,
        remove: Iterable[str] = (),
        overwrite: bool = False,
        timeout: float | None = None,
        seed: int = 0,
        call: Call | None = None,
        progress: OnProgress | None = None,
    ) -> R:
        """Index the documents (ids unique) and return the handle that searches them.

        A fitted artifact that this handle holds goes into the index.  Without `out` the index is temporary.  With
        `base`, an index, the documents are added to those of that index, less those whose ids `remove` names.
        """
        call = call or Call(timeout=timeout, seed=seed)

        def run(path: str | os.PathLike[str], durable: bool) -> Iterator[Progress]:
            return self.indexing(
                documents, path, base=base, remove=remove, overwrite=overwrite, call=call, durable=durable
            )

        return self._made(run, out, progress)

    def add(
        self: R,
        documents: Iterable[ItemLike],
        *,
        remove: Iterable[str] = (),
        out: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        timeout: float | None = None,
        seed: int = 0,
        call: Call | None = None,
        progress: OnProgress | None = None,
    ) -> R:
        """The handle of a new index: this one with more documents and without those whose ids `remove` names.

        This handle's own index stays as it is.  Raises `Unmet` for methods that do not grow.
        """
        self._ready("index", required=True)
        call = call or Call(timeout=timeout, seed=seed)
        return self._without_artifact().index(
            documents, out=out, base=self.artifact, remove=remove, overwrite=overwrite, call=call, progress=progress
        )

    def _without_artifact(self: R) -> R:
        params = self.params.model_dump(mode="json")
        method, host = type(self.opened.method), self.opened.host.parent
        return type(self)(open_method(method, self.name, self.opened.role, params, None, host))

    def indexing(
        self,
        documents: Iterable[ItemLike],
        out: str | os.PathLike[str],
        *,
        base: ArtifactPath | None = None,
        remove: Iterable[str] = (),
        overwrite: bool = False,
        call: Call | None = None,
        durable: bool = True,
    ) -> Iterator[Progress]:
        """`index` as a generator of progress; `durable` as in `fitting`."""
        self.opened.require("index")
        self._ready("fit", required=False)
        if isinstance(remove, str):
            raise InvalidParams("remove", f"is one string, wanted several ids (got {remove!r})")
        gone = frozenset(remove)
        if gone and base is None:
            raise InvalidParams("remove", "names documents, but there is no base to remove them from")
        maker, start = (self, None) if base is None else self.growing(base)
        checked = Checked(documents, self.opened.method.reads, "documents", unique=True)
        arguments = {"documents": checked, "base": start, "remove": gone}
        yield from maker._making("index", "index", out, arguments, overwrite, call, durable)

    def growing(self: R, base: ArtifactPath) -> tuple[R, Artifact]:
        """The handle that writes an index grown from `base`, with its parameters, and the opened base."""
        opened = self.opened
        if not opened.method.grows:
            raise Unmet(
                f"an index of {self.name} cannot be appended to: index all documents again",
                metadata={"method": self.name},
            )
        start = base if isinstance(base, Artifact) else Artifact.open(opened.host.artifact_path(base))
        start.check_method(self.name, opened.method.version, "index")
        given = self.params.model_dump(mode="json", include=self.params.model_fields_set)
        params = {**start.manifest["params"], **given}
        grown = open_method(type(opened.method), self.name, opened.role, params, self.artifact, opened.host.parent)
        return type(self)(grown), start

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
        if not isinstance(result, SearchResults) or len(result) != n:
            raise self.opened.nonsense(f"search returned {type(result).__name__}, wanted SearchResults of {n} queries")
        if isinstance(result, HitTable) and result.sound(k):
            return
        for row, hits in enumerate(result.results):
            ids = [hit.id for hit in hits]
            scores = [hit.score for hit in hits]
            if len(hits) > k or len(set(ids)) < len(ids) or not all(isinstance(hit, Hit) for hit in hits):
                raise self.opened.nonsense(f"results[{row}] has more than {k} hits or an id twice")
            if any(map(math.isnan, scores)) or any(a < b for a, b in pairwise(scores)):
                raise self.opened.nonsense(f"results[{row}] is not in order of falling scores")
