"""select, index, search, rerank and decode, here and on a server."""

import gzip
import io
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cli_runs import Run, lines, read, runner, texts
from service_methods import GATE

from pickaxe_services import Client


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return runner(capfd)


# ---------------------------------------------------------------- select

GIVEN = ["bb", "a", "cccc", "dd", "eeee", "ff"]


def ids(out: str) -> list[str]:
    return [json.loads(line)["id"] for line in out.splitlines()]


@pytest.mark.parametrize(
    ("rule", "picked"),
    [
        (["--top", 3], ["d0", "d2", "d4"]),
        (["--top", 2, "--lowest"], ["d0", "d1"]),
        (["--fraction", 0.5], ["d0", "d2", "d4"]),
        (["--threshold", 2], ["d0", "d2", "d3", "d4", "d5"]),
        (["--threshold", 1, "--lowest"], ["d1"]),
        (["--quantile", 0.8], ["d2", "d4"]),
        (["--top", 0], []),
    ],
)
def test_select_keeps_original_lines_in_order(run: Run, tmp_path: Path, rule: list[object], picked: list[str]) -> None:
    path = texts(tmp_path / "a.jsonl", *GIVEN)
    odd = path.read_text().replace(": ", " :  ")
    path.write_text(odd)
    done = run("select", "t-length", "-i", path, *rule)
    assert ids(done.out) == picked
    assert set(done.out.splitlines()) <= set(odd.splitlines())
    assert run("score", "t-length", "-i", path, "-o", "s.jsonl").code == 0
    assert run("select", "--scores", "s.jsonl", "-i", path, *rule).out == done.out
    assert run("select", "t-length", "-i", path, *rule, "--ids-only").out.split() == picked


def test_select_writes_what_it_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'id,text\r\n1,"x\r\ny"\r\n2,z\r\n')
    assert run("select", "t-length", "-i", "a.csv", "--top", 1, "-o", "o.csv.gz", "--json").lines[0]["selected"] == 1
    assert gzip.decompress((tmp_path / "o.csv.gz").read_bytes()) == b'id,text\r\n1,"x\r\ny"\r\n'
    (tmp_path / "a.txt").write_text("one\nthree\ntwo")
    assert run("select", "t-length", "-i", "a.txt", "--top", 2).out == "one\nthree\n"
    pq.write_table(pa.table({"id": ["a", "b"], "text": ["x", "yy"]}), "a.parquet")
    assert run("select", "t-length", "-i", "a.parquet", "--top", 1).out == '{"id": "b", "text": "yy"}\n'
    wrong = run("select", "t-length", "-i", "a.csv", "--top", 1, "-o", "o.jsonl")
    assert (wrong.code, "must be csv" in wrong.err) == (2, True)
    assert not (tmp_path / "o.jsonl").exists()


def test_select_from_standard_input(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"a\nccc\nbb\n")))
    assert run("select", "t-length", "-i", "-", "--format", "text", "--top", 2).out == "ccc\nbb\n"


def test_select_with_scores_of_another_input(run: Run, tmp_path: Path) -> None:
    texts(tmp_path / "a.jsonl", "x", "y")
    texts(tmp_path / "b.jsonl", "x", "y", "z")
    run("score", "t-length", "-i", "a.jsonl", "-o", "s.jsonl")
    for path in ("b.jsonl", "s.jsonl"):
        wrong = run("select", "--scores", path, "-i", "a.jsonl" if path == "b.jsonl" else "b.jsonl", "--top", 1)
        assert wrong.code == 3, wrong


def test_select_by_the_columns_direction(run: Run, tmp_path: Path) -> None:
    path = texts(tmp_path / "a.jsonl", *GIVEN)
    assert ids(run("select", "t-typed", "-i", path, "--column", "i64", "--highest", "--top", 1).out) == ["d5"]
    assert ids(run("select", "t-typed", "-i", path, "--column", "f64", "--top", 1).out) == ["d0"]


def test_select_leaves_out_what_has_no_score(run: Run, tmp_path: Path) -> None:
    path = texts(tmp_path / "a.jsonl", *GIVEN)  # t-typed gives the first items NaN
    assert ids(run("select", "t-typed", "-i", path, "--top", 9).out) == ["d5"]


# ---------------------------------------------------------------- index and search


@pytest.fixture
def index(run: Run, tmp_path: Path) -> Path:
    texts(tmp_path / "docs.jsonl", "red fish", "blue fish", "green bird")
    made = run("index", "t-find", "-i", "docs.jsonl", "--out", "idx", "--json")
    assert made.code == 0
    assert made.lines[0]["artifact"] == "idx"
    return tmp_path / "idx"


