"""Retrievers and rerankers with one fault each."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from typing import Any

from broken import fails
from good import GoodReranker, GoodRetriever

from pickaxe import Hit, Progress, Ranked, Ranking, SearchResults, hookimpl
from pickaxe.errors import InvalidItems


class Adrift(GoodRetriever):
    """Keeps the path of its index in the index."""

    @hookimpl
    def index(self, documents: Any, out: Any) -> Iterator[Progress]:
        yield from super().index(documents, out)
        self.where(out)

    def where(self, out: Any) -> None:
        """What a faulty index holds besides."""

    def hits(self, found: SearchResults, change: Callable[[tuple[Hit, ...]], tuple[Hit, ...]]) -> SearchResults:
        return SearchResults(tuple(change(hits) for hits in found))


@fails("retriever.index_moves")
class FixedIndex(Adrift):
    """Looks for its index where it was made."""

    def where(self, out: Any) -> None:
        out.write_json("where.json", str(out.path).removesuffix(".partial"))

    @hookimpl
    def search(self, queries: Any, k: int, call: Any) -> SearchResults:
        open(self.artifact.read_json("where.json") + "/texts.json").close()
        return super().search(queries, k, call)


@fails("retriever.index_again", "retriever.index_progress", "retriever.index_moves")
class CountingIndex(Adrift):
    """Gives every new index another bonus."""

    made = count()

    def where(self, out: Any) -> None:
        out.write_json("bonus.json", next(self.made))

    @hookimpl
    def search(self, queries: Any, k: int, call: Any) -> SearchResults:
        bonus = self.artifact.read_json("bonus.json")
        found = super().search(queries, k, call)
        return self.hits(found, lambda hits: tuple(replace(hit, score=hit.score + bonus) for hit in hits))


@fails("retriever.index_progress")
class TwoPasses(GoodRetriever):
    """Reads documents twice although they may come only once."""

    @hookimpl
    def index(self, documents: Any, out: Any) -> Iterator[Progress]:
        for row, _ in enumerate(documents):
            yield Progress("look", row + 1)
        yield from super().index(documents, out)


@fails("retriever.index_cancel")
class EarlyIndex(GoodRetriever):
    """Puts something where the index will be."""

    @hookimpl
    def index(self, documents: Any, out: Any) -> Iterator[Progress]:
        target = out.path.with_name(out.path.name.removesuffix(".partial"))
        target.mkdir()
        yield Progress("index")
        target.rmdir()
        yield from super().index(documents, out)


@fails("retriever.large_k")
class NeedsMany(GoodRetriever):
    """Cannot find more documents than there are."""

    @hookimpl
    def search(self, queries: Any, k: int, call: Any) -> SearchResults:
        if k > 4:
            raise ValueError("k is larger than the collection")
        return super().search(queries, k, call)


EVERY_SEARCH = ("anyrole.repeatable", "anyrole.threads", "anyrole.input_kept", "anyrole.cancel",
                "retriever.index_moves", "retriever.index_again", "retriever.index_progress",
                "retriever.falling_scores", "retriever.known_ids", "retriever.queries_apart",
                "retriever.fit_index_search", "retriever.large_k",
                "retriever.odd_documents")  # fmt: skip
"""Whatever asks for hits: the handle itself refuses results that cannot be used."""


@fails("retriever.falling_scores", *EVERY_SEARCH)
class Rising(Adrift):
    """Returns the worst hit first."""

    @hookimpl
    def search(self, queries: Any, k: int, call: Any) -> SearchResults:
        found = super().search(queries, k, call)
        return self.hits(found, lambda hits: tuple(reversed((*hits, Hit("d9", -1.0)))))


@fails("retriever.known_ids")
class Inventing(Adrift):
    """Finds a document that nobody indexed."""

    @hookimpl
    def search(self, queries: Any, k: int, call: Any) -> SearchResults:
        found = super().search(queries, k, call)
        return self.hits(found, lambda hits: tuple(replace(hit, id=hit.id.replace("d1", "x1")) for hit in hits))


@fails("retriever.no_queries")
class NeedsQueries(GoodRetriever):
    """Fails without a query."""

    @hookimpl
    def search(self, queries: Any, k: int, call: Any) -> SearchResults:
        max(len(query.text) for query in queries)
        return super().search(queries, k, call)


@fails("retriever.queries_apart", "retriever.large_k")
class FirstQueryRules(Adrift):
    """Drops hits of later queries that an earlier one had."""

    @hookimpl
    def search(self, queries: Any, k: int, call: Any) -> SearchResults:
        seen: set[str] = set()
        results = []
        for hits in super().search(queries, k, call):
            results.append(tuple(hit for hit in hits if hit.id not in seen))
            seen.update(hit.id for hit in hits)
        return SearchResults(tuple(results))


@fails("retriever.odd_text")
class NeedsQueryText(GoodRetriever):
    """Fails on an empty query."""

    @hookimpl
    def search(self, queries: Any, k: int, call: Any) -> SearchResults:
        for query in queries:
            assert query.text, "empty"
        return super().search(queries, k, call)


@fails("retriever.odd_documents")
class NeedsDocumentText(GoodRetriever):
    """Fails on an empty document."""

    @hookimpl
    def index(self, documents: Any, out: Any) -> Iterator[Progress]:
        documents = list(documents)
        if not all(document.text for document in documents):
            raise InvalidItems("documents", "one is empty")
        yield from super().index(documents, out)


@fails("retriever.fit_index_search")
class LeavesFitBehind(Adrift):
    """Goes back to the fitted artifact when it searches."""

    def where(self, out: Any) -> None:
        out.write_json("fit.json", str(self.artifact.path) if self.artifact else "")

    @hookimpl
    def search(self, queries: Any, k: int, call: Any) -> SearchResults:
        if path := self.artifact.read_json("fit.json"):
            open(f"{path}/stop.json").close()
        return super().search(queries, k, call)


# ---------------------------------------------------------------- rerankers


@fails("reranker.subset")
class ScoreLess(GoodReranker):
    """Ranks candidates without a score."""

    @hookimpl
    def rerank(self, candidates: Any, top_n: int, call: Any) -> Ranking:
        found = super().rerank(candidates, top_n, call)
        last = replace(found.ranked[-1], score=float("nan")) if len(found) > 3 else found.ranked[-1]
        return replace(found, ranked=(*found.ranked[:-1], last))


@fails("reranker.top_n")
class AllOrNothing(GoodReranker):
    """Returns all candidates however few are asked for."""

    @hookimpl
    def rerank(self, candidates: Any, top_n: int, call: Any) -> Ranking:
        return super().rerank(candidates, len(candidates), call)


@fails("reranker.order")
class AsTheyCome(GoodReranker):
    """Leaves candidates in the order in which they come."""

    @hookimpl
    def rerank(self, candidates: Any, top_n: int, call: Any) -> Ranking:
        n = len(candidates)
        return Ranking(tuple(Ranked(row, candidates[row].id, float(n - row)) for row in range(top_n)))


@fails("reranker.one_candidate")
class NeedsTwo(GoodReranker):
    """Fails on a single candidate."""

    @hookimpl
    def rerank(self, candidates: Any, top_n: int, call: Any) -> Ranking:
        assert candidates[1]
        return super().rerank(candidates, top_n, call)


@fails("reranker.odd_text")
class AsciiReranker(GoodReranker):
    """Cannot encode most texts."""

    @hookimpl
    def rerank(self, candidates: Any, top_n: int, call: Any) -> Ranking:
        for text in candidates.texts():
            text.encode("ascii")
        return super().rerank(candidates, top_n, call)
