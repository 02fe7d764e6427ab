"""search | rerank on JSONL, runs beside the output, and evaluate."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from cli_runs import Run, lines, read, runner


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return runner(capfd)


@pytest.fixture
def index(run: Run, tmp_path: Path) -> None:
    lines(
        tmp_path / "docs.jsonl",
        [
            {"id": "a", "text": "red fish", "title": "Red"},
            {"id": "b", "text": "a fish that is very long"},
            {"id": "c", "text": "bird"},
        ],
    )
    lines(tmp_path / "q.jsonl", [{"id": "q1", "text": "red fish"}, {"id": "q2", "text": "nothing"}])
    assert run("index", "bm25", "-i", "docs.jsonl", "--out", "idx").code == 0


SEARCH = ("search", "bm25", "--artifact", "idx", "--queries", "q.jsonl")


def test_search_into_rerank(run: Run, index: None, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(*SEARCH, "--with-text")
    first = found.lines[0]
    assert (first["query"], first["text"]) == ("q1", "red fish")
    assert [hit["text"] for hit in first["hits"]] == ["red fish", "a fish that is very long"]
    assert first["hits"][0]["fields"] == {"title": "Red"}
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(found.out.encode())))
    rows = run("rerank", "t-order", "--input", "-").lines
    assert [row["query"] for row in rows] == ["q1", "q2"]
    assert [each["id"] for each in rows[0]["ranking"]] == ["b", "a"]
    assert rows[1]["ranking"] == []


def test_hits_without_texts_say_what_writes_them(run: Run, index: None, tmp_path: Path) -> None:
    assert run(*SEARCH, "-o", "hits.jsonl").code == 0
    wrong = run("rerank", "t-order", "--input", "hits.jsonl")
    assert (wrong.code, "--with-text" in wrong.err) == (3, True)


def test_an_index_without_texts(run: Run, tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('{"id": "a", "text": "x"}\n')
    assert run("index", "t-find", "-i", "d.jsonl", "--out", "idx").code == 0
    wrong = run("search", "t-find", "--artifact", "idx", "--query", "x", "--with-text")
    assert wrong.code != 0
    assert "gives no texts" in wrong.err


def test_runs_and_their_measures(run: Run, index: None, tmp_path: Path) -> None:
    assert run(*SEARCH, "--run", "one.trec", "-o", "hits.jsonl").code == 0
    assert [line.split()[2] for line in (tmp_path / "one.trec").read_text().splitlines()] == ["a", "b"]
    assert len(read(tmp_path / "hits.jsonl")) == 2
    reranked = run(
        "rerank", "t-order", "--run", "one.trec", "--queries", "q.jsonl", "--candidates", "docs.jsonl",
        "--out-run", "two.trec", "-o", "orders.jsonl",
    )  # fmt: skip
    assert reranked.code == 0, reranked.err
    assert (tmp_path / "two.trec").read_text().splitlines() == ["q1 Q0 b 1 1.0 t-order", "q1 Q0 a 2 0.5 t-order"]
    (tmp_path / "qrels.txt").write_text("q1 0 a 1\nq2 0 c 1\n")
    given = ["evaluate", "--run", "one.trec", "--run", "two.trec", "--qrels", "qrels.txt"]
    rows = run(*given, "--metrics", "RR@10 R@1", "--json").lines
    assert [(row["run"], row["RR@10"], row["R@1"]) for row in rows] == [("one.trec", 0.5, 0.5), ("two.trec", 0.25, 0.0)]
    table = run(*given).out
    assert "nDCG@10" in table
    assert "0.5000" in table
    each = [json.loads(line) for line in run(*given[:3], *given[5:], "--by-query", "--json").out.splitlines()]
    assert [row.get("query") for row in each] == ["q1", "q2", None]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--run", "none.trec", "--qrels", "qrels.txt"], "none.trec"),
        (["--run", "bad.trec", "--qrels", "qrels.txt"], "bad.trec:1"),
        (["--run", "empty.trec", "--qrels", "empty.trec"], "no judgments"),
        (["--run", "empty.trec", "--qrels", "qrels.txt", "--metrics", "nope@3"], "nope"),
    ],
)
def test_what_cannot_be_measured(run: Run, tmp_path: Path, options: list[str], word: str) -> None:
    (tmp_path / "qrels.txt").write_text("q1 0 a 1\n")
    (tmp_path / "bad.trec").write_text("q1 a 1\n")
    (tmp_path / "empty.trec").write_text("")
    wrong = run("evaluate", *options)
    assert wrong.code in (2, 3)
    assert word in wrong.err
