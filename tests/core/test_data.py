"""Data classes: items that stack, scores that are cut and joined, completions put together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pickaxe.data import (
    WHOLE_PROMPT,
    Chunk,
    Column,
    Flag,
    Handle,
    Item,
    Items,
    Ranked,
    Ranking,
    Scores,
    SearchResults,
    Segment,
    completions,
)
from pickaxe.data.items import kind_of
from pickaxe.errors import InvalidItems
from pickaxe.jsonable import jsonable


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("x", "text"),
        (["a", "b"], "texts"), (("a",), "texts"), ([], "texts"), (True, "bool"), (np.bool_(True), "bool"),
        (1, "int64"), (np.int32(1), "int64"), (1.0, "float64"), (np.float32(1), "float64"), (np.zeros(2), "tensor"),
        ({"a": 1}, "struct"), (Handle("checkpoint", "c"), "checkpoint"), (Handle("database", "d"), "database"),
        ([1, 2], ""), (b"x", ""), (None, ""), ({1}, ""),
    ],
)  # fmt: skip
def test_kind_of(value: object, kind: str) -> None:
    assert kind_of(value) == kind


def items(*values: object) -> Items:
    return Items(Item(str(row), "t", {"x": value}) for row, value in enumerate(values))


def test_items_are_a_sequence() -> None:
    some = Items([Item("a", "1"), Item("b", "2"), Item("c", None)])
    assert (len(some), some.ids, some[1].id, some[-2:].ids) == (3, ["a", "b", "c"], "b", ["b", "c"])
    assert isinstance(some[:1], Items)
    assert some[:2] == Items([Item("a", "1"), Item("b", "2")])
    assert some[:1] != [Item("a", "1")]
    with pytest.raises(TypeError, match="unhashable"):
        hash(some)


def test_texts_names_each_item_without_one() -> None:
    with pytest.raises(InvalidItems) as caught:
        Items([Item("a"), Item("b", ""), Item("c")]).texts()
    assert [each.field for each in caught.value.violations] == ["items[0].text", "items[2].text"]


@pytest.mark.parametrize(
    ("values", "expected", "kind"),
    [
        ((1, 2), [1, 2], "i"),
        ((1, 2.5), [1, 2.5], "f"),
        ((True, False), [True, False], "b"),
        (("a", "bc"), ["a", "bc"], "O"),
        ((["a", "b"], ["c", "d"]), [["a", "b"], ["c", "d"]], "O"),
        ((["a"], ["c", "d"]), [["a"], ["c", "d"]], "O"),
        (({"a": 1}, {}), [{"a": 1}, {}], "O"),
        ((np.zeros(2), np.ones(2)), [[0, 0], [1, 1]], "f"),
        ((np.zeros((0, 3)), np.zeros((0, 3))), [[], []], "f"),
        ((), [], "f"),
    ],
)
def test_column_stacks(values: tuple[object, ...], expected: list[object], kind: str) -> None:
    column = items(*values).column("x")
    assert len(column) == len(values)
    assert column.dtype.kind == kind
    assert column.tolist() == expected


@given(st.lists(st.lists(st.text(max_size=3), max_size=3), min_size=1, max_size=5))
def test_column_keeps_one_list_per_item(lists: list[list[str]]) -> None:
    column = items(*lists).column("x")
    assert column.shape == (len(lists),)
    assert list(column) == lists


def test_column_names_the_item_that_lacks_the_field() -> None:
    with pytest.raises(InvalidItems, match=r"items\[1\]\.fields\.x.*'1'"):
        items(1, None, None).column("x")


def test_column_names_the_item_of_another_shape() -> None:
    for values in ((np.zeros(2), np.zeros(3)), (np.zeros(2), 1.0), (1.0, np.zeros(2))):
        with pytest.raises(InvalidItems, match=r"items\[1\]\.fields\.x: has shape"):
            items(*values).column("x")


def scores(*values: float, segments: bool = False, flags: tuple[Flag, ...] = ()) -> Scores:
    parts = tuple((Segment(0, 1, value),) for value in values) if segments else ()
    return Scores(
        {"s": np.array(values, np.float32)}, flags=flags, segments=parts, summary={"n": 1}, schema=(Column("s", ""),)
    )


@given(st.lists(st.integers(0, 9), max_size=8), st.integers(0, 8), st.booleans())
def test_cutting_and_joining_are_opposites(values: list[int], cut: int, segments: bool) -> None:
    whole = scores(*values, segments=segments, flags=tuple(Flag(row, "odd") for row in range(0, len(values), 2)))
    joined = Scores.concatenate([whole.rows(0, cut), whole.rows(cut, len(values))])
    assert joined["s"].tolist() == whole["s"].tolist()
    assert (joined.flags, joined.segments) == (whole.flags, whole.segments)


def test_segments_stay_with_their_rows() -> None:
    joined = Scores.concatenate([scores(1, 2), scores(3, segments=True), scores(4)])
    assert [[each.score for each in row] for row in joined.segments] == [[], [], [3], []]


def test_groups_and_summary_stay_with_the_whole() -> None:
    assert scores(1, 2).rows(0, 1).summary == {}
    assert Scores.concatenate([scores(1)]).summary == {"n": 1}
    assert Scores.concatenate([scores(1), scores(2)]).summary == {}


def test_results_behave_like_sequences() -> None:
    assert len(Scores({})) == 0
    ranking = Ranking((Ranked(1, "b", 2.0), Ranked(0, "a", 1.0)))
    assert (len(ranking), ranking.ids, ranking[0].id) == (2, ["b", "a"], "b")
    found = SearchResults(((), ()))
    assert (len(found), list(found), found[1]) == (2, [(), ()], ())


def test_completions_gather_chunks_however_they_interleave() -> None:
    chunks = [
        Chunk(1, 0, "x", (1,), (-1.0,)),
        Chunk(0, 1, "b"),
        Chunk(0, 0, "a", (2,), (-2.0,)),
        Chunk(1, 0, "y", (3,), (-3.0,), record={"r": 1}),
        Chunk(0, WHOLE_PROMPT, record={"best": 1}),
        Chunk(1, 0, finish_reason="stop", usage={"n": 2}),
        Chunk(0, 0, finish_reason="length"),
        Chunk(0, 1, finish_reason="abstain"),
    ]
    found = completions(chunks)
    assert [(each.prompt, each.choice, each.text) for each in found] == [
        (0, -1, ""),
        (0, 0, "a"),
        (0, 1, "b"),
        (1, 0, "xy"),
    ]
    last = found[-1]
    assert (last.token_ids, last.logprobs, last.records, last.finish_reason, last.usage) == (
        (1, 3), (-1.0, -3.0), ({"r": 1},), "stop", {"n": 2},
    )  # fmt: skip


def test_jsonable() -> None:
    value = {
        1: np.float32(0.5),
        "a": np.array([[1, 2]]),
        "b": (np.int64(3), np.bool_(True)),
        "c": [float("nan"), -np.inf],
    }
    assert jsonable(value) == {"1": 0.5, "a": [[1, 2]], "b": [3, True], "c": [None, None]}
    assert jsonable(np.array([np.nan, 1.0])) == [None, 1.0]
    for wrong in ({1}, b"x", object(), Item("a")):
        with pytest.raises(TypeError, match="not a JSON value"):
            jsonable(wrong)
