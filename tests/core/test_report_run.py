"""The report of a run: tallies in constant memory, default figures, and what the page says about the run."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pickaxe
from pickaxe import Column, Flag, Groups, Items, Method, Params, Scores, catalog, hookimpl
from pickaxe.errors import MethodFailed
from pickaxe.report import Axis, Figure, Page, Run, Series, Table, Tally, explain, run_page, scores_page
from pickaxe.report import tally as tally_module
from pickaxe.report.tally import Values

COLUMNS = (Column("loss", "The loss.", "float64", "nats", nullable=True), Column("kind", "Which.", "str", "", "none"))


def scores(losses: Any, **given: Any) -> Scores:
    losses = np.array(losses, np.float64)
    return Scores({"loss": losses, "kind": np.array(["k"] * len(losses))}, schema=COLUMNS, **given)


def page(found: Scores, **run: Any) -> Page:
    ids = [f"item {row}" for row in range(len(found))]
    return scores_page(Run(pickaxe.show("zip-fit"), {}, ("a.csv",), **run), ids, found)


def table(report: Page, caption: str) -> Table:
    [found] = [each for each in (*report.tables, *report.made) if each.caption.startswith(caption)]
    return found


# ---------------------------------------------------------------- tallies


@given(st.lists(st.none() | st.floats(-1e6, 1e6), max_size=50))
def test_numbers_of_a_column(numbers: list[float | None]) -> None:
    values = Values()
    for number in numbers:
        values.add(number)
    known = [number for number in numbers if number is not None]
    assert (values.count, values.missing) == (len(known), len(numbers) - len(known))
    if known:
        assert (values.least, values.greatest) == (min(known), max(known))
        assert values.mean == pytest.approx(np.mean(known))
        assert values.quantiles((0, 0.5, 1)) == pytest.approx(np.quantile(known, (0, 0.5, 1)).tolist())
    else:
        assert values.quantiles((0.5,)) == [None]


def test_many_values_are_thinned_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally_module, "KEPT", 64)
    values = Values()
    for number in range(10_000):
        values.add(float(number))
    assert values.count == 10_000
    assert len(values.kept) < 64
    assert list(values.kept) == [float(number) for number in range(0, 10_000, values.every)]
    assert values.quantiles((0.5,)) == [pytest.approx(5000, rel=0.05)]


def test_the_best_rows_and_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally_module, "BEST", 3)
    tally = Tally(COLUMNS)
    tally.add([{"id": str(row), "loss": value} for row, value in enumerate((1, 3, None, 3, 2, "Infinity"))])
    assert [row["id"] for row in tally.best] == ["5", "1", "3"]
    assert tally.values["loss"].infinite == 1


def test_flags_are_counted_by_reason() -> None:
    tally = Tally(COLUMNS)
    flags = ("empty", "cut: after 3; empty: nothing", "", None, "SHORT: a: b", "cut")
    tally.add([{"id": "a", "loss": 1, "flag": flag} for flag in flags])
    assert tally.flags == {"empty": 2, "cut": 2, "SHORT": 1}
    assert tally.messages["cut"] == "cut: after 3; empty: nothing"


def test_a_column_called_flag_is_not_taken_for_flags() -> None:
    tally = Tally((Column("flag", "A bool.", "bool"), Column("id", "Its id.", "str")))
    tally.add([{"id": "a", "flag": True, "id_": "b", "flag_": "cut"}])
    assert tally.flags == {"cut": 1}
    assert tally.cells(tally.first[0]) == ("a", True, "b", "cut")


# ---------------------------------------------------------------- pages


def test_without_a_summary_the_columns_speak() -> None:
    report = page(scores([3, 1, math.nan, 2]))
    assert report.answer == (
        "4 items were scored.",
        "loss (nats) lies between 1 and 3; its median is 2, and the middle half lies between 1.5 and 2.5.",
    )
    [figure] = report.figures
    assert figure.x == Axis("loss", "nats")
    assert (figure.series[0].x, figure.series[0].y) == ((1, 2, 3), (1, 1, 1))
    assert "1 items without a value" in figure.note
    assert table(report, "Items").rows[2] == ("item 2", None, "k")


def test_a_histogram_counts_every_value_once() -> None:
    losses = np.random.default_rng(1).normal(size=500)
    [figure] = page(scores(losses)).figures
    assert sum(value or 0 for value in figure.series[0].y) == 500
    assert 5 <= len(figure.series[0].x) <= 40


def test_what_the_method_tells_comes_first_and_the_rest_are_tables() -> None:
    own = Figure("Own", Axis("x"), Axis("y"), (Series("a", "line", (1,), (1,)),))
    report = page(scores([1, 2], summary={**explain(["Take the second."], [own]), "law": {"a": 1}}))
    assert report.answer == ("Take the second.",)
    assert report.figures == (own,)
    assert table(report, "Law").rows == (("a", 1),)


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (("n", "acc", "acc_low", "acc_high"), ("acc", "points")),
        (("n", "acc", "low", "high"), ("acc", "points")),
        (("n", "acc"), ("acc", "bars")),
        (("low", "high"), ("low", "bars")),
    ],
)
def test_groups_are_drawn_with_their_intervals(names: tuple[str, ...], wanted: tuple[str, str]) -> None:
    known = {"n": [5, 6], "acc": [0.4, 0.5], "low": [0.3, 0.4], "high": [0.5, 0.6]}
    values = {name: known[name.removeprefix("acc_")] for name in names}
    schema = tuple(Column(name, "", "float64", "", "none" if name == "n" else "higher") for name in names)
    groups = Groups(("a", "b"), {name: np.array(value, np.float64) for name, value in values.items()}, schema)
    report = page(scores([1, 2], groups=groups))
    figure, _ = report.figures
    [series] = figure.series
    assert (series.name, series.kind) == wanted
    assert series.x == tuple(values[wanted[0]])
    assert (series.low is not None) == (wanted[1] == "points")
    assert figure.y.categories == ("a", "b")
    assert table(report, "Every group").columns == ("group", *names)


def test_many_groups_are_cut() -> None:
    keys = tuple(f"g{row}" for row in range(60))
    groups = Groups(keys, {"acc": np.arange(60.0)}, (Column("acc", ""),))
    figure, _ = page(scores([1, 2], groups=groups)).figures
    assert len(figure.y.categories) == 40
    assert "The first 40 of 60 groups." in figure.note


def test_a_run_of_nothing_has_a_page() -> None:
    report = page(scores([]))
    assert report.answer == ("0 items were scored.",)
    assert report.figures == ()
    assert "<h1>" in report.html()


def test_texts_alone_have_a_page() -> None:
    found = Scores({"label": np.array(["x"])}, schema=(Column("label", "A label.", "str"),))
    assert page(found).figures == ()


def test_many_items_show_the_best() -> None:
    report = page(scores(np.arange(100.0)))
    best = table(report, "The 20 of 100 items with the highest loss")
    assert best.rows[0][:2] == ("item 99", 99)
    assert len(best.rows) == 20


def test_how_it_was_made() -> None:
    card = pickaxe.show("zip-fit")
    flags = (Flag(0, "cut", "after 3"), Flag(1, "cut"))
    run = Run(card, {"level": 1}, ("a.csv", "b.csv"), 7, "art", 2, 0.01234)
    report = scores_page(run, ["a", "b"], scores([1, 2], flags=flags))
    told = dict(table(report, "The run").rows)
    assert told["method"] == f"zip-fit, version {card.version}"
    assert told["paper"] == f"{card.title} ({card.paper})"
    assert (told["input"], told["artifact"], told["seed"], told["items"]) == ("a.csv, b.csv", "art", "7", "2")
    assert (told["broken records left out"], told["flags"], told["seconds"]) == ("2", "cut 2", "0.012")
    assert table(report, "Flags").rows == (("cut", 2, "cut: after 3"),)
    params = {name: value for name, value, _ in table(report, "Parameters").rows}
    assert params["level"] == "1"
    assert set(params) == set(card.params_schema["properties"])
    assert table(report, "Columns in numbers").rows[0][:3] == ("loss", 0, 1)


def test_the_order_of_a_summary_s_keys_does_not_matter() -> None:
    a = page(scores([1, 2], summary={"b": {"x": 1, "y": 2}, "a": 3}))
    b = page(scores([1, 2], summary={"a": 3, "b": {"y": 2, "x": 1}}))
    assert a.html() == b.html()


def test_a_summary_that_no_report_can_show() -> None:
    with pytest.raises(MethodFailed, match=r"figures\[0\]: has no 'title'"):
        run_page(Run(pickaxe.show("zip-fit"), {}, ()), Tally(COLUMNS), scores([1], summary={"figures": [{}]}))


def test_the_handle_refuses_it_too() -> None:
    class Unclear(Method[Params]):
        """Tells nonsense."""

        columns = (Column("a", "One."),)

        @hookimpl
        def score(self, items: Items) -> Scores:
            return Scores({"a": np.zeros(len(items))}, summary={"answer": "no list"})

    with (
        catalog.register(Unclear, "unclear", "scorer"),
        pytest.raises(MethodFailed, match="no report can show: answer: is of type str"),
    ):
        pickaxe.scorer("unclear").score(["x"])
