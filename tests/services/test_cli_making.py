"""fit, index, jobs, models, check, new and serve."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_runs import Run, command, fresh, read, runner, texts
from service_methods import GATE

from pickaxe import ArtifactWriter, Column, Item, Items, Method, Params, Progress, Scores, catalog, hookimpl
from pickaxe.artifact import Artifact
from pickaxe.models import ModelStore


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return runner(capfd)


# ---------------------------------------------------------------- fit


def test_fit_and_score(run: Run, tmp_path: Path) -> None:
    texts(tmp_path / "e.jsonl", "aa", "bbbb")
    made = run("fit", "t-mean", "-e", "e.jsonl", "--out", "art", "--json")
    assert made.lines[0]["digest"] == Artifact.open(tmp_path / "art").digest
    assert run("score", "t-mean", "--artifact", "art", "-i", "e.jsonl").lines[0] == {"id": "d0", "distance": -1.0}
    again = run("fit", "t-mean", "-e", "e.jsonl", "--out", "art")
    assert (again.code, "art" in again.err) == (5, True)
    texts(tmp_path / "e.jsonl", "aa")
    assert run("fit", "t-mean", "-e", "e.jsonl", "--out", "art", "--overwrite").code == 0
    assert run("score", "t-mean", "--artifact", "art", "-i", "e.jsonl").lines[0]["distance"] == 0


def test_progress_as_lines(run: Run, tmp_path: Path) -> None:
    texts(tmp_path / "e.jsonl", "aa", "bbbb")
    made = run("fit", "t-mean", "--examples", "e.jsonl", "--out", "art", "--progress", "jsonl")
    assert made.lines == [{"stage": "measure", "step": 2, "total": 2, "metrics": {"mean": 3.0}}]
    failed = run("fit", "t-mean", "--examples", "e.jsonl", "--out", "art", "--progress", "jsonl")
    assert failed.code == 5
    assert failed.lines[-1]["error"]["reason"] == "ALREADY_EXISTS"
    unknown = run("fit", "t-meen", "--examples", "e.jsonl", "--out", "b", "--progress", "jsonl")
    assert unknown.lines == [{"error": unknown.lines[0]["error"]}]
    assert unknown.lines[0]["error"]["reason"] == "METHOD_UNKNOWN"


class Stages(Method[Params]):
    """Two stages; the second fails when a file says so."""

    scope = "item"
    columns = (Column("value", "A value."),)
    fitted = "required"
    stages = ("first", "second")

    @hookimpl
    def fit(self, examples: Iterable[Item], out: ArtifactWriter) -> Iterator[Progress]:
        if not out.done("first"):
            out.write_json("first.json", [item.id for item in examples])
            yield Progress("first", 1, 1)
            out.finish("first")
        yield Progress("second", 0, 1)
        if Path("fail").exists():
            raise ValueError("told to fail")

    @hookimpl
    def score(self, items: Items) -> Scores:
        return Scores({"value": np.zeros(len(items), np.float32)})


def test_a_fit_goes_on_after_its_finished_stages(run: Run, tmp_path: Path) -> None:
    texts(tmp_path / "e.jsonl", "x")
    (tmp_path / "fail").touch()
    with catalog.register(Stages, "t-stages", "scorer"):
        given = ["fit", "t-stages", "-e", "e.jsonl", "--out", "art", "--progress", "jsonl"]
        failed = run(*given)
        assert [line.get("stage") for line in failed.lines] == ["first", "second", None]
        assert not (tmp_path / "art").exists()
        (tmp_path / "fail").unlink()
        done = run(*given)
    assert [line["stage"] for line in done.lines] == ["second"]
    assert "finished first" in done.err


def test_terminated_in_a_fit_the_last_line_says_so(tmp_path: Path) -> None:
    fifo = tmp_path / "e.jsonl"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        command("fit", "zip-fit", "--examples", fifo, "--out", tmp_path / "art", "--progress", "jsonl"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with fifo.open("w") as stream:  # opens once the fit reads
        stream.write(json.dumps({"id": "a", "text": "x"}) + "\n")
        stream.flush()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert json.loads(out.splitlines()[-1])["error"]["reason"] == "CANCELLED"
    assert "Traceback" not in err
    assert not (tmp_path / "art").exists()


def test_fit_and_index_as_jobs_of_a_server(run: Run, tmp_path: Path, serve: Any) -> None:
    """The job's process is this command line: what it prints is what the server reads."""
    texts(tmp_path / "e.jsonl", "the cat sat", "on the mat")
    with serve() as client:
        at = ["--server", client.target]
        assert run("fit", "zip-fit", "-e", "e.jsonl", "--out", "there", *at).code == 0
        assert run("fit", "zip-fit", "-e", "e.jsonl", "--out", "here").code == 0
        digests = {name: Artifact.open(tmp_path / name).manifest["files"] for name in ("here", "there")}
        assert digests["here"] == digests["there"]
        listed = run("jobs", "list", "--json", *at).lines
        assert [(job["kind"], job["method"], job["state"]) for job in listed] == [("fit", "zip-fit", "succeeded")]
        name = listed[0]["name"]
        assert "succeeded" in run("jobs", "get", name, *at).out
        assert run("jobs", "watch", name, "--json", *at).lines[-1]["artifact"] == listed[0]["artifact"]
        assert name in run("jobs", "list", *at).out
        assert run("jobs", "cancel", name, *at).out == f"{name} is succeeded\n"
        wrong = run("fit", "zip-fit", "-e", "e.jsonl", "--out", "no", "--set", "level=99", *at)
        assert (wrong.code, "level" in wrong.err) == (2, True)
        assert not (tmp_path / "no").exists()


