"""TILDEv2 as a reranker and as a retriever (arXiv:2108.08513)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pickaxe import Artifact, Call, Example, InputField, Item, Items, Method, Progress, Ranked, Ranking, SearchResults
from pickaxe.artifact import ArtifactWriter
from pickaxe.data import HitTable
from pickaxe.errors import InvalidItems, Violation
from pickaxe.hooks import hookimpl
from pickaxe.index import Documents, DocumentWriter, batched, check_model, check_params, record_model
from pickaxe.tokenizers import Tokenizer
from pickaxe_plugins.reranking.tildev2 import _terms
from pickaxe_plugins.reranking.tildev2._models import OWN_MODEL, PROJECTION, Models, copy
from pickaxe_plugins.reranking.tildev2._params import BAKED_IN, Params
from pickaxe_plugins.reranking.tildev2._passages import TERMS, Framing, Weigher
from pickaxe_plugins.reranking.tildev2._postings import Postings, stored

if TYPE_CHECKING:
    from pickaxe_plugins.reranking.tildev2._training import Query

BATCH = 1024
"""Documents between two steps of progress."""


class TildeV2(Method[Params]):
    """Passages by the weights of the terms that they share with the query, computed before any query comes.

    `fit` trains an encoder, or one linear unit on it, to weigh each token of a passage.  An index keeps one weight
    per passage and term: reranking adds up those of the query's terms, without a model call.  Candidates that no
    index holds are encoded on the fly.  Unfitted, every term weighs 1.
    """

    title = "Fast Passage Re-ranking with Contextualized Exact Term Matching and Efficient Passage Expansion"
    paper = "arXiv:2108.08513"
    version = 1
    Params = Params
    reads = (
        InputField("text", "text", "The query, or the passage; candidates that the index holds need none.", False),
        InputField(TERMS, "texts", "Further words of the passage, with expander `provided`.", False),
        InputField("title", "text", "The document's title; kept for what comes after the search.", False),
    )
    fit_reads = (
        InputField("text", "text", "The query."),
        InputField("positives", "texts", "Passages that answer it."),
        InputField("negatives", "texts", "Passages that do not, best those that BM25 finds.", False),
    )
    fitted = "optional"
    stages = ("expander", "train")
    grows = True
    cost = "One encoder call per passage when indexing, 6 bytes per different term; none for a query."
    reproduced = "The reference case and the index's size; on a small corpus learned weights did not beat term overlap."

    @classmethod
    def example(cls) -> Example:
        passages = (
            Item("rain", "The rain in Spain stays mainly in the plain."),
            Item("tea", "Green tea is brewed at about 80 degrees, black tea with boiling water."),
            Item("moon", "The Moon turns once on its axis for every orbit around the Earth."),
        )
        asked = ("Where does the rain stay?", "When is water too hot for tea?", "How long does the Moon orbit?")
        return Example(
            params={"epochs": 1, "batch": 2, "group": 2},
            examples=tuple(
                Item(f"q{row}", question, {"positives": [passages[row].text or ""]})
                for row, question in enumerate(asked)
            ),
            documents=passages,
            queries=(Item("q1", "How hot should water for green tea be?"), Item("q2", "Where does the rain stay?")),
            query=Item("q", "How hot should water for green tea be?"),
            candidates=passages,
        )

    @cached_property
    def _models(self) -> Models:
        return Models(self.params, self.host)

    # ------------------------------------------------------------ index

    @hookimpl
    def index(
        self,
        documents: Iterable[Item],
        out: ArtifactWriter,
        base: Artifact | None,
        remove: frozenset[str],
        call: Call,
    ) -> Iterator[Progress]:
        params, source = self.params, base or self.artifact
        weigher = self._models.weigher(source)
        record_model(out, weigher, params.base, "passage side")
        record_model(out, weigher.framing.tokenizer, params.base, "vocabulary")
        if source is not None:
            copy(source, out)
        if base is not None:
            check_params(base, params, BAKED_IN)
            check_model(
                base, self._models.weigher(self.artifact) if self.artifact else weigher, params.base, "passage side"
            )
        known = None if base is None else Documents(base)
        found: list[_terms.Entries] = []
        with DocumentWriter(out, ("title",), known, remove) as table:
            yield Progress("index", len(table))
            for group in batched(documents, BATCH):
                _need_text(group, "documents", len(table) - len(table.kept))
                start = len(table)
                for document in group:
                    table.add(document)
                entries = weigher.entries(group, call)
                found.append(entries._replace(rows=entries.rows + np.int32(start)))
                yield Progress("index", len(table))
        self._write(found, base, table.kept, weigher, len(table), out)

    def _write(
        self,
        found: list[_terms.Entries],
        base: Artifact | None,
        kept: np.ndarray,
        weigher: Weigher,
        documents: int,
        out: ArtifactWriter,
    ) -> None:
        """Store the new entries behind those of `base` that stay."""
        params = self.params
        highest = None if base is None else base.notes["highest"]
        nothing = _terms.Entries(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32))
        fresh, scale, highest = stored(_together([nothing, *found]), params.store_dtype, params.quantize_bits, highest)
        parts = [fresh]
        if base is not None:
            old = Postings.open(base, len(Documents(base))).entries()
            places = np.full(len(Documents(base)), -1, np.int32)
            places[kept] = np.arange(len(kept))
            rows = places[old.rows]
            stays = rows >= 0
            parts.insert(0, _terms.Entries(rows[stays], old.terms[stays], np.asarray(old.weights)[stays]))
        Postings.of(_together(parts), weigher.framing.tokenizer.vocab_size, documents, scale).write(out)
        out.notes["highest"] = highest

    # ------------------------------------------------------------ search

    @cached_property
    def _vocabulary(self) -> tuple[Tokenizer, np.ndarray]:
        """The query side: no model."""
        tokenizer = Tokenizer.open(self._models.place(self.artifact))
        return tokenizer, self._models.stopped(tokenizer)

    @cached_property
    def _opened(self) -> tuple[Documents, Postings]:
        artifact = self.artifact
        assert artifact is not None  # callers see to it
        check_params(artifact, self.params, BAKED_IN)
        check_model(artifact, self._vocabulary[0], self.params.base, "vocabulary")
        documents = Documents(artifact)
        return documents, Postings.open(artifact, len(documents))

    def _terms(self, queries: Sequence[Item], label: str) -> list[np.ndarray]:
        _need_text(queries, label)
        tokenizer, stopped = self._vocabulary
        rows = tokenizer.encode_batch([query.text or "" for query in queries])
        return [_terms.query_terms(row, stopped) for row in rows]

    @hookimpl
    def search(self, queries: Items, k: int, call: Call) -> SearchResults:
        documents, postings = self._opened
        rows, scores, counts = postings.search(self._terms(queries, "queries"), k, call)
        usage = {"index_documents": float(len(documents))}
        return HitTable.of(documents.ids, rows, scores, counts, "tildev2", usage)

    # ------------------------------------------------------------ rerank

    @hookimpl
    def rerank(self, query: Item, candidates: Items, top_n: int, call: Call) -> Ranking:
        (asked,) = self._terms([query], "query")
        first = candidates[: self.params.cut_off]
        indexed = self.artifact is not None and self.artifact.kind == "index"
        postings, rows = self._by_index(first) if indexed else self._by_text(first, call)
        there = rows >= 0
        scores = np.zeros(len(candidates), np.float32)
        scores[: len(first)][there] = postings.scores(asked, rows[there])
        order = np.argsort(-scores[: len(first)], kind="stable")
        rest = np.arange(len(first), len(candidates))
        scores[rest] = scores[order[-1]] - 1 - np.arange(len(rest), dtype=np.float32)
        chosen = np.concatenate([order, rest])[:top_n]
        ranked = tuple(
            Ranked(row, candidates[row].id, score)
            for row, score in zip(chosen.tolist(), scores[chosen].tolist(), strict=True)
        )
        tokenizer = self._vocabulary[0]
        record: dict[str, Any] = {"vocabulary": tokenizer.digest, "no_query_terms": not len(asked)}
        explained = [row for row in order[: min(self.params.explain, top_n)].tolist() if there[row]]
        record["matched"] = _matched(postings, asked, rows[explained], [candidates[row].id for row in explained],
                                     self._names)  # fmt: skip
        encoded = 0 if indexed else len(first)
        return Ranking(ranked, scores, usage={"encoded_texts": float(encoded)}, record=record)

    @cached_property
    def _names(self) -> dict[int, str]:
        """Each id's token."""
        return {index: token for token, index in self._vocabulary[0].vocabulary.items()}

    def _by_index(self, candidates: Sequence[Item]) -> tuple[Postings, np.ndarray]:
        """The index, and each candidate's row in it; -1 for none."""
        documents, postings = self._opened
        if self.params.missing == "error":
            return postings, np.array([documents.row_of(item.id) for item in candidates], np.int64)
        return postings, np.array([documents.find(item.id) for item in candidates], np.int64)

    @cached_property
    def _live(self) -> Weigher:
        return self._models.weigher(self.artifact)

    def _by_text(self, candidates: Sequence[Item], call: Call) -> tuple[Postings, np.ndarray]:
        """An index of the candidates alone, made on the spot."""
        _need_text(candidates, "candidates")
        entries = self._live.entries(candidates, call)
        made = Postings.of(entries, self._live.framing.tokenizer.vocab_size, len(candidates))
        return made, np.arange(len(candidates))

    # ------------------------------------------------------------ fit

    @hookimpl
    def fit(
        self,
        examples: Iterable[Item],
        validation: Iterable[Item] | None,
        out: ArtifactWriter,
        init_from: Artifact | None,
        call: Call,
    ) -> Iterator[Progress]:
        from pickaxe_plugins.reranking.tildev2 import _training

        params = self.params
        learned, checked = _read(examples, "examples"), _read(validation or (), "validation")
        every = {text for query in learned for text in query.positives}
        if not learned or any(not query.negatives and every <= set(query.positives) for query in learned):
            raise InvalidItems("examples", "have a query without any passage that does not answer it: give negatives")
        place = self._models.place(init_from)
        states = self._models.states(place)
        framing = Framing(states.tokenizer, params.p_max_len)
        if params.expander == "tilde":
            if params.expander_model is None and not out.done("expander"):
                reading = self._models.states(self._models.original)
                record_model(out, reading, params.base, "expander")
                yield from _training.train_expander(learned, framing, reading, self._models.original, params, out, call)
                out.finish("expander")
            framing = replace(framing, expander=self._models.expander(out.path))
        known = init_from is not None and init_from.has(PROJECTION)
        start = np.array(init_from.read_array(PROJECTION)) if init_from is not None and known else None
        projection = yield from _training.train(learned, checked, framing, states, place, start, params, out, call)
        out.write_array(PROJECTION, projection)
        if params.head_only and init_from is not None and place == init_from.path:
            copy(init_from, out, OWN_MODEL)
        if params.head_only:
            record_model(out, states, params.base)


