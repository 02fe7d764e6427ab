"""Whatever the data classes hold arrives as it was, or is refused by name."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import service_methods
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pickaxe.data import (
    Chunk,
    Column,
    Flag,
    Groups,
    Handle,
    Hit,
    Item,
    Items,
    Message,
    Prompt,
    Ranked,
    Ranking,
    Sampling,
    Scores,
    SearchResults,
    Segment,
    Span,
    Timings,
)
from pickaxe.errors import InvalidItems, InvalidParams, MethodFailed
from pickaxe.method import Card, Method, card_of
from pickaxe.v1 import catalog_pb2, data_pb2, decoder_pb2, reranker_pb2, retriever_pb2, scorer_pb2
from pickaxe_services.codec import admin, roles, values
from pickaxe_services.records import Options, Use

FEW = settings(max_examples=60, deadline=None)

texts = st.text(max_size=8)
numbers = st.floats(allow_nan=False)
whole = st.integers(-(2**53), 2**53)
json_values = st.recursive(
    st.none() | st.booleans() | whole | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
records = st.dictionaries(texts, json_values, max_size=3)
arrays = hnp.arrays(
    st.sampled_from(sorted(values.DTYPES)).map(np.dtype),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
fields = st.dictionaries(
    texts,
    texts
    | st.lists(texts, max_size=3).map(tuple)
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | numbers
    | arrays
    | records
    | st.builds(Handle, st.sampled_from(["checkpoint", "database"]), texts),
    max_size=3,
)
items = st.builds(Item, texts, st.none() | texts, fields)


def same(left: Any, right: Any) -> bool:
    """Equality that looks into arrays: values bit for bit, dtype and shape."""
    if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
        return (
            isinstance(left, np.ndarray)
            and isinstance(right, np.ndarray)
            and left.dtype.name.startswith("str") == right.dtype.name.startswith("str")
            and (left.dtype.kind == "U" or left.dtype == right.dtype)
            and left.shape == right.shape
            and (left.tolist() == right.tolist() if left.dtype.kind == "U" else left.tobytes() == right.tobytes())
        )
    if isinstance(left, dict) and isinstance(right, dict):
        return same_json(left, right)
    if isinstance(left, Item) and isinstance(right, Item):
        return (
            (left.id, left.text) == (right.id, right.text)
            and left.fields.keys() == right.fields.keys()
            and all(same(left.fields[key], right.fields[key]) for key in left.fields)
        )
    return type(left) is type(right) and bool(left == right)


def same_json(left: Any, right: Any) -> bool:
    """Equality of JSON, where 1 and 1.0 are the same number, and true is none; arrays as in `same`."""
    if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
        return same(left, right)
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same_json(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(map(same_json, left, right))
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def wire(message: Any) -> Any:
    """The message after a journey as bytes."""
    return type(message).FromString(message.SerializeToString())


@FEW
@given(items)
def test_items_arrive_as_they_were(item: Item) -> None:
    assert same(values.read_item(wire(values.write_item(item, "items[0]")), "items[0]"), item)


@FEW
@given(records)
def test_records_arrive_as_they_were(record: dict[str, Any]) -> None:
    assert values.read_struct(wire(values.write_struct(record))) == record


def test_whole_numbers_of_records_are_integers_and_signed_zero_is_not() -> None:
    read = values.read_struct(wire(values.write_struct({"n": 3.0, "half": 0.5, "zero": -0.0, "huge": 1e300})))
    assert isinstance(read["n"], int)
    assert math.copysign(1, read["zero"]) == -1
    assert read["huge"] == 1e300


def test_big_endian_and_strided_tensors_arrive_by_value() -> None:
    array = np.arange(12, dtype=">i4").reshape(3, 4)[:, ::2]
    read = values.read_tensor(wire(values.write_tensor(array)), "t")
    assert read.dtype == np.dtype("<i4")
    assert np.array_equal(read, array)
    assert not read.flags.writeable


@pytest.mark.parametrize(
    ("item", "place"),
    [
        (Item("a", "x", {"n": 2**63}), "items[0].fields.n"),
        (Item("a", "x", {"r": {"deep": [{"n": 2**53 + 1}]}}), "items[0].fields.r.deep[0].n"),
        (Item("a", "x", {"o": np.array([object()])}), "items[0].fields.o"),
        (Item("a", "x", {"o": object()}), "items[0].fields.o"),  # type: ignore[dict-item]
        (Item("a", "x", {"r": {1: 2}}), "items[0].fields.r"),  # type: ignore[dict-item]
        (Item("a", "\ud800"), "items[0]"),
        (Item(7), "items[0]"),  # type: ignore[arg-type]
    ],
)
def test_what_the_wire_cannot_hold_is_refused_by_name(item: Item, place: str) -> None:
    with pytest.raises(InvalidItems) as caught:
        values.write_items([item])
    assert [violation.field for violation in caught.value.violations] == [place]


def test_records_that_nest_too_deep_are_refused() -> None:
    record: dict[str, Any] = {}
    for _ in range(200):
        record = {"in": record}
    with pytest.raises(InvalidParams, match="nests deeper than 30"):
        values.write_use(Use("m", record))


def test_big_integers_in_parameters_are_refused_by_name() -> None:
    with pytest.raises(InvalidParams, match=r"a\.b: is 9007199254740993, beyond 2\^53"):
        values.write_use(Use("m", {"a": {"b": 2**53 + 1}}))


def test_big_integers_in_results_are_the_method_s_fault() -> None:
    with pytest.raises(MethodFailed, match=r"summary\.n is 1152"):
        roles.write_score_response(Scores({}, summary={"n": 2**60}))


@pytest.mark.parametrize(
    ("tensor", "place"),
    [
        (data_pb2.Tensor(data_type=data_pb2.DATA_TYPE_STR, shape=[0]), "f.data_type"),
        (data_pb2.Tensor(data_type=99, shape=[0]), "f.data_type"),  # type: ignore[arg-type]
        (data_pb2.Tensor(data_type=data_pb2.DATA_TYPE_INT8, shape=[-1]), "f.shape"),
        (data_pb2.Tensor(data_type=data_pb2.DATA_TYPE_INT8, shape=[1] * 33, data=b"1"), "f.shape"),
        (data_pb2.Tensor(data_type=data_pb2.DATA_TYPE_FLOAT32, shape=[2], data=b"1234"), "f.data"),
        (data_pb2.Tensor(data_type=data_pb2.DATA_TYPE_INT8, shape=[2**62, 2**62]), "f.data"),
    ],
)
def test_malformed_tensors_are_refused_by_name(tensor: data_pb2.Tensor, place: str) -> None:
    with pytest.raises(InvalidItems) as caught:
        values.read_tensor(tensor, "f")
    assert caught.value.violations[0].field == place


def test_fields_without_a_value_are_refused() -> None:
    with pytest.raises(InvalidItems, match=r"items\[0\]\.fields\.x: has no value"):
        values.read_items([data_pb2.Item(fields={"x": data_pb2.Field()})])
    with pytest.raises(InvalidItems, match="CHECKPOINT or DATABASE"):
        values.read_items([data_pb2.Item(fields={"x": data_pb2.Field(handle=data_pb2.Handle(name="n"))})])


def test_bools_of_odd_bytes_are_true() -> None:
    tensor = data_pb2.Tensor(data_type=data_pb2.DATA_TYPE_BOOL, shape=[3], data=b"\0\1\7")
    assert values.read_tensor(tensor, "t").tobytes() == b"\0\1\1"


columns = st.integers(0, 4).flatmap(
    lambda n: st.fixed_dictionaries(
        {
            "f32": hnp.arrays(np.float32, n),
            "f64": hnp.arrays(np.float64, n),
            "i64": hnp.arrays(np.int64, n),
            "b": hnp.arrays(np.bool_, n),
            "s": st.lists(st.text("abcé𝄞", max_size=3), min_size=n, max_size=n).map(lambda s: np.array(s, np.str_)),
        }
    )
)


@FEW
@given(columns, records)
def test_scores_arrive_as_they_were(table: dict[str, np.ndarray], summary: dict[str, Any]) -> None:
    schema = (Column("f32", "Doc", nullable=True), Column("s", "", "str", "unit", "none"), Column("f64", "", "float64"))
    given = Scores(
        table,
        Groups(("g",), {"low": np.array([1], np.int64)}, (Column("low", "", "int64", direction="lower"),)),
        summary,
        (Flag(0, "REASON", "text"),),
        tuple((Segment(0, 2**40, 0.1),) for _ in table["b"]),
        schema,
        Timings(0.25, 1.5, 3),
    )
    read = roles.read_score_response(wire(roles.write_score_response(given)))
    assert same(dict(read.columns), dict(given.columns))
    assert list(read.columns) == list(given.columns)
    assert read.groups is not None
    assert given.groups is not None
    assert (read.groups.keys, read.groups.schema) == (given.groups.keys, given.groups.schema)
    assert same(dict(read.groups.columns), dict(given.groups.columns))
    for name in ("summary", "flags", "segments", "schema", "timings"):
        assert getattr(read, name) == getattr(given, name)


@FEW
@given(st.lists(items, max_size=3), records, st.integers(0, 2**64 - 1), st.none() | st.integers(0, 2**63 - 1), texts)
def test_score_requests_arrive_as_they_were(
    given_items: list[Item], params: dict[str, Any], seed: int, budget: int | None, tenant: str
) -> None:
    use, options = Use("m", params, "artifacts/a"), Options(seed, budget, tenant)
    read = roles.read_score_request(wire(roles.write_score_request(use, given_items, options)))
    assert (read[0], read[2]) == (use, options)
    assert all(map(same, read[1], given_items))


def test_streams_search_and_rerank_arrive_as_they_were() -> None:
    use, options, some = Use("m", {"k": 1}), Options(5), Items([Item("a", "x"), Item("b", "")])
    assert roles.read_stream_open(wire(roles.write_stream_open(use, options))) == (use, options)
    assert roles.read_stream_batch(wire(roles.write_stream_batch(some, 0))) == some
    assert roles.read_search_request(wire(roles.write_search_request(use, some, 3, options))) == (use, some, 3, options)
    asked = roles.write_rerank_request(use, some[0], some, 1, options)
    assert roles.read_rerank_request(wire(asked)) == (use, some[0], some, 1, options)
    found = SearchResults(((Hit("a", 0.1, {"c": 1 / 3}, (Span(0, 3),)),), ()), {"calls": 2.0}, Timings(1.0, 2.0, 0))
    assert roles.read_search_response(wire(roles.write_search_response(found))) == found
    ranking = Ranking((Ranked(1, "b", 0.1),), np.array([np.nan, 0.1], np.float32), "cut", {"u": 1.0}, {"r": [1]})
    read = roles.read_rerank_response(wire(roles.write_rerank_response(ranking)))
    assert same(read.scores, ranking.scores)
    assert (read.ranked, read.cut, read.usage, read.record) == (ranking.ranked, "cut", {"u": 1.0}, {"r": [1]})


prompts = st.builds(
    Prompt,
    st.none() | texts,
    st.lists(st.builds(Message, texts, texts), max_size=2).map(tuple),
    st.lists(st.builds(Item, texts, texts), max_size=2).map(tuple),
    st.builds(
        Sampling,
        st.none() | st.integers(1, 9),
        st.none() | numbers,
        st.none() | numbers,
        st.none() | st.integers(0, 9),
        st.lists(texts, max_size=2).map(tuple),
        st.none() | st.integers(0, 2**64 - 1),
        st.integers(1, 5),
    ),
    st.lists(texts, max_size=2).map(tuple),
    st.dictionaries(texts, texts, max_size=2),
    st.none() | records,
    texts,
)


@FEW
@given(st.lists(prompts, max_size=2))
def test_prompts_arrive_as_they_were(given_prompts: list[Prompt]) -> None:
    request = wire(roles.write_decode_request(Use("m"), given_prompts, Options()))
    assert roles.read_decode_request(request)[1] == given_prompts


def test_a_schema_keeps_the_order_of_its_keys() -> None:
    properties = {"zebra": {"type": "integer"}, "ant": {"minimum": 1.0}, "mole": {"const": 2**60}}
    request = wire(
        roles.write_decode_request(Use("m"), [Prompt("a", json_schema={"properties": properties})], Options())
    )
    schema = roles.read_decode_request(request)[1][0].json_schema
    assert schema is not None
    assert list(schema["properties"].items()) == list(properties.items())


@pytest.mark.parametrize("schema", ["{", "[]", "3", "[" * 100_000])
def test_schemas_that_are_none_are_refused_by_name(schema: str) -> None:
    with pytest.raises(InvalidItems, match=r"prompts\[0\]\.json_schema: is not"):
        values.read_prompts([data_pb2.Prompt(text="a", json_schema=schema)])


@FEW
@given(
    st.builds(
        Chunk,
        st.integers(0, 9),
        st.integers(-1, 9),
        texts,
        st.lists(st.integers(0, 2**40), max_size=3).map(tuple),
        st.lists(numbers, max_size=3).map(tuple),
        st.none() | records,
        st.sampled_from(["", "stop", "length", "abstain"]),
        st.dictionaries(texts, numbers, max_size=2),
    )
)
def test_chunks_arrive_as_they_were(chunk: Chunk) -> None:
    assert roles.read_chunk(wire(roles.write_chunk(chunk))) == chunk


def test_cards_arrive_as_they_were() -> None:
    for name, (kind, role) in service_methods.METHODS.items():
        card: Card = card_of(kind, name, (role,), "test 1")
        read = admin.read_card(wire(admin.write_card(card)))
        assert read == card


def test_unknown_numbers_of_a_newer_server_do_no_harm() -> None:
    method = catalog_pb2.Method(name="m", roles=[1, 77], scope=77)  # type: ignore[list-item,arg-type]
    card = admin.read_card(method)
    assert (card.roles, card.scope) == (("scorer",), "pool")
    assert roles.read_chunk(decoder_pb2.DecodeResponse(finish_reason=77)).finish_reason == ""  # type: ignore[arg-type]


def test_requests_that_lack_what_they_need_are_refused() -> None:
    with pytest.raises(InvalidParams, match=r"use\.method: is missing"):
        roles.read_score_request(scorer_pb2.ScoreRequest())
    with pytest.raises(InvalidParams, match="open: must come first"):
        roles.read_stream_open(scorer_pb2.ScoreStreamRequest())
    with pytest.raises(InvalidItems, match="batch: must follow"):
        roles.read_stream_batch(scorer_pb2.ScoreStreamRequest())
    with pytest.raises(InvalidItems, match="query: is missing"):
        roles.read_rerank_request(reranker_pb2.RerankRequest(use=data_pb2.MethodUse(method="m")))
    spendthrift = retriever_pb2.SearchRequest(
        use=data_pb2.MethodUse(method="m"), options=data_pb2.CallOptions(budget=-1)
    )
    with pytest.raises(InvalidParams, match="budget"):
        roles.read_search_request(spendthrift)
    with pytest.raises(InvalidParams, match="seed: must be between"):
        values.write_options(Options(-1))


def test_the_default_example_of_a_method_is_empty() -> None:
    class Plain(Method):  # type: ignore[type-arg]
        """Plain."""

    assert admin.read_card(wire(admin.write_card(card_of(Plain, "plain", (), "")))).example == Plain.example()
