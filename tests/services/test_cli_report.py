"""`pickaxe score --report`, and the options that read tables people already have."""

import json
import re
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from cli_runs import Run, read, runner, texts

import pickaxe
from pickaxe import Column, Flag, Item, Items, Method, Params, Scores, catalog, hookimpl
from pickaxe.report import Run as ReportedRun
from pickaxe.report import explained, scores_page
from pickaxe_services import LocalServer, Settings

PROBLEMS = [("a", 10, 8, "large"), ("b", 10, 3, "large"), ("c", 10, 1, "small"), ("d", 10, 0, "small")]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return runner(capfd)


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    path = tmp_path / "runs.csv"
    rows = [f"{name};{n};{c};{group};1,5" for name, n, c, group in PROBLEMS]
    path.write_text("\n".join(["problem;n;right;group;output_tokens", *rows]) + "\n")
    return path


COVERAGE = ("coverage", "--decimal", ",", "--id-field", "problem", "--map", "right=c")


def page(path: Path) -> str:
    """The page without what differs from run to run."""
    return re.sub(r'<tr><th scope="row">seconds</th>.*\n', "", path.read_text(encoding="utf-8"))


def test_the_report_holds_what_the_summary_says(run: Run, problems: Path, tmp_path: Path) -> None:
    done = run("score", *COVERAGE, "-i", problems, "-o", "s.jsonl", "--summary", "s.json", "--report", "r.html")
    assert done.code == 0
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    answer, figures = explained(json.loads((tmp_path / "s.json").read_text())["summary"])
    assert answer
    assert figures
    assert all(sentence in html for sentence in answer)
    assert all(f'<h3 id="figure{at}-heading">{figure.title}</h3>' in html for at, figure in enumerate(figures, 1))
    assert [row["id"] for row in read(tmp_path / "s.jsonl")] == ["a", "b", "c", "d"]


def test_equal_runs_give_equal_pages_here_and_on_a_server(run: Run, problems: Path, tmp_path: Path) -> None:
    common = (*COVERAGE, "-i", "runs.csv", "--set", "k=[1,5]", "--seed", 3)
    with LocalServer(Settings(port=0, root=tmp_path / "server")) as address:
        assert run("score", *common, "-o", "a.jsonl", "--report", "a.html", "--server", address).code == 0
    for name in "bc":
        assert run("score", *common, "-o", f"{name}.jsonl", "--report", f"{name}.html").code == 0
    assert page(tmp_path / "a.html") == page(tmp_path / "b.html") == page(tmp_path / "c.html")


def test_the_same_page_in_python(run: Run, problems: Path, tmp_path: Path) -> None:
    assert run("score", *COVERAGE, "-i", "runs.csv", "-o", "s.jsonl", "--report", "r.html").code == 0
    items = [
        Item(name, fields={"n": n, "c": c, "group": group, "output_tokens": 1.5}) for name, n, c, group in PROBLEMS
    ]
    found = pickaxe.scorer("coverage").score(items)
    scores_page(ReportedRun(pickaxe.show("coverage"), {}, ("runs.csv",)), [item.id for item in items], found).write(
        tmp_path / "p.html"
    )
    assert page(tmp_path / "p.html") == page(tmp_path / "r.html")


def test_a_report_of_rows_on_standard_output(run: Run, tmp_path: Path) -> None:
    path = texts(tmp_path / "a.jsonl", "x", "yy")
    done = run("score", "t-length", "-i", path, "--report", "r.html")
    assert [row["length"] for row in done.lines] == [1, 2]
    assert "Distribution of length" in (tmp_path / "r.html").read_text()


def test_flags_and_skipped_records_are_counted(run: Run, tmp_path: Path) -> None:
    path = texts(tmp_path / "a.jsonl", "x", "y")
    path.write_text(path.read_text() + "broken\n")
    assert run("score", "t-typed", "-i", path, "-o", "s.csv", "--report", "r.html", "--on-error", "skip").code == 0
    html = (tmp_path / "r.html").read_text()
    assert '<th scope="row">flags</th><td>SHORT 1</td>' in html
    assert '<th scope="row">broken records left out</th><td>1</td>' in html


class Interrupted(Method[Params]):
    """Length of the text; stops at the text "stop" once."""

    scope = "item"
    columns = (Column("length", "Characters.", nullable=True), Column("label", "A text.", "str"))
    stops: ClassVar[list[str]] = []

    @hookimpl
    def score(self, items: Items) -> Scores:
        texts = items.texts()
        if "stop" in texts and self.stops:
            raise ValueError(self.stops.pop())
        lengths = np.array([len(text) or np.nan for text in texts], np.float32)
        flags = tuple(Flag(row, "empty", "no; text") for row, text in enumerate(texts) if not text)
        return Scores({"length": lengths / 3, "label": np.array(texts)}, flags=flags)


