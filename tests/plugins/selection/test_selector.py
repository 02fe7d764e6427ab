"""Pipelines: stages in order, reasons, missing values, edits, and what is refused."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selector_runs import Place, Q, Shout, pool, run, stage

import pickaxe
from pickaxe import Item, catalog
from pickaxe.errors import InvalidItems, InvalidParams, Unmet
from pickaxe.report import explained


@pytest.fixture(autouse=True)
def _methods() -> Iterator[None]:
    with catalog.register(Shout, "t-shout", "scorer"), catalog.register(Place, "t-place", "scorer"):
        yield


def test_columns_of_a_run() -> None:
    items = [*pool(0.9, 0.1, 0.5), Item("blank", "  \n"), Item("long", "x" * 50, {"q": 1.0})]
    stages = [stage("low", "threshold", Q, at_least=0.3), stage("best", "top_k", Q, k=1)]
    scores = run(stages, items, max_characters=40)
    assert scores["keep"].tolist() == scores["count"].tolist() == [1, 0, 0, 0, 0]
    assert scores["dropped_by"].tolist() == [-1, 0, 1, -2, -2]
    assert scores["reason"].tolist() == ["", "below", "not_in_top_k", "empty", "too_long"]
    assert scores["priority"].tolist() == [0.9, -np.inf, -np.inf, -np.inf, -np.inf]
    assert scores["low"][:3].tolist() == [0.9, 0.1, 0.5]
    assert np.isnan(scores["best"][[1, 3, 4]]).all()
    answer, figures = explained(scores.summary)
    assert answer[0] == "1 of 5 items are kept (20%)."
    assert "before all stages" in answer[1]
    assert list(figures[0].series[0].x) == [5, 3, 2, 1]
    assert sum(row["items"] for row in scores.summary["Reasons"]) == 4
    assert {row["id"] for row in scores.summary["Examples of what was dropped"]} == {"d1", "d2", "blank", "long"}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=12), st.permutations(range(3)))
def test_order_of_item_wise_filters_is_free_and_counts_agree(values: list[float | None], order: list[int]) -> None:
    stages = [
        stage("a", "threshold", Q, at_most=0.8),
        stage("b", "any_of", conditions=[{"utility": Q, "at_least": 0.5}, {"utility": "t-shout", "at_least": 12}]),
        stage("c", "pareto", Q, alpha=2.0, on_missing="keep"),
    ]
    items = pool(*values)
    first, second = run(stages, items), run([stages[row] for row in order], items)
    assert first["keep"].tolist() == second["keep"].tolist()
    assert ((first["count"] > 0) == (first["keep"] == 1)).all()
    dropped = (first["dropped_by"] != -1).sum()
    assert dropped == sum(row["dropped"] for row in first.summary["Funnel"])
    assert dropped == (first["reason"] != "").sum()


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ({"kind": "top_k", "k": 2}, [1, 4]),
        ({"kind": "quantile", "q": 0.5}, [0, 1, 4]),
        ({"kind": "top_fraction", "fraction": 0.4}, [1, 4]),
        ({"kind": "top_fraction", "fraction": 0.4, "by": "characters"}, [1, 4]),
        ({"kind": "top_fraction", "fraction": 0.5, "by": "tokens", "tokens": {"column": "n"}}, [4]),
        ({"kind": "per_group", "fraction": 0.5, "group": "g"}, [0, 1, 4]),
        ({"kind": "gumbel_top_k", "k": 2, "tau": 0.0}, [1, 4]),
        ({"kind": "diverse", "k": 2}, [2, 4]),
        ({"kind": "diverse", "k": 3, "max_similarity": 0.5}, [2, 4]),
        ({"kind": "semantic_dedup", "epsilon": 0.01}, [2, 4]),
        ({"kind": "exact_dedup"}, [0, 1, 2, 3, 4]),
        ({"kind": "minhash_dedup", "bands": 4, "rows": 1, "verify": 0.9}, [0, 1, 2, 3, 4]),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
def test_every_mechanism_in_a_pipeline(rule: dict[str, Any], kept: list[int]) -> None:
    items = [
        Item(f"d{row}", f"text number {row}", {"q": q, "g": g, "n": n, "embedding": np.array(v)})
        for row, (q, g, n, v) in enumerate(
            [(0.5, "a", 1, [1.0, 0]), (0.8, "a", 1, [1.0, 0]), (0.2, "a", 1, [0, 1.0]), (0.1, "b", 1, [1.0, 0]),
             (0.9, "b", 9, [1.0, 0.001])]
        )
    ]  # fmt: skip
    only = {"name": "only", "utility": Q, "mechanism": rule}
    assert np.flatnonzero(run([only], items)["keep"]).tolist() == kept


def test_duplicates_keep_the_best_or_the_first() -> None:
    items = [Item("a", "One  text", {"q": 1}), Item("b", "one text", {"q": 2}), Item("c", "another", {"q": 0})]
    assert run([stage("x", "exact_dedup")], items)["keep"].tolist() == [1, 0, 1]
    scores = run([stage("x", "exact_dedup", Q)], items)
    assert scores["keep"].tolist() == [0, 1, 1]
    assert scores["reason"].tolist() == ["duplicate", "", ""]
    near = [Item("a", "w " * 30 + "end"), Item("b", "w " * 30 + "End"), Item("c", "other words")]
    assert run([stage("x", "minhash_dedup")], near)["reason"].tolist() == ["", "near_duplicate", ""]


def test_counts_multiply_and_are_told() -> None:
    items = [Item(f"d{row}", "text", {"g": "a", "q": float(row)}) for row in range(4)]
    stages = [stage("twice", "epochs", group="g", total=8), stage("more", "epochs", Q, group="g", total=6)]
    scores = run(stages, items)
    assert scores["count"].tolist() == [2, 2, 4, 4]
    assert explained(scores.summary)[0][0] == "4 of 4 items are kept (100%), used 12 times in all."
    drawn = run([stage("r", "resample", Q, n=7)], items)
    assert drawn["count"].sum() == 7
    assert (drawn["count"] == run([stage("r", "resample", Q, n=7)], items)["count"]).all()
    assert drawn.summary["Funnel"][1]["left"] == drawn["keep"].sum()


def test_missing_values_go_as_the_stage_says() -> None:
    items = pool(0.2, None, 0.9)
    best = stage("best", "top_k", Q, k=1)
    assert run([best], items)["reason"].tolist() == ["not_in_top_k", "missing", ""]
    kept = run([{**best, "on_missing": "keep"}], items)
    assert kept["keep"].tolist() == [0, 1, 1]
    assert kept["priority"].tolist() == [-np.inf, 0.0, 0.9]
    with pytest.raises(InvalidItems, match=r"d1.*best"):
        run([{**best, "on_missing": "fail"}], items)
    groups = [Item("a", "t", {"q": 1.0, "g": "x"}), Item("b", "t", {"q": 1.0})]
    assert run([stage("g", "per_group", Q, group="g", fraction=1)], groups)["reason"].tolist() == ["", "missing"]
    vectors = [Item("a", "t", {"embedding": np.array([np.nan, 1])}), Item("b", "t", {"embedding": np.ones(2)})]
    assert run([stage("v", "diverse", k=2)], vectors)["reason"].tolist() == ["missing", ""]


def test_scorers_give_reasons_texts_and_directions() -> None:
    items = [Item("a", "abc"), Item("b", "abcdef"), Item("c", "abcdefgh")]
    stages = [
        stage("loud", "threshold", "t-shout", at_least=4, edit=True),
        stage("exact", "exact_dedup", normalise="none"),
        stage("short", "top_k", {"name": "t-shout", "column": "burden"}, k=1),
    ]
    scores = run(stages, items)
    assert scores["reason"].tolist() == ["short", "", "not_in_top_k"]
    assert scores["text"].tolist() == ["", "ABCDEF", ""]
    assert scores["priority"][1] == -6
    wide = stage("all", "threshold", "t-shout", at_least=7)
    assert run([wide], items)["reason"].tolist() == ["short", "below", ""]
    high = stage("long", "top_k", {"name": "t-shout", "column": "burden", "direction": "higher"}, k=1)
    assert run([high], items)["keep"].tolist() == [0, 0, 1]


def test_a_scorer_runs_once_for_all_stages_until_texts_are_edited() -> None:
    burden = {"name": "t-shout", "column": "burden"}
    stages = [stage("a", "threshold", "t-shout", at_least=2), stage("b", "top_k", burden, k=2, edit=True),
              stage("c", "top_k", burden, k=1)]  # fmt: skip
    Shout.seen.clear()
    assert run(stages, [Item(text, text) for text in ("x", "one", "three", "seventh")])["keep"].sum() == 1
    assert Shout.seen == ["x", "one", "three", "seventh", "ONE", "THREE"]


def test_all_of_names_the_first_condition_that_fails() -> None:
    rule = [{"utility": Q, "at_least": 0.5}, {"utility": "t-shout", "at_most": 11}]
    items = [*pool(0.9, 0.1), Item("long", "a much longer text", {"q": 1.0})]
    assert run([stage("all", "all_of", conditions=rule)], items)["reason"].tolist() == ["", "q", "t-shout"]


@pytest.mark.parametrize(("normalise", "best"), [("none", 2), ("z", 0), ("rank", 0)])
def test_weighted_sums(normalise: str, best: int) -> None:
    items = [
        Item("a", "t", {"q": 3.0, "big": 100.0}),
        Item("b", "t", {"q": 1.0, "big": 100.0}),
        Item("c", "t", {"q": 1.0, "big": 110.0}),
        Item("d", "t", {"q": 2.0, "big": 90.0}),
    ]
    terms = [{"column": "q", "weight": 2.0}, {"column": "big"}]
    scores = run([stage("sum", "top_k", combine={"terms": terms, "normalise": normalise}, k=1)], items)
    assert np.argmax(scores["keep"]) == best


def test_a_scorer_of_the_whole_pool_sees_what_is_left() -> None:
    stages = [stage("low", "threshold", Q, at_least=0.3), stage("place", "threshold", "t-place", at_least=0.5)]
    scores = run(stages, pool(0.9, 0.1, 0.5, 0.2))
    assert scores["place"][[0, 2]].tolist() == [0, 0.5]
    assert scores["keep"].tolist() == [0, 0, 1, 0]
    with pytest.raises(Unmet, match=r"place.*t-place"):
        pickaxe.scorer("selector", stages=stages).opened.method.streams()


def test_repeated_ids_and_large_budgets_are_told() -> None:
    scores = run([stage("best", "top_k", Q, k=9)], [*pool(1.0), *pool(2.0)])
    assert [(flag.index, flag.reason) for flag in scores.flags] == [(1, "repeated-id")]
    answer, _ = explained(scores.summary)
    assert "Stage best asks for 9 items, and only 2 reached it." in answer
    assert "1 items have an id that came before." in answer


@pytest.mark.parametrize(
    "rule",
    [{"kind": "top_k", "k": 9}, {"kind": "top_fraction", "fraction": 1}, {"kind": "quantile", "q": 0},
     {"kind": "gumbel_top_k", "k": 9}, {"kind": "resample", "n": 50}],
    ids=lambda rule: rule["kind"],
)  # fmt: skip
def test_minus_infinity_says_never(rule: dict[str, Any]) -> None:
    only = {"name": "only", "utility": Q, "mechanism": rule}
    assert run([only], pool(0.5, -np.inf, 0.4))["keep"].tolist() == [1, 0, 1]


def test_dsir_weights_as_the_utility() -> None:
    prose = [f"the horse and river number {row} ran over the blue field " * 12 for row in range(6)]
    code = [f"def f{row}(x): return x + {row} ; print ( x ) " * 12 for row in range(6)]
    with_targets = pickaxe.scorer("dsir").fit(
        ["the blue river and the horse in the field " * 12], unlabelled=prose + code
    )
    assert with_targets.artifact is not None
    utility = {"name": "dsir", "artifact": str(with_targets.artifact.path), "column": "log_weight"}
    items = [Item(str(row), text) for row, text in enumerate([*code, *prose, "the horse"])]
    scores = run([stage("dsir", "top_fraction", utility, fraction=0.4)], items)
    assert np.flatnonzero(scores["keep"]).min() >= 6
    default = run([stage("dsir", "top_k", {**utility, "column": ""}, k=99)], items)
    assert default["keep"].tolist() == [1] * 12 + [0]  # too short: a weight, and never picked


def test_nothing_at_all() -> None:
    scores = run([stage("best", "top_k", Q, k=9)], [])
    assert len(scores) == 0
    assert explained(scores.summary)[0] == ("There were no items.",)
    blank = run([stage("x", "minhash_dedup"), stage("best", "quantile", Q, q=0.5)], [Item("a", "")])
    assert blank["reason"].tolist() == ["empty"]


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({}, "stages"),
        ({"stages": []}, "stages"),
        ({"stages": [stage("a", "top_k", Q)]}, "stages[0].mechanism.k"),
        ({"stages": [stage("a", "top_k", Q, k=1), stage("b", "top_k", Q, kk=1, k=1)]}, "stages[1].mechanism.kk"),
        ({"stages": [{**stage("a", "top_k", Q, k=1), "utilty": 1}]}, "stages[0].utilty"),
        ({"stages": [stage("a", "nonsense", Q)]}, "stages[0].mechanism"),
        ({"stages": [stage("a", "top_fraction", Q, fraction=1.5)]}, "stages[0].mechanism.fraction"),
        ({"stages": [stage("a", "top_fraction", Q, fraction=0.5, by="tokens")]}, "stages[0].mechanism"),
        ({"stages": [stage("a", "top_k", {"colum": "q"}, k=1)]}, "stages[0].utility.colum"),
        ({"stages": [stage("a", "top_k", k=1)]}, "stages[0]"),
        ({"stages": [stage("a", "threshold", Q)]}, "stages[0].mechanism"),
        ({"stages": [stage("a", "all_of", conditions=[{"utility": Q, "least": 1}])]},
         "stages[0].mechanism.conditions[0].least"),
        ({"stages": [stage("keep", "top_k", Q, k=1)]}, "stages"),
        ({"stages": [stage("a", "exact_dedup"), stage("a", "exact_dedup")]}, "stages"),
    ],
)  # fmt: skip
def test_errors_lead_to_the_offending_key(params: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidParams) as raised:
        pickaxe.scorer("selector", **params)
    assert path in [each.field for each in raised.value.violations]


@pytest.mark.parametrize(
    ("utility", "told"),
    [
        ({"name": "t-shout", "column": "nope"}, r"a.*no column 'nope'.*length"),
        ({"name": "t-shout", "column": "text"}, r"a.*text"),
        ({"name": "zip-fitt"}, r"zip-fit"),
    ],
)
def test_scorers_and_columns_are_looked_up_before_any_work(utility: dict[str, Any], told: str) -> None:
    with pytest.raises(pickaxe.PickaxeError, match=told):
        run([stage("a", "top_k", utility, k=1)], pool(1.0))


def test_values_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(InvalidItems, match=r"d0.*q.*str"):
        run([stage("a", "top_k", Q, k=1)], [Item("d0", "t", {"q": "high"})])
    with pytest.raises(InvalidItems, match=r"b.*3 numbers.*2"):
        run([stage("a", "diverse", k=1)], [Item("a", "t", {"embedding": np.ones(2)}),
                                           Item("b", "t", {"embedding": np.ones(3)})])  # fmt: skip
