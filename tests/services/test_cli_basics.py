"""Starting, listing, showing, and every way of failing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from cli_runs import Run, command, fresh, runner, texts

from pickaxe import catalog
from pickaxe.errors import VOCABULARY, InvalidParams
from pickaxe_services.cli import COMMANDS, pickaxe
from pickaxe_services.cli.failure import report
from pickaxe_services.cli.options import parameters


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    return runner(capfd)


def test_methods(run: Run) -> None:
    listed = run("methods", "--json")
    assert listed.code == 0
    assert {row["name"]: row["roles"] for row in listed.lines}["zip-fit"] == ["scorer"]
    assert [row["name"] for row in run("methods", "--role", "retriever", "--json").lines] == [
        name for name, (roles, _) in sorted(catalog.table().items()) if "retriever" in roles
    ]
    assert "zip-fit" in run("methods").out
    long = run("methods", "--long", "--role", "scorer", "--json").lines
    assert next(row for row in long if row["name"] == "zip-fit")["paper"].startswith("arXiv:")


def test_a_broken_method_does_not_hide_the_others(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "broken_dist-1.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text("[pickaxe.scorers]\nbroken = no_such_module:Thing\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    catalog.refresh()
    try:
        rows = {row["name"]: row for row in run("methods", "--long", "--json").lines}
        assert "no_such_module" in rows["broken"]["summary"]
        assert rows["zip-fit"]["summary"]
        shown = run("show", "broken")
        assert (shown.code, "cannot be imported" in shown.err) == (5, True)
    finally:
        monkeypatch.undo()
        catalog.refresh()


@pytest.mark.parametrize("name", sorted(catalog.names()))
def test_show(run: Run, name: str) -> None:
    card = catalog.describe(name)
    shown = run("show", name)
    assert shown.code == 0
    assert card.summary in shown.out
    for word in (*card.params_schema.get("properties", ()), *(column.name for column in card.columns), card.paper):
        assert word in shown.out
    assert run("show", name, "--json").lines[0]["params_schema"] == card.params_schema


def test_version_and_help(run: Run) -> None:
    assert run("--version").out.startswith("pickaxe ")
    assert all(name in run("--help").out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(run: Run, name: str) -> None:
    shown = run(name, "--help")
    assert shown.code == 0
    assert f"  pickaxe {name}" in shown.out.partition("Options:")[0]
    found = pickaxe.get_command(click.Context(pickaxe), name)
    assert found is not None
    for option in (each for each in found.params if isinstance(each, click.Option)):
        assert option.help, f"--{option.name} of {name} is not explained"


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["metods"], 2, ["metods", "methods"]),
        (["show", "zip-fi"], 4, ["zip-fi", "zip-fit"]),
        (["score", "chronicles", "-i", "FILE"], 4, ["chronicles", "scorer"]),
        (["score", "zip-fit", "-i", "FILE", "--set", "level=99", "--set", "nonsense=1"], 2, ["level", "nonsense"]),
        (["score", "zip-fit", "-i", "FILE", "--set", "level"], 2, ["KEY=VALUE"]),
        (["score", "zip-fit", "-i", "FILE", "--params", "{"], 2, ["--params", "JSON"]),
        (["score", "zip-fit", "-i", "FILE", "--params", "[]"], 2, ["--params", "object"]),
        (["score", "zip-fit", "-i", "FILE", "--params", "@none.json"], 2, ["none.json"]),
        (["score", "zip-fit", "-i", "none.jsonl"], 3, ["none.jsonl", "does not exist"]),
        (["score", "zip-fit", "-i", "FILE"], 5, ["zip-fit", "artifact", "fit"]),
        (["score", "zip-fit", "-i", "FILE", "--artifact", "none"], 4, ["none"]),
        (["score", "t-length", "-i", "FILE", "-o", "out.xml"], 2, ["out.xml", ".jsonl"]),
        (["score", "t-length", "-i", "FILE", "-o", "no/where.jsonl"], 5, ["where.jsonl", "cannot be written"]),
        (["score", "t-length", "-i", "FILE", "--map", "x"], 2, ["THEIRS=OURS"]),
        (["score", "t-length", "-i", "FILE", "--memory-budget", "much"], 2, ["--memory-budget", "GiB"]),
        (["score", "t-length", "-i", "FILE", "--resource", "x"], 2, ["NAME=PATH"]),
        (["score", "t-length", "-i", "BAD"], 3, ["bad.jsonl:2", "JSON"]),
        (["score", "t-length", "-i", "NOTEXT"], 3, ["notext.jsonl:1.text", "missing"]),
        (["score", "t-broken", "-i", "FILE"], 1, ["t-broken", "secret internals"]),
        (["score", "t-broken", "-i", "FILE", "--set", "how=rows"], 1, ["t-broken", "shape"]),
        (["score", "t-length"], 2, ["--input"]),
        (["score", "t-length", "-i", "FILE", "--server", "127.0.0.1:9"], 7, ["127.0.0.1:9"]),
        (["select", "t-length", "-i", "FILE"], 2, ["--top"]),
        (["select", "-i", "FILE", "--top", "1"], 2, ["--scores"]),
        (["select", "t-length", "-i", "FILE", "--top", "1", "--highest", "--lowest"], 2, ["--lowest"]),
        (["select", "t-length", "-i", "FILE", "--fraction", "2"], 2, ["fraction"]),
        (["select", "t-length", "-i", "FILE", "--top", "1", "--column", "width"], 2, ["width", "length"]),
        (["select", "t-typed", "-i", "FILE", "--top", "1", "--column", "label"], 2, ["label", "text"]),
        (["select", "t-typed", "-i", "FILE", "--top", "1", "--column", "i64"], 2, ["i64", "--highest"]),
        (["fit", "t-length", "-e", "FILE", "--out", "art"], 4, ["t-length", "fit"]),
        (["fit", "t-mean", "-e", "FILE", "--out", "FILE"], 5, ["exists"]),
        (["search", "t-find", "--query", "a"], 5, ["t-find", "index"]),
        (["search", "t-find"], 2, ["--query"]),
        (["rerank", "t-order"], 2, ["--candidates"]),
        (["decode", "t-words"], 2, ["--prompt"]),
        (["models", "path", "encodr"], 5, ["encodr", "encoder"]),
        (["models", "pull", "encodr"], 5, ["encodr", "encoder"]),
        (["check", "zip-fi"], 4, ["zip-fit"]),
        (["check", "none.py:X"], 5, ["none.py"]),
        (["check", "t-length", "--only", "nothing.*"], 2, ["nothing.*"]),
        (["new", "Bad_Name"], 2, ["Bad_Name", "my-method"]),
        (["jobs", "list", "--server", "127.0.0.1:9"], 7, ["127.0.0.1:9"]),
        (["serve", "--port", "many"], 2, ["port", "many"]),
        (["serve", "--resources", "x"], 2, ["NAME=PATH"]),
        (["serve", "--host", "0.0.0.0"], 5, ["0.0.0.0", "--tls-cert"]),
        (["serve", "--tls-cert", "x.pem"], 5, ["--tls-key"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_every_failure_is_one_line_that_names_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], code: int, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {
        "FILE": texts(tmp_path / "file.jsonl", "one", "two"),
        "BAD": tmp_path / "bad.jsonl",
        "NOTEXT": tmp_path / "notext.jsonl",
    }
    files["BAD"].write_text('{"text": "x"}\n{"text":\n')
    files["NOTEXT"].write_text('{"body": "x"}\n')
    given = [str(files.get(arg, arg)) for arg in args]
    plain = run(*given)
    assert plain.code == code, plain
    line = plain.err.splitlines()[-1]
    assert line.startswith("error: ")
    assert all(word in line for word in words), line
    assert "Traceback" not in plain.err
    told = run(*given, "--json")
    assert told.code == code
    assert set(told.error) == {"reason", "message", "metadata", "violations"}
    assert told.error["reason"] == "USAGE" or VOCABULARY[told.error["reason"]].exit_code == code
    assert all(word in json.dumps(told.error, ensure_ascii=False) for word in words)
    assert sorted(os.listdir(tmp_path)) == ["bad.jsonl", "file.jsonl", "notext.jsonl"]


def test_bugs_keep_their_traceback() -> None:
    assert report(ZeroDivisionError(), as_json=False) is None


def test_traceback_on_request(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PICKAXE_TRACEBACK", "1")
    failed = run("score", "t-broken", "-i", texts(tmp_path / "a.jsonl", "x"))
    assert 'raise RuntimeError("secret internals")' in failed.err


def test_parameters() -> None:
    sets = ("a=1", "b=text", 'c.d={"e": [1]}', "c.f=true", "g=null", "h=1=2")
    assert parameters('{"a": 0, "z": 1}', sets) == {
        "a": 1, "z": 1, "b": "text", "c": {"d": {"e": [1]}, "f": True}, "g": None, "h": "1=2",
    }  # fmt: skip
    with pytest.raises(InvalidParams, match="no object"):
        parameters(None, ("a=1", "a.b=2"))


def test_parameters_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"a": [1]}')
    assert parameters(f"@{tmp_path / 'p.json'}", ()) == {"a": [1]}


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command("methods", "--long"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 141


def test_completion(tmp_path: Path) -> None:
    environment = {**os.environ, "_PICKAXE_COMPLETE": "bash_complete", "COMP_WORDS": "pickaxe sc", "COMP_CWORD": "1"}
    assert "score" in fresh(env=environment).out
