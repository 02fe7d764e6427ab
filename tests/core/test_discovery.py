"""Entry points are found as `importlib.metadata` finds them."""

import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from pickaxe import catalog
from pickaxe.discovery import points


def test_as_importlib_metadata_does() -> None:
    groups = {f"pickaxe.{role}s" for role in catalog.ROLES}
    theirs = {(point.group, point.name, point.value) for group in groups for point in entry_points(group=group)}
    ours = {(point.group, point.name, point.value) for point in points("pickaxe.") if point.group in groups}
    assert ours == theirs
    assert ours


def offer(folder: Path, name: str, text: str) -> None:
    info = folder / f"{name}-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "entry_points.txt").write_text(text)


def test_a_folder_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "# made\n[other]\nx = y:Z\n\n[pickaxe.scorers]\n mine = os.path:join [extra]\n"
    offer(tmp_path / "a", "My_Dist", text)
    offer(tmp_path / "b", "my.dist", "[pickaxe.scorers]\nhidden = os:sep\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "none")])
    found = list(points("pickaxe."))
    assert [(point.name, point.distribution, point.version) for point in found] == [("mine", "my-dist", "1.2")]
    assert found[0].load() is __import__("os").path.join


def test_the_catalogue_takes_only_allowed_distributions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(tmp_path, "my_dist", "[pickaxe.scorers]\nmine = os:sep\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    try:
        catalog.refresh()
        assert {"mine", "zip-fit"} <= set(catalog.names())
        monkeypatch.setenv("PICKAXE_PLUGINS", "my_dist")
        catalog.refresh()
        assert catalog.table() == {"mine": (("scorer",), "my-dist 1.2")}
    finally:
        monkeypatch.undo()
        catalog.refresh()
