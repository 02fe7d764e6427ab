"""`sage-select`: where the order is cut, invariants, and bad input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pickaxe
from pickaxe import Call, Item, Items, Method, Ranked, Ranking, catalog
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe.hooks import hookimpl
from pickaxe_plugins.retrieval._sage_selection import SelectionParams

SCORES = st.lists(st.floats(0, 1, allow_subnormal=False), min_size=1, max_size=20)


def given_scores(scores: Sequence[float]) -> list[Item]:
    return [Item(str(row), fields={"score": float(value)}) for row, value in enumerate(scores)]


def selected(scores: Sequence[float], **params: object) -> list[int]:
    params = {"reranker": None, "score_transform": "none", "min_k": 1} | params
    found = pickaxe.reranker("sage-select", **params).rerank("q", given_scores(scores))
    assert found.record["selected"] == [row in [each.index for each in found] for row in range(len(scores))]
    return [entry.index for entry in found]


def test_cuts_at_the_first_steep_fall() -> None:
    assert selected([0.1, 0.9, 0.8, 0.2, 0.6]) == [1, 2, 4, 3, 0]
    assert selected([0.1, 0.9, 0.8, 0.2, 0.6], g=0.5) == [1, 2, 4]
    assert selected([0.1, 0.9, 0.8, 0.2, 0.6], g=0.5, min_k=4) == [1, 2, 4, 3]
    assert selected([0.9, 0.9, 0.9], g=1) == [0]
    assert selected([0.9, 0.5, 0.4], rule="difference", delta=0.3) == [0]
    assert selected([0.9, 0.5, 0.4], rule="difference", delta=0.4) == [0, 1, 2]
    assert selected([0.0, 0.0], g=0) == [0]
    assert selected([-1.0, -2.0], g=0) == [0]


@given(SCORES, st.integers(1, 25), st.floats(0, 1), st.floats(0, 1), st.integers(-8, 8))
def test_size_and_order(scores: list[float], min_k: int, g: float, other: float, power: int) -> None:
    values = np.array(scores)

    def size(g: float, min_k: int = min_k, factor: float = 1.0) -> int:
        params = SelectionParams(reranker=None, min_k=min_k, g=g)
        return params.count(factor * values[params.order(values)])

    assert min(min_k, len(scores)) <= size(g) <= len(scores)
    assert size(max(g, other)) <= size(min(g, other))
    assert size(g, min_k + 1) >= size(g)
    assert size(g, factor=2.0**power) == size(g)
    if values.min() > 0:
        assert size(0) == len(scores)
    order = SelectionParams().order(values)
    assert order.tolist() == sorted(range(len(scores)), key=lambda row: -scores[row])


@given(st.lists(st.lists(st.floats(0, 1), min_size=6, max_size=6), min_size=1, max_size=5), st.integers(1, 8))
def test_many_lists_at_once(lists: list[list[float]], min_k: int) -> None:
    falling = -np.sort(-np.array(lists), axis=1)
    params = SelectionParams(min_k=min_k)
    assert params.counts(falling).tolist() == [params.count(row) for row in falling]


class Fixed(Method[pickaxe.Params]):
    """Scores by the text, a number; "none" gets none."""

    @hookimpl
    def rerank(self, query: Item, candidates: Items, top_n: int, call: Call) -> Ranking:
        scores = np.array([np.nan if text == "none" else float(text) for text in candidates.texts()], np.float32)
        rows = [int(row) for row in np.argsort(-scores) if not np.isnan(scores[row])]
        ranked = tuple(Ranked(row, candidates[row].id, float(scores[row])) for row in rows)
        return Ranking(ranked, scores, "some" if len(rows) < top_n else "", {"model_calls": len(candidates)})


def test_scores_of_a_reranker_go_through_a_sigmoid_and_all_come_back() -> None:
    with catalog.register(Fixed, "fixed", "reranker"):
        select = pickaxe.reranker("sage-select", reranker="fixed", min_k=1)
        items = [Item(name, text) for name, text in {"a": "-4", "b": "2", "c": "1.5", "d": "-5"}.items()]
        found = select.rerank("q", items)
        assert found.ids == ["b", "c"]
        assert found.scores == pytest.approx(1 / (1 + np.exp([4, -2, -1.5, 5])), rel=1e-5)
        assert found[0].score == pytest.approx(float(found.scores[1]))
        assert "falls from 0.8176 to 0.01799" in found.cut
        assert found.usage == {"model_calls": 4}
        assert select.rerank("q", items, 1).ids == ["b"]
        assert select.rerank("q", items, 1).record["before_top_n"] == 2
        assert len(select.rerank("q", [])) == 0
        with pytest.raises(InvalidParams, match="'x' no finite score"):
            select.rerank("q", [Item("x", "none"), *items])


def test_bad_input() -> None:
    for wrong in ({"min_k": 0}, {"g": -0.1}, {"g": 1.1}, {"g": float("nan")}, {"delta": -1}):
        with pytest.raises(InvalidParams, match=next(iter(wrong))):
            pickaxe.reranker("sage-select", **wrong)
    with pytest.raises(InvalidParams, match="itself"):
        pickaxe.reranker("sage-select", reranker="sage-select")
    own = pickaxe.reranker("sage-select", reranker=None)
    with pytest.raises(InvalidItems, match=r"candidates\[1\]\.fields\.score: is nan"):
        own.rerank("q", given_scores([0.5, float("nan")]))
    with pytest.raises(InvalidItems, match=r"candidates\[0\]\.fields\.score: is missing"):
        own.rerank("q", ["text alone"])
    with pytest.raises(InvalidItems, match="used before"):
        own.rerank("q", [*given_scores([0.5]), *given_scores([0.5])])
    with pytest.raises(InvalidItems, match="text"):
        pickaxe.reranker("sage-select").rerank("q", given_scores([0.5]))
