"""`rag-relative`: relative scores, intervals, retrieval metrics, judges and errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pickaxe
from pickaxe import Column, Hit, Item, Items, Method, Scores, Span, catalog
from pickaxe.answers import exact_match, token_f1
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe.hooks import hookimpl
from pickaxe_plugins.retrieval.rag_relative import rank_of_gold

GOLD = "gold chunk"


def answers(system: str, scores: list[float], ranks: list[int | None] | None = None, **fields: Any) -> list[Item]:
    items = []
    for row, score in enumerate(scores):
        rank = {} if ranks is None or ranks[row] is None else {"rank_of_gold": ranks[row]}
        base = {"system": system, "reference_system": GOLD, "question": f"q{row}", "score": score}
        items.append(Item(f"{system}/{row}", fields={**base, **rank, **fields}))
    return items


def score(items: list[Item], seed: int = 0, **params: Any) -> Scores:
    return pickaxe.scorer("rag-relative", **params).score(items, seed=seed)


@settings(max_examples=40, deadline=None)
@given(scores=st.lists(st.tuples(*[st.sampled_from([0.0, 0.5, 1.0])] * 2), min_size=1, max_size=12))
def test_the_reference_is_its_own_measure(scores: list[tuple[float, float]]) -> None:
    reference = [1.0 if row == 0 else theirs for row, (_, theirs) in enumerate(scores)]
    result = score([*answers(GOLD, reference), *answers("s", [mine for mine, _ in scores])], bootstrap=20)
    n = len(scores)
    assert (result["relative"][:n] == 1).all()
    assert (result["degradation"][:n] == 0).all()
    assert result["relative"] + result["degradation"] == pytest.approx(1)
    assert result["relative"][n] == pytest.approx(sum(mine for mine, _ in scores) / sum(reference))
    for name in ("relative", "degradation", "mean_score"):
        low, high = result[f"{name}_low"], result[f"{name}_high"]
        assert ((low <= high) | np.isnan(low)).all()


def test_means_are_divided_not_scores() -> None:
    result = score([*answers(GOLD, [1.0, 0.5]), *answers("s", [0.5, 0.5])])
    assert result["relative"][2] == pytest.approx(1.0 / 1.5)


def test_every_item_gets_its_systems_values_and_groups_list_them() -> None:
    items = [*answers("s", [0.5, 1.0], [1, 4], k=3, chunk_size=200), *answers(GOLD, [1.0, 1.0], [1, 1])]
    result = score(items, ks=(1, 5), mrr_at=3)
    assert result["mrr@3"].tolist() == [0.5, 0.5, 1.0, 1.0]
    assert result["recall@1"].tolist() == [0.5, 0.5, 1.0, 1.0]
    assert result["recall@5"].tolist() == [1.0] * 4
    assert result.groups is not None
    assert result.groups.keys == ("s", GOLD)
    assert result.groups.columns["relative"].tolist() == [0.75, 1.0]
    assert result.groups.columns["k"][0] == 3
    assert result.groups.columns["chunk_size"][0] == 200
    assert np.isnan(result.groups.columns["k"][1])
    report = result.summary["systems"]
    assert [line["system"] for line in report] == ["s", GOLD]
    assert report[0]["recall@1"] == 0.5


def test_questions_without_gold_chunk_are_left_out_and_counted() -> None:
    result = score([*answers(GOLD, [1.0, 1.0]), *answers("s", [1.0, 0.0], [None, 2])])
    assert result.groups is not None
    assert result.groups.columns["without_gold_chunk"].tolist() == [2, 1]
    assert np.isnan(result["mrr@10"][0])
    assert result["mrr@10"][2] == 0.5
    assert result["relative"][2] == 0.5


def test_questions_the_reference_lacks_are_left_out_and_counted() -> None:
    result = score([*answers(GOLD, [1.0]), *answers("s", [0.5, 1.0])])
    assert result.groups is not None
    assert result.groups.columns["excluded"].tolist() == [0, 1]
    assert result["relative"][1:].tolist() == [0.5, 0.5]


def test_order_of_questions_counts_only_without_their_ids() -> None:
    mine = answers("s", [0.0, 1.0, 0.5])
    turned = [*answers(GOLD, [1.0, 1.0, 0.5]), *mine[::-1]]
    result = score(turned)
    straight = score([*answers(GOLD, [1.0, 1.0, 0.5]), *mine])
    assert result["relative"].tolist() == straight["relative"].tolist()
    bare = [
        Item(item.id, fields={key: value for key, value in item.fields.items() if key != "question"})
        for item in [*answers(GOLD, [1.0, 1.0, 0.5]), *mine]
    ]
    assert score(bare)["relative_low"].tolist() == straight["relative_low"].tolist()


def test_intervals_are_seeded_and_narrow_with_more_questions() -> None:
    random = np.random.default_rng(0)

    def width(n: int, seed: int) -> float:
        mine = random.integers(0, 2, n).astype(float).tolist()
        result = score([*answers(GOLD, [1.0] * n), *answers("s", mine)], seed=seed)
        return float(result["relative_high"][-1] - result["relative_low"][-1])

    assert width(400, 0) < width(40, 0) / 2
    items = [*answers(GOLD, [1.0, 0.5, 1.0, 1.0]), *answers("s", [0.5, 0.0, 1.0, 0.5])]
    assert np.array_equal(score(items, seed=3)["relative_low"], score(items, seed=3)["relative_low"])
    assert not np.array_equal(
        score(items, seed=3, bootstrap=7)["relative_low"], score(items, seed=4, bootstrap=7)["relative_low"]
    )


def test_blocks_of_draws_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [*answers(GOLD, [1.0, 0.5, 1.0]), *answers("s", [0.5, 0.0, 1.0])]
    whole = score(items)
    monkeypatch.setattr("pickaxe_plugins.retrieval.rag_relative.WEIGHTS_AT_ONCE", 10)
    for name, values in score(items).columns.items():
        assert np.array_equal(values, whole[name], equal_nan=True)


def test_a_reference_that_is_0_in_some_draws_leaves_them_out() -> None:
    result = score([*answers(GOLD, [1.0] + [0.0] * 9), *answers("s", [1.0] + [0.0] * 9)])
    assert result["relative_low"].tolist() == pytest.approx([1.0] * 20)


# ---------------------------------------------------------------- judges


@pytest.mark.parametrize(
    ("answer", "right", "exact", "f1"),
    [
        ("A ação!", "a AÇÃO", 1.0, 1.0),
        ("acao", "ação", 0.0, 0.0),
        ("the big cat", "big cat", 0.0, 0.8),
        ("", "", 1.0, 1.0),
        ("", "x", 0.0, 0.0),
        ("a a b", "a b b", 0.0, 2 / 3),
    ],
)
def test_offline_judges(answer: str, right: str, exact: float, f1: float) -> None:
    assert exact_match(answer, right) == exact
    assert token_f1(answer, right) == pytest.approx(f1)


def test_judges_take_the_best_of_several_right_answers() -> None:
    def item(system: str, answer: str) -> Item:
        fields: dict[str, Any] = {"system": system, "reference_system": GOLD, "question": "q", "answer": answer}
        return Item(system, fields={**fields, "answers": ("eighty degrees", "80 degrees")})

    items = [item(GOLD, "80 degrees"), item("s", "about 80")]
    assert score(items, judge="exact-match")["mean_score"].tolist() == [1.0, 0.0]
    assert score(items, judge="token-f1")["mean_score"].tolist() == [1.0, 0.5]


class HalfRight(Method[pickaxe.Params]):
    """Gives every answer 0.5."""

    reads = ()
    columns = (Column("half", "0.5"),)

    @hookimpl
    def score(self, items: Items) -> Scores:
        return Scores({"half": np.full(len(items), 0.5)})


def test_any_scorer_may_judge() -> None:
    with catalog.register(HalfRight, "half-right", "scorer"):
        result = score([*answers(GOLD, [1.0]), *answers("s", [0.0])], judge_scorer="half-right")
    assert result["mean_score"].tolist() == [0.5, 0.5]
    assert result["relative"].tolist() == [1.0, 1.0]


def test_gold_is_where_the_answer_is() -> None:
    hits = [Hit("a", 3.0, spans=(Span(0, 10),)), Hit("b", 2.0, spans=(Span(5, 9), Span(20, 30)))]
    assert rank_of_gold(hits, "b", Span(21, 30)) == 2
    assert rank_of_gold(hits, "b", Span(8, 12)) == 0
    assert rank_of_gold(hits, "c", Span(0, 1)) == 0


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([*answers(GOLD, [0.0]), *answers("s", [0.5])], "mean score 0"),
        (answers("s", [0.5]), "no item is of system 'gold chunk'"),
        ([*answers(GOLD, [1.5]), *answers("s", [-0.1])], r"items\[0\].score: is 1.5.*items\[1\].score: is -0.1"),
        (answers(GOLD, [float("nan")]), "is nan, wanted 0 to 1"),
        ([*answers(GOLD, [1.0]), *answers(GOLD, [1.0])], "'q0' of system 'gold chunk' was there before"),
        (answers(GOLD, [1.0], [-1]), "wanted 0 .not retrieved. or more"),
        ([Item("a", fields={"system": GOLD, "reference_system": GOLD})], r"fields.score: is missing"),
        ([Item("a", fields={"score": 1.0})], r"fields.system: is missing"),
        (
            [*answers(GOLD, [1.0]), Item("x", fields={"system": GOLD, "reference_system": "y", "score": 1.0})],
            "names 'gold chunk' and 'y'",
        ),
        (
            [
                *answers(GOLD, [1.0]),
                Item("x", fields={"system": "s", "reference_system": GOLD, "question": "z", "score": 1.0}),
            ],
            "answered none of the questions",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(items: list[Item], message: str) -> None:
    with pytest.raises(InvalidItems, match=message):
        score(items)


@pytest.mark.parametrize(
    "params", [{"ks": (0,)}, {"ks": (3, 3)}, {"mrr_at": 0}, {"bootstrap": 0}, {"confidence": 1.0}, {"judge": "me"}]
)
def test_bad_parameters_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(InvalidParams, match=next(iter(params))):
        score(answers(GOLD, [1.0]), **params)


def test_no_items_give_no_rows() -> None:
    assert len(score([])) == 0


def test_the_example_is_ordered() -> None:
    example = catalog.load("rag-relative", "scorer").example()
    values = pickaxe.scorer("rag-relative").score(example.items).primary
    assert (np.diff(values) <= 0).all()
