"""Items survive JSON without loss, and plain JSON of any shape becomes fields."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pickaxe import Handle, Item
from pickaxe.errors import InvalidItems
from pickaxe.io.items import item_from_json, item_to_json

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = st.one_of(TEXT, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats())
NAMES = st.one_of(TEXT, st.sampled_from(["$tensor", "$number", "$struct", "$handle", "id", "text"]))
STRUCTS = st.dictionaries(
    NAMES,
    st.recursive(
        st.one_of(SCALARS, st.none()),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
        max_leaves=6,
    ),
    max_size=3,
)
TENSORS = st.sampled_from(["bool", "int8", "uint16", "int64", "float16", "float32", "float64", "complex64"]).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
)
FIELDS = st.one_of(
    SCALARS,
    STRUCTS,
    TENSORS,
    st.lists(TEXT, max_size=3).map(tuple),
    st.builds(Handle, st.sampled_from(["checkpoint", "database"]), TEXT),
)
ITEMS = st.builds(Item, TEXT, st.one_of(st.none(), TEXT), st.dictionaries(TEXT, FIELDS, max_size=4))


def same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return isinstance(other, float) and (one == other or (math.isnan(one) and math.isnan(other)))
    return type(one) is type(other) and bool(one == other)


@given(ITEMS)
def test_round_trip(item: Item) -> None:
    line = json.dumps(item_to_json(item), allow_nan=False)
    back = item_from_json(json.loads(line))
    assert (back.id, back.text) == (item.id, item.text)
    assert same(dict(item.fields), dict(back.fields))


def test_other_columns_become_fields() -> None:
    item = item_from_json(
        {
            "id": 7,
            "text": "t",
            "tags": ["a", "b"],
            "vector": [1, 2.5],
            "matrix": [[1, 2], [3, 4]],
            "ragged": [[1], [2, 3]],
            "turns": [{"role": "user"}],
            "none": None,
            "fields": {"score": 1},
        }
    )
    assert item.id == "7"
    assert item.get("tags") == ("a", "b")
    assert item.get("ragged") == {"ragged": [[1], [2, 3]]}
    assert item.get("turns") == {"turns": [{"role": "user"}]}
    assert item.get("score") == 1
    assert "none" not in item.fields
    assert np.array_equal(item.fields["vector"], np.array([1, 2.5]))
    assert np.array_equal(item.fields["matrix"], np.array([[1, 2], [3, 4]]))


def test_numpy_numbers_are_written_as_numbers() -> None:
    item = Item("a", fields={"n": np.int32(3), "x": np.float32(0.5), "s": {"y": np.float64(1.5)}})
    assert item_to_json(item)["fields"] == {"n": 3, "x": 0.5, "s": {"y": 1.5}}


@pytest.mark.parametrize(
    ("record", "field"),
    [
        ([], "item"),
        ({}, "item.id"),
        ({"id": 1.5}, "item.id"),
        ({"id": "a", "text": 3}, "item.text"),
        ({"id": "a", "n": 2**63}, "item.fields.n"),
        ({"id": "a", "t": {"$tensor": {"dtype": "float32", "shape": [2], "data": "AAAA"}}}, "item.fields.t"),
        ({"id": "a", "t": {"$tensor": {"dtype": "object", "shape": [1], "data": "AAAAAAAAAAA="}}}, "item.fields.t"),
        ({"id": "a", "h": {"$handle": {"kind": "file", "name": "x"}}}, "item.fields.h"),
        ({"id": "a", "x": {"$number": "nan"}}, "item.fields.x"),
    ],
)
def test_what_cannot_be_read_is_named(record: Any, field: str) -> None:
    with pytest.raises(InvalidItems) as caught:
        item_from_json(record)
    assert caught.value.violations[0].field == field


@pytest.mark.parametrize("value", [object(), [1, 2], np.array(["a"]), np.array([object()])])
def test_what_no_field_holds_is_not_written(value: Any) -> None:
    with pytest.raises(InvalidItems, match=r"fields\.f"):
        item_to_json(Item("a", fields={"f": value}))