def test_search(run: Run, tmp_path: Path, index: Path) -> None:
    shown = run("search", "t-find", "--artifact", "idx", "--query", "blue fish", "-k", 2)
    assert [line.split()[:3] for line in shown.out.splitlines()[2:]] == [["1", "d1", "2"], ["2", "d0", "1"]]
    lines(tmp_path / "q.jsonl", [{"id": "q1", "text": "bird"}, {"id": "q2", "text": "red"}])
    found = run("search", "t-find", "--artifact", "idx", "--queries", "q.jsonl", "-k", 1)
    assert found.lines == [
        {"query": "q1", "hits": [{"id": "d2", "score": 1.0, "columns": {"exact": 0.1}, "spans": [[0, 10]]}]},
        {"query": "q2", "hits": [{"id": "d0", "score": 1.0, "columns": {"exact": 0.1}, "spans": [[0, 8]]}]},
    ]
    trec = ["search", "t-find", "--artifact", "idx", "--queries", "q.jsonl", "-k", 2, "--trec"]
    assert run(*trec).out.splitlines()[:2] == ["q1 Q0 d2 1 1.0 t-find", "q1 Q0 d0 2 0.0 t-find"]
    assert run(*trec, "-o", "run.trec.gz").code == 0
    assert gzip.decompress((tmp_path / "run.trec.gz").read_bytes()).startswith(b"q1 Q0")


def test_trec_ids_without_blanks(run: Run, tmp_path: Path, index: Path) -> None:
    lines(tmp_path / "q.jsonl", [{"id": "q 1", "text": "bird"}])
    wrong = run("search", "t-find", "--artifact", "idx", "--queries", "q.jsonl", "--trec", "-o", "r.trec")
    assert (wrong.code, "'q 1'" in wrong.err) == (3, True)
    assert not (tmp_path / "r.trec").exists()


def test_index_refuses_ids_twice(run: Run, tmp_path: Path) -> None:
    lines(tmp_path / "docs.jsonl", [{"id": "a", "text": "x"}, {"id": "a", "text": "y"}])
    wrong = run("index", "t-find", "-i", "docs.jsonl", "--out", "idx", "--progress", "jsonl")
    assert wrong.code == 3
    assert wrong.lines[-1]["error"]["reason"] == "ITEMS_INVALID"
    assert "documents[1].id" in wrong.lines[-1]["error"]["violations"][0]["field"]
    assert not (tmp_path / "idx").exists()


# ---------------------------------------------------------------- rerank


def test_rerank(run: Run, tmp_path: Path) -> None:
    texts(tmp_path / "c.jsonl", "a", "ccc", "bb")
    shown = run("rerank", "t-order", "--query", "q", "--candidates", "c.jsonl", "--top", 2)
    assert [line.split() for line in shown.out.splitlines()[2:]] == [["1", "d1", "3", "2"], ["2", "d2", "2", "3"]]
    two = [{"id": "x", "text": "a"}, {"id": "y", "text": "bb"}]
    lines(
        tmp_path / "in.jsonl",
        [{"id": "q", "text": "?", "candidates": two}, {"id": "p", "text": "?", "candidates": ["bb", ""]}],
    )
    rows = run("rerank", "t-order", "-i", "in.jsonl", "--seed", 3).lines
    assert [[each["id"] for each in row["ranking"]] for row in rows] == [["y", "x"], ["0"]]
    assert rows[0]["record"] == {"seed": 3}
    assert rows[1]["cut"] == "empty texts"
    wrong = run("rerank", "t-order", "-i", "c.jsonl")
    assert (wrong.code, "c.jsonl:1.candidates" in wrong.err) == (3, True)


def test_rerank_a_run(run: Run, tmp_path: Path) -> None:
    texts(tmp_path / "docs.jsonl", "a", "ccc", "bb", "unused")
    texts(tmp_path / "q.jsonl", "?", "!", "not in the run")
    (tmp_path / "run.trec").write_text("d0 Q0 d1 2 1.0 x\nd0 Q0 d0 1 2.0 x\n\nd1 Q0 d2 1 1.0 x\n")
    given = ["rerank", "t-order", "--run", "run.trec", "--queries", "q.jsonl", "--candidates", "docs.jsonl"]
    assert run(*given, "--trec", "-o", "out.trec").code == 0
    assert (tmp_path / "out.trec").read_text().splitlines() == [
        "d0 Q0 d1 1 3.0 t-order",
        "d0 Q0 d0 2 1.0 t-order",
        "d1 Q0 d2 1 2.0 t-order",
    ]
    for line, word in (("d0 Q0 d9 1 1 x", "d9"), ("d7 Q0 d0 1 1 x", "d7"), ("d0 d1 1", "run.trec:1")):
        (tmp_path / "run.trec").write_text(line + "\n")
        wrong = run(*given)
        assert (wrong.code, word in wrong.err) == (3, True)


# ---------------------------------------------------------------- decode


def test_decode_to_the_terminal(run: Run) -> None:
    shown = run("decode", "t-words", "--prompt", "one two")
    assert shown.out == 'one two \n{"best": 0, "why": {"votes": [1, 2.5]}}\n'


