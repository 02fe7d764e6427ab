"""Retrieve, rerank, cut and decode in one call, with what every stage used in one record."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pickaxe.call import Call
from pickaxe.data import Completion, Hit, Item, Items, Prompt, Ranking, SearchResults
from pickaxe.errors import InvalidItems, InvalidParams, Unmet
from pickaxe.handle import DecoderHandle, RerankerHandle, RetrieverHandle
from pickaxe.handle.base import ItemLike, as_items
from pickaxe.index.documents import TABLE, Documents

CALLS = ("model_calls", "calls", "prompts")
"""Counters of usage that are calls of a model, in whatever stage."""

PROMPT = "{documents}\n\nQuestion: {query}\nAnswer:"


@dataclass(frozen=True)
class Answers:
    """What a pipeline with a decoder gives: documents and completions per query, and what all stages used."""

    results: SearchResults
    completions: tuple[tuple[Completion, ...], ...]
    usage: Mapping[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.completions)


class Pipeline:
    """A retriever on its index, then perhaps a reranker and a decoder.  Safe to share between threads."""

    def __init__(
        self,
        retriever: RetrieverHandle,
        reranker: RerankerHandle | None = None,
        decoder: DecoderHandle | None = None,
        *,
        depth: int = 50,
        cut: int = 10,
        documents: Iterable[Item] | None = None,
    ) -> None:
        """`depth` hits go to the reranker, its best `cut` come out.

        `documents` gives the texts of hits; without it they are read from the index, which those of this library keep.
        """
        for name, value in (("depth", depth), ("cut", cut)):
            if value < 1:
                raise InvalidParams(name, f"must be at least 1 (got {value})")
        self.retriever, self.reranker, self.decoder = retriever, reranker, decoder
        self.depth, self.cut = depth, cut
        self._given = None if documents is None else {item.id: item for item in documents}

    def search(
        self,
        queries: Iterable[ItemLike],
        k: int = 0,
        *,
        budget: int | None = None,
        timeout: float | None = None,
        seed: int = 0,
        call: Call | None = None,
    ) -> SearchResults:
        """The best `k` (0: `cut`) documents of each query, best first.

        After a reranker its order decides: a hit's score is 1 / place, and its columns hold `search` and `rerank`, the
        numbers of both stages.  `budget` bounds the model calls of all stages together; queries for which nothing is
        left keep the retriever's order, and `usage["queries_not_reranked"]` counts them.
        """
        k = k or self.cut
        spent = _Spending(call or Call(timeout=timeout, seed=seed, budget=budget))
        asked = as_items(queries)
        wanted = max(k, self.depth) if self.reranker else k
        found = self.retriever.search(asked, wanted, call=spent.call)
        spent.add("search", found.usage)
        if self.reranker is None:
            return SearchResults(found.results, spent.usage)
        results = tuple(self._reranked(query, hits, k, spent) for query, hits in zip(asked, found.results, strict=True))
        return SearchResults(results, spent.usage)

    def answer(
        self,
        queries: Iterable[ItemLike],
        k: int = 0,
        *,
        prompt: str = PROMPT,
        budget: int | None = None,
        timeout: float | None = None,
        seed: int = 0,
        call: Call | None = None,
    ) -> Answers:
        """Search, and let the decoder write an answer to each query from its documents.

        `prompt` holds `{query}` and `{documents}`, which are numbered from 1 and parted by blank lines; decoders that
        read documents by themselves find them in the prompt's context.
        """
        if self.decoder is None:
            raise Unmet("this pipeline has no decoder: give one to pickaxe.pipeline")
        asked = as_items(queries)
        spent = _Spending(call or Call(timeout=timeout, seed=seed, budget=budget))
        results = self.search(asked, k, call=spent.call)
        spent.take(results.usage)
        prompts = []
        for query, hits in zip(asked, results, strict=True):
            context = tuple(self.items(hits))
            text = _filled(prompt, query.text or "", [item.text or "" for item in context])
            prompts.append(Prompt(text, context=context))
        written: list[list[Completion]] = [[] for _ in prompts]
        for completion in self.decoder.complete(prompts, call=spent.call):
            spent.add("decode", completion.usage)
            written[completion.prompt].append(completion)
        return Answers(results, tuple(map(tuple, written)), spent.usage)

    def _reranked(self, query: Item, hits: Sequence[Hit], k: int, spent: _Spending) -> tuple[Hit, ...]:
        assert self.reranker is not None
        if not hits:
            return ()
        if spent.left == 0:
            spent.count("queries_not_reranked")
            return tuple(hits[:k])
        ranking: Ranking = self.reranker.rerank(query, self.items(hits), min(k, len(hits)), call=spent.call)
        spent.add("rerank", ranking.usage)
        return tuple(
            Hit(
                each.id,
                1 / place,
                {**hits[each.index].columns, "search": hits[each.index].score, "rerank": each.score},
                hits[each.index].spans,
            )
            for place, each in enumerate(ranking, 1)
        )

    def items(self, hits: Sequence[Hit]) -> Items:
        """The documents of hits, with their texts."""
        if self._given is not None:
            if missing := [hit.id for hit in hits if hit.id not in self._given]:
                raise InvalidItems("documents", f"lack {len(missing)} that were found, e.g. {missing[0]!r}")
            return Items(self._given[hit.id] for hit in hits)
        return Items(texts_of(self.retriever, [hit.id for hit in hits]))


def texts_of(retriever: RetrieverHandle, ids: Sequence[str]) -> list[Item]:
    """Documents of a retriever's index; raises `Unmet` when the index keeps none or lies elsewhere."""
    artifact = getattr(retriever, "artifact", None)
    if artifact is None or isinstance(artifact, str) or not artifact.has(TABLE):
        raise Unmet(
            f"the index of {getattr(retriever, 'name', 'this retriever')} gives no texts here: give the documents too"
        )
    documents = Documents(artifact)
    return [documents.item(documents.row_of(name)) for name in ids]


