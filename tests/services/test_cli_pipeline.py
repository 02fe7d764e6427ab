"""`pickaxe select --pipeline`: the same choice as in memory, any number of processes, kills, and bad input."""

import gzip
import io
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cli_runs import Run, command, fresh, lines, read, runner

import pickaxe
from pickaxe import Item
from pickaxe.report import explained

RULES = {"name": "rules-gopher-quality", "column": "n_words"}
STAGES: list[dict[str, Any]] = [
    {"name": "words", "utility": RULES, "mechanism": {"kind": "threshold", "at_least": 4}},
    {"name": "exact", "utility": {"column": "q"}, "mechanism": {"kind": "exact_dedup"}},
    {"name": "near", "mechanism": {"kind": "minhash_dedup", "shingle": 2}},
    {"name": "best", "utility": {"column": "q"}, "mechanism": {"kind": "gumbel_top_k", "k": 900}},
    {"name": "uses", "mechanism": {"kind": "epochs", "group": "lang", "total": 1000, "max_epochs": 2}},
]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return runner(capfd)


def pipeline(path: Path, stages: list[dict[str, Any]] = STAGES, **given: Any) -> Path:
    path.write_text(json.dumps({"stages": stages, **given}))  # JSON is YAML
    return path


def rows(n: int) -> list[dict[str, Any]]:
    drawn = random.Random(7)
    vocabulary = [f"word{row}" for row in range(40)]
    return [
        {
            "id": f"d{row}",
            "text": " ".join(drawn.choices(vocabulary, k=drawn.randrange(9))),
            "q": drawn.random(),
            "lang": drawn.choice(["en", "da"]),
        }
        for row in range(n)
    ]


def expected(given: list[dict[str, Any]], stages: list[dict[str, Any]], seed: int = 0) -> list[str]:
    items = [Item(row["id"], row["text"], {"q": row["q"], "lang": row["lang"]}) for row in given]
    counts = pickaxe.scorer("selector", stages=stages).score(items, seed=seed)["count"]
    return [row["id"] for row, count in zip(given, counts.tolist(), strict=True) for _ in range(count)]


def ids(data: bytes) -> list[str]:
    return [json.loads(line)["id"] for line in data.splitlines()]


@pytest.mark.parametrize("workers", [1, 2])
def test_chooses_as_in_memory_with_any_number_of_processes(run: Run, tmp_path: Path, workers: int) -> None:
    given = rows(1700)
    lines(tmp_path / "a.jsonl", given)
    pipeline(tmp_path / "p.yaml")
    done = run("select", "--pipeline", "p.yaml", "-i", "a.jsonl", "-o", "o.jsonl.gz", "--seed", 3, "--json",
               "--workers", workers)  # fmt: skip
    assert done.code == 0, done.err
    chosen = ids(gzip.decompress((tmp_path / "o.jsonl.gz").read_bytes()))
    assert chosen == expected(given, STAGES, 3)
    assert done.lines[0]["uses"] == len(chosen)
    assert done.lines[0]["selected"] == len(set(chosen)) == 900
    assert done.lines[0]["read"] == 1700
    assert sum(row["dropped"] for row in done.lines[0]["funnel"]) == 1700 - len(set(chosen))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "o.jsonl.gz", "p.yaml"]


