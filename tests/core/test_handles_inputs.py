"""Handles: items and arguments are checked before a method is asked, and a cancelled call asks no more."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pickaxe import Call, Chunk, Item, Items, Prompt, Sampling, Scores
from pickaxe.errors import ArtifactMismatch, Cancelled, DeadlineExceeded, InvalidItems, InvalidParams, WrongRole


def zeros(items: Items, call: Call) -> Scores:
    return Scores({"s": np.arange(len(items), dtype=np.float32)})


# ---------------------------------------------------------------- items


def test_strings_become_items(handle: Any) -> None:
    assert handle("scorer", zeros).score(["a", Item("x", "b")])["s"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("items", "field"),
    [
        ([Item("a")], "items[0].text"),
        ([Item("a", "t", {"x": "no"})], "items[0].fields.x"),
        (["t", 3], "items[1]"),
        ([None], "items[0]"),
        ([Item(7, "t")], "items[0].id"),
        ([Item("a", 5)], "items[0].text"),
    ],
)
def test_wrong_items_are_named(handle: Any, items: Any, field: str) -> None:
    with pytest.raises(InvalidItems) as caught:
        handle("scorer", zeros).score(items)
    assert field in [each.field for each in caught.value.violations]


def test_whole_numbers_will_do_for_numbers(handle: Any) -> None:
    assert len(handle("scorer", zeros).score([Item("a", "t", {"x": 3})])) == 1


def test_large_inputs_are_scored_in_equal_batches(handle: Any) -> None:
    sizes: list[int] = []

    def count(items: Items, call: Call) -> Scores:
        sizes.append(len(items))
        return zeros(items, call)

    scored = handle("scorer", count)
    assert len(scored.score(["t"] * 2500)) == 2500
    assert [len(part) for part in scored.stream(iter(["t"] * 2500))] == [1024, 1024, 452]
    assert sizes == [1024, 1024, 452] * 2


def test_a_stream_names_the_place_in_the_whole_input(handle: Any) -> None:
    items = [Item("a", "t"), Item("b", "t"), Item("c")]
    with pytest.raises(InvalidItems, match=r"items\[2\]\.text"):
        list(handle("scorer", zeros).stream(items, batch=2))


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("sampling", "field"),
    [
        (Sampling(n=0), "n"),
        (Sampling(max_tokens=0), "max_tokens"),
        (Sampling(temperature=-1), "temperature"),
        (Sampling(temperature=float("nan")), "temperature"),
        (Sampling(temperature=float("inf")), "temperature"),
        (Sampling(top_p=0), "top_p"),
        (Sampling(top_p=1.1), "top_p"),
        (Sampling(top_k=-1), "top_k"),
        (Sampling(stop=("a", "")), "stop"),
    ],
)
def test_sampling_is_checked_before_the_first_chunk(handle: Any, sampling: Sampling, field: str) -> None:
    with pytest.raises(InvalidItems) as caught:
        handle("decoder", None).decode([Prompt("a"), Prompt("b", sampling=sampling)])
    assert [each.field for each in caught.value.violations] == [f"prompts[1].sampling.{field}"]


@pytest.mark.parametrize("name", ["allowed", "json_schema", "regex"])
def test_what_a_decoder_does_not_keep_to_is_refused(handle: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = Prompt("b", **{name: {"allowed": ("x",), "json_schema": {}, "regex": "x"}[name]})
    decoder = handle("decoder", lambda **_: (Chunk(row, finish_reason="stop") for row in range(2)))
    with pytest.raises(InvalidItems) as caught:
        decoder.decode([Prompt("a"), prompt])
    assert [each.field for each in caught.value.violations] == [f"prompts[1].{name}"]
    monkeypatch.setattr(type(decoder.opened.method), "constraints", frozenset({name}))
    assert len(decoder.complete([Prompt("a"), prompt])) == 2


def test_other_arguments_are_checked(handle: Any) -> None:
    with pytest.raises(InvalidParams, match="top_n"):
        handle("reranker", None).rerank("q", ["a"], -1)
    with pytest.raises(InvalidItems, match="was used before"):
        handle("reranker", None).rerank("q", [Item("a", "x"), Item("a", "y")])
    with pytest.raises(InvalidItems, match=r"query\.text"):
        handle("reranker", None).rerank(Item("q"), ["a"])
    with pytest.raises(InvalidItems, match=r"documents\[1\]\.id"):
        handle("retriever", None).index([Item("a", "x"), Item("a", "y")])
    with pytest.raises(ArtifactMismatch, match="index"):
        handle("retriever", None).search(["q"])
    with pytest.raises(WrongRole, match="'fit'"):
        handle("scorer", None).fit(["a"])


def test_a_cancelled_or_late_call_is_not_begun(handle: Any) -> None:
    def never(**_: Any) -> Any:
        raise AssertionError("the method was asked")

    call = Call()
    call.cancel()
    for role, ask in (
        ("scorer", lambda each, **o: each.score(["a"], **o)),
        ("reranker", lambda each, **o: each.rerank("q", ["a"], **o)),
        ("decoder", lambda each, **o: each.complete("p", **o)),
    ):
        with pytest.raises(Cancelled):
            ask(handle(role, never), call=call)
        with pytest.raises(DeadlineExceeded):
            ask(handle(role, never), timeout=0)


def test_a_cancelled_stream_ends_at_the_next_chunk(handle: Any) -> None:
    ended = []

    def endless(**_: Any) -> Iterator[Chunk]:
        try:
            while True:
                yield Chunk(0, 0, "x")
        finally:
            ended.append(True)

    call = Call()
    running = handle("decoder", endless).decode("p", call=call)
    next(running)
    call.cancel()
    with pytest.raises(Cancelled):
        next(running)
    assert ended == [True]
