"""What scores a query and a document together, one pair at a time, for methods that count such calls."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pickaxe import Call, Host, Item, Items, MethodRef, catalog
from pickaxe.errors import MethodFailed

if TYPE_CHECKING:
    from pickaxe.encoder import Encoder
    from pickaxe.handle import RerankerHandle, ScorerHandle
    from pickaxe.handle.base import MethodHandle

MAXSIM = "maxsim"
"""The scorer that is built in."""

_WORD = re.compile(r"\w+")


class PairScorer(Protocol):
    """A black box f(query, document), higher for better documents."""

    @property
    def digest(self) -> str:
        """Equal for scorers that give the same numbers."""

    @property
    def fields(self) -> tuple[str, ...]:
        """What it reads of a document beside its text."""

    def score(self, query: Item, documents: Sequence[Item], call: Call) -> np.ndarray:
        """(n,) float64, all finite."""


def open_scorer(ref: MethodRef, encoder: str, host: Host) -> PairScorer:
    """The scorer of that name: `maxsim` with this encoder, a reranker, or a scorer that reads the field `query`."""
    if ref.name == MAXSIM:
        return MaxSim(host.encoder(encoder))
    if "reranker" in catalog.roles(ref.name):
        return ByReranker(host.reranker(ref))
    return ByScorer(host.scorer(ref))


class MaxSim:
    """Mean over the query's words of the highest cosine with a word of the document; 0 where either has none."""

    fields = ("title",)

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    @property
    def digest(self) -> str:
        return self._encoder.digest

    def score(self, query: Item, documents: Sequence[Item], call: Call) -> np.ndarray:
        wanted = _words(query.text or "")
        rows = [_words(f"{document.get('title') or ''} {document.text or ''}") for document in documents]
        every = {
            word: place for place, word in enumerate(dict.fromkeys(word for row in (wanted, *rows) for word in row))
        }
        if not wanted or not every:
            return np.zeros(len(documents))
        vectors = np.asarray(self._encoder.memory.encode(list(every), call), np.float64)
        cosines = vectors[[every[word] for word in wanted]] @ vectors.T
        return np.array([cosines[:, [every[word] for word in row]].max(axis=1).mean() if row else 0.0 for row in rows])


def _words(text: str) -> list[str]:
    return list(dict.fromkeys(_WORD.findall(text.lower())))


class ByReranker:
    """A reranker's scores, which must not depend on the candidates beside."""

    def __init__(self, reranker: RerankerHandle) -> None:
        self._reranker = reranker
        self.digest = _digest(reranker)
        self.fields = _fields(reranker)

    def score(self, query: Item, documents: Sequence[Item], call: Call) -> np.ndarray:
        ranking = self._reranker.rerank(query, documents, call=call.with_budget(None))
        scores = np.full(len(documents), np.nan)
        for entry in ranking:
            scores[entry.index] = entry.score
        return _finite(scores, query, documents, self._reranker.name)


class ByScorer:
    """A scorer's primary column; a document comes with the query in its field `query`."""

    def __init__(self, scorer: ScorerHandle) -> None:
        self._scorer = scorer
        self.digest = _digest(scorer)
        self.fields = _fields(scorer)

    def score(self, query: Item, documents: Sequence[Item], call: Call) -> np.ndarray:
        items = Items(replace(each, fields={**each.fields, "query": query.text or ""}) for each in documents)
        scores = np.asarray(self._scorer.score(items, call=call.with_budget(None)).primary, np.float64)
        return _finite(scores, query, documents, self._scorer.name)


def _finite(scores: np.ndarray, query: Item, documents: Sequence[Item], name: str) -> np.ndarray:
    bad = np.flatnonzero(~np.isfinite(scores))
    if len(bad):
        raise MethodFailed(
            f"{name} gave {len(bad)} of {len(documents)} documents no finite score, e.g. {documents[bad[0]].id!r} "
            f"for query {query.id!r}: use a scorer that scores every document by itself",
            metadata={"method": name, "document": documents[bad[0]].id, "query": query.id},
        )
    return scores


def _digest(handle: MethodHandle) -> str:
    parts = (*handle.opened.key, handle.opened.method.version)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _fields(handle: MethodHandle) -> tuple[str, ...]:
    """What an index can keep for it: tensors stay outside."""
    reads = handle.opened.method.reads
    return tuple(each.name for each in reads if each.name not in ("text", "query") and each.kind != "tensor")
