"""Handles: inputs checked before a method is asked, whatever it answers checked after, errors of one vocabulary."""

import functools
import gc
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pickaxe
from pickaxe import (
    Artifact,
    ArtifactWriter,
    Call,
    Chunk,
    Column,
    Hit,
    Host,
    InputField,
    Item,
    Items,
    Method,
    Progress,
    Prompt,
    Ranked,
    Ranking,
    Sampling,
    Scores,
    SearchResults,
    catalog,
    hookimpl,
)  # fmt: skip
from pickaxe.data import Flag, Groups
from pickaxe.errors import (
    ArtifactMismatch,
    BrokenMethod,
    Cancelled,
    DeadlineExceeded,
    InvalidItems,
    InvalidParams,
    MethodFailed,
    Unmet,
    WrongRole,
)

Answer = Callable[..., Any]


class Any_(Method[pickaxe.Params]):
    """Answers whatever a test wants."""

    scope = "item"
    columns = (Column("s", "Score."),)
    reads = (InputField("text", "text", "The text."), InputField("x", "float64", "A number.", required=False))
    answer: Answer = staticmethod(lambda **_: None)

    @hookimpl
    def score(self, items: Items, call: Call) -> Any:
        return self.answer(items=items, call=call)

    @hookimpl
    def index(self, documents: Any, out: Any, call: Call) -> Iterator[Progress]:
        out.write_json("ids.json", [document.id for document in documents])
        yield Progress("index", 1, 1)

    @hookimpl
    def search(self, queries: Items, k: int, call: Call) -> Any:
        return self.answer(queries=queries, k=k)

    @hookimpl
    def rerank(self, query: Item, candidates: Items, top_n: int) -> Any:
        return self.answer(query=query, candidates=candidates, top_n=top_n)

    @hookimpl
    def decode(self, prompts: Any, call: Call) -> Any:
        return self.answer(prompts=prompts, call=call)


@pytest.fixture
def handle() -> Iterator[Any]:
    """A function (role, answer) → the handle of a method that answers so."""
    with catalog.register(Any_, "any", "scorer", "retriever", "reranker", "decoder"):

        def make(role: str, answer: Any) -> Any:
            made = getattr(pickaxe, role)("any")
            made.opened.method.answer = answer if callable(answer) else lambda **_: answer
            return made

        yield make


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


# ---------------------------------------------------------------- nonsense from a method


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


# ---------------------------------------------------------------- opening


def test_properties_are_not_run_when_a_method_is_opened() -> None:
    class Lazy(Any_):
        @functools.cached_property
        def model(self) -> Any:
            raise AssertionError("loaded")

        @property
        def other(self) -> Any:
            raise AssertionError("loaded")

    with catalog.register(Lazy, "lazy", "scorer"):
        assert pickaxe.scorer("lazy").name == "lazy"


def test_a_misspelt_hook_or_argument_is_refused() -> None:
    class Misspelt(Any_):
        @hookimpl
        def scores(self, items: Items) -> Any:
            return None

    class WrongArgument(Any_):
        @hookimpl
        def score(self, items: Items, batch: int) -> Any:
            return None

    for kind in (Misspelt, WrongArgument):
        with catalog.register(kind, "wrong", "scorer"), pytest.raises(BrokenMethod, match=kind.__name__):
            pickaxe.scorer("wrong")


def test_a_constructor_that_raises_is_a_failed_method() -> None:
    class Explodes(Any_):
        def __init__(self, *_: Any) -> None:
            raise OSError("boom")

    with catalog.register(Explodes, "explodes", "scorer"), pytest.raises(MethodFailed, match="OSError: boom"):
        pickaxe.scorer("explodes")


def test_methods_that_use_each_other_are_refused() -> None:
    class Ring(Any_):
        @hookimpl
        def score(self, items: Items, call: Call) -> Any:
            return self.host.scorer(self.answer()).score(items, call=call)

    class Ping(Ring):
        answer = staticmethod(lambda: "pong")

    class Pong(Ring):
        answer = staticmethod(lambda: "ping")

    cycle = pytest.raises(InvalidParams, match="cycle: ping → pong → ping")
    with catalog.register(Ping, "ping", "scorer"), catalog.register(Pong, "pong", "scorer"), cycle:
        pickaxe.scorer("ping").score(["a"])