# ---------------------------------------------------------------- models


def test_models(run: Run, tmp_path: Path) -> None:
    rows = {row["alias"]: row for row in run("models", "list", "--json", "--directory", tmp_path).lines}
    assert rows["draft"]["present"]
    assert not rows["encoder"]["present"]
    assert "draft" in run("models", "list").out
    assert run("models", "path", "draft").out.strip() == str(ModelStore().path("draft"))
    assert "whole" in run("models", "verify", "draft").out
    assert run("models", "pull", "draft", "--json", "--directory", tmp_path).lines[0]["path"].endswith("smollm2-draft")
    missing = run("models", "path", "encoder", "--directory", tmp_path)
    assert (missing.code, "pickaxe models pull encoder" in missing.err) == (5, True)


def test_models_clean(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"weights")
    at = ("--directory", tmp_path / "models")
    graphs = ModelStore(tmp_path / "models").converted(weights, "k", lambda target: None)
    (graphs / "graph.onnx").write_bytes(bytes(1000))
    os.utime(graphs.parent, (0, 0))
    assert run("models", "clean", "--json", *at).lines == [{"freed_bytes": 0}]
    assert run("models", "clean", "--json", "--all", *at).lines[0]["freed_bytes"] >= 1000
    assert not graphs.exists()
    assert run("models", "clean", *at).out == "0 MiB freed\n"


# ---------------------------------------------------------------- check and new


def test_check(run: Run) -> None:
    done = run("check", "zip-fit", "--only", "scorer.*", "--json")
    assert done.code == 0
    assert done.lines
    assert all(row["passed"] and row["check"].startswith("scorer.") for row in done.lines)
    failed = run("check", "t-length", "--only", "anyrole.card")
    assert (failed.code, "FAILED  anyrole.card" in failed.out, "0 of 1 checks" in failed.out) == (1, True, True)


@pytest.mark.parametrize("role", catalog.ROLES)
def test_a_new_project_passes_its_own_tests_at_once(run: Run, tmp_path: Path, role: str) -> None:
    made = run("new", f"my-{role}", "--role", role, "--json")
    folder = tmp_path / f"my-{role}"
    assert sorted(made.lines[0]["files"]) == sorted(f"my-{role}/{name}" for name in os.listdir(folder))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
    again = run("new", f"my-{role}")
    assert (again.code, "not empty" in again.err) == (5, True)


def test_new_projects_are_tidy(run: Run, tmp_path: Path) -> None:
    def tool(*args: str, cwd: Path) -> None:
        done = subprocess.run([sys.executable, "-m", *args], cwd=cwd, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout

    for role in catalog.ROLES:
        run("new", f"my-{role}", "--role", role)
        tool(
            "ruff", "check", "--isolated", "--line-length=120", "--select=E,F,I,B,UP", ".", cwd=tmp_path / f"my-{role}"
        )
        tool("ruff", "format", "--isolated", "--line-length=120", "--check", ".", cwd=tmp_path / f"my-{role}")
    tool("mypy", "--disallow-untyped-defs", *(f"my-{role}/my_{role}.py" for role in catalog.ROLES), cwd=tmp_path)


# ---------------------------------------------------------------- serve


def test_serve(tmp_path: Path) -> None:
    texts(tmp_path / "a.jsonl", "x")
    process = subprocess.Popen(
        command("serve", "--port", 0, "--root", tmp_path / "root", "--drain-wait", 0, "--preload", "zip-fit",
                "--resources", f"here={tmp_path}", "--max-items-per-request", 7),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    address = process.stdout.readline().split()[-1]
    listed = fresh("methods", "--json", "--server", address)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert listed.code == 0
    assert "zip-fit" in listed.out


def test_serve_from_the_environment(tmp_path: Path) -> None:
    failed = fresh("serve", "--json", env={**os.environ, "PICKAXE_PORT": "many"})
    assert (failed.code, failed.error["violations"][0]["field"]) == (2, "port")
    failed = fresh("serve", "--json", env={**os.environ, "PICKAXE_RESOURCES": "{"})
    assert (failed.code, "resources" in failed.error["message"]) == (2, True)


def test_options_reach_the_method(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts(tmp_path / "a.jsonl", "x")
    monkeypatch.setenv("PICKAXE_RESOURCES", "{")
    broken = run("score", "t-length", "-i", "a.jsonl")
    assert (broken.code, "PICKAXE_RESOURCES" in broken.err) == (2, True)
    monkeypatch.setenv("PICKAXE_RESOURCES", json.dumps({"db": str(tmp_path)}))
    assert run("score", "t-length", "-i", "a.jsonl", "-o", "s.jsonl", "--seed", 4, "--resource", "x=y").code == 0
    assert GATE.calls[-1].seed == 4
    assert read(tmp_path / "s.jsonl") == [{"id": "d0", "length": 1.0}]
