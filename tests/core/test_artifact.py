"""Artifacts: all or nothing on disk, resumed by stages, checked when opened."""

import json
import os
import subprocess
import sys
import textwrap
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pickaxe.artifact import FORMAT, Artifact, ArtifactWriter, is_file_name, writing
from pickaxe.errors import AlreadyExists, ArtifactCorrupt, ArtifactMismatch, PickaxeError, UnknownArtifact


def make(target: Path, **options: Any) -> AbstractContextManager[ArtifactWriter]:
    settings: dict[str, Any] = {"kind": "fit", "method": "m", "method_version": 1, "params": {"a": 1}}
    return writing(target, **{**settings, **options})


@pytest.fixture
def made(tmp_path: Path) -> Path:
    target = tmp_path / "made"
    with make(target) as out:
        out.write_json("words.json", ["é", 1])
        out.write_array("table.npy", np.arange(6).reshape(2, 3))
        out.notes["n"] = 2
    return target


def manifest(path: Path) -> Any:
    return json.loads((path / "manifest.json").read_text())


def test_what_was_written_is_read(made: Path) -> None:
    artifact = Artifact.open(made)
    assert artifact.read_json("words.json") == ["é", 1]
    assert artifact.read_array("table.npy").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (artifact.kind, dict(artifact.notes), artifact.has("words.json")) == ("fit", {"n": 2}, True)
    assert artifact.bytes == sum((made / name).stat().st_size for name in ("words.json", "table.npy"))
    assert {path.name for path in made.iterdir()} == {"words.json", "table.npy", "manifest.json"}
    assert [path.name for path in made.parent.iterdir()] == ["made"]


def test_equal_content_has_an_equal_digest(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with make(tmp_path / name) as out:
            out.write_json("x.json", {"b": 1, "a": 2})
    assert Artifact.open(tmp_path / "one").digest == Artifact.open(tmp_path / "two").digest


@pytest.mark.parametrize("durable", [True, False])
def test_only_what_has_to_last_waits_for_the_disk(
    tmp_path: Path, durable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    with make(tmp_path / "a", durable=durable) as out:
        out.write_json("x.json", 1)
    assert bool(synced) == durable
    assert Artifact.open(tmp_path / "a").read_json("x.json") == 1


@pytest.mark.parametrize("name", ["../x.json", "a/b.json", "manifest.json", "x.pkl", "x", "", ".json", "x.npy/"])
def test_file_names_are_plain(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="plain files"), make(tmp_path / "a") as out:
        out.file(name)


@given(st.text(max_size=12), st.sampled_from(["", ".json", ".npy", "/x.json"]))
def test_a_file_name_stays_in_its_folder(stem: str, suffix: str) -> None:
    name = stem + suffix
    if is_file_name(name):
        assert os.path.dirname(os.path.normpath(os.path.join("/root", name))) == "/root"


def test_a_block_that_raises_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no"), make(tmp_path / "a") as out:  # noqa: PT012
        out.write_json("x.json", 1)
        raise RuntimeError("no")
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_file_is_refused_at_the_end(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="plain files"), make(tmp_path / "a") as out:
        (out.path / "model.pkl").write_bytes(b"")
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- opening


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UnknownArtifact, match="no artifact at"):
        Artifact.open(tmp_path / "none")


def test_an_unfinished_one_is_mentioned(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), make(tmp_path / "a") as out:  # noqa: PT012
        out.finish("one")
        raise KeyboardInterrupt
    with pytest.raises(UnknownArtifact, match="run the same fit again"):
        Artifact.open(tmp_path / "a")


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b" ", lambda data: b"X" + data[1:]])
def test_every_changed_file_is_named(made: Path, change: Any) -> None:
    for name in ("words.json", "table.npy"):
        (made / name).write_bytes(change((made / name).read_bytes()))
    with pytest.raises(ArtifactCorrupt, match=r"table\.npy, words\.json") as caught:
        Artifact.open(made)
    assert caught.value.metadata["files"] == "table.npy,words.json"


