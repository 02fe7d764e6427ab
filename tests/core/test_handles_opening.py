"""Handles: opening a method, what its host gives it, and the artifacts it makes and takes."""

import functools
import gc
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from any_method import Any_

import pickaxe
from pickaxe import (
    Artifact,
    ArtifactWriter,
    Call,
    Column,
    Host,
    Item,
    Items,
    Method,
    Progress,
    Scores,
    catalog,
    hookimpl,
)
from pickaxe.errors import ArtifactMismatch, BrokenMethod, InvalidParams, MethodFailed, Unmet

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
