"""The cache of graphs made from models: what it keeps and what it drops."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pickaxe.errors import InvalidParams
from pickaxe.models import ModelStore, graph_cache_limit
from pickaxe.models.conversions import hold

SIZE = 1000
HOUR = 3600


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


def model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "weights.bin").write_bytes(b"weights")
    return folder


def build(target: Path) -> None:
    (target / "graph.onnx").write_bytes(bytes(SIZE))


def used(graphs: Path, hours_ago: float) -> None:
    moment = time.time() - hours_ago * HOUR
    os.utime(graphs.parent, (moment, moment))


def test_graphs_of_a_model_that_is_gone_leave_with_the_next_build(store: ModelStore, tmp_path: Path) -> None:
    gone, stays = model(tmp_path / "gone"), model(tmp_path / "stays")
    old, kept = store.converted(gone, "k", build), store.converted(stays, "k", build)
    (gone / "weights.bin").unlink()
    gone.rmdir()
    assert old.is_dir()
    store.converted(model(tmp_path / "new"), "k", build)
    assert not old.parent.exists()
    assert kept.is_dir()


def test_a_changed_model_drops_its_old_graphs(store: ModelStore, tmp_path: Path) -> None:
    mine = model(tmp_path / "mine")
    old = store.converted(mine, "k", build)
    (mine / "weights.bin").write_bytes(b"other weights")
    new = store.converted(mine, "k", build)
    assert (old.exists(), new.exists()) == (False, True)


def test_the_longest_unused_go_first(store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = [store.converted(model(tmp_path / f"m{number}"), "k", build) for number in range(3)]
    for number, folder in enumerate(graphs):
        used(folder, hours_ago=3 - number)
    store.converted(tmp_path / "m0", "k", build)  # there already: used now
    monkeypatch.setenv("PICKAXE_GRAPH_CACHE", str(int(3.5 * SIZE)))
    newest = store.converted(model(tmp_path / "m3"), "k", build)
    assert [folder.exists() for folder in (*graphs, newest)] == [True, False, True, True]


def test_what_was_just_used_stays_beyond_the_limit(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PICKAXE_GRAPH_CACHE", "1")
    graphs = [store.converted(model(tmp_path / f"m{number}"), "k", build) for number in range(3)]
    assert store.prune(0) == 0
    assert all(folder.is_dir() for folder in graphs)
    for folder in graphs:
        used(folder, hours_ago=1)
    assert store.prune(0) > 3 * SIZE
    assert not any(folder.exists() for folder in graphs)


def test_what_a_process_has_open_stays(store: ModelStore, tmp_path: Path) -> None:
    graphs = store.converted(model(tmp_path / "mine"), "k", build)
    used(graphs, hours_ago=1)
    script = (
        "import sys, time, pathlib\n"
        "from pickaxe.models.conversions import hold\n"
        "held = hold(pathlib.Path(sys.argv[1]))\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(graphs / "graph.onnx")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == b"held\n"
        assert store.prune(0) == 0
        assert graphs.is_dir()
        other.stdin.close()
    assert store.prune(0) > SIZE


def test_what_this_process_has_open_stays(store: ModelStore, tmp_path: Path) -> None:
    mine = model(tmp_path / "mine")
    graphs = store.converted(mine, "k", build)
    holds = [hold(graphs / name) for name in ("graph.onnx", "other.onnx")]
    (mine / "weights.bin").unlink()
    mine.rmdir()
    while holds:
        assert store.prune(0) == 0
        holds.pop()
    assert store.prune(0) > SIZE


def test_many_graphs_of_a_folder_take_one_file_descriptor(store: ModelStore, tmp_path: Path) -> None:
    graphs = store.converted(model(tmp_path / "mine"), "k", build)
    before = len(list(Path("/proc/self/fd").iterdir()))
    holds = [hold(graphs / "graph.onnx") for _ in range(50)]
    assert len(list(Path("/proc/self/fd").iterdir())) == before + 1
    holds.clear()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_model_being_built_stays(store: ModelStore, tmp_path: Path) -> None:
    def prune_meanwhile(target: Path) -> None:
        build(target)
        used(target.parent, hours_ago=1)
        assert store.prune(0) == 0

    graphs = store.converted(model(tmp_path / "mine"), "k", prune_meanwhile)
    assert (graphs / "graph.onnx").stat().st_size == SIZE


def test_graphs_of_older_releases_go_once_unused(store: ModelStore, tmp_path: Path) -> None:
    folder = store.directory / "converted" / "0123456789abcdef01234567"
    (folder / "fp32").mkdir(parents=True)
    build(folder / "fp32")
    store.converted(model(tmp_path / "mine"), "k", build)
    assert folder.is_dir()
    used(folder / "fp32", hours_ago=1)
    store.converted(tmp_path / "mine", "other", build)
    assert not folder.exists()


def test_the_limit_is_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PICKAXE_GRAPH_CACHE", raising=False)
    assert graph_cache_limit() == 16 * 2**30
    monkeypatch.setenv("PICKAXE_GRAPH_CACHE", "500MiB")
    assert graph_cache_limit() == 500 * 2**20
    monkeypatch.setenv("PICKAXE_GRAPH_CACHE", "much")
    with pytest.raises(InvalidParams, match=r"PICKAXE_GRAPH_CACHE.*'much'"):
        graph_cache_limit()