def test_bytes_are_the_same_with_any_number_of_processes(tmp_path: Path) -> None:
    lines(tmp_path / "a.jsonl", rows(2000))
    pipeline(tmp_path / "p.yaml")
    for workers in (1, 3):
        done = fresh("select", "--pipeline", "p.yaml", "-i", "a.jsonl", "-o", f"o{workers}.jsonl.zst",
                     "--workers", workers, cwd=tmp_path)  # fmt: skip
        assert done.code == 0, done.err
    assert len({(tmp_path / f"o{workers}.jsonl.zst").read_bytes() for workers in (1, 3)}) == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path, workers: int) -> None:
    lines(tmp_path / "a.jsonl", rows(30_000))
    stages = [*STAGES[:1], {"name": "c4", "utility": {"name": "rules-gopher-repetition", "column": "dup_5_gram_chars"},
                            "mechanism": {"kind": "threshold", "at_most": 1}}, *STAGES[1:]]  # fmt: skip
    pipeline(tmp_path / "p.yaml", stages)
    call = ("select", "--pipeline", "p.yaml", "-i", "a.jsonl", "--workers", workers)
    assert fresh(*call, "-o", "whole.jsonl", cwd=tmp_path).code == 0
    journal, kills = tmp_path / "o.jsonl.looked.journal", 0
    for _ in range(2):
        process = subprocess.Popen(command(*call, "-o", "o.jsonl"), cwd=tmp_path, stderr=subprocess.DEVNULL)
        before = journal.read_bytes() if journal.exists() else b""
        until = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < until:
            if journal.exists() and journal.read_bytes() != before:
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.002)
        process.wait(timeout=60)
    assert kills
    if not (tmp_path / "o.jsonl").exists():
        done = fresh(*call, "-o", "o.jsonl", cwd=tmp_path)
        assert done.code == 0, done.err
    assert (tmp_path / "o.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not journal.exists()


def test_an_unfinished_run_of_another_pipeline_is_not_mixed_up(run: Run, tmp_path: Path) -> None:
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows(600))
    (tmp_path / "a.jsonl").write_bytes(data + b"{broken\n")
    pipeline(tmp_path / "p.yaml")
    call = ("select", "--pipeline", "p.yaml", "-i", "a.jsonl", "-o", "o.jsonl", "--workers", 1)
    assert run(*call).code == 3
    pipeline(tmp_path / "p.yaml", STAGES[:1])
    assert "--restart" in run(*call).err
    assert run(*call, "--restart", "--on-error", "skip").code == 0
    again = run(*call, "--on-error", "skip")
    assert "exists" in again.err
    assert run(*call, "--on-error", "skip", "--overwrite").code == 0


def test_edits_are_written(run: Run, tmp_path: Path) -> None:
    body = "This sentence is long enough. " * 6
    lines(tmp_path / "a.jsonl", [{"n": 1, "text": f"{body}\nno end here\nIt cites [1] a source."}])
    stages = [{"name": "c4", "utility": "rules-c4", "edit": True, "mechanism": {"kind": "threshold", "at_least": 1}}]
    pipeline(tmp_path / "p.yaml", stages)
    done = run("select", "--pipeline", "p.yaml", "-i", "a.jsonl", "--workers", 1)
    assert done.lines == [{"n": 1, "text": f"{body.strip()}\nIt cites  a source."}]
    (tmp_path / "a.csv").write_text("id,text\na,b\n")
    assert "JSON Lines" in run("select", "--pipeline", "p.yaml", "-i", "a.csv", "-o", "o.csv", "--workers", 1).err


def test_other_formats_and_ids(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top = [{"name": "best", "utility": {"column": "q"}, "mechanism": {"kind": "top_k", "k": 1}}]
    pipeline(tmp_path / "p.yaml", top)
    (tmp_path / "a.csv").write_text("id,text,q\na,one,0.1\nb,two,0.9\n")
    call = ("select", "--pipeline", "p.yaml", "--workers", 1)
    assert run(*call, "-i", "a.csv", "-o", "o.csv").code == 0
    assert (tmp_path / "o.csv").read_text() == "id,text,q\nb,two,0.9\n"
    assert run(*call, "-i", "a.csv", "--ids-only").out == "b\n"
    data = b'{"id": "x", "text": "one", "q": 1}\n{"id": "y", "text": "two", "q": 2}'
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    assert ids(run(*call, "-i", "-").out.encode()) == ["y"]


def test_broken_records_are_counted_and_named(run: Run, tmp_path: Path) -> None:
    good = [json.dumps(row).encode() for row in rows(5)]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([*good[:2], b"{broken", b'{"id": "x"}', *good[2:], b"\xff\xfe", b""]))
    keep_all = [{"name": "all", "utility": {"column": "q"}, "mechanism": {"kind": "top_k", "k": 99}}]
    pipeline(tmp_path / "p.yaml", keep_all)
    call = ("select", "--pipeline", "p.yaml", "-i", "a.jsonl", "--workers", 1, "-o")
    failed = run(*call, "f.jsonl")
    assert failed.code == 3
    assert "a.jsonl:3" in failed.err
    skipped = run(*call, "s.jsonl", "--on-error", "skip", "--json")
    assert skipped.lines[0]["skipped"] == 3
    assert all(f"a.jsonl:{line}" in skipped.err for line in (3, 4, 8))
    assert run(*call, "q.jsonl", "--on-error", "quarantine", "--report", "r.html").code == 0
    assert len((tmp_path / "q.jsonl.quarantine").read_bytes().splitlines()) == 3
    assert (tmp_path / "s.jsonl").read_bytes() == (tmp_path / "q.jsonl").read_bytes()


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_an_empty_corpus_gives_an_empty_output(run: Run, tmp_path: Path, suffix: str) -> None:
    (tmp_path / "a.jsonl").touch()
    pipeline(tmp_path / "p.yaml")
    assert run("select", "--pipeline", "p.yaml", "-i", "a.jsonl", "-o", f"o{suffix}", "--report", "r.html").code == 0
    assert list(pickaxe.io.readers.Source(tmp_path / f"o{suffix}")) == []
    assert "no items" in (tmp_path / "r.html").read_text()


