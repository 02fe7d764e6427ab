"""`pickaxe compare`: scorers, retrievers, rerankers and decoders on the same input."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest
from cli_runs import Run, lines, runner, texts

from pickaxe import Call, Chunk, Column, Item, Items, Method, Params, Prompt, Ranked, Ranking, Scores, catalog, hookimpl
from pickaxe_services import LocalServer, Settings


class LetterParams(Params):
    letter: str = pydantic.Field(default="a", description="What is counted.")
    lower: bool = pydantic.Field(default=False, description="Whether fewer is better.")


class Letters(Method[LetterParams]):
    """Counts a letter; no value for the empty text."""

    Params = LetterParams
    scope = "item"
    columns = (Column("count", "Occurrences.", nullable=True),)

    def declared_columns(self) -> tuple[Column, ...]:
        direction: Any = "lower" if self.params.lower else "higher"
        return (Column("count", "Occurrences.", direction=direction, nullable=True),)

    @hookimpl
    def score(self, items: Items) -> Scores:
        counts = [text.count(self.params.letter) if text else np.nan for text in items.texts()]
        return Scores({"count": np.array(counts, np.float32)})


class Shuffled(Method[LetterParams]):
    """Candidates with the letter first."""

    Params = LetterParams

    @hookimpl
    def rerank(self, query: Item, candidates: Items, top_n: int) -> Ranking:
        scores = [float(text.count(self.params.letter)) for text in candidates.texts()]
        order = sorted(range(len(scores)), key=lambda row: -scores[row])[:top_n]
        ranked = tuple(Ranked(row, candidates[row].id, scores[row]) for row in order)
        return Ranking(ranked, np.array(scores, np.float32), "", {"model_calls": 2.0})


class Echo(Method[LetterParams]):
    """Says the letter."""

    Params = LetterParams

    @hookimpl
    def decode(self, prompts: Sequence[Prompt], call: Call) -> Iterator[Chunk]:
        for row, _ in enumerate(prompts):
            yield Chunk(row, 0, self.params.letter, (1,), (-0.5,), finish_reason="stop", usage={"target_calls": 3.0})


@pytest.fixture(autouse=True)
def _more() -> Iterator[None]:
    with ExitStack() as stack:
        for kind, name, role in ((Letters, "c-letters", "scorer"), (Shuffled, "c-shuffled", "reranker"),
                                 (Echo, "c-echo", "decoder")):  # fmt: skip
            stack.enter_context(catalog.register(kind, name, role))
        yield


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return runner(capfd)


# ---------------------------------------------------------------- scorers

TEXTS = ["a", "ab", "aab", "aaab", "aaaabb", "b", "bb", "abb", "aaaaab", "bbbb"]
TWO = ("compare", "x=c-letters", "y=c-letters", "--set", "y.letter=b", "t-length", "--on", "d.jsonl")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [{"id": f"d{row}", "text": text, "good": text.count("a") > 1} for row, text in enumerate(TEXTS)]
    return lines(tmp_path / "d.jsonl", [*rows, {"id": "none", "text": "", "good": True}])


def test_scorers_agreement_cost_and_quality(run: Run, data: Path, tmp_path: Path) -> None:
    done = run(*TWO, "--label", "good", "-k", 2, "-o", "c.json", "--report", "c.html", "--draws", 300)
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "c.json").read_text())
    assert found["role"] == "scorer"
    assert found["items"] == {"given": 11, "compared": 10, "judged": 10}
    assert [each["label"] for each in found["methods"]] == ["x", "y", "t-length"]
    assert found["methods"][1]["params"] == {"letter": "b"}
    assert all(each["seconds"] >= 0 for each in found["methods"])
    agreement = {(each["first"], each["second"]): each for each in found["agreement"]}
    assert set(agreement) == {("x", "y"), ("x", "t-length"), ("y", "t-length")}
    assert agreement["x", "y"]["spearman"] < 0 < agreement["x", "t-length"]["kendall"]
    assert agreement["x", "t-length"]["overlap@2"] == 1  # the two longest are the two with most a's
    quality = {each["method"]: each for each in found["quality"]}
    assert quality["x"]["measure"] == "auc"
    assert quality["x"]["value"] == quality["x"]["low"] == 1
    assert quality["y"]["low"] <= quality["y"]["value"] <= quality["y"]["high"] < 1
    for each in found["differences"]:
        assert each["p"] <= each["adjusted"] <= 1
    html = (tmp_path / "c.html").read_text(encoding="utf-8")
    assert "Comparison of x, y, t-length" in html
    assert "By auc, x is the best with 1" in html
    assert "By auc, x is the best with 1" in done.out
    assert [line for line in done.out.splitlines() if line in ("Cost", "Agreement", "Quality", "Differences")] == [
        "Cost", "Agreement", "Quality", "Differences",
    ]  # fmt: skip


def test_numbers_as_labels_give_a_correlation_and_lower_columns_are_turned(run: Run, tmp_path: Path) -> None:
    rows = [{"id": str(n), "text": "a" * n, "loss": n} for n in range(1, 9)] + [{"id": "u", "text": "aa"}]
    lines(tmp_path / "d.jsonl", rows)
    given = (
        "compare",
        "u=c-letters",
        "d=c-letters",
        "--set",
        "d.lower=true",
        "--on",
        "d.jsonl",
        "--json",
        "--draws",
        50,
    )
    found = run(*given, "--label", "loss").lines[0]
    assert found["items"]["judged"] == 8
    assert {each["method"]: (each["measure"], each["value"]) for each in found["quality"]} == {
        "u": ("correlation", 1.0),
        "d": ("correlation", -1.0),
    }
    assert found["agreement"][0]["spearman"] == -1
    assert run(*given, "--label", "loss").lines[0]["differences"] == found["differences"]
    plain = run(*given, "--report", "plain.html").lines[0]
    assert "d, spearman is -1" in (tmp_path / "plain.html").read_text(encoding="utf-8")
    assert (plain["quality"], plain["differences"]) == ([], [])


def test_the_same_on_a_server(run: Run, data: Path, tmp_path: Path) -> None:
    given = (*TWO, "--label", "good", "--draws", 20, "--json")
    here = run(*given).lines[0]
    with LocalServer(Settings(port=0, root=tmp_path / "server")) as address:
        there = run(*given, "--server", address).lines[0]
    for each in (*here["methods"], *there["methods"]):
        each.pop("seconds")
    assert there == here


def test_artifacts_by_name_and_for_all(run: Run, data: Path, tmp_path: Path) -> None:
    texts(tmp_path / "short.jsonl", "a")
    texts(tmp_path / "long.jsonl", "aaaaaa")
    for name in ("short", "long"):
        assert run("fit", "t-mean", "--examples", f"{name}.jsonl", "--out", name).code == 0
    given = ("compare", "s=t-mean@short", "l=t-mean", "--artifact", "long", "--on", "d.jsonl", "--json")
    found = run(*given).lines[0]
    assert [each["artifact"] for each in found["methods"]] == ["short", "long"]
    assert found["agreement"][0]["spearman"] < 0


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        (["c-letters"], 2, ["two methods"]),
        (["c-letters", "c-letters"], 2, ["one=c-letters two=c-letters"]),
        (["c-letters", "t-length", "--set", "letter=b"], 2, ["letter", "LABEL.KEY=VALUE", "c-letters or t-length"]),
        (["c-letters", "t-length", "--set", "t-length=3"], 2, ["--set t-length.KEY=VALUE"]),
        (["a.b=c-letters", "t-length"], 2, ["[LABEL=]METHOD[@ARTIFACT]"]),
        (["c-letters", "t-find"], 4, ["c-letters is a scorer", "t-find is a retriever"]),
        (["c-letters", "t-length", "--role", "decoder"], 4, ["not all of them are decoders"]),
        (["c-letters", "t-length", "--qrels", "q"], 2, ["--qrels says nothing about scorers"]),
        (["c-letters", "no-such"], 4, ["no-such"]),
        (["c-letters", "z=c-letters", "--set", "z.letter=z"], 3, ["z", "the value 0", "no order"]),
        (["c-letters", "t-typed"], 3, ["no item to which all"]),
        (["c-letters", "t-length", "--label", "missing"], 3, ["missing", "no item"]),
        (["c-letters", "t-length", "--label", "text"], 3, ["d0.text", "wanted a number"]),
    ],
)
def test_wrong_comparisons(run: Run, data: Path, given: list[str], code: int, words: list[str]) -> None:
    failed = run("compare", *given, "--on", "d.jsonl")
    assert failed.code == code, failed.err
    assert all(word in failed.err for word in words), failed.err


def test_wrong_parameters_show_before_anything_runs(run: Run, data: Path) -> None:
    failed = run("compare", "t-length", "c-letters", "--set", "c-letters.word=b", "--on", "d.jsonl")
    assert (failed.code, "word" in failed.err) == (2, True)
    assert "runs" not in failed.err


def test_equal_quality_has_no_winner(run: Run, data: Path) -> None:
    done = run("compare", "a=c-letters", "b=c-letters", "--on", "d.jsonl", "--label", "good", "--draws", 20)
    assert "By auc, all are equal with 1." in done.out


def test_a_scorer_without_order_among_the_judged_has_no_value(run: Run, tmp_path: Path) -> None:
    rows = [{"id": str(n), "text": "a" * n, "loss": n} for n in range(1, 5)] + [{"id": "u", "text": "b"}]
    lines(tmp_path / "d.jsonl", rows)
    given = ("compare", "a=c-letters", "b=c-letters", "--set", "b.letter=b", "--on", "d.jsonl", "--label", "loss")
    found = run(*given, "--draws", 20, "--json", "--report", "c.html").lines[0]
    assert {each["method"]: each["value"] for each in found["quality"]} == {"a": 1, "b": None}
    assert found["differences"][0]["adjusted"] is None
    assert "a is the best with 1, but it cannot be told apart from b" in (tmp_path / "c.html").read_text("utf-8")


def test_nothing_in_common(run: Run, tmp_path: Path) -> None:
    given = ("compare", "a=c-letters", "b=c-letters", "--on", "d.jsonl")
    for rows, word in (([""], "no item to which all"), ([], "no items")):
        texts(tmp_path / "d.jsonl", *rows)
        failed = run(*given)
        assert (failed.code, word in failed.err) == (3, True), failed.err


def test_one_kind_of_label(run: Run, tmp_path: Path) -> None:
    lines(tmp_path / "d.jsonl", [{"id": text, "text": text, "good": True} for text in TEXTS])
    failed = run("compare", "c-letters", "t-length", "--on", "d.jsonl", "--label", "good")
    assert (failed.code, "the same value" in failed.err) == (3, True), failed.err


def test_outputs_are_kept(run: Run, data: Path, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text("mine")
    given = (*TWO, "-o", "c.json")
    assert run(*given).code == 5
    assert (tmp_path / "c.json").read_text() == "mine"
    assert run(*given, "--overwrite").code == 0


# ---------------------------------------------------------------- retrievers and rerankers


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    found = [{"id": "d1", "text": "a"}, {"id": "d2", "text": "bb"}, {"id": "d3", "text": "aab"}]
    (tmp_path / "qrels.txt").write_text("q1 0 d3 2\nq1 0 d1 1\nq2 0 d3 1\nother 0 d1 1\n")
    return lines(tmp_path / "q.jsonl", [{"id": f"q{row}", "text": "?", "candidates": found} for row in (1, 2, 3)])


RERANKERS = ("compare", "a=c-shuffled", "b=c-shuffled", "--set", "b.letter=b")


def test_rerankers(run: Run, questions: Path, tmp_path: Path) -> None:
    given = (*RERANKERS, "--on", "q.jsonl", "-k", 2, "--json", "--draws", 50)
    found = run(*given, "--qrels", "qrels.txt", "--run-dir", "runs").lines[0]
    assert found["role"] == "reranker"
    assert found["queries"] == {"given": 3, "compared": 3, "judged": 2}
    assert [each["usage"] for each in found["methods"]] == [{"model_calls": 6.0}] * 2
    assert found["agreement"][0]["overlap@2"] == 0.5  # d3 d1 and d2 d3
    quality = {(each["measure"], each["method"]): each["value"] for each in found["quality"]}
    assert set(quality) == {(name, label) for name in ("nDCG@2", "RR@2", "R@2") for label in "ab"}
    assert (quality["RR@2", "a"], quality["RR@2", "b"]) == (1, 0.5)
    assert (quality["R@2", "a"], quality["R@2", "b"]) == (1, 0.75)
    assert quality["nDCG@2", "a"] == 1
    assert (tmp_path / "runs" / "b.trec").read_text().splitlines()[:3] == [
        "q1 Q0 d2 1 2.0 b",
        "q1 Q0 d3 2 1.0 b",
        "q1 Q0 d1 3 0.0 b",
    ]
    again = run(*given, "--run-dir", "runs")
    assert (again.code, "a.trec" in again.err) == (5, True)
    assert run(*given).lines[0]["quality"] == []


def test_other_measures_are_those_of_evaluate(run: Run, questions: Path, tmp_path: Path) -> None:
    (tmp_path / "both.txt").write_text("q1 0 d3 2\nq1 0 d1 1\nq2 0 d3 1\n")
    measured = ("--qrels", "both.txt", "--metrics", "AP P(rel=2)@1", "--json")
    found = run(*RERANKERS, "--on", "q.jsonl", "--run-dir", "runs", "--draws", 20, *measured).lines[0]["quality"]
    assert [each["measure"] for each in found] == ["AP", "AP", "P(rel=2)@1", "P(rel=2)@1"]
    for each in found:
        (alone,) = run("evaluate", "--run", f"runs/{each['method']}.trec", *measured).lines
        assert each["value"] == pytest.approx(alone[each["measure"]])
    assert found[0]["value"] != found[1]["value"]


def test_without_the_library_nothing_is_run(run: Run, questions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ir_measures", None)
    failed = run(*RERANKERS, "--on", "q.jsonl", "--qrels", "qrels.txt", "--run-dir", "runs")
    assert "pickaxe[evaluation]" in failed.err
    assert not Path("runs").exists()
    assert run(*RERANKERS, "--on", "q.jsonl").code == 0


def test_rerankers_of_a_run(run: Run, questions: Path, tmp_path: Path) -> None:
    texts(tmp_path / "docs.jsonl", "a", "bb", "aab")
    texts(tmp_path / "topics.jsonl", "?")
    (tmp_path / "first.trec").write_text("".join(f"d0 Q0 d{row} {row + 1} 1.0 x\n" for row in range(3)))
    found = run(*RERANKERS, "--on", "topics.jsonl", "--run", "first.trec", "--candidates", "docs.jsonl", "--json")
    assert found.lines[0]["agreement"][0]["overlap@10"] == 1
    assert 0 < found.lines[0]["agreement"][0]["rbo"] < 1
    half = run(*RERANKERS, "--on", "topics.jsonl", "--run", "first.trec")
    assert (half.code, "together" in half.err) == (2, True)


def test_wrong_rankings(run: Run, questions: Path, tmp_path: Path) -> None:
    missing = run(*RERANKERS, "--on", "q.jsonl", "--qrels", "missing.txt")
    assert (missing.code, "missing.txt" in missing.err) == (3, True), missing
    (tmp_path / "others.txt").write_text("q9 0 d3 2\n")
    alone = run(*RERANKERS, "--on", "q.jsonl", "--metrics", "AP")
    assert (alone.code, "--metrics needs --qrels" in alone.err) == (2, True)
    unknown = run(*RERANKERS, "--on", "q.jsonl", "--qrels", "others.txt", "--metrics", "AP nope@3")
    assert (unknown.code, "nope@3" in unknown.err) == (2, True)
    wrong = run(*RERANKERS, "--on", "q.jsonl", "--qrels", "others.txt")
    assert (wrong.code, "no relevant document for any" in wrong.err) == (3, True)
    row = json.loads(questions.read_text().splitlines()[0])
    lines(questions, [row, row])
    twice = run(*RERANKERS, "--on", "q.jsonl")
    assert (twice.code, "'q1'" in twice.err) == (3, True)


def test_retrievers_with_two_indexes(run: Run, tmp_path: Path) -> None:
    texts(tmp_path / "one.jsonl", "red fish", "blue fish", "green bird")
    lines(tmp_path / "two.jsonl", [{"id": "d0", "text": "red fish"}, {"id": "e1", "text": "red bird"}])
    for name in ("one", "two"):
        assert run("index", "t-find", "-i", f"{name}.jsonl", "--out", f"{name}.idx").code == 0
    lines(tmp_path / "q.jsonl", [{"id": "q1", "text": "red"}, {"id": "q2", "text": "fish"}])
    (tmp_path / "qrels.txt").write_text("q1 0 d0 1\nq2 0 d1 1\n")
    given = (
        "compare", "one=t-find@one.idx", "two=t-find@two.idx", "--on", "q.jsonl", "--qrels", "qrels.txt", "-k", 2,
        "--budget", 4, "--json", "--draws", 20,
    )  # fmt: skip
    done = run(*given, "--report", "c.html")
    found = done.lines[0]
    assert found["role"] == "retriever"
    assert found["agreement"][0]["overlap@2"] == 0.5
    quality = {(each["measure"], each["method"]): each["value"] for each in found["quality"]}
    assert (quality["R@2", "one"], quality["R@2", "two"]) == (1, 0.5)
    assert found["methods"][0]["usage"] == {"model_calls": 4.0}
    with LocalServer(Settings(port=0, root=tmp_path / "server")) as address:
        there = run(*given, "--server", address).lines[0]
    assert (there["quality"], there["agreement"]) == (found["quality"], found["agreement"])
    assert "nDCG@2 of the methods" in (tmp_path / "c.html").read_text(encoding="utf-8")


# ---------------------------------------------------------------- decoders


def test_decoders(run: Run, tmp_path: Path) -> None:
    rows = [
        {"id": "1", "text": "x", "right": "a"},
        {"id": "2", "text": "x", "right": ["B!", "c"]},
        {"id": "3", "text": "x"},
    ]
    lines(tmp_path / "p.jsonl", rows)
    given = ("compare", "a=c-echo", "b=c-echo", "--set", "b.letter=b", "t-words", "--on", "p.jsonl", "--draws", 20)
    found = run(*given, "--reference", "right", "--json").lines[0]
    assert found["role"] == "decoder"
    assert found["prompts"] == {"given": 3, "compared": 3, "judged": 2}
    assert [each["exact_match"] for each in found["agreement"]] == [0, 0, 0]
    quality = {(each["measure"], each["method"]): each["value"] for each in found["quality"]}
    assert [quality["exact_match", label] for label in ("a", "b", "t-words")] == [0.5, 0.5, 0]
    assert found["methods"][0]["usage"] == {"tokens": 3.0, "target_calls": 9.0}
    shown = run(*given)
    assert "3 decoders were compared on 3 prompts." in shown.out
    lines(tmp_path / "p.jsonl", [*rows, {"id": "4"}])
    assert run(*given).code == 3
    skipped = run(*given, "--on-error", "skip")
    assert (skipped.code, skipped.out.count("on 3 prompts"), "1 broken records" in skipped.err) == (0, 1, True)
    wrong = run(*given, "--on-error", "skip", "--reference", "wrong")
    assert (wrong.code, "--reference" in wrong.err) == (3, True)
    rows[0]["right"] = {"x": 1}
    lines(tmp_path / "p.jsonl", rows)
    assert run(*given, "--reference", "right").code == 3
