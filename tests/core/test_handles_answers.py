"""Handles: whatever a method answers, yields or raises is checked, and errors are of one vocabulary."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import pickaxe
from pickaxe import Chunk, Column, Hit, Items, Method, Ranked, Ranking, Scores, SearchResults, catalog, hookimpl
from pickaxe.data import Flag, Groups
from pickaxe.errors import MethodFailed, Unmet


@pytest.mark.parametrize(
    "answer",
    [
        None,
        3,
        {"s": [1, 2]},
        Scores({}),
        Scores({"other": np.zeros(2)}),
        Scores({"s": np.zeros(3)}),
        Scores({"s": np.zeros((2, 1))}),
        Scores({"s": np.array(["a", "b"])}),
        Scores({"s": np.array([1, np.nan])}),
        Scores({"s": [[1], [2, 3]]}),
        Scores({"s": None}),
        Scores({"s": np.zeros(2)}, summary={"x": {1}}),
        Scores({"s": np.zeros(2)}, summary=[1]),
        Scores({"s": np.zeros(2)}, flags=(Flag(2, "x"),)),
        Scores({"s": np.zeros(2)}, flags=("x",)),
        Scores({"s": np.zeros(2)}, segments=((),)),
        Scores({"s": np.zeros(2)}, segments=3),
        Scores({"s": np.zeros(2)}, groups=Groups(("a",), {"g": np.zeros(2)})),
        Scores({"s": np.zeros(2)}, groups=Groups(("a",), {"g": np.zeros(1)}, (Column("h", ""),))),
    ],
)
def test_a_scorer_that_answers_nonsense_has_failed(handle: Any, answer: Any) -> None:
    with pytest.raises(MethodFailed, match="any"):
        handle("scorer", answer).score(["a", "b"])


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        SearchResults(()),
        SearchResults(((), ())),
        SearchResults(((Hit("a", 1.0),) * 2,)),
        SearchResults(((3,),)),
        SearchResults(((Hit("a", 1.0), Hit("b", 2.0)),)),
        SearchResults(((Hit("a", float("nan")),),)),
        SearchResults((tuple(Hit(str(row), 1.0) for row in range(4)),)),
        SearchResults(((Hit("a", "x"), Hit("b", 1.0)),)),
        SearchResults((None,)),
        SearchResults(None),
    ],
)
def test_a_retriever_that_answers_nonsense_has_failed(handle: Any, answer: Any) -> None:
    indexed = handle("retriever", None).index(["a doc"])
    indexed.opened.method.answer = lambda **_: answer
    with pytest.raises(MethodFailed, match="any"):
        indexed.search(["q"], 3)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        Ranking(()),
        Ranking((Ranked(0, "0", 1.0),)),
        Ranking((Ranked(0, "0", 1.0), Ranked(0, "0", 1.0))),
        Ranking((Ranked(0, "1", 1.0), Ranked(1, "0", 1.0))),
        Ranking((Ranked(0, "0", 1.0), Ranked(5, "5", 1.0))),
        Ranking((Ranked(-1, "1", 1.0), Ranked(0, "0", 1.0))),
        Ranking((3, 4)),
        Ranking(None),
        Ranking((Ranked(0.5, "0", 1.0), Ranked(1, "1", 1.0))),
        Ranking((Ranked(0, "0", 1.0), Ranked(1, "1", 1.0)), record={"x": object()}),
        Ranking((Ranked(0, "0", 1.0), Ranked(1, "1", 1.0)), scores=np.array(["x"])),
    ],
)
def test_a_reranker_that_answers_nonsense_has_failed(handle: Any, answer: Any) -> None:
    with pytest.raises(MethodFailed, match="any"):
        handle("reranker", answer).rerank("q", ["a", "b"])


END = Chunk(0, 0, "x", finish_reason="stop")


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [3],
        [Chunk(0, 0, "x")],
        [END, END],
        [END, Chunk(0, 0, "more")],
        [Chunk(1, 0, finish_reason="stop")],
        [Chunk(-1, 0, finish_reason="stop")],
        [Chunk(0, -2)],
        [END, Chunk(0, 1, "unfinished")],
        [Chunk(0, 0, record={"x": {1}}, finish_reason="stop")],
        [Chunk(0, 0, record=[1, object()], finish_reason="stop")],
    ],
)
def test_a_decoder_that_yields_nonsense_has_failed(handle: Any, chunks: list[Any]) -> None:
    def stream(**_: Any) -> Iterator[Any]:
        yield from chunks

    with pytest.raises(MethodFailed, match="any"):
        handle("decoder", stream).complete("p")


@pytest.mark.parametrize("answer", [None, [END], 3, "text", lambda **_: iter([END])])
def test_a_decoder_must_be_a_generator(handle: Any, answer: Any) -> None:
    with pytest.raises(MethodFailed, match="not a generator"):
        handle("decoder", answer).complete("p")


@pytest.mark.parametrize("error", [ValueError("odd"), KeyError("k"), SystemExit(3), RecursionError(), MemoryError()])
def test_whatever_a_method_raises_is_a_failed_method(handle: Any, error: BaseException) -> None:
    def fail(**_: Any) -> Any:
        raise error

    def stream(**_: Any) -> Iterator[Any]:
        yield Chunk(0, 0, "x")
        raise error

    with pytest.raises(MethodFailed, match=type(error).__name__) as caught:
        handle("scorer", fail).score(["a"])
    assert caught.value.__cause__ is error
    with pytest.raises(MethodFailed, match=type(error).__name__):
        handle("decoder", stream).complete("p")


def test_an_error_of_the_vocabulary_passes(handle: Any) -> None:
    def refuse(**_: Any) -> Any:
        raise Unmet("set it up first")

    with pytest.raises(Unmet, match="set it up"):
        handle("scorer", refuse).score(["a"])


def test_a_stream_that_will_not_close_has_failed(handle: Any) -> None:
    def stubborn(**_: Any) -> Iterator[Any]:
        try:
            yield Chunk(0, 0, "x")
        except GeneratorExit:
            yield Chunk(0, 0, "y")

    running = handle("decoder", stubborn).decode("p")
    next(running)
    with pytest.raises(MethodFailed, match="ignored GeneratorExit"):
        running.close()


def test_an_item_scope_method_may_not_report_on_the_whole_run() -> None:
    class Reporting(Method):
        """Says how many items it saw."""

        scope = "item"
        columns = (Column("n", "One."),)

        @hookimpl
        def score(self, items: Items) -> Scores:
            return Scores({"n": np.ones(len(items))}, summary={"seen": len(items)})

    with catalog.register(Reporting, "reporting", "scorer"), pytest.raises(MethodFailed, match="item-scope"):
        pickaxe.scorer("reporting").score(["a"])