def test_the_report_says_what_was_dropped_and_why(run: Run, tmp_path: Path) -> None:
    given = [*rows(300), {"id": "d0", "text": "  ", "q": 1.0, "lang": "en"}, *[
        {"id": "huge", "text": "word " * 300, "q": 1.0, "lang": "en"},
        {"id": "n1", "text": "one two " * 4, "q": 1.0, "lang": "en"},
        {"id": "n2", "text": "one two " * 5, "q": 1.0, "lang": "en"}]]  # fmt: skip
    lines(tmp_path / "a.jsonl", given)
    pipeline(tmp_path / "p.yaml", by="lang", max_characters=1000)
    done = run("select", "--pipeline", "p.yaml", "-i", "a.jsonl", "-o", "o.jsonl", "--report", "r.html",
               "--workers", 1)  # fmt: skip
    page = (tmp_path / "r.html").read_text()
    for word in ("empty", "too_long", "near_duplicate", "Items left after every stage", "dropped by words", "huge"):
        assert word in page
    assert "Stage best asks for 900 items" in done.err
    assert "1 records have an id that came before" in done.err
    items = [Item(row["id"], row["text"], {"q": row["q"], "lang": row["lang"]}) for row in given]
    whole = pickaxe.scorer("selector", stages=STAGES, by="lang", max_characters=1000).score(items)
    for sentence in explained(whole.summary)[0][:3]:
        assert sentence in done.err


def test_progress_counts_bytes(run: Run, tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", rows(2000))
    pipeline(tmp_path / "p.yaml")
    done = run("select", "--pipeline", "p.yaml", "-i", path, "-o", "o.jsonl", "--progress", "jsonl", "--workers", 1)
    told = [json.loads(line) for line in done.err.splitlines() if line.startswith("{")]
    assert {each["stage"] for each in told} == {"looking", "writing"}
    assert all(0 < each["read"] <= each["total"] == path.stat().st_size for each in told)
    assert told[-1]["records"] == 2000


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("stages: [", ["p.yaml:1:", "not YAML"]),
        ("stages: []\nstages: []\n", ["p.yaml:2:1", "twice"]),
        ("- a\n", ["stages:"]),
        ("stages:\n  - name: a\n    mechanism: {kind: top_k, kk: 3}\n", ["stages[0].mechanism.kk"]),
        ("stages:\n  - name: a\n    mechanism: {kind: exact_dedup}\n    nme: b\n", ["stages[0].nme"]),
        ("stages:\n  - {name: a, utility: zip-fit, mechanism: {kind: top_k, k: 3}}\n", ["zip-fit", "fit"]),
        ("stages:\n  - {name: a, utility: {name: rules-c4, column: x}, mechanism: {kind: top_k, k: 3}}\n",
         ["stages[0]", "'x'", "keep"]),
    ],
)  # fmt: skip
def test_mistakes_in_the_file_are_named(run: Run, tmp_path: Path, text: str, told: list[str]) -> None:
    lines(tmp_path / "a.jsonl", rows(3))
    (tmp_path / "p.yaml").write_text(text)
    done = run("select", "--pipeline", "p.yaml", "-i", "a.jsonl", "-o", "o.jsonl", "--workers", 1)
    assert done.code in (2, 4, 5, 9), done.err
    assert all(each in done.err for each in told), done.err
    assert not (tmp_path / "o.jsonl").exists()


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        (["zip-fit", "--pipeline", "p.yaml"], "no METHOD"),
        (["--pipeline", "p.yaml", "--top", 1], "rule"),
        (["--pipeline", "p.yaml", "--server", "x:1"], "--server"),
        (["--top", 1, "--report", "r.html"], "--pipeline"),
        (["--pipeline", "nope.yaml"], "nope.yaml"),
    ],
)
def test_options_that_do_not_go_together(run: Run, tmp_path: Path, extra: list[object], told: str) -> None:
    lines(tmp_path / "a.jsonl", rows(3))
    pipeline(tmp_path / "p.yaml")
    done = run("select", "-i", "a.jsonl", *extra)
    assert done.code == 2
    assert told in done.err


