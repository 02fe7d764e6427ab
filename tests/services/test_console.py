"""What the command line shows of long work."""

from __future__ import annotations

import sys

import pytest

from pickaxe_services.cli import console


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_every_half_minute(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with console.bar("fit x") as bar:
        for step in range(10):
            clock[0] += 20
            bar.update(step, 40, "fit x: train", loss=1.23456, tokens=7)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        f"fit x: train: {percent}%, 0:{minutes} loss 1.235 tokens 7"
        for percent, minutes in ((2, "00:40"), (8, "01:20"), (12, "02:00"), (18, "02:40"), (22, "03:20"))
    ]


def test_short_work_and_quiet_work_write_no_line(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with console.bar("score x") as bar:
        clock[0] += 29
        bar.update(1)
    with console.bar("score x", quiet=True) as bar:
        clock[0] += 100
        bar.update(1)
    assert capsys.readouterr() == ("", "")


def test_without_a_total_there_is_no_share(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with console.bar("score x") as bar:
        clock[0] += 3700
        bar.update(5, None, items=5)
    assert capsys.readouterr().err == "score x: 1:01:40 items 5\n"


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with console.bar("score x") as bar:
        bar.update(1, 2, items=1)
    assert "score x" in capsys.readouterr().err
