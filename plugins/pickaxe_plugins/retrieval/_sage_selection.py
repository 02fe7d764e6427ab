"""How many of the best chunks to take: up to the first steep fall of their scores (arXiv:2503.01713)."""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
import pydantic
from pydantic import Field

import pickaxe
from pickaxe import Call, Item, Items, MethodRef, Ranking
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe.host import Host
from pickaxe_plugins.retrieval._sage_network import sigmoid

Rule = Literal["ratio", "difference"]


class SelectionParams(pickaxe.Params):
    """What scores the candidates, and where their order is cut."""

    reranker: MethodRef | None = Field(
        MethodRef(name="cross-encoder", params={}, artifact=""),
        description="What scores the candidates; null: their own field `score`.",
    )
    score_transform: Literal["none", "sigmoid"] = Field(
        "sigmoid", description="What makes the scores positive: nothing, or 1 / (1 + exp(-score)) for logits."
    )
    min_k: int = Field(7, ge=1, description="Candidates that are kept whatever their scores.")
    rule: Rule = Field(
        "ratio", description="Stop where a score is at most g times, or more than delta below, the last."
    )
    g: float = Field(0.3, ge=0, le=1, description="ratio: 0 keeps all that are above 0, 1 only the first min_k.")
    delta: float = Field(0.3, ge=0, allow_inf_nan=False, description="difference: the largest fall that is kept.")

    @pydantic.model_validator(mode="after")
    def _not_itself(self) -> Self:
        if self.reranker is not None and self.reranker.name == "sage-select":
            raise ValueError("reranker is sage-select itself: name what scores the candidates")
        return self

    def order(self, scores: np.ndarray) -> np.ndarray:
        """Rows by falling score; equal scores stay as they came."""
        return np.argsort(-scores, kind="stable")

    def count(self, falling: np.ndarray, min_k: int | None = None) -> int:
        """How many of scores (n,) in falling order are kept, with another `min_k` where one is given."""
        return int(self.counts(falling[None], min_k)[0])

    def counts(self, falling: np.ndarray, min_k: int | None = None) -> np.ndarray:
        """The same for many lists (m, n) at once: int64 (m,)."""
        n = falling.shape[1]
        least = min(self.min_k if min_k is None else min_k, n)
        last, next_ = falling[:, least - 1 : -1], falling[:, least:]
        if least == 0 or least == n:
            return np.full(len(falling), n)
        steep = last - next_ > self.delta if self.rule == "difference" else ~(next_ > self.g * last)
        return np.asarray(np.where(steep.any(1), least + steep.argmax(1), n))


def scored(params: SelectionParams, host: Host, query: Item, candidates: Items, call: Call) -> Ranking:
    """Every candidate's transformed score, with what the reranker used; `ranked` is empty.

    Raises `InvalidItems` for candidates without a finite `score` of their own, `InvalidParams` for a reranker that
    does not score them all.
    """
    usage: dict[str, float] = {}
    if params.reranker is None:
        for row, item in enumerate(candidates):
            if item.get("score") is None:
                raise InvalidItems(f"candidates[{row}].fields.score", f"is missing (item {item.id!r}), and no reranker")
        scores = np.array([float(item.fields["score"]) for item in candidates], np.float64)  # type: ignore[arg-type]  # float64 by the method's declared fields
    else:
        ranking = host.reranker(params.reranker).rerank(query, candidates, call=call)
        scores, usage = np.asarray(ranking.scores, np.float64), dict(ranking.usage)
    for row in np.flatnonzero(~np.isfinite(scores)).tolist():
        if params.reranker is None:
            raise InvalidItems(f"candidates[{row}].fields.score", f"is {scores[row]} (item {candidates[row].id!r})")
        raise InvalidParams(
            "reranker",
            f"{params.reranker.name!r} gave {candidates[row].id!r} no finite score: name one that scores all",
        )
    return Ranking((), sigmoid(scores) if params.score_transform == "sigmoid" else scores, usage=usage)
