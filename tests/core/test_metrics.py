"""Ranking metrics against hand-made cases, the published runs and an independent implementation."""

from __future__ import annotations

from pathlib import Path

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pickaxe import metrics
from pickaxe.errors import InvalidItems, InvalidParams

FILES = Path(__file__).parents[1] / "golden" / "files" / "68-fullrank"
RUNS = {
    "dl19_bm25_top100.txt": {1: 0.5426, 5: 0.5278, 10: 0.5058},
    "dl19_rankmistral100_top100.txt": {1: 0.7287, 5: 0.7419, 10: 0.7255},
}


@pytest.mark.parametrize("name", RUNS)
def test_published_runs_reach_their_published_ndcg(name: str) -> None:
    run, qrels = metrics.read_run(FILES / name), metrics.read_qrels(FILES / "dl19_qrels.txt")
    assert len(run) == len(qrels) == 43
    for k, expected in RUNS[name].items():
        assert round(metrics.mean(metrics.ndcg(run, qrels, k)), 4) == expected


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("k", [1, 5, 10, 20])
def test_agrees_with_ir_measures(name: str, k: int) -> None:
    run, qrels = metrics.read_run(FILES / name), metrics.read_qrels(FILES / "dl19_qrels.txt")
    scored = {query: {each: -float(rank) for rank, each in enumerate(row)} for query, row in run.items()}
    theirs = {}
    ours = {}
    for measure, function in (
        (ir_measures.nDCG @ k, metrics.ndcg),
        (ir_measures.RR @ k, metrics.mrr),
        (ir_measures.R @ k, metrics.recall),
    ):
        for entry in ir_measures.iter_calc([measure], qrels, scored):
            theirs[str(measure), entry.query_id] = entry.value
        ours |= {(str(measure), query): value for query, value in function(run, qrels, k).items()}
    assert ours == pytest.approx(theirs, abs=1e-9)


def test_by_hand() -> None:
    qrels = {"q": {"a": 3, "b": 0, "c": 1}, "empty": {"a": 0}, "absent": {"a": 1}}
    run = {"q": ["b", "c", "a"], "empty": ["a"]}
    assert metrics.mrr(run, qrels, 10) == {"q": 0.5, "absent": 0.0}
    assert metrics.mrr(run, qrels, 1) == {"q": 0.0, "absent": 0.0}
    assert metrics.recall(run, qrels, 2) == {"q": 0.5, "absent": 0.0}
    gained, ideal = 1 / np.log2(3) + 3 / 2, 3 + 1 / np.log2(3)
    assert metrics.ndcg(run, qrels, 3) == pytest.approx({"q": gained / ideal, "absent": 0.0})
    assert np.isnan(metrics.mean({}))


@settings(max_examples=50, deadline=None)
@given(ranks=st.lists(st.integers(0, 15), min_size=1, max_size=20), k=st.integers(1, 12))
def test_ranks_and_runs_say_the_same(ranks: list[int], k: int) -> None:
    run = {str(q): [f"x{i}" for i in range(rank - 1)] + ["gold"] * (rank > 0) for q, rank in enumerate(ranks)}
    qrels = {query: {"gold": 1} for query in run}
    assert metrics.reciprocal_ranks(np.array(ranks), k).tolist() == list(metrics.mrr(run, qrels, k).values())
    assert metrics.hits(np.array(ranks), k).tolist() == list(metrics.recall(run, qrels, k).values())


@settings(max_examples=50, deadline=None)
@given(grades=st.lists(st.integers(0, 3), min_size=1, max_size=12), k=st.integers(1, 12))
def test_ndcg_is_one_for_the_ideal_order_only(grades: list[int], k: int) -> None:
    qrels = {"q": {str(row): grade for row, grade in enumerate(grades)}}
    ideal = sorted(qrels["q"], key=lambda document: -qrels["q"][document])
    values = metrics.ndcg({"q": ideal}, qrels, k)
    assert values == ({"q": pytest.approx(1.0)} if any(grades) else {})
    for value in metrics.ndcg({"q": ideal[::-1]}, qrels, k).values():
        assert 0 <= value <= 1 + 1e-12


def test_readers_order_by_score_then_rank_and_name_bad_lines(tmp_path: Path) -> None:
    path = tmp_path / "run.txt"
    path.write_text("q Q0 a 3 1.0 x\nq Q0 b 2 2.5 x\n\nq Q0 c 1 1.0 x\n")
    assert metrics.read_run(path) == {"q": ["b", "c", "a"]}
    path.write_text("q Q0 a 1 1.0 x\nq Q0 a 2 0.5 x\n")
    with pytest.raises(InvalidItems, match=r"run.txt:2.*'a' of query 'q' again"):
        metrics.read_run(path)
    path.write_text("q Q0 a 1\n")
    with pytest.raises(InvalidItems, match=r"run.txt:1: has 4 fields, wanted 6"):
        metrics.read_run(path)
    path.write_text("q 0 a high\n")
    with pytest.raises(InvalidItems, match="'high' is not a number"):
        metrics.read_qrels(path)


def test_refuses_k_below_one_and_repeated_documents() -> None:
    with pytest.raises(InvalidParams, match="k: must be at least 1"):
        metrics.ndcg({}, {}, 0)
    with pytest.raises(InvalidItems, match="more than once"):
        metrics.recall({"q": ["a", "a"]}, {"q": {"a": 1}}, 2)
