"""`fullrank`: windows and passes, the strategies that take them, and parameters and candidates that are refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from fullrank_methods import Says, texts
from hypothesis import given, settings
from hypothesis import strategies as st

import pickaxe
from pickaxe import Item
from pickaxe.errors import DoesNotFit, InvalidItems, InvalidParams
from pickaxe_plugins.reranking.fullrank import complete_order, one_pass, schedule

pytestmark = pytest.mark.usefixtures("fullrank_methods")


# ---------------------------------------------------------------- windows and passes


@settings(max_examples=150, deadline=None)
@given(n=st.integers(1, 80), window=st.integers(1, 30), data=st.data())
def test_windows_go_from_back_to_front_and_leave_nothing_out(n: int, window: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(1, window))
    windows = schedule(n, window, step)
    assert windows[0] == (max(0, n - window), n)
    assert windows[-1][0] == 0
    assert all(start >= 0 and 0 < end - start <= window for start, end in windows)
    assert {place for start, end in windows for place in range(start, end)} == set(range(n))
    assert windows == sorted(windows, reverse=True)
    if window >= n:
        assert windows == [(0, n)]


@settings(max_examples=80, deadline=None)
@given(relevance=st.lists(st.integers(0, 50), min_size=1, max_size=60), window=st.integers(2, 20), data=st.data())
def test_one_pass_settles_the_top_and_complete_settles_all(
    relevance: list[int], window: int, data: st.DataObject
) -> None:
    step = data.draw(st.integers(1, window - 1))
    n = len(relevance)
    full = sorted(range(n), key=lambda row: (-relevance[row], row))

    def consistent(rows: Sequence[int]) -> list[int]:
        return sorted(rows, key=lambda row: (-relevance[row], row))

    settled = n if n <= window else window - step
    assert one_pass(range(n), consistent, window, step)[:settled] == full[:settled]
    order, passes = complete_order(consistent, n, window, step)
    assert order == full
    assert passes == (math.ceil((n - window) / (window - step)) + 1 if n > window else 1)


def test_windows_are_refused_that_leave_candidates_out() -> None:
    with pytest.raises(InvalidParams, match="from 1 to the window 4"):
        schedule(10, 4, 5)
    with pytest.raises(InvalidParams, match="a pass would fix nothing"):
        complete_order(sorted, 10, 4, 4)


# ---------------------------------------------------------------- strategies


def test_full_asks_once_and_sliding_and_complete_as_often_as_their_windows() -> None:
    candidates = texts(np.random.default_rng(0).permutation(100).tolist())
    usage = {}
    for strategy in ("full", "sliding", "complete"):
        ranking = pickaxe.reranker("fullrank", ranker="longest", strategy=strategy).rerank("query", candidates)
        usage[strategy] = (ranking.usage["prompts"], ranking.usage["passage_reads"], ranking.record["passes"])
        settled = 10 if strategy == "sliding" else 100
        lengths = [len(candidates[entry.index].text or "") for entry in ranking]
        assert lengths[:settled] == sorted(lengths, reverse=True)[:settled]
    assert usage["full"] == (1, 100, 1)
    assert usage["sliding"] == (9, 180, 1)
    assert usage["complete"] == (45, 900, 9)


def test_full_reads_at_most_60_percent_of_the_prompt_tokens_of_sliding() -> None:
    Says.text = ""
    candidates = [Item(f"c{row}", "green tea from the hills " * 20) for row in range(100)]
    tokens = {
        strategy: pickaxe.reranker("fullrank", decoder="says", strategy=strategy)
        .rerank("tea", candidates)
        .usage["prompt_tokens"]
        for strategy in ("full", "sliding")
    }
    assert tokens["full"] <= 0.6 * tokens["sliding"]


@pytest.mark.parametrize("n", [1, 5, 20])
def test_sliding_over_everything_is_full(n: int) -> None:
    Says.text = "[3] > [1]"
    found = [
        pickaxe.reranker("fullrank", decoder="says", strategy=strategy).rerank("query", texts(range(n)))
        for strategy in ("full", "sliding", "complete")
    ]
    assert found[0].ids == found[1].ids == found[2].ids
    assert found[0].usage == found[1].usage == found[2].usage
    assert Says.asked[0] == Says.asked[1] == Says.asked[2]


def test_more_passes_settle_more() -> None:
    lengths = list(range(1, 31))
    options: dict[str, Any] = {"ranker": "longest", "strategy": "sliding", "window": 10, "step": 8}
    once = pickaxe.reranker("fullrank", **options).rerank("query", texts(lengths))
    often = pickaxe.reranker("fullrank", **options, passes=9).rerank("query", texts(lengths))
    best = [f"c{row}" for row in reversed(range(30))]
    assert once.ids[:2] == best[:2]
    assert once.ids != best
    assert often.ids[:10] == best[:10]
    assert often.usage["prompts"] == 9 * once.usage["prompts"]


def test_inherited_scores_stay_with_the_places() -> None:
    candidates = [Item(f"c{row}", "x" * row, {"score": 9.0 - row}) for row in range(3)]
    ranking = pickaxe.reranker("fullrank", ranker="longest", score_mode="inherit").rerank("query", candidates, 2)
    assert [(entry.id, entry.score) for entry in ranking] == [("c2", 9.0), ("c1", 8.0)]
    assert ranking.scores.tolist() == [7.0, 8.0, 9.0]


def test_shuffling_is_keyed() -> None:
    Says.text = ""
    candidates = texts(range(20))
    first, again, other = (
        pickaxe.reranker("fullrank", decoder="says", shuffle_seed=seed).rerank("query", candidates).ids
        for seed in (1, 1, 2)
    )
    assert first == again != other
    assert sorted(first) == sorted(item.id for item in candidates)
    longest = pickaxe.reranker("fullrank", ranker="longest", shuffle_seed=1).rerank("query", candidates).ids
    assert longest == [f"c{row}" for row in reversed(range(20))]


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"window": 4, "step": 5}, "step 5 is larger than window 4"),
        ({"step": 0}, "step"),
        ({"window": 0}, "window"),
        ({"strategy": "complete", "window": 4, "step": 4}, "needs step below window 4"),
        ({"strategy": "complete", "passes": 2}, "leave passes at 1"),
        ({"passes": 0}, "passes"),
        ({"max_passage_len": 0}, "max_passage_len"),
        ({"context_tokens": 0}, "context_tokens"),
        ({"score_mode": "model"}, "score_mode"),
        ({"ranker": "encoder", "decoder": "says"}, "give one of them"),
    ],
)
def test_bad_parameters_are_named(params: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParams, match=message):
        pickaxe.reranker("fullrank", **params)


def test_no_candidates_give_an_empty_ranking_and_repeated_ids_an_error() -> None:
    reranker = pickaxe.reranker("fullrank", ranker="longest")
    assert len(reranker.rerank("query", [])) == 0
    with pytest.raises(InvalidItems, match="'c' was used before"):
        reranker.rerank("query", [Item("c", "a"), Item("c", "b")])


def test_inheriting_needs_falling_scores() -> None:
    reranker = pickaxe.reranker("fullrank", ranker="longest", score_mode="inherit")
    with pytest.raises(InvalidItems, match=r"items\[0\].fields.score.*missing"):
        reranker.rerank("query", texts([1, 2]))
    with pytest.raises(InvalidItems, match=r"candidates\[1\].fields.score: rises"):
        reranker.rerank("query", [Item("a", "a", {"score": 1.0}), Item("b", "b", {"score": 2.0})])


def test_a_budget_that_is_too_small_is_refused_before_the_first_prompt() -> None:
    reranker = pickaxe.reranker("fullrank", decoder="says", strategy="sliding")
    with pytest.raises(DoesNotFit, match="takes 9 prompts, the budget is 8"):
        reranker.rerank("query", texts([1] * 100), budget=8)
    assert Says.asked == []
    assert len(reranker.rerank("query", texts([1] * 100), budget=9)) == 100