def test_errors_of_a_scorer_in_a_worker_reach_the_user(tmp_path: Path) -> None:
    lines(tmp_path / "a.jsonl", [{"id": "odd", "text": "some words and some more words", "q": "high"}])
    pipeline(tmp_path / "p.yaml")
    done = fresh("select", "--pipeline", "p.yaml", "-i", "a.jsonl", "-o", "o.jsonl", "--workers", 2, cwd=tmp_path)
    assert done.code == 3
    assert "odd" in done.err
    assert "Traceback" not in done.err


def test_one_line_longer_than_a_part(run: Run, tmp_path: Path) -> None:
    given = rows(20)
    given.insert(7, {"id": "huge", "text": "word " * 600_000, "q": 1.0, "lang": "en"})
    lines(tmp_path / "a.jsonl", given)
    pipeline(tmp_path / "p.yaml", STAGES[:2])
    assert run("select", "--pipeline", "p.yaml", "-i", "a.jsonl", "-o", "o.jsonl", "--workers", 1).code == 0
    assert [row["id"] for row in read(tmp_path / "o.jsonl")] == expected(given, STAGES[:2])
    assert np.isin("huge", expected(given, STAGES[:2]))


def test_a_worker_that_dies_is_told_and_the_run_goes_on(tmp_path: Path) -> None:
    lines(tmp_path / "a.jsonl", rows(40_000))
    pipeline(tmp_path / "p.yaml", STAGES[:3])
    call = ("select", "--pipeline", "p.yaml", "-i", "a.jsonl", "-o", "o.jsonl", "--workers", 2)
    process = subprocess.Popen(command(*call), cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    children, until = Path(f"/proc/{process.pid}/task/{process.pid}/children"), time.monotonic() + 60
    while process.poll() is None and time.monotonic() < until:
        workers = [int(pid) for pid in children.read_text().split() if b"spawn_main" in _cmdline(pid)]
        if workers and (tmp_path / "o.jsonl.looked.journal").exists():
            os.kill(workers[0], signal.SIGKILL)
            break
        time.sleep(0.002)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "fewer --workers" in err
    assert fresh(*call, cwd=tmp_path).code == 0


def _cmdline(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_fitted_scorers_are_named_by_their_artifact(run: Run, tmp_path: Path) -> None:
    given = [{"id": "a", "text": "wool and silk and linen " * 4}, {"id": "b", "text": "bolts, nuts, screws " * 4}]
    lines(tmp_path / "a.jsonl", given)
    lines(tmp_path / "t.jsonl", [{"text": "silk and wool and linen"}])
    assert run("fit", "zip-fit", "--examples", "t.jsonl", "--out", "art").code == 0
    best = [{"name": "like", "utility": {"name": "zip-fit", "artifact": "art"}, "mechanism": {"kind": "top_k", "k": 1}}]
    pipeline(tmp_path / "p.yaml", best)
    for workers in (1, 2):
        done = run("select", "--pipeline", "p.yaml", "-i", "a.jsonl", "--workers", workers)
        assert [row["id"] for row in done.lines] == ["a"], done.err
