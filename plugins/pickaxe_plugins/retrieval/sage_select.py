"""Reranking that decides how many to keep: SAGE's gradient-based chunk selection (arXiv:2503.01713)."""

from __future__ import annotations

import numpy as np

from pickaxe import Call, Example, InputField, Item, Items, Method, Ranked, Ranking
from pickaxe.hooks import hookimpl
from pickaxe_plugins.retrieval._sage_selection import SelectionParams, scored


class Params(SelectionParams):
    """Parameters of `sage-select`."""


class SageSelect(Method[Params]):
    """The best candidates up to the first steep fall of a reranker's scores.

    The first `min_k` are kept; the next ones as long as each score is more than `g` times the one before.  The scores
    of all candidates come back, and which were selected.
    """

    title = "SAGE: A Framework of Precise Retrieval for RAG"
    paper = "arXiv:2503.01713"
    version = 1
    Params = Params
    reads = (
        InputField("text", "text", "The query, or the candidate.", False),
        InputField("title", "text", "The candidate's title, for rerankers that read one.", False),
        InputField("score", "float64", "The candidate's score, where no reranker is named.", False),
    )
    cost = "That of the reranker; the selection is a sort."
    reproduced = "The rule on 44 lists of the reference; what it keeps and loses on XQuAD is on the page."

    @classmethod
    def example(cls) -> Example:
        return Example(
            params={"min_k": 1},
            query=Item("q", "How hot should water for green tea be?"),
            candidates=(
                Item("rain", "The rain in Spain stays mainly in the plain."),
                Item("tea", "Green tea is brewed with water of about 80 degrees."),
                Item("moon", "The Moon turns once on its axis for every orbit around the Earth."),
            ),
        )

    @hookimpl
    def rerank(self, query: Item, candidates: Items, top_n: int, call: Call) -> Ranking:
        params = self.params
        found = scored(params, self.host, query, candidates, call)
        order = params.order(found.scores)
        falling = found.scores[order]
        count = params.count(falling)
        kept = order[: min(count, top_n)]
        mask = np.zeros(len(candidates), bool)
        mask[kept] = True
        cut = ""
        if len(kept) < top_n:
            limit = f"more than {params.delta:g}" if params.rule == "difference" else f"to at most {params.g:g} of it"
            cut = f"the score falls from {falling[count - 1]:.4g} to {falling[count]:.4g}, {limit}"
        return Ranking(
            tuple(Ranked(int(row), candidates[row].id, float(found.scores[row])) for row in kept),
            found.scores.astype(np.float32),
            cut,
            found.usage,
            {"selected": mask.tolist(), "before_top_n": count},
        )
