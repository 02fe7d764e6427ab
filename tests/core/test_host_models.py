"""Models of artifacts: shared while somebody holds them, freed when nobody does."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import pickaxe
from pickaxe import (
    ArtifactWriter,
    Call,
    Column,
    Host,
    Item,
    Items,
    Method,
    MethodRef,
    Progress,
    Scores,
    catalog,
    hookimpl,
)
from pickaxe.encoder import Encoder
from pickaxe.fasttext_model import FastText


class Model:
    """What stands for an encoder: it knows where it lies, and all that were ever opened are counted."""

    opened: list[str] = []

    def __init__(self, place: str) -> None:
        self.place = place
        Model.opened.append(place)


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    Model.opened.clear()
    monkeypatch.setattr(Encoder, "open", lambda store, runtime, name, precision: Model(name))
    monkeypatch.setattr(FastText, "load", Model)
    gc.disable()  # what waits for the collector is not freed in time
    yield
    gc.enable()


class Reads(Method[pickaxe.Params]):
    """Asks for the model in its artifact at every call; `fit` opens one on its way."""

    scope = "item"
    columns = (Column("s", "0"),)
    reads = ()
    seen: list[weakref.ref[Any]] = []

    @hookimpl
    def fit(self, examples: Iterable[Item], out: ArtifactWriter, call: Call) -> Iterator[Progress]:
        out.write_json("model.json", {})
        for each in examples:
            Reads.seen.append(weakref.ref(self.host.encoder_at(Path(each.text or ""))))
        yield Progress("fit")

    @hookimpl
    def score(self, items: Items) -> Scores:
        assert self.artifact is not None
        Reads.seen.append(weakref.ref(self.host.encoder_at(self.artifact.file("model.json"))))
        return Scores({"s": np.zeros(len(items), np.float32)})


class Outer(Method[pickaxe.Params]):
    """Opens the other one at every call."""

    class Params(pickaxe.Params):
        inner: MethodRef

    scope = "item"
    columns = (Column("s", "0"),)
    reads = ()

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        return self.host.scorer(self.params.inner).score(items, call=call)


@pytest.fixture
def methods() -> Iterator[None]:
    Reads.seen.clear()
    with catalog.register(Reads, "reads", "scorer"), catalog.register(Outer, "outer", "scorer"):
        yield


def test_a_model_at_a_path_is_shared_while_it_is_held_and_opened_anew_afterwards(tmp_path: Path) -> None:
    host = Host()
    first = host.encoder_at(tmp_path)
    assert host.encoder_at(tmp_path / "." / ".." / tmp_path.name) is first
    assert host.encoder(str(tmp_path)) is first
    gone = weakref.ref(first)
    del first
    assert gone() is None
    assert host.encoder_at(tmp_path).place == str(tmp_path)
    assert Model.opened == [str(tmp_path)] * 2


def test_a_model_that_was_replaced_is_another_one(tmp_path: Path) -> None:
    host, file = Host(), tmp_path / "model.bin"
    file.write_bytes(b"one")
    first = host.fasttext(file)
    file.write_bytes(b"another")
    assert host.fasttext(file) is not first


def test_a_model_that_the_store_knows_stays() -> None:
    host = Host()
    known = weakref.ref(host.encoder("encoder"))
    assert known() is host.encoder("encoder")
    assert Model.opened == ["encoder"]
    host.close()
    assert known() is None


def test_several_threads_that_ask_at_once_get_the_same(tmp_path: Path) -> None:
    host, barrier = Host(), threading.Barrier(8)

    def ask(_: int) -> Any:
        barrier.wait()
        return host.encoder_at(tmp_path)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(8)))
    assert len(set(map(id, found))) == len(Model.opened) == 1


@pytest.mark.usefixtures("methods")
def test_an_opened_method_holds_the_model_of_its_artifact_and_frees_it_when_it_goes(tmp_path: Path) -> None:
    pickaxe.scorer("reads").fit([], out=tmp_path / "art")
    one, other = (pickaxe.scorer("reads", artifact=tmp_path / "art") for _ in range(2))
    for handle in (one, one, other):
        handle.score(["a"])
    held = {each() for each in Reads.seen}
    assert len(held) == len(Model.opened) == 1
    assert None not in held
    del held, one
    assert Reads.seen[0]() is not None
    del handle, other
    assert Reads.seen[0]() is None


@pytest.mark.usefixtures("methods")
def test_a_handle_that_was_just_fitted_holds_it_too_and_what_the_fit_opened_is_gone(tmp_path: Path) -> None:
    unfitted = pickaxe.scorer("reads")
    fitted = unfitted.fit([Item("0", str(tmp_path))])
    assert Reads.seen.pop()() is None
    fitted.score(["a"])
    assert Reads.seen[0]() is not None
    del fitted
    assert Reads.seen[0]() is None


@pytest.mark.usefixtures("methods")
def test_a_method_holds_the_models_of_those_that_it_opens_again_and_again(tmp_path: Path) -> None:
    pickaxe.scorer("reads").fit([], out=tmp_path / "art")
    outer = pickaxe.scorer("outer", inner=MethodRef(name="reads", artifact=str(tmp_path / "art")))
    for _ in range(3):
        outer.score(["a"])
    assert len(Model.opened) == 1
    del outer
    assert Reads.seen[0]() is None


# ---------------------------------------------------------------- sessions


def doubling(path: Path) -> Path:
    floats = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "double", floats[:1], floats[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


X = np.arange(3, dtype=np.float32)


def test_a_session_that_nobody_holds_is_unloaded(tmp_path: Path) -> None:
    host, graph = Host(device="cpu"), doubling(tmp_path / "g.onnx")
    session = host.runtime.open(graph)
    inner = weakref.ref(session._inner)
    binding = session.bind({"x": X})
    del session
    binding.run()
    assert host.runtime.loaded_bytes == graph.stat().st_size
    assert host.runtime.open(graph) is binding.session
    del binding
    assert inner() is None
    assert host.runtime.loaded_bytes == 0
    np.testing.assert_array_equal(host.runtime.open(graph).run({"x": X})[0], 2 * X)


def test_a_view_keeps_a_session_loaded(tmp_path: Path) -> None:
    host, graph = Host(device="cpu"), doubling(tmp_path / "g.onnx")
    view = host.within("method", "{}")
    np.testing.assert_array_equal(view.session(graph).run({"x": X})[0], 2 * X)
    assert host.runtime.loaded_bytes == graph.stat().st_size
    del view
    assert host.runtime.loaded_bytes == 0