def test_a_missing_file_is_named(made: Path) -> None:
    (made / "words.json").unlink()
    with pytest.raises(ArtifactCorrupt, match=r"words\.json"):
        Artifact.open(made)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "1", '"x"', "{}", "\x00", '{"format": "x", "files": {}}', '{"format": null, "files": []}'],
)
def test_an_unreadable_manifest_is_corrupt(made: Path, text: str) -> None:
    (made / "manifest.json").write_text(text)
    with pytest.raises(ArtifactCorrupt, match="manifest of"):
        Artifact.open(made)


@pytest.mark.parametrize("key", ["kind", "method", "method_version", "params", "files", "format"])
@pytest.mark.parametrize("value", [None, [], {"x": 1}, "odd", -1.5])
def test_a_manifest_with_a_wrong_value_never_raises_anything_raw(made: Path, key: str, value: object) -> None:
    changed = {**manifest(made), key: value}
    (made / "manifest.json").write_text(json.dumps(changed))
    try:
        artifact = Artifact.open(made)
        artifact.check_method("m", 1, "fit")
    except PickaxeError:
        return
    assert (key, value) in (("method", "m"), ("params", {"x": 1}), ("format", -1.5))


@pytest.mark.parametrize("name", ["../secret.json", "/etc/hosts", "sub/x.json", "manifest.json", "x.pkl"])
def test_a_manifest_cannot_point_outside(made: Path, name: str) -> None:
    changed = manifest(made)
    changed["files"][name] = changed["files"]["words.json"]
    (made / "manifest.json").write_text(json.dumps(changed))
    with pytest.raises(ArtifactCorrupt):
        Artifact.open(made)


def test_a_newer_format_says_so(made: Path) -> None:
    (made / "manifest.json").write_text(json.dumps({**manifest(made), "format": FORMAT + 1}))
    with pytest.raises(ArtifactMismatch, match="upgrade pickaxe"):
        Artifact.open(made)


def test_another_method_version_or_kind_is_refused(made: Path) -> None:
    artifact = Artifact.open(made)
    artifact.check_method("m", 1, "fit")
    for wanted in (("n", 1, None), ("m", 2, None), ("m", 1, "index")):
        with pytest.raises(ArtifactMismatch, match="wanted"):
            artifact.check_method(*wanted)


def test_an_unlisted_file_is_not_part_of_it(made: Path) -> None:
    (made / "extra.json").write_text("1")
    artifact = Artifact.open(made)
    with pytest.raises(ArtifactCorrupt, match="has no file"):
        artifact.file("extra.json")


# ---------------------------------------------------------------- what is there already


def test_an_existing_artifact_is_kept_unless_overwritten(made: Path) -> None:
    with pytest.raises(AlreadyExists, match="overwrite"), make(made):
        pass
    with make(made, overwrite=True) as out:
        out.write_json("new.json", 1)
    assert Artifact.open(made).has("new.json")
    assert [path.name for path in made.parent.iterdir()] == ["made"]


def test_a_failed_overwrite_leaves_the_old_one(made: Path) -> None:
    before = Artifact.open(made).digest
    with pytest.raises(RuntimeError), make(made, overwrite=True):
        raise RuntimeError
    assert Artifact.open(made).digest == before