def test_the_host_makes_shared_things_once() -> None:
    host, made, barrier = Host(), [], threading.Barrier(8)

    def make() -> object:
        made.append(1)
        return object()

    def ask() -> None:
        barrier.wait()
        host._shared.once(("key",), make)

    workers = [threading.Thread(target=ask) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(made) == 1


def test_what_could_not_be_made_is_tried_again() -> None:
    host = Host()
    with pytest.raises(ZeroDivisionError):
        host._shared.once(("key",), lambda: 1 / 0)
    assert host._shared.once(("key",), lambda: 5) == 5


def test_resources_must_be_listed(tmp_path: Path) -> None:
    host = Host(resources={"wiki": tmp_path})
    assert host.resource("wiki") == tmp_path
    with pytest.raises(Unmet, match="listed are: wiki"):
        host.resource("other")


# ---------------------------------------------------------------- artifacts


def test_an_index_without_a_place_lives_as_long_as_its_handle(handle: Any) -> None:
    indexed = handle("retriever", None).index(["a", "b"])
    path = indexed.artifact.path
    assert Artifact.open(path).read_json("ids.json") == ["0", "1"]
    del indexed
    gc.collect()
    assert not path.exists()


def test_documents_that_raise_leave_nothing(handle: Any, tmp_path: Path) -> None:
    def documents() -> Iterator[str]:
        yield "a"
        raise OSError("disk gone")

    with pytest.raises(MethodFailed, match="disk gone"):
        handle("retriever", None).index(documents(), out=tmp_path / "index")
    assert list(tmp_path.iterdir()) == []


def test_an_index_belongs_to_its_method_and_kind(handle: Any, tmp_path: Path) -> None:
    handle("retriever", None).index(["a"], out=tmp_path / "index")
    with catalog.register(Any_, "another", "retriever"), pytest.raises(ArtifactMismatch, match="wanted another"):
        pickaxe.retriever("another", artifact=tmp_path / "index")
    with pytest.raises(ArtifactMismatch, match="wanted an artifact of fit"):
        pickaxe.scorer("any", artifact=tmp_path / "index").score(["a"])


def test_a_fit_says_what_it_was_made_with(handle: Any, tmp_path: Path) -> None:
    handle("retriever", None).index(["a"], out=tmp_path / "index", seed=5)
    manifest = Artifact.open(tmp_path / "index").manifest
    assert (manifest["method"], manifest["kind"], manifest["inputs"]) == ("any", "index", {"seed": 5, "init_from": ""})


class Staged(Method):
    """Counts its examples in a stage of its own."""

    scope = "item"
    columns = (Column("n", "How many examples there were."),)
    reads = ()

    @hookimpl
    def fit(self, examples: Iterable[Item], out: ArtifactWriter, call: Call) -> Iterator[Progress]:
        if not out.done("count"):
            out.write_json("n.json", sum(1 for _ in examples))
            out.finish("count")
            yield Progress("count")
            raise ValueError("the machine fails here")
        yield Progress("count")

    @hookimpl
    def score(self, items: Items) -> Scores:
        assert self.artifact is not None
        return Scores({"n": np.full(len(items), self.artifact.read_json("n.json"), np.float32)})


def test_stages_of_other_examples_are_not_taken_over(tmp_path: Path) -> None:
    with catalog.register(Staged, "staged", "scorer"):
        scorer = pickaxe.scorer("staged")
        with pytest.raises(MethodFailed):
            scorer.fit(["a", "b"], out=tmp_path / "art")
        with pytest.raises(MethodFailed):
            scorer.fit(["a", "c", "d"], out=tmp_path / "art")
        resumed = scorer.fit(["a", "c", "d"], out=tmp_path / "art")
        assert resumed.score(["x"])["n"].tolist() == [3]


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
