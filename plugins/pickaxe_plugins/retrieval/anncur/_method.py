"""ANNCUR: nearest neighbours under a cross-encoder by a CUR decomposition of its scores (arXiv:2210.12579)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pydantic
from pydantic import Field

import pickaxe
from pickaxe import (
    Artifact,
    Call,
    Example,
    Hit,
    InputField,
    Item,
    Items,
    Method,
    MethodRef,
    Progress,
    Ranked,
    Ranking,
    SearchResults,
)
from pickaxe.artifact import ArtifactWriter
from pickaxe.errors import DoesNotFit, InvalidParams, Unmet
from pickaxe.hooks import hookimpl
from pickaxe.index import check_model, check_params, record_model
from pickaxe_plugins.retrieval.anncur._cur import best
from pickaxe_plugins.retrieval.anncur._index import GIVEN, Builder, CurIndex
from pickaxe_plugins.retrieval.anncur._pair_scores import PairScorer, open_scorer

BAKED_IN = ("anchor_queries", "anchors", "anchor_ids", "rcond", "precision")
SCORES_HELD = 2**24
"""Approximate scores that are held at once."""


class Params(pickaxe.Params):
    scorer: MethodRef = Field(
        MethodRef(name="cross-encoder", artifact=""),
        description="The black box: a reranker that scores each document by itself, a scorer that reads the field "
        '`query`, or "maxsim".',
    )
    encoder: str = Field("encoder", min_length=1, description='Sentence encoder of the scorer "maxsim".')
    anchor_queries: tuple[str, ...] = Field(
        (), description=f"Queries that every document is scored by; empty: documents carry `{GIVEN}`."
    )
    anchors: int | None = Field(
        None, ge=1, description="Anchor documents, drawn at random; null: 100, or half of the documents if fewer."
    )
    anchor_ids: tuple[str, ...] = Field((), description="Their ids, to choose them yourself.")
    rcond: float = Field(1e-15, ge=0, lt=1, description="Singular values up to this share of the largest count as 0.")
    precision: Literal["float32", "float64"] = Field("float32", description="How embeddings are stored.")
    budget: int | None = Field(
        None, ge=1, description="Model calls per query; null: twice the anchors, or k where that is more."
    )
    rerank: bool = Field(
        True, description="Score the best by approximation exactly; else hits are those of highest approximate score."
    )
    count_anchors_twice: bool = Field(
        False, description="As the authors count: anchors among the best by approximation are paid for once more."
    )

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Params:
        if len(set(self.anchor_ids)) < len(self.anchor_ids):
            raise ValueError("anchor_ids names a document twice")
        if self.anchor_ids and self.anchors not in (None, len(self.anchor_ids)):
            raise ValueError(f"anchors is {self.anchors}, anchor_ids are {len(self.anchor_ids)}: leave anchors out")
        count = len(self.anchor_ids) or self.anchors
        if count is not None and self.budget is not None and self.budget < count:
            raise ValueError(f"budget {self.budget} is less than the {count} anchors, which every query is scored with")
        return self


class AnnCur(Method[Params]):
    """The best documents under a cross-encoder, at a fixed number of its calls, without an encoder.

    A query is scored with a few anchor documents; a matrix learned from anchor queries turns these scores into
    approximate ones of all documents, and the best are scored exactly.  As a reranker it does the same among its
    candidates.
    """

    title = "Efficient Nearest Neighbor Search for Cross-Encoder Models using Matrix Factorization"
    paper = "arXiv:2210.12579"
    version = 1
    Params = Params
    reads = (
        InputField("text", "text", "The document, or the query."),
        InputField("title", "text", "The document's title, for scorers that read one.", required=False),
        InputField(GIVEN, "tensor", "The document's scores under the anchor queries, if known.", required=False),
    )
    fit_reads = reads
    fitted = "optional"
    grows = True
    stages = ("scores", "embed")
    cost = "Index: a model call per anchor query and document.  Search: `budget` calls a query and a matrix product."
    reproduced = (
        "MetaTool, 199 tools, 60 calls: Recall@10 0.90 against 0.86 of a TF-IDF shortlist that is reranked; at 20 "
        "calls TF-IDF is better."
    )

    @classmethod
    def example(cls) -> Example:
        documents = (
            Item("rain", "The rain in Spain stays mainly in the plain."),
            Item("tea", "Green tea is brewed at about 80 degrees, black tea with boiling water."),
            Item("moon", "The Moon turns once on its axis for every orbit around the Earth."),
            Item("bread", "Bread rises because yeast makes gas from sugar."),
            Item("snow", "Snow falls when drops of rain freeze in cold clouds."),
        )
        asked = ("Does it rain in Spain?", "How is black tea made?", "What orbits the Earth?", "Why does bread rise?")
        return Example(
            params={"scorer": "maxsim", "anchor_queries": asked, "anchors": 2},
            documents=documents,
            examples=documents,
            queries=(Item("q1", "How hot should water for green tea be?"), Item("q2", "Where does the rain stay?")),
            query=Item("q", "When do drops of rain freeze?"),
            candidates=documents,
        )

    # ------------------------------------------------------------ index and fit

    @hookimpl
    def index(
        self,
        documents: Iterable[Item],
        out: ArtifactWriter,
        base: Artifact | None,
        remove: frozenset[str],
        call: Call,
    ) -> Iterator[Progress]:
        old = None if base is None else self._checked(base)
        known = old or (None if self.artifact is None else self._checked(self.artifact))
        yield from self._written(documents, out, known, old, remove, call)

    @hookimpl
    def fit(self, examples: Iterable[Item], out: ArtifactWriter, call: Call) -> Iterator[Progress]:
        yield from self._written(examples, out, None, None, frozenset(), call)

    def _written(
        self,
        documents: Iterable[Item],
        out: ArtifactWriter,
        known: CurIndex | None,
        base: CurIndex | None,
        remove: frozenset[str],
        call: Call,
    ) -> Iterator[Progress]:
        params = self.params
        record_model(out, self._scorer, params.scorer.name, role="scorer")
        builder = Builder(out, self._scorer, params.anchor_queries, known, params.precision, call)
        if known is not None:
            yield from builder.grow(documents, known, base, remove)
        else:
            yield from builder.build(documents, params.anchors, params.anchor_ids, params.rcond)

    # ------------------------------------------------------------ what is open

    @cached_property
    def _scorer(self) -> PairScorer:
        return open_scorer(self.params.scorer, self.params.encoder, self.host)

    def _checked(self, artifact: Artifact) -> CurIndex:
        check_params(artifact, self.params, BAKED_IN)
        check_model(artifact, self._scorer, self.params.scorer.name, role="scorer")
        return CurIndex(artifact)

    @cached_property
    def _opened(self) -> CurIndex | None:
        return None if self.artifact is None else self._checked(self.artifact)

    def _budget(self, anchors: int, wanted: int, queries: int, call: Call) -> int:
        """Model calls per query; raises `DoesNotFit` when what the call may spend is less than the anchors take."""
        budget = self.params.budget or max(2 * anchors, wanted)
        if budget < anchors:
            raise InvalidParams("budget", f"is {budget}, the anchors alone take {anchors} calls a query")
        if call.budget is None:
            return budget
        share = call.budget // max(1, queries)
        if share < anchors:
            raise DoesNotFit(
                f"{queries} queries take at least {queries * anchors} model calls for the anchors, the budget is "
                f"{call.budget}: raise it, or index with fewer anchors",
                metadata={"calls": queries * anchors, "budget": call.budget},
            )
        return min(budget, share)

    # ------------------------------------------------------------ search

    @hookimpl
    def search(self, queries: Items, k: int, call: Call) -> SearchResults:
        index = self._opened
        assert index is not None  # the handle sees to it
        n, anchors = len(index.documents), len(index.anchors)
        wanted = min(k, n)
        budget = self._budget(anchors, wanted, len(queries), call)
        if self.params.rerank and wanted > budget:
            raise InvalidParams("k", f"is {k}, but only {budget} documents of a query are scored: raise the budget")
        spent = 0
        results: list[tuple[Hit, ...]] = []
        step = max(1, SCORES_HELD // n)
        for start in range(0, len(queries), step):
            block = queries[start : start + step]
            scores = np.stack([self._scorer.score(query, index.anchors, call) for query in block])
            approximate = index.approximate(scores)
            for query, own, row in zip(block, scores, approximate, strict=True):
                call.check()
                found = self._found(index, query, own, row, budget, call)
                spent += found.calls
                results.append(tuple(found.hits(index, k)))
        usage = {"index_documents": float(n), "model_calls": float(spent)}
        return SearchResults(tuple(results), usage)

    def _found(
        self, index: CurIndex, query: Item, anchor_scores: np.ndarray, approximate: np.ndarray, budget: int, call: Call
    ) -> _Found:
        """What is known of the documents once the budget is spent."""
        anchors = len(anchor_scores)
        if not self.params.rerank:
            return _Found(approximate, {}, anchors)
        places, rows = index.anchor_rows
        known = dict(zip(rows.tolist(), anchor_scores[places].tolist(), strict=True))
        twice = self.params.count_anchors_twice
        offered = approximate if twice else approximate.copy()
        if not twice:
            offered[rows] = -np.inf
        chosen = best(offered, min(budget - anchors, len(offered) - (0 if twice else len(rows)))).tolist()
        new = [row for row in chosen if row not in known]
        exact = self._scorer.score(query, [index.documents.item(row) for row in new], call) if new else np.empty(0)
        scored = dict(zip(new, exact.tolist(), strict=True))
        counted = {row: known[row] for row in chosen if row in known} if twice else known
        return _Found(approximate, {**counted, **scored}, anchors + len(chosen))

    # ------------------------------------------------------------ rerank

    @hookimpl
    def rerank(self, query: Item, candidates: Items, top_n: int, call: Call) -> Ranking:
        index, n = self._opened, len(candidates)
        own = self.params.budget or (None if index is None else 2 * len(index.anchors))
        allowed = [value for value in (own, call.budget) if value is not None]
        if not allowed or n <= min(allowed):
            return _ranking(candidates, self._scorer.score(query, candidates, call), np.ones(n, bool), top_n, n)
        if index is None:
            raise Unmet(
                f"{n} candidates are more than the budget of {min(allowed)}: fit on the documents first, or open an "
                "index, so that some can be scored by approximation"
            )
        budget = self._budget(len(index.anchors), 0, 1, call)
        scores, exact, calls = self._approximated(index, query, candidates, budget, call)
        return _ranking(candidates, scores, exact, top_n, calls)

    def _approximated(
        self, index: CurIndex, query: Item, candidates: Items, budget: int, call: Call
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """Scores (n,), which of them are exact, and model calls.  Unknown candidates are the first to be scored."""
        anchor_scores = self._scorer.score(query, index.anchors, call)
        found = np.array([-1 if (row := index.find(item)) is None else row for item in candidates])
        known = found >= 0
        scores = np.full(len(candidates), np.nan)
        scores[known] = index.approximate(anchor_scores[None], found[known])[0]
        of_row = dict(zip(*(part.tolist() for part in reversed(index.anchor_rows)), strict=True))
        exact = np.array([row in of_row for row in found.tolist()])
        scores[exact] = [anchor_scores[of_row[row]] for row in found[exact].tolist()]
        offered = np.where(known, scores, np.inf)
        offered[exact] = -np.inf
        left = min(budget - len(anchor_scores), int((~exact).sum()))
        chosen = best(offered, left)
        if len(chosen):
            scores[chosen] = self._scorer.score(query, [candidates[row] for row in chosen.tolist()], call)
            exact[chosen] = True
        return scores, exact, len(anchor_scores) + len(chosen)


@dataclass(frozen=True)
class _Found:
    """Approximate scores of all documents (n,), exact ones by row, and the model calls that they took."""

    approximate: np.ndarray
    exact: dict[int, float]
    calls: int

    def hits(self, index: CurIndex, k: int) -> Iterator[Hit]:
        if not self.exact:
            for row in best(self.approximate, k).tolist():
                score = float(self.approximate[row])
                yield Hit(index.documents.ids[row], score, {"approx": score})
            return
        for row in sorted(self.exact, key=lambda row: (-self.exact[row], row))[:k]:
            columns = {"approx": float(self.approximate[row]), "exact": self.exact[row]}
            yield Hit(index.documents.ids[row], self.exact[row], columns)


def _ranking(candidates: Items, scores: np.ndarray, exact: np.ndarray, top_n: int, calls: int) -> Ranking:
    """Exactly scored candidates first, then by approximation; those without either are left out."""
    order = np.lexsort((np.arange(len(scores)), -np.nan_to_num(scores), ~exact, np.isnan(scores)))
    ranked = [Ranked(int(row), candidates[row].id, float(scores[row])) for row in order if not np.isnan(scores[row])]
    missing = len(scores) - len(ranked)
    cut = f"{missing} candidates are not in the index, and the budget was spent" if len(ranked) < top_n else ""
    record = {"exact": int(exact.sum()), "approximate": len(ranked) - int(exact.sum())}
    return Ranking(tuple(ranked[:top_n]), scores.astype(np.float32), cut, {"model_calls": float(calls)}, record)
