"""`anncur`: approximation and its conditions, the budget of calls, growth, and bad input."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from black_boxes import Box, of_table, registered

import pickaxe
from pickaxe import Artifact, Item
from pickaxe.errors import ArtifactMismatch, DoesNotFit, InvalidItems, InvalidParams, MethodFailed, Unmet
from pickaxe.handle import RetrieverHandle
from pickaxe_plugins.retrieval.anncur import _index

pytestmark = pytest.mark.filterwarnings("ignore:anncur")  # small examples have few anchor queries

N, ANCHOR_QUERIES, TESTS = 40, 24, 6
RANDOM = np.random.default_rng(7)
LOW = RANDOM.standard_normal((ANCHOR_QUERIES + TESTS, 5)) @ RANDOM.standard_normal((5, N))
"""Rank 5: anchor queries, then test queries."""
NOISY = LOW + 0.5 * RANDOM.standard_normal(LOW.shape)
DOCUMENTS = [Item(str(row), f"document {row}") for row in range(N)]
QUERIES = [str(row) for row in range(ANCHOR_QUERIES)]
ASKED = [str(row) for row in range(ANCHOR_QUERIES, ANCHOR_QUERIES + TESTS)]


@pytest.fixture
def box() -> Iterator[Box]:
    with registered("box", of_table(NOISY)) as found:
        yield found


@pytest.fixture
def low() -> Iterator[Box]:
    with registered("box", of_table(LOW)) as found:
        yield found


def made(documents: list[Item] | None = None, **params: object) -> RetrieverHandle:
    given_params = {"scorer": "box", "anchor_queries": QUERIES, "anchors": 8, **params}
    return pickaxe.retriever("anncur", **given_params).index(DOCUMENTS if documents is None else documents)


def opened(index: RetrieverHandle) -> Artifact:
    assert index.artifact is not None
    return index.artifact


def path(index: RetrieverHandle) -> Path:
    return opened(index).path


def exact_best(table: np.ndarray, query: str, k: int) -> list[str]:
    return [str(row) for row in np.argsort(-table[int(query)], kind="stable")[:k]]


# ---------------------------------------------------------------- what is approximated


def test_a_matrix_of_low_rank_is_exact(low: Box) -> None:
    index = made(rerank=False, precision="float64", rcond=1e-10)
    for query, hits in zip(ASKED, index.search(ASKED, N), strict=True):
        assert len(hits) == N
        assert [hit.score for hit in hits] == pytest.approx([LOW[int(query), int(hit.id)] for hit in hits], abs=1e-8)


def test_anchors_come_back_as_they_were_scored(box: Box) -> None:
    index = made(precision="float64")
    anchors = {item.id for item in _index.CurIndex(opened(index)).anchors}
    assert len(anchors) == 8
    for query, hits in zip(ASKED, index.search(ASKED, 16), strict=True):
        for hit in hits:
            assert hit.score == hit.columns["exact"] == NOISY[int(query), int(hit.id)]
            if hit.id in anchors:
                assert hit.columns["approx"] == pytest.approx(hit.score, abs=1e-8)


def test_a_bias_of_all_queries_stays_in_the_scores() -> None:
    bias = 100 * np.random.default_rng(1).standard_normal(N)
    with registered("box", of_table(LOW + bias)):
        found = made(rerank=False, precision="float64", rcond=1e-10).search(ASKED, N)
    for query, hits in zip(ASKED, found, strict=True):
        assert [hit.id for hit in hits] == exact_best(LOW + bias, query, N)


# ---------------------------------------------------------------- the budget


@pytest.mark.parametrize("budget", [8, 9, 20, N, N + 50])
def test_every_query_takes_the_budget(box: Box, budget: int) -> None:
    index = made(budget=budget)
    assert box.calls() == N * ANCHOR_QUERIES
    assert opened(index).notes["model_calls"] == N * ANCHOR_QUERIES
    found = index.search(ASKED, 5)
    assert box.calls() == found.usage["model_calls"] == TESTS * min(budget, N)


def test_the_default_budget_is_twice_the_anchors_or_k(box: Box) -> None:
    index = made()
    for k, calls in ((5, 16), (30, 30)):
        box.calls()
        found = index.search(ASKED[:1], k)
        assert len(found[0]) == k
        assert box.calls() == calls


def test_recall_grows_with_the_budget_up_to_all(box: Box) -> None:
    index = made()
    for k in (1, 5, 10):
        before = 0.0
        for budget in range(max(k, 8), N + 1, 4):
            found = pickaxe.retriever("anncur", artifact=path(index), budget=budget).search(ASKED, k)
            right = [
                set(exact_best(NOISY, query, k)) & {hit.id for hit in hits}
                for query, hits in zip(ASKED, found, strict=True)
            ]
            recall = float(np.mean([len(each) / k for each in right]))
            assert recall >= before
            before = recall
        assert before == 1


def test_the_call_bounds_the_budget_of_all_queries(box: Box) -> None:
    index = made(budget=20)
    box.calls()
    index.search(ASKED, 5, budget=TESTS * 12)
    assert box.calls() == TESTS * 12
    with pytest.raises(DoesNotFit, match="at least 48 model calls"):
        index.search(ASKED, 5, budget=47)
    assert box.calls() == 0


def test_without_rerank_the_anchors_are_all_that_is_scored(box: Box) -> None:
    index = made(rerank=False)
    box.calls()
    (hits,) = index.search(ASKED[:1], N)
    assert box.calls() == 8
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert hits[0].columns == {"approx": hits[0].score}


def test_the_authors_accounting_finds_no_more(box: Box) -> None:
    ours, theirs = made(budget=14), made(budget=14, count_anchors_twice=True)
    for query in ASKED:
        (one,), (other,) = ours.search([query], 6), theirs.search([query], 6)
        assert len(other) == 6
        assert all(a.score >= b.score for a, b in zip(one, other, strict=True))
    assert theirs.search(ASKED, 6).usage["model_calls"] == TESTS * 14


# ---------------------------------------------------------------- the index


def test_same_seed_same_anchors_and_blocks_do_not_matter(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    one = made().search(ASKED, 10)
    monkeypatch.setattr(_index, "BLOCK", 7)
    other = made().search(ASKED, 10)
    assert [[hit.id for hit in hits] for hits in one] == [[hit.id for hit in hits] for hits in other]
    for hits, again in zip(one, other, strict=True):
        assert [hit.columns["approx"] for hit in hits] == pytest.approx(
            [hit.columns["approx"] for hit in again], abs=1e-6
        )


def test_scores_that_documents_carry_need_no_model(box: Box) -> None:
    carried = [Item(each.id, each.text, {"anchor_scores": NOISY[:ANCHOR_QUERIES, int(each.id)]}) for each in DOCUMENTS]
    index = made(carried, anchor_queries=[])
    assert box.calls() == 0
    assert index.search(ASKED, 10).results == made().search(ASKED, 10).results


def test_growing_scores_new_documents_only_and_keeps_anchors(box: Box) -> None:
    old = made(DOCUMENTS[:30], precision="float64")
    anchors = [item.id for item in _index.CurIndex(opened(old)).anchors]
    box.calls()
    gone = [anchors[0], "3" if anchors[0] != "3" else "4"]
    grown = old.add(DOCUMENTS[30:], remove=gone)
    assert box.calls() == 10 * ANCHOR_QUERIES
    found = grown.search(ASKED, 16)
    assert box.calls() == TESTS * 16
    ids = {hit.id for hits in found for hit in hits}
    assert not ids & set(gone)
    assert ids & {str(row) for row in range(30, N)}
    whole = grown.search(ASKED[:1], 38)[0]
    before = {hit.id: hit.columns["approx"] for hit in old.search(ASKED[:1], 30)[0]}
    assert all(hit.columns["approx"] == pytest.approx(before[hit.id]) for hit in whole if hit.id in before)
    with pytest.raises(ArtifactMismatch, match="anchor_queries"):
        pickaxe.retriever("anncur", scorer="box", anchor_queries=QUERIES[:5]).index(DOCUMENTS[30:], base=old.artifact)


def test_a_fit_gives_the_index_its_anchors(box: Box) -> None:
    fitted = pickaxe.retriever("anncur", scorer="box", anchor_queries=QUERIES, anchors=8).fit(DOCUMENTS[:20])
    box.calls()
    index = fitted.index(DOCUMENTS)
    assert box.calls() == 20 * ANCHOR_QUERIES
    assert len(index.search(ASKED, 12)[0]) == 12


def test_an_index_moves_and_refuses_another_scorer(box: Box, tmp_path: Path) -> None:
    first = pickaxe.retriever("anncur", scorer="box", anchor_queries=QUERIES).index(DOCUMENTS, out=tmp_path / "a")
    shutil.move(tmp_path / "a", tmp_path / "b")
    index = pickaxe.retriever("anncur", artifact=tmp_path / "b")
    assert (
        index.search(ASKED, 3).results == pickaxe.retriever("anncur", artifact=tmp_path / "b").search(ASKED, 3).results
    )
    assert first.params == index.params
    for other in ({"scorer": "maxsim"}, {"scorer": {"name": "box2"}}):
        with registered("box2", of_table(NOISY)), pytest.raises(ArtifactMismatch, match="built with the scorer 'box'"):
            pickaxe.retriever("anncur", artifact=tmp_path / "b", **other).search(ASKED, 3)


def test_another_version_of_the_scorer_is_refused(tmp_path: Path) -> None:
    with registered("box", of_table(NOISY)):
        pickaxe.retriever("anncur", scorer="box", anchor_queries=QUERIES).index(DOCUMENTS, out=tmp_path / "a")
    with registered("box", of_table(NOISY), version=2), pytest.raises(ArtifactMismatch, match="scorer"):
        pickaxe.retriever("anncur", artifact=tmp_path / "a").search(ASKED, 3)


def test_fields_that_the_scorer_reads_are_kept() -> None:
    with registered("box", lambda query, document: float(document.get("tag") == query.text)):
        documents = [Item(str(row), "same text", {"tag": "ab"[row % 2], "other": "x"}) for row in range(6)]
        index = made(documents, anchor_queries=["a", "b", "c"], anchors=2)
        assert {hit.id for hit in index.search(["b"], 3)[0]} == {"1", "3", "5"}


# ---------------------------------------------------------------- as a reranker


def test_reranker_scores_all_it_may(box: Box) -> None:
    reranker = pickaxe.reranker("anncur", scorer="box")
    ranking = reranker.rerank(Item("q", ASKED[0]), DOCUMENTS)
    assert ranking.ids == exact_best(NOISY, ASKED[0], N)
    assert box.calls() == ranking.usage["model_calls"] == N
    with pytest.raises(Unmet, match="fit on the documents first"):
        reranker.rerank(Item("q", ASKED[0]), DOCUMENTS, budget=10)


def test_reranker_keeps_its_budget(box: Box) -> None:
    fitted = pickaxe.reranker("anncur", scorer="box", anchor_queries=QUERIES, anchors=8, budget=20).fit(DOCUMENTS)
    box.calls()
    ranking = fitted.rerank(Item("q", ASKED[0]), DOCUMENTS)
    assert box.calls() == ranking.usage["model_calls"] == 20
    assert ranking.record == {"exact": 20, "approximate": N - 20}
    assert sorted(ranking.ids) == sorted(item.id for item in DOCUMENTS)
    first = [entry.score for entry in ranking][:20]
    assert first == [NOISY[int(ASKED[0]), int(name)] for name in ranking.ids[:20]] == sorted(first, reverse=True)
    fitted.rerank(Item("q", ASKED[0]), DOCUMENTS[:12])
    assert box.calls() == 12
    with pytest.raises(DoesNotFit):
        fitted.rerank(Item("q", ASKED[0]), DOCUMENTS, budget=5)


def test_reranker_scores_strangers_first_and_says_who_is_left_out(box: Box) -> None:
    fitted = pickaxe.reranker("anncur", scorer="box", anchor_queries=QUERIES, anchors=8, budget=20).fit(DOCUMENTS[:30])
    ranking = fitted.rerank(Item("q", ASKED[0]), DOCUMENTS)
    assert {str(row) for row in range(30, N)} <= set(ranking.ids[:20])
    assert len(ranking) == N
    ranking = fitted.rerank(Item("q", ASKED[0]), DOCUMENTS, budget=12)
    assert len(ranking) == N - 6
    assert "6 candidates are not in the index" in ranking.cut
    assert np.isnan(ranking.scores).sum() == 6


def test_reranker_uses_an_index(box: Box) -> None:
    index = made()
    reranker = pickaxe.reranker("anncur", artifact=path(index))
    box.calls()
    assert len(reranker.rerank(Item("q", ASKED[0]), DOCUMENTS, 5, budget=16)) == 5
    assert box.calls() == 16


# ---------------------------------------------------------------- other scorers


def test_a_scorer_that_reads_the_query(tmp_path: Path) -> None:
    from pickaxe import Call, Column, InputField, Items, Method, Params, catalog, hookimpl
    from pickaxe.data import Scores

    class Shared(Method[Params]):
        """Letters that query and text share."""

        scope = "item"
        reads = (InputField("text", "text", "Text."), InputField("query", "text", "Query."))
        columns = (Column("shared", "Letters."),)

        @hookimpl
        def score(self, items: Items, call: Call) -> Scores:
            shared = [len(set(str(item.get("query"))) & set(item.text or "")) for item in items]
            return Scores({"shared": np.array(shared, np.float32)})

    with catalog.register(Shared, "shared-letters", "scorer"):
        index = pickaxe.retriever("anncur", scorer="shared-letters", anchor_queries=["abc", "xyz"], anchors=1).index(
            ["abcd", "xyzw", "ax"]
        )
        assert [(hit.id, hit.score) for hit in index.search(["xyz"], 3)[0]] == [("1", 3), ("2", 1), ("0", 0)]


def test_maxsim_finds_shared_words() -> None:
    texts = ["Green tea is brewed hot.", "The moon is far.", "", "Stocks fell."]
    index = pickaxe.retriever("anncur", scorer="maxsim", anchor_queries=["tea", "moon", "shares"]).index(texts)
    assert [index.search([query], 1)[0][0].id for query in ("tea", "moon")] == ["0", "1"]
    assert {hit.score for hit in index.search([""], 4)[0]} == {0.0}


# ---------------------------------------------------------------- bad input


def test_parameters_that_contradict() -> None:
    for params, said in (
        ({"anchors": 10, "budget": 5}, "budget 5 is less than the 10 anchors"),
        ({"anchor_ids": ["a", "a"]}, "twice"),
        ({"anchor_ids": ["a"], "anchors": 2}, "leave anchors out"),
        ({"rcond": -1.0}, "rcond"),
    ):
        with pytest.raises(InvalidParams, match=said):
            pickaxe.retriever("anncur", **params)


def test_bad_indexes(box: Box) -> None:
    with pytest.raises(InvalidItems, match="are none"):
        made([])
    with pytest.raises(InvalidParams, match="anchor_queries: is empty"):
        made(anchor_queries=[])
    with pytest.raises(InvalidParams, match=r"anchors: are 41, of only 40"):
        made(anchors=41)
    with pytest.raises(InvalidParams, match="no document of 40"):
        made(anchors=None, anchor_ids=["zz"])
    with pytest.raises(InvalidItems, match="used before"):
        made([DOCUMENTS[0], DOCUMENTS[0]])
    for bad, said in (([1.0, np.nan], "not finite"), ([1.0], r"shape \(1,\), wanted \(2,\)")):
        documents = [Item("0", "a", {"anchor_scores": np.ones(2)}), Item("1", "b", {"anchor_scores": np.array(bad)})]
        with pytest.raises(InvalidItems, match=said):
            made(documents, anchor_queries=[])


def test_a_scorer_that_fails_is_named() -> None:
    with (
        registered("box", lambda query, document: float("nan")),
        pytest.raises(MethodFailed, match="box gave 40 of 40"),
    ):
        made()


def test_bad_searches(box: Box) -> None:
    index = made(budget=10)
    with pytest.raises(InvalidParams, match="k: is 11, but only 10"):
        index.search(ASKED, 11)
    assert len(index.search([], 3)) == 0
    one = made(DOCUMENTS[:1], anchors=None)
    assert [hit.id for hit in one.search(ASKED[:1], 10)[0]] == ["0"]
    half = made(DOCUMENTS, anchors=None)
    with pytest.raises(InvalidParams, match="the anchors alone take 20"):
        pickaxe.retriever("anncur", artifact=path(half), budget=7).search(ASKED, 3)


def test_few_anchor_queries_are_warned_of(box: Box) -> None:
    with pytest.warns(UserWarning, match="anncur: 10 anchor queries for 8 anchors"):
        index = made(anchor_queries=QUERIES[:10])
    assert json.dumps(opened(index).notes["warnings"]).count("fewer than two") == 1