def test_decode_files_and_go_on(run: Run, tmp_path: Path) -> None:
    path = lines(tmp_path / "p.jsonl", [{"id": f"p{row}", "prompt": "a b" if row < 20 else "bad"} for row in range(21)])
    failed = run("decode", "t-words", "-i", path, "-o", "o.jsonl")
    assert (failed.code, "bad word" in failed.err) == (1, True)
    again = run("decode", "t-words", "-i", path, "-o", "o.jsonl")
    assert "goes on after 16 prompts" in again.err
    changed = run("decode", "t-words", "-i", path, "-o", "o.jsonl", "--max-tokens", 5)
    assert (changed.code, "another sampling" in changed.err) == (5, True)
    path.write_text(path.read_text().replace("bad", "good"))
    assert run("decode", "t-words", "-i", path, "-o", "o.jsonl", "--restart").code == 0
    rows = read(tmp_path / "o.jsonl")
    assert len(rows) == 42
    assert rows[:2] == [
        {"id": "p0", "choice": -1, "text": "", "records": [{"best": 0, "why": {"votes": [1, 2.5]}}]},
        {
            "id": "p0",
            "choice": 0,
            "text": "a b ",
            "token_ids": [7, 2**31 + 1] * 2,
            "logprobs": [-0.1, -1 / 3] * 2,
            "finish_reason": "stop",
            "usage": {"target_calls": 2.0},
        },
    ]
    assert sorted(os.listdir(tmp_path)) == ["o.jsonl", "p.jsonl"]


def test_decode_hands_sampling_and_seed_on(run: Run) -> None:
    done = run(
        "decode", "t-words", "--prompt", "a", "--seed", 9, "--budget", 4, "--json", "--max-tokens", 3,
        "--temperature", 0.5, "--top-p", 0.9, "--top-k", 5, "--stop", "x", "-n", 1,
    )  # fmt: skip
    assert done.code == 0
    assert (GATE.calls[-1].seed, GATE.calls[-1].budget) == (9, 4)
    assert {row["id"] for row in done.lines} == {"1"}


def test_broken_prompts_are_left_out(run: Run, tmp_path: Path) -> None:
    lines(tmp_path / "p.jsonl", [{"id": "a", "prompt": "x"}, {"id": "b"}, {"id": "c", "messages": "x"}])
    assert run("decode", "t-words", "-i", "p.jsonl").code == 3
    done = run("decode", "t-words", "-i", "p.jsonl", "--on-error", "skip")
    assert {row["id"] for row in done.lines} == {"a"}


# ---------------------------------------------------------------- the same on a server


def test_a_server_gives_the_same_bytes(run: Run, tmp_path: Path, server: Client) -> None:
    at = ["--server", server.target]
    docs = texts(tmp_path / "docs.jsonl", *(f"{'fish ' * (row % 5)}{row}" for row in range(1500)))
    small = texts(tmp_path / "small.jsonl", "red fish", "blue fish")
    for args in (
        ["score", "t-length", "-i", docs],
        ["score", "t-typed", "-i", small],
        ["select", "t-length", "-i", docs, "--top", 7],
        ["rerank", "t-order", "--query", "q", "--candidates", small, "--json"],
        ["decode", "t-words", "--prompt", "one two", "--json"],
        ["decode", "t-words", "--prompt", "one two"],
        ["show", "t-length"],
        ["show", "t-typed", "--json"],
    ):
        here, there = run(*args), run(*args, *at)
        assert (there.code, there.out) == (here.code, here.out), there
        assert here.out
    names = {row["name"] for row in run("methods", "--json", *at).lines}
    assert {"t-length", "zip-fit"} <= names
    for out, more in (("here.jsonl.gz", []), ("there.jsonl.gz", at)):
        assert run("score", "t-length", "-i", docs, "-o", out, *more).code == 0
    assert (tmp_path / "here.jsonl.gz").read_bytes() == (tmp_path / "there.jsonl.gz").read_bytes()


@pytest.mark.parametrize(
    ("args", "code", "word"),
    [
        (["score", "no-such", "-i", "a.jsonl"], 4, "no-such"),
        (["score", "t-find", "-i", "a.jsonl"], 4, "t-find"),
        (["score", "t-broken", "-i", "a.jsonl"], 1, "t-broken"),
        (["score", "t-length", "-i", "a.jsonl", "--set", "x=1"], 2, "x"),
        (["score", "t-mean", "-i", "a.jsonl", "--artifact", "artifacts/none"], 4, "artifacts/none"),
        (["score", "t-mean", "-i", "a.jsonl", "--artifact", "nowhere"], 4, "nowhere"),
        (["jobs", "get", "jobs/none"], 4, "jobs/none"),
    ],
)
def test_a_server_fails_alike(run: Run, tmp_path: Path, server: Client, args: list[str], code: int, word: str) -> None:
    texts(tmp_path / "a.jsonl", "x")
    failed = run(*args, "--server", server.target)
    assert (failed.code, word in failed.err) == (code, True), failed


def test_an_artifact_that_lies_here_goes_to_the_server(run: Run, tmp_path: Path, server: Client) -> None:
    texts(tmp_path / "a.jsonl", "x", "yyyy")
    assert run("fit", "t-mean", "-e", "a.jsonl", "--out", "art").code == 0
    here = run("score", "t-mean", "-i", "a.jsonl", "--artifact", "art")
    there = run("score", "t-mean", "-i", "a.jsonl", "--artifact", "art", "--server", server.target)
    assert (there.code, there.out) == (0, here.out)