@pytest.mark.parametrize("suffix", ["jsonl", "csv.gz", "parquet"])
def test_a_run_that_went_on_reports_all_of_its_rows(run: Run, tmp_path: Path, suffix: str) -> None:
    texts(tmp_path / "a.jsonl", *("w" * (row % 9) for row in range(1500)), "stop")
    with catalog.register(Interrupted, "t-interrupted", "scorer"):
        common = ("score", "t-interrupted", "-i", "a.jsonl", "-o", f"s.{suffix}", "--report", "r.html")
        assert run(*common).code == 0
        once = page(tmp_path / "r.html")
        Interrupted.stops.append("now")
        (tmp_path / f"s.{suffix}").unlink()
        assert run(*common).code == 1
        done = run(*common)
    assert "goes on after 1024 items" in done.err
    assert page(tmp_path / "r.html") == once
    assert '<th scope="row">flags</th><td>empty 167</td>' in once


def test_a_missing_library_is_told_before_anything_is_scored(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = run("score", "t-length", "-i", texts(tmp_path / "a.jsonl", "x"), "-o", "s.jsonl", "--report", "r.html")
    assert done.code == 5
    assert "pickaxe[plot]" in done.err
    assert not (tmp_path / "s.jsonl").exists()


# ---------------------------------------------------------------- tables


def rows(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "t.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_wide_and_long_tables_reach_the_method(run: Run, tmp_path: Path) -> None:
    wide = rows(tmp_path, "problem,try_1,try_2,try_3", "a,true,false,true", "b,false,false,true")
    done = run("score", "coverage", "-i", wide, "--id-field", "problem", "--wide", "correct=try_*")
    assert [row["pass_at_1"] for row in done.lines] == [pytest.approx(2 / 3), pytest.approx(1 / 3)]
    long = rows(tmp_path, "problem,try,correct", "a,1,true", "b,1,false", "a,2,false", "b,2,false")
    done = run("score", "coverage", "-i", long, "--fields", "problem,correct", "--gather", "problem=correct")
    assert [(row["id"], row["pass_at_1"]) for row in done.lines] == [("a", pytest.approx(0.5)), ("b", 0.0)]


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        (("id,n,c", 'a,3,"1,0"'), (), r"t.csv:2.fields.c: is text, wanted int64 .*--decimal ,"),
        (("id,n,c", "a,3,1 of 3"), (), r"fields.c: is text, wanted int64 .*it holds '1 of 3'"),
        (("id,correct", 'a,"0,5"', 'a,"0,6"'), ("--gather", "id=correct"), r"is texts, wanted tensor .*--decimal ,"),
        (("id,n,c", "a,3.0,1"), (), r"fields.n: is float64, wanted int64 .*it holds 3.0: write a whole number"),
        (("id,try_1", "a,True"), ("--wide", "correct=try_*"), "write a number, true or false"),
        (("id,correct,x", "a,,1"), ("--wide", "correct={try_*}"), r"has no column like 'try_\*'"),
        (("id,correct", "a,1"), (), r"is int64, wanted tensor .*--gather KEY=correct joins the rows"),
        (("id,try_1,try_2", "a,true,"), ("--wide", "correct=try_*"), r"t.csv:2: column 'try_2' is empty"),
        (("p,correct", "a,true", "a,"), ("--gather", "p=correct"), r"t.csv:3: has no 'correct'"),
    ],
)
def test_tables_that_cannot_be_used_name_row_column_and_remedy(
    run: Run, tmp_path: Path, lines: tuple[str, ...], options: tuple[str, ...], message: str
) -> None:
    done = run("score", "coverage", "-i", rows(tmp_path, *lines), *options)
    assert done.code == 3
    assert re.search(message, done.err), done.err


def test_a_missing_field_names_the_columns_there_are(run: Run, tmp_path: Path) -> None:
    done = run("score", "t-length", "-i", rows(tmp_path, "id,body", "a,x"))
    assert done.code == 3
    assert "there are body: --map THEIRS=text reads one of them as text" in done.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--wide", "x"), "not of the form FIELD=COL*"),
        (("--gather", "x"), "not of the form KEY=FIELD"),
        (("--decimal", ";"), "--decimal"),
    ],
)
def test_options_that_cannot_be_understood(run: Run, tmp_path: Path, options: Any, message: str) -> None:
    done = run("score", "t-length", "-i", texts(tmp_path / "a.jsonl", "x"), *options)
    assert done.code == 2
    assert message in done.err
