"""The catalogue: metadata first, code when it is used, a clear error for whatever is wrong with a plugin."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pickaxe import Example, Item, Items, Method, Params, Scores, catalog, hookimpl
from pickaxe.errors import BrokenMethod, NameConflict, UnknownMethod, WrongRole


class Plain(Method[Params]):
    """Scores nothing."""

    @hookimpl
    def score(self, items: Items) -> Scores:
        return Scores({"s": np.zeros(len(items), np.float32)})


class Other(Plain):
    """Another one."""


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A function that installs a distribution: its entry points and modules."""

    def install(name: str, entry_points: str, **modules: str) -> None:
        home = tmp_path / name
        info = home / f"{name.replace('-', '_')}-2.1.dist-info"
        info.mkdir(parents=True)
        (info / "entry_points.txt").write_text(entry_points)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.1\n")
        for module, code in modules.items():
            (home / f"{module}.py").write_text(code)
        monkeypatch.syspath_prepend(home)
        catalog.refresh()

    yield install
    monkeypatch.undo()
    catalog.refresh()


METHOD = """
import numpy as np
from pickaxe import Method, Params, Scores, hookimpl

class Mine(Method[Params]):
    '''Mine.'''

    @hookimpl
    def score(self, items):
        return Scores({"s": np.zeros(len(items), np.float32)})
"""


def test_an_installed_plugin_is_listed_and_not_imported(plugins: Any) -> None:
    plugins("my-plugin", "[pickaxe.scorers]\nmine = cat_mine_a:Mine\n", cat_mine_a=METHOD)
    assert catalog.table()["mine"] == (("scorer",), "my-plugin 2.1")
    assert catalog.roles("mine") == ("scorer",)
    assert "cat_mine_a" not in sys.modules
    assert catalog.load("mine").__name__ == "Mine"
    assert catalog.describe("mine").distribution == "my-plugin 2.1"


@pytest.mark.parametrize(
    "entry_points",
    [
        "",
        "[pickaxe.scorers]",
        "mine = x:Y",
        "[other]\nmine = x:Y",
        "[pickaxe.scorers]\n# mine = x:Y",
        "\x00\n[[",
        "[pickaxe.x]\na = b:C",
    ],
)
def test_odd_entry_point_files_list_nothing(plugins: Any, entry_points: str) -> None:
    before = catalog.names()
    plugins("odd", entry_points)
    assert catalog.names() == before


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
        ("import no_such_library", "No module named 'no_such_library'"),
        ("import sys; sys.exit('bye')", "SystemExit: bye"),
        ("x = ", "SyntaxError"),
        ("", "AttributeError"),
        ("Mine = 3", "not a subclass of pickaxe.Method"),
        ("class Mine: pass", "not a subclass of pickaxe.Method"),
        ("from pickaxe import Method\nclass Mine(Method): pass", "implements no hook 'score'"),
        (METHOD.replace("@hookimpl", ""), "implements no hook 'score'"),
    ],
)
def test_a_broken_plugin_says_why_and_hurts_nobody_else(plugins: Any, code: str, reason: str) -> None:
    module = f"cat_broken_{abs(hash(code))}"
    plugins("broken", f"[pickaxe.scorers]\nbroken = {module}:Mine\n", **{module: code})
    assert "broken" in catalog.names()
    with pytest.raises(BrokenMethod, match="broken") as caught:
        catalog.load("broken")
    assert reason in str(caught.value)
    with catalog.register(Plain, "plain", "scorer"):
        assert catalog.load("plain") is Plain


def test_two_distributions_of_one_name_conflict_when_used(plugins: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plugins("first-one", "[pickaxe.scorers]\nmine = cat_mine_b:Mine\n", cat_mine_b=METHOD)
    plugins("second.one", "[pickaxe.scorers]\nmine = cat_mine_b:Mine\n")
    assert catalog.table()["mine"][0] == ("scorer",)
    with pytest.raises(NameConflict, match=r"first-one, second-one.*PICKAXE_PLUGINS"):
        catalog.load("mine")
    for allowed in ("second.one", " Second_One , pickaxe", "second-one"):
        monkeypatch.setenv("PICKAXE_PLUGINS", allowed)
        catalog.refresh()
        assert catalog.entry("mine").distribution == "second-one"


def test_unknown_names_and_wrong_roles() -> None:
    with catalog.register(Plain, "some-scorer", "scorer"):
        with pytest.raises(UnknownMethod, match="did you mean some-scorer"):
            catalog.load("some-scorre")
        with pytest.raises(WrongRole, match="no reranker; it is a scorer"):
            catalog.load("some-scorer", "reranker")
    with pytest.raises(UnknownMethod):
        catalog.load("some-scorer")


def test_registered_methods_leave_even_when_the_block_raises() -> None:
    with pytest.raises(RuntimeError, match="x"), catalog.register(Plain, "plain", "scorer"):
        raise RuntimeError("x")
    assert "plain" not in catalog.names()
    with catalog.register(Plain, "plain", "scorer"):
        assert catalog.load("plain") is Plain
    with catalog.register(Other, "plain", "scorer"):
        assert catalog.load("plain") is Other


FILE = '''
from __future__ import annotations
from dataclasses import dataclass
from typing import Literal
from pydantic import Field
import pickaxe
from pickaxe import Method, hookimpl

class Params(pickaxe.Params):
    mode: Literal["a", "b"] = Field("a", description="A mode.")

@dataclass
class Note:
    mode: Literal["a"]

class Mine(Method[Params]):
    """Mine."""
    Params = Params

    @hookimpl
    def score(self, items):
        return None
'''


def test_a_class_is_loaded_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FILE)
    kind = catalog.load_file(f"{tmp_path}/mine.py:Mine")
    assert kind.Params().model_dump() == {"mode": "a"}
    assert "properties" in kind.Params.model_json_schema()


@pytest.mark.parametrize(
    "target", ["nowhere.py:X", "mine", "", ":", "mine.py:", "mine.py:Nothing", "bad.py:X", "exit.py:X"]
)
def test_what_cannot_be_loaded_from_a_file_says_so(
    tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(FILE)
    (tmp_path / "bad.py").write_text("1 / 0")
    (tmp_path / "exit.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BrokenMethod):
        catalog.load_file(target)


def test_a_method_that_cannot_describe_itself_is_broken() -> None:
    class Mute(Plain):
        @classmethod
        def example(cls) -> Example:
            return Example(items=(Item("a", str(1 / 0)),))

    with catalog.register(Mute, "mute", "scorer"), pytest.raises(BrokenMethod, match="cannot describe itself"):
        catalog.describe("mute")


def test_an_observer_that_cannot_be_made_is_named(plugins: Any) -> None:
    plugins("watcher", "[pickaxe.observers]\nwatch = cat_no_such_module:Watch\n")
    with pytest.raises(BrokenMethod, match="observer 'watch' of watcher"):
        catalog.observers()
