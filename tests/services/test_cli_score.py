"""`pickaxe score`: every format, broken lines, and runs that are killed."""

import csv
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

import numpy as np
import pyarrow.parquet as pq
import pytest
from cli_runs import Run, command, fresh, lines, read, runner, texts
from service_methods import GATE

import pickaxe
from pickaxe import Item


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return runner(capfd)


def test_the_same_numbers_as_embedded(run: Run, tmp_path: Path) -> None:
    given = [f"{'word ' * (row % 7)}{row}" for row in range(2500)]
    path = texts(tmp_path / "a.jsonl", *given)
    done = run("score", "t-length", "-i", path, "-o", "s.jsonl", "--json")
    assert done.code == 0
    assert done.lines[0]["rows"] == 2500
    rows = read(tmp_path / "s.jsonl")
    expected = pickaxe.scorer("t-length").score(given).primary
    assert [row["id"] for row in rows] == [f"d{row}" for row in range(2500)]
    assert np.array_equal(np.array([row["length"] for row in rows], np.float32), expected)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".csv", ".tsv", ".parquet"])
def test_output_formats_hold_every_kind_of_column(run: Run, tmp_path: Path, suffix: str) -> None:
    path = texts(tmp_path / "a.jsonl", "x", "y")
    out = tmp_path / f"s{suffix}"
    assert run("score", "t-typed", "-i", path, "-o", out, "--seed", 5, "--summary", "sum.json").code == 0
    if suffix == ".parquet":
        rows = pq.read_table(out).to_pylist()
    elif suffix in (".csv", ".tsv"):
        rows = list(csv.DictReader(out.open(newline=""), delimiter="," if suffix == ".csv" else "\t"))
    else:
        data = out.read_bytes()
        rows = [json.loads(line) for line in (gzip.decompress(data) if suffix.endswith("gz") else data).splitlines()]
    assert [str(row["i64"]) for row in rows] == [str(2**60), str(2**60 + 1)]
    assert [row["f32"] for row in rows] in ([None, 1.0], ["", "1.0"])
    assert rows[0]["label"] == "é0"
    assert rows[0]["segments"] in ([[0, 1, 0.1], [1, 2, -1.5]], "[[0, 1, 0.1], [1, 2, -1.5]]")
    summary = json.loads((tmp_path / "sum.json").read_text())
    assert summary["summary"]["seed"] == 5
    assert summary["groups"] == [{"group": "a", "low": 0.5}, {"group": "b", "low": 1.0}]
    assert summary["rows"] == 2
    assert summary["columns"][1]["unit"] == "s"


