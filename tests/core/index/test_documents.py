"""Documents on disk, alone and grown from others, and the checks of what an index was built with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pickaxe import Params
from pickaxe.artifact import Artifact, writing
from pickaxe.data import Item
from pickaxe.errors import ArtifactMismatch, InvalidItems, InvalidParams
from pickaxe.index import Documents, DocumentWriter, batched, check_model, check_params, record_model


def made(
    path: Path, items: Sequence[Item], base: Artifact | None = None, remove: Sequence[str] = (), overwrite: bool = False
) -> Artifact:
    old = None if base is None else Documents(base)
    with (
        writing(path, kind="index", method="m", method_version=1, params={}, overwrite=overwrite) as out,
        DocumentWriter(out, ("title",), old, frozenset(remove)) as table,
    ):
        for item in items:
            assert table.add(item) == len(table) - 1
    return Artifact.open(path)


DOCUMENTS = [
    Item("a", "first\nline", {"title": "A", "other": "left out"}),
    Item("b", ""),
    Item("ç", "日本語 🎉 \ud800"),
]


def test_documents_come_back(tmp_path: Path) -> None:
    found = Documents(made(tmp_path / "a", DOCUMENTS))
    assert (len(found), found.ids) == (3, ["a", "b", "ç"])
    assert found.record(0) == {"id": "a", "text": "first\nline", "title": "A"}
    assert [found.text(row) for row in range(3)] == [item.text for item in DOCUMENTS]
    assert found.item(0) == Item("a", "first\nline", {"title": "A"})
    assert found.row_of("ç") == 2
    with pytest.raises(InvalidItems, match="'z' is not in this index"):
        found.row_of("z")


@given(st.lists(st.text(max_size=8), max_size=8, unique=True), st.data())
def test_growing_equals_indexing_what_is_left(
    tmp_path_factory: pytest.TempPathFactory, ids: list[str], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("grow")
    gone = data.draw(st.sets(st.sampled_from(ids))) if ids else set()
    base = made(path / "base", [Item("kept", "k"), *(Item(name, name * 2) for name in ids if name != "kept")])
    gone -= {"kept"}
    grown = Documents(
        made(path / "grown", [Item("kept and new", "n"), *(Item(name, "again") for name in gone)], base, sorted(gone))
    )
    left = [name for name in Documents(base).ids if name not in gone]
    assert grown.ids == [*left, "kept and new", *gone]
    assert [grown.text(row) for row in range(1, len(left))] == [name * 2 for name in left[1:]]


def test_what_cannot_grow(tmp_path: Path) -> None:
    base = made(tmp_path / "base", DOCUMENTS)
    with pytest.raises(InvalidItems, match="'a' is in the index already"):
        made(tmp_path / "x", [Item("a", "new")], base)
    with pytest.raises(InvalidParams, match="'nobody'"):
        made(tmp_path / "x", [], base, ["nobody", "a"])
    with pytest.raises(InvalidParams, match="no index to remove"):
        made(tmp_path / "x", DOCUMENTS, None, ["a"])
    for documents, old, remove in (([], None, ()), ([], base, ("a", "b", "ç"))):
        with pytest.raises(InvalidItems, match="are none"):
            made(tmp_path / "x", documents, old, remove)
    assert not (tmp_path / "x").exists()


def test_an_interrupted_build_leaves_the_old_index(tmp_path: Path) -> None:
    base = made(tmp_path / "index", DOCUMENTS)
    with pytest.raises(InvalidItems):
        made(tmp_path / "index", [Item("a", "new")], base, overwrite=True)
    assert Documents(Artifact.open(tmp_path / "index")).ids == ["a", "b", "ç"]
    made(tmp_path / "index", [Item("d", "new")], base, ["b"], overwrite=True)
    assert Documents(Artifact.open(tmp_path / "index")).ids == ["a", "ç", "d"]


def test_batches() -> None:
    assert list(batched(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(batched((), 2)) == []


class Some(Params):
    size: int = 3
    free: str = ""


def test_what_it_was_built_with(tmp_path: Path) -> None:
    right, wrong = SimpleNamespace(digest="a" * 64), SimpleNamespace(digest="b" * 64)
    with writing(tmp_path / "a", kind="index", method="m", method_version=1, params={"size": 3, "free": "x"}) as out:
        record_model(out, right, "encoder")
    artifact = Artifact.open(tmp_path / "a")
    check_model(artifact, right, "another name")
    with pytest.raises(ArtifactMismatch, match=r"'encoder' .aaaaaaaaaaaa.*'mine' .bbbbbbbbbbbb"):
        check_model(artifact, wrong, "mine")
    with pytest.raises(ArtifactMismatch, match="none"):
        check_model(artifact, right, "encoder", "cross-encoder")
    check_params(artifact, Some(free="y"), ("size",))
    with pytest.raises(ArtifactMismatch, match="size=3"):
        check_params(artifact, Some(size=4), ("size",))
    assert json.loads((tmp_path / "a" / "manifest.json").read_text())["notes"]["models"]["encoder"]["name"] == "encoder"
