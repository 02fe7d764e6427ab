"""Indexes that grow from others, on a server and on the command line, as in this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_runs import Run, runner, texts

import pickaxe
from pickaxe import Item
from pickaxe.errors import AlreadyExists, ArtifactMismatch, InvalidParams, UnknownArtifact, Unmet
from pickaxe_services import Client
from pickaxe_services.codec import admin
from pickaxe_services.records import JobSpec, Use

OLD = [Item("a", "red fish"), Item("b", "blue fish"), Item("c", "green bird")]
NEW = [Item("b", "yellow bird"), Item("d", "red bird")]
QUERIES = ["red", "bird fish", "yellow", "blue"]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return runner(capfd)


def test_on_a_server(server: Client, tmp_path: Path) -> None:
    local = pickaxe.retriever("bm25").index(OLD).add(NEW, remove=["b"])
    remote = server.retriever("bm25").index(OLD)
    grown = remote.add(NEW, remove=["b"], out=tmp_path / "here")
    assert grown.search(QUERIES).results == local.search(QUERIES).results
    assert (
        pickaxe.retriever("bm25", artifact=tmp_path / "here").search(QUERIES).results == grown.search(QUERIES).results
    )
    assert remote.search(["blue"])[0][0].id == "b"
    assert [hits[0].id for hits in grown.add([], remove=["d"]).search(["red"])] == ["a"]
    assert server.show("bm25").grows
    assert not server.show("seal").grows


def test_what_a_server_refuses(server: Client, tmp_path: Path) -> None:
    base = server.retriever("bm25").index(OLD).artifact
    with pytest.raises(UnknownArtifact):
        server.retriever("bm25").index(NEW, base="artifacts/none")
    with pytest.raises(ArtifactMismatch):
        server.retriever("dense").index(NEW, base=base)
    with pytest.raises(InvalidParams, match="'nobody'"):
        server.retriever("bm25").index(NEW, base=base, remove=["nobody"])
    with pytest.raises(InvalidParams, match="remove_ids"):
        server.retriever("bm25").index(NEW, remove=["a"])
    seal = server.retriever("seal").index(OLD)
    with pytest.raises(Unmet, match="seal cannot be appended to"):
        seal.add(NEW)
    first = server.retriever("bm25").index(NEW, base=base, remove=["b"], request_id="one")
    assert server.retriever("bm25").index(NEW, base=base, remove=["b"], request_id="one").artifact == first.artifact
    with pytest.raises(AlreadyExists, match="another job"):
        server.retriever("bm25").index(NEW, base=base, remove=["a", "b"], request_id="one")


def test_a_spec_over_the_wire() -> None:
    spec = JobSpec("index", Use("bm25"), base="artifacts/x", remove=("a", "b\n"))
    assert admin.read_job_spec(admin.write_job_spec(spec)) == spec
    for wrong in (JobSpec("fit", Use("bm25"), base="artifacts/x"), JobSpec("index", Use("bm25"), remove=("a",))):
        with pytest.raises(InvalidParams):
            admin.read_job_spec(admin.write_job_spec(wrong))


def test_on_the_command_line(run: Run, tmp_path: Path) -> None:
    texts(tmp_path / "old.jsonl", "red fish", "blue fish", "green bird")
    (tmp_path / "new.jsonl").write_text('{"id": "d1", "text": "yellow bird"}\n{"id": "d9", "text": "red bird"}\n')
    (tmp_path / "gone.txt").write_text("d1\n\n d2 \n")
    assert run("index", "bm25", "-i", "old.jsonl", "--out", "idx").code == 0
    assert (
        run("index", "bm25", "--base", "idx", "-i", "new.jsonl", "--remove-ids", "gone.txt", "--out", "new").code == 0
    )
    found = run("search", "bm25", "--artifact", "new", "--query", "bird", "--query", "red", "--json").lines
    assert [[hit["id"] for hit in row["hits"]] for row in found] == [["d1", "d9"], ["d0", "d9"]]
    (tmp_path / "gone.json").write_text(json.dumps(["d9"]))
    assert run("index", "bm25", "--base", "new", "--remove-ids", "gone.json", "--out", "new", "--overwrite").code == 0
    assert len(run("search", "bm25", "--artifact", "new", "--query", "bird", "--json").lines[0]["hits"]) == 1


def test_wrong_options(run: Run, tmp_path: Path) -> None:
    texts(tmp_path / "old.jsonl", "red fish")
    assert run("index", "bm25", "--out", "idx").code == 2
    assert run("index", "bm25", "-i", "old.jsonl", "--out", "idx").code == 0
    (tmp_path / "list.json").write_text('{"a": 1}')
    for file, word in (("nothing.txt", "cannot be read"), ("list.json", "no list of strings")):
        wrong = run("index", "bm25", "--base", "idx", "--remove-ids", file, "--out", "new")
        assert (wrong.code, word in wrong.err) == (3, True), wrong
    assert run("show", "bm25").out.count("grows")