def test_no_items(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    assert run("score", "t-length", "-i", "a.jsonl", "-o", "s.csv").code == 0
    assert (tmp_path / "s.csv").read_text() == "id,length,flag\n"


def test_standard_input_and_output(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    data = gzip.compress(b'{"id": "a", "text": "xyz"}\n{"text": "x"}\n')
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    assert run("score", "t-length", "-i", "-").lines == [
        {"id": "a", "length": 3.0},
        {"id": "stdin:2", "length": 1.0},
    ]


def test_columns_by_other_names(run: Run, tmp_path: Path) -> None:
    lines(tmp_path / "a.jsonl", [{"key": 1, "body": "xx"}])
    done = run("score", "t-length", "-i", "a.jsonl", "--text-field", "body", "--id-field", "key")
    assert done.lines == [{"id": "1", "length": 2.0}]
    assert run("score", "t-length", "-i", "a.jsonl", "--map", "body=text", "--fields", "key").lines == [
        {"id": "a.jsonl:1", "length": 2.0}
    ]


def test_broken_records_are_left_out_and_kept(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\noops\n{"body": "no text"}\n{"text": "yy"}\n')
    done = run("score", "t-length", "-i", "a.jsonl", "-o", "s.jsonl", "--on-error", "quarantine", "--json")
    assert done.lines[0]["skipped"] == 2
    assert "a.jsonl:2" in done.err
    assert [row["length"] for row in read(tmp_path / "s.jsonl")] == [1, 2]
    assert (tmp_path / "s.jsonl.quarantine").read_text() == 'oops\n{"body": "no text"}\n'
    again = run("score", "t-length", "-i", "a.jsonl", "-o", "t.jsonl", "--on-error", "quarantine",
                "--quarantine", "s.jsonl.quarantine")  # fmt: skip
    assert (again.code, "s.jsonl.quarantine" in again.err) == (5, True)


def test_a_deadline_is_kept_and_the_run_goes_on_later(run: Run, tmp_path: Path) -> None:
    path = texts(tmp_path / "a.jsonl", *(["x"] * 1024 + ["wait"]))
    late = run("score", "t-length", "-i", path, "-o", "s.jsonl", "--timeout", 0.0001)
    assert late.code == 8
    GATE.open()
    assert run("score", "t-length", "-i", path, "-o", "s.jsonl").code == 0
    assert len(read(tmp_path / "s.jsonl")) == 1025


def test_a_run_that_failed_goes_on_after_what_was_safe(run: Run, tmp_path: Path) -> None:
    path = texts(tmp_path / "a.jsonl", *(["x"] * 1024 + ["bad"]))
    assert run("score", "t-length", "-i", path, "-o", "s.jsonl").code == 1
    again = run("score", "t-length", "-i", path, "-o", "s.jsonl")
    assert (again.code, "goes on after 1024 items" in again.err) == (1, True)
    os.utime(path, (1, 1))
    changed = run("score", "t-length", "-i", path, "-o", "s.jsonl")
    assert (changed.code, "another input" in changed.err, "--restart" in changed.err) == (5, True, True)
    assert run("score", "t-length", "-i", path, "-o", "s.jsonl", "--restart").code == 1


# ---------------------------------------------------------------- killed runs

WORDS = ["the", "cat", "sat", "on", "a", "mat", "while", "seven", "ducks", "swam", "over", "every", "quiet", "river"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus with an unreadable line now and then, and an artifact to score it with."""
    folder = tmp_path_factory.mktemp("corpus")
    draw = random.Random(1)
    with (folder / "c.jsonl").open("w") as stream:
        for row in range(4200):
            text = json.dumps({"id": f"d{row}", "text": " ".join(draw.choices(WORDS, k=60))})
            stream.write(text + "\n" if row % 500 else "broken\n")
    targets = [Item(str(row), " ".join(draw.choices(WORDS[:6], k=60))) for row in range(16)]
    pickaxe.scorer("zip-fit").fit(targets, out=folder / "art")
    return folder


def scoring(corpus: Path, out: Path) -> list[str]:
    return command(
        "score", "zip-fit", "--artifact", corpus / "art", "-i", corpus / "c.jsonl", "-o", out, "--set", "threads=1",
        "--on-error", "quarantine", "--set", "level=9",
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, err = process.communicate(timeout=120)
    return process.returncode, err


@pytest.mark.parametrize("suffix", [".jsonl", ".csv.gz", ".parquet"])
def test_killed_at_random_moments_the_bytes_are_the_same(corpus: Path, tmp_path: Path, suffix: str) -> None:
    whole, out = tmp_path / f"whole{suffix}", tmp_path / f"s{suffix}"
    assert subprocess.run(scoring(corpus, whole), capture_output=True, timeout=120, check=True).returncode == 0
    draw = random.Random(suffix)
    partial, journal = tmp_path / f"s{suffix}.partial", tmp_path / f"s{suffix}.journal"
    for kill in range(3):
        process = subprocess.Popen(scoring(corpus, out), stderr=subprocess.PIPE, text=True)
        size = partial.stat().st_size if partial.exists() else 0
        wanted = size + draw.randrange(1, 60_000) if kill else 1
        until = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < until:
            if partial.exists() and partial.stat().st_size >= wanted and (kill == 0 or journal.exists()):
                break
            time.sleep(0.005)
        process.kill()
        code, err = ended(process)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        assert not out.exists()
    if not out.exists():
        code, err = ended(subprocess.Popen(scoring(corpus, out), stderr=subprocess.PIPE, text=True))
        assert code == 0, err
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(os.listdir(tmp_path)) == sorted(
        [f"whole{suffix}", f"s{suffix}", f"whole{suffix}.quarantine", f"s{suffix}.quarantine"]
    )
    assert (tmp_path / f"s{suffix}.quarantine").read_text() == "broken\n" * 9


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_it_ends_cleanly_and_goes_on(
    corpus: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    out = tmp_path / "s.jsonl"
    process = subprocess.Popen(scoring(corpus, out), stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (tmp_path / "s.jsonl.partial").exists():
        time.sleep(0.005)
    sizes = {0}  # of no chunk, of one, and of two: then the first is counted as well as written
    while process.poll() is None and len(sizes) < 3:
        sizes.add((tmp_path / "s.jsonl.partial").stat().st_size)
        time.sleep(0.005)
    process.send_signal(number)
    ended_with, err = ended(process)
    assert ended_with == code
    assert "Traceback" not in err
    assert json.loads((tmp_path / "s.jsonl.journal").read_text())["done"] >= 1024
    again = subprocess.run(scoring(corpus, out), capture_output=True, text=True, timeout=120, check=True)
    assert "goes on after" in again.stderr
    assert len(read(out)) == 4200 - 9


def test_a_full_disk(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.jsonl"
    # The limit is set by a shell, since forking a process that has threads of gRPC may break it.
    limited = ["bash", "-c", 'ulimit -f 150; exec "$@"', "bash", *scoring(corpus, out)]
    full = subprocess.run(limited, capture_output=True, text=True, timeout=120, check=False)
    assert full.returncode == 5
    assert "cannot be written" in full.stderr
    assert "free some space" in full.stderr
    assert "Traceback" not in full.stderr
    assert fresh(*scoring(corpus, out)[3:]).code == 0
    assert len(read(out)) == 4200 - 9