def impacts(artifact: Artifact) -> Iterator[dict[str, Any]]:
    """`{"id", "vector": {term id: stored weight}}` of every passage, as Lucene and PISA read impacts."""
    documents = Documents(artifact)
    rows, ids, weights = Postings.open(artifact, len(documents)).entries()
    order = np.argsort(rows, kind="stable")
    ends = np.cumsum(np.bincount(rows, minlength=len(documents)))
    for name, part in zip(documents.ids, np.split(order, ends[:-1]), strict=True):
        vector = zip(ids[part].tolist(), weights[part].tolist(), strict=True)
        yield {"id": name, "vector": {str(term): weight for term, weight in vector if weight}}


def _matched(
    postings: Postings, asked: np.ndarray, rows: np.ndarray, ids: Sequence[str], names: dict[int, str]
) -> dict[str, dict[str, float]]:
    """By candidate: the query's terms in it and their weights."""
    found: dict[str, dict[str, float]] = {name: {} for name in ids}
    order = np.argsort(rows, kind="stable")
    for term in dict.fromkeys(asked.tolist()):
        for place, weight in zip(order.tolist(), postings.weights(term, rows[order]).tolist(), strict=True):
            if weight:
                found[ids[place]][names[term]] = weight
    return found


def _together(parts: Sequence[_terms.Entries]) -> _terms.Entries:
    return _terms.Entries(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _need_text(items: Sequence[Item], label: str, start: int = 0) -> None:
    """Raise `InvalidItems` naming the items that have no text."""
    lacking = [row for row, item in enumerate(items, start) if item.text is None]
    if lacking:
        place = (lambda row: label) if label == "query" else (lambda row: f"{label}[{row}]")
        raise InvalidItems([Violation(f"{place(row)}.text", "is missing") for row in lacking[:20]])


def _read(items: Iterable[Item], label: str) -> list[Query]:
    from pickaxe_plugins.reranking.tildev2._training import Query

    found = []
    for row, item in enumerate(items):
        positives, negatives = _texts(item, "positives"), _texts(item, "negatives")
        if not positives:
            raise InvalidItems(f"{label}[{row}].fields.positives", f"are none (item {item.id!r})")
        found.append(Query(item.id, item.text or "", positives, negatives))
    return found


def _texts(item: Item, name: str) -> tuple[str, ...]:
    value = item.get(name) or ()
    assert isinstance(value, (list, tuple))  # the declared field is of that type
    return tuple(value)