def test_what_is_no_artifact_is_never_overwritten(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("years of work")
    with pytest.raises(AlreadyExists, match="no artifact"), make(home, overwrite=True):
        pass
    assert (home / "thesis.txt").read_text() == "years of work"
    (tmp_path / "file").write_text("x")
    with pytest.raises(AlreadyExists), make(tmp_path / "file", overwrite=True):
        pass


def test_what_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "a"
    with pytest.raises(AlreadyExists), make(target) as out:  # noqa: PT012
        out.write_json("x.json", 1)
        target.mkdir()
        (target / "mine.txt").write_text("x")
    assert (target / "mine.txt").read_text() == "x"


def test_two_writers_of_one_target_do_not_meet(tmp_path: Path) -> None:
    with make(tmp_path / "a") as out:
        out.write_json("x.json", 1)
        with pytest.raises(AlreadyExists, match="another process"), make(tmp_path / "a"):
            pass
        assert (out.path / "x.json").exists()
    assert Artifact.open(tmp_path / "a").has("x.json")


def test_many_writers_leave_one_whole_artifact(tmp_path: Path) -> None:
    target, done, refused = tmp_path / "a", [], []

    def write(number: int) -> None:
        try:
            with make(target) as out:
                out.write_json("x.json", number)
            done.append(number)
        except AlreadyExists:
            refused.append(number)

    workers = [threading.Thread(target=write, args=[number]) for number in range(16)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(done) == 1
    assert len(refused) == 15
    assert Artifact.open(target).read_json("x.json") == done[0]


# ---------------------------------------------------------------- crashes and resuming

CRASH = """
    import os, sys
    from pathlib import Path
    import pickaxe.artifact as artifact
    from pickaxe.artifact import writing

    target, where = Path(sys.argv[1]), sys.argv[2]
    replaced = os.replace

    def replace(source, goal):
        name = Path(goal).name
        if where == "before-state" and name == ".state" or where == "before-manifest" and name == "manifest.json":
            os._exit(9)
        if where == "before-commit" and Path(goal) == target:
            os._exit(9)
        replaced(source, goal)

    os.replace = replace
    with writing(target, kind="fit", method="m", method_version=1, params={"a": 1}) as out:
        if not out.done("one"):
            out.write_json("one.json", 1)
            out.notes["one"] = "noted"
            out.finish("one", rows=3)
        if where == "middle":
            (out.path / "two-part.json").write_text("{")
            os._exit(9)
        out.write_json("two.json", [out.stage_notes("one")["rows"]])
"""


def crash(target: Path, where: str) -> int:
    program = textwrap.dedent(CRASH)
    return subprocess.run([sys.executable, "-c", program, str(target), where], timeout=60, check=False).returncode


@pytest.mark.parametrize("where", ["before-state", "middle", "before-manifest", "before-commit"])
def test_a_killed_fit_run_again_gives_the_same_artifact(tmp_path: Path, where: str) -> None:
    assert crash(tmp_path / "whole", "nowhere") == 0
    assert crash(tmp_path / "a", where) == 9
    assert not (tmp_path / "a").exists()
    assert crash(tmp_path / "a", "nowhere") == 0
    assert Artifact.open(tmp_path / "a").digest == Artifact.open(tmp_path / "whole").digest
    assert {path.name for path in tmp_path.iterdir()} == {"a", "whole"}


def interrupted(target: Path, **options: Any) -> None:
    with pytest.raises(KeyboardInterrupt), make(target, **options) as out:  # noqa: PT012
        out.write_json("one.json", 1)
        out.finish("one")
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    "other", [{"params": {"a": 2}}, {"method_version": 2}, {"inputs": {"seed": 1}}, {"kind": "index"}]
)
def test_another_fit_does_not_resume_there(tmp_path: Path, other: dict[str, Any]) -> None:
    interrupted(tmp_path / "a")
    with make(tmp_path / "a", **other) as out:
        assert not out.done("one")
        assert not (out.path / "one.json").exists()


def test_the_same_fit_resumes(tmp_path: Path) -> None:
    interrupted(tmp_path / "a")
    with make(tmp_path / "a") as out:
        assert out.done("one")
        assert (out.path / "one.json").exists()


@pytest.mark.parametrize("state", ["", "{", "[]", '{"request": 1}', "\x00\x00"])
def test_a_damaged_state_starts_afresh(tmp_path: Path, state: str) -> None:
    interrupted(tmp_path / "a")
    (tmp_path / "a.partial" / ".state").write_text(state)
    with make(tmp_path / "a") as out:
        assert not out.done("one")
    assert Artifact.open(tmp_path / "a").manifest["files"] == {}


def test_a_resumed_fit_that_fails_keeps_its_stages(tmp_path: Path) -> None:
    interrupted(tmp_path / "a")
    with pytest.raises(RuntimeError), make(tmp_path / "a"):
        raise RuntimeError
    with make(tmp_path / "a") as out:
        assert out.done("one")
