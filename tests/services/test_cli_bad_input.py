"""Input that is no input: what the selection methods answer on the command line."""

from pathlib import Path

import pytest
from cli_runs import Run, read, runner, texts


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return runner(capfd)


def test_an_empty_corpus_does_not_hide_that_a_fit_is_missing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    done = run("score", "zip-fit", "-i", "empty.jsonl", "-o", "s.jsonl")
    assert (done.code, "zip-fit needs an artifact" in done.err) == (5, True)
    assert not (tmp_path / "s.jsonl").exists()


def test_a_target_that_is_the_corpus_scores_every_record_of_it(run: Run, tmp_path: Path) -> None:
    path = texts(tmp_path / "a.jsonl", "one two three", "four five six", "one two three")
    assert run("fit", "dsir", "--examples", path, "--unlabelled", path, "--out", "art", "-q").code == 0
    assert run("score", "dsir", "--artifact", "art", "-i", path, "-o", "s.jsonl", "-q").code == 0
    assert [row["log_weight"] for row in read(tmp_path / "s.jsonl")] == [0, 0, 0]
