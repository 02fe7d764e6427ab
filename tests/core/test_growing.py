"""Indexes that grow from others: what the handle gives a method, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pickaxe
from pickaxe import (
    Artifact,
    ArtifactWriter,
    Hit,
    Item,
    Items,
    Method,
    Params,
    Progress,
    SearchResults,
    catalog,
    hookimpl,
)
from pickaxe.errors import ArtifactMismatch, InvalidItems, InvalidParams, Unmet


class SomeParams(Params):
    prefix: str = ""
    other: int = 0


class Grows(Method[SomeParams]):
    """Finds every document for every query."""

    Params = SomeParams
    grows = True

    @hookimpl
    def index(
        self, documents: Iterable[Item], out: ArtifactWriter, base: Artifact | None, remove: frozenset[str]
    ) -> Iterator[Progress]:
        assert self.artifact is None
        old = [] if base is None else [name for name in base.read_json("ids.json") if name not in remove]
        yield Progress("index")
        out.write_json("ids.json", old + [self.params.prefix + item.id for item in documents])

    @hookimpl
    def search(self, queries: Items, k: int) -> SearchResults:
        assert self.artifact is not None
        hits = tuple(Hit(name, 0.0) for name in self.artifact.read_json("ids.json"))[:k]
        return SearchResults(tuple(hits for _ in queries))


class Stays(Grows):
    """The same without a base."""

    grows = False

    @hookimpl
    def index(self, documents: Iterable[Item], out: ArtifactWriter) -> Iterator[Progress]:  # type: ignore[override]  # fewer arguments are allowed
        yield Progress("index")
        out.write_json("ids.json", [item.id for item in documents])


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    with catalog.register(Grows, "grows", "retriever"), catalog.register(Stays, "stays", "retriever"):
        yield


def ids(handle: Any) -> list[str]:
    return [hit.id for hit in handle.search(["q"], 100)[0]]


def test_a_new_index_from_an_old_one(tmp_path: Path) -> None:
    old = pickaxe.retriever("grows", prefix="x").index(["a", "b", "c"], out=tmp_path / "old")
    new = old.add([Item("d", "d")], remove=["x1"])
    assert (ids(old), ids(new)) == (["x0", "x1", "x2"], ["x0", "x2", "xd"])
    assert new.params == old.params
    assert new.artifact is not None
    assert old.artifact is not None
    assert new.artifact.manifest["inputs"]["base"] == old.artifact.digest
    assert "base" not in old.artifact.manifest["inputs"]
    assert ids(new.add([], remove=["x2"])) == ["x0", "xd"]


def test_parameters_are_those_of_the_base_unless_given(tmp_path: Path) -> None:
    pickaxe.retriever("grows", prefix="x").index(["a"], out=tmp_path / "old")
    new = pickaxe.retriever("grows", other=3).index([Item("b", "b")], base=tmp_path / "old", out=tmp_path / "new")
    assert (new.params.prefix, new.params.other, ids(new)) == ("x", 3, ["x0", "xb"])
    assert ids(pickaxe.retriever("grows", artifact=tmp_path / "new")) == ["x0", "xb"]
    assert ids(pickaxe.retriever("grows", prefix="y").index(["b"], base=str(tmp_path / "old"))) == ["x0", "y0"]


def test_in_the_place_of_the_base(tmp_path: Path) -> None:
    old = pickaxe.retriever("grows").index(["a"], out=tmp_path / "index")
    with pytest.raises(InvalidItems):
        old.add([Item("b", "x"), Item("b", "y")], out=tmp_path / "index", overwrite=True)
    assert ids(pickaxe.retriever("grows", artifact=tmp_path / "index")) == ["0"]
    old.add([Item("b", "x")], out=tmp_path / "index", overwrite=True)
    assert ids(pickaxe.retriever("grows", artifact=tmp_path / "index")) == ["0", "b"]


def test_what_is_refused(tmp_path: Path) -> None:
    stays = pickaxe.retriever("stays").index(["a"], out=tmp_path / "stays")
    with pytest.raises(Unmet, match="stays cannot be appended to: index all documents again"):
        stays.add(["b"])
    grows = pickaxe.retriever("grows")
    with pytest.raises(ArtifactMismatch, match="is of stays"):
        grows.index(["b"], base=tmp_path / "stays")
    with pytest.raises(ArtifactMismatch, match="index"):
        grows.add(["b"])
    with pytest.raises(InvalidParams, match="no base"):
        grows.index(["b"], remove=["a"])
    with pytest.raises(InvalidParams, match="one string"):
        grows.index(["a"]).add(["b"], remove="0")
    assert pickaxe.show("grows").grows
    assert not pickaxe.show("stays").grows