class _Spending:
    """What the stages used so far, and a call with what is left of the budget."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._spent = 0.0
        self.usage: dict[str, float] = {}

    @property
    def left(self) -> int | None:
        return None if self._call.budget is None else max(0, int(self._call.budget - self._spent))

    @property
    def call(self) -> Call:
        """The caller's own call as long as nothing limits it."""
        if self._call.budget is None or not self._spent:
            return self._call
        return self._call.with_budget(self.left)

    def add(self, stage: str, usage: Mapping[str, float]) -> None:
        for name, value in usage.items():
            prefixed = name if name.startswith((f"{stage}_", "index_")) else f"{stage}_{name}"
            # What belongs to the index is the same in every call.
            self.usage[prefixed] = value if name.startswith("index_") else self.usage.get(prefixed, 0.0) + value
            self._spent += value if name in CALLS else 0

    def take(self, usage: Mapping[str, float]) -> None:
        """What a part of this pipeline used, as it counted it."""
        self.usage.update(usage)
        self._spent += sum(value for name, value in usage.items() if name.endswith(CALLS))

    def count(self, name: str) -> None:
        self.usage[name] = self.usage.get(name, 0.0) + 1


def _filled(prompt: str, query: str, documents: Sequence[str]) -> str:
    numbered = "\n\n".join(f"[{place}] {text}" for place, text in enumerate(documents, 1))
    values = {"{query}": query, "{documents}": numbered}
    return re.sub(r"\{query\}|\{documents\}", lambda match: values[match[0]], prompt)


def pipeline(
    retriever: RetrieverHandle,
    reranker: RerankerHandle | None = None,
    decoder: DecoderHandle | None = None,
    *,
    depth: int = 50,
    cut: int = 10,
    documents: Iterable[Item] | None = None,
) -> Pipeline:
    """Retrieve, rerank, cut, decode: `pipeline(retriever(…).index(documents), reranker(…), cut=5).search(queries)`."""
    return Pipeline(retriever, reranker, decoder, depth=depth, cut=cut, documents=documents)
