"""Figures as data: what they take, how they travel, and what they refuse."""

import json
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pickaxe.errors import MethodFailed
from pickaxe.report import Axis, Figure, Series, explain, explained

numbers = st.none() | st.floats(-1e9, 1e9)
names = st.text(min_size=1, max_size=8)


def figure(*series: Series, x: Axis | None = None, y: Axis | None = None) -> Figure:
    return Figure("loss", x or Axis("steps"), y or Axis("loss"), series or (Series("a", "line", (1,), (2,)),))


@st.composite
def figures(draw: st.DrawFn) -> Figure:
    series = []
    for name in draw(st.lists(names, min_size=1, max_size=3, unique=True)):
        pairs = draw(st.lists(st.tuples(numbers, numbers), max_size=5))
        x, y = [a for a, _ in pairs], [b for _, b in pairs]
        kind = draw(st.sampled_from(("line", "points", "bars", "band")))
        ends = (y, y) if kind == "band" or draw(st.booleans()) else (None, None)
        series.append(Series(name, kind, x, y, *ends))
    return Figure(draw(names), Axis(draw(names), draw(st.text(max_size=3)), "log"), Axis(draw(names)), series, "note")


@given(figures())
def test_a_figure_survives_json(given_figure: Figure) -> None:
    assert Figure.from_json(json.loads(json.dumps(given_figure.as_json()))) == given_figure


def test_only_what_differs_from_the_defaults_travels() -> None:
    assert figure().as_json() == {
        "title": "loss",
        "x": {"label": "steps"},
        "y": {"label": "loss"},
        "series": [{"name": "a", "kind": "line", "x": [1.0], "y": [2.0]}],
    }


def test_arrays_are_taken_and_what_is_not_finite_is_a_gap() -> None:
    series = Series("a", "line", np.arange(3), [np.nan, math.inf, np.float32(0.5)], range(3), [None, None, 4])
    assert series.x == (0.0, 1.0, 2.0)
    assert series.y == (None, None, 0.5)
    assert series.high == (None, None, 4.0)


def test_a_band_may_have_no_middle() -> None:
    assert Series("a", "band", (1, 2), (), (0, 0), (1, 1)).y == ()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Series("a", "line", (1, 2), (1,)), "series 'a': y has 1 values, x has 2"),
        (lambda: Series("a", "line", (1,), (), (0,), (1,)), "series 'a': y has 0 values, x has 1"),
        (lambda: Series("a", "line", (1,), (1,), (0, 1), (1, 2)), "low has 2 values, x has 1"),
        (lambda: Series("a", "line", (1,), (1,), (0,)), "has one of low and high"),
        (lambda: Series("a", "line", (1,), (1,), high=(0,)), "has one of low and high"),
        (lambda: Series("a", "line", (1,), (1,), (2,), (1,)), r"low\[0\] = 2 is above high\[0\] = 1"),
        (lambda: Series("a", "band", (1,), (1,)), "is a band without low and high"),
        (lambda: Series("a", "pie", (1,), (1,)), "kind: is 'pie', wanted line or points or bars or band"),
        (lambda: Series("", "line", (1,), (1,)), "a series: name is empty, wanted text"),
        (lambda: Series("a", "line", "12", (1, 2)), "x: is of type str, wanted numbers"),
        (lambda: Series("a", "line", (1, "two"), (1, 2)), r"x\[1\]: is 'two', wanted a number"),
        (lambda: Axis(""), "an axis: label is empty"),
        (lambda: Axis("k", scale="cubic"), "axis 'k': scale: is 'cubic'"),
        (lambda: Axis("k", scale="log", categories=("a",)), "categories have no log scale"),
        (lambda: Axis("k", categories="abc"), "categories: is of type str, wanted a list of texts"),
        (lambda: Axis("k", categories=(1,)), r"categories\[0\] is of type int, wanted text"),
        (lambda: Figure("f", Axis("x"), Axis("y"), ()), "figure 'f': has no series"),
        (lambda: figure(*[Series("a", "line", (1,), (1,))] * 2), "two series are called 'a'"),
        (lambda: figure(x=Axis("x", categories=("a", "b")), y=Axis("y", categories=("c",))), "both axes"),
        (lambda: figure(x=Axis("x", categories=("only",))), "1.0 is no position in the 1 of 'x'"),
    ],
)
def test_what_cannot_be_drawn_is_named(make: Any, message: str) -> None:
    with pytest.raises(MethodFailed, match=message):
        make()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"series": None}, r"figures\[0\].series: is null, wanted a list"),
        ({"x": []}, r"figures\[0\].x: is of type list, wanted an object"),
        ({"x": {}}, r"figures\[0\].x: has no 'label'"),
        ({"colour": "red"}, r"figures\[0\]: has 'colour', known are title, x, y, series, note"),
        ({"series": [{"name": "a"}]}, r"figures\[0\].series\[0\]: has no 'kind'"),
        ({"title": 3}, "a figure: title is of type int"),
        ({"note": None}, "note is null"),
    ],
)
def test_json_that_is_no_figure_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(MethodFailed, match=message):
        explained({"figures": [figure().as_json() | change]})


def test_what_is_explained_comes_back() -> None:
    summary = explain(["One is best."], [figure()])
    assert json.loads(json.dumps(summary)) == summary
    assert explained(summary) == (("One is best.",), (figure(),))
    assert explained({"law": 1}) == ((), ())


@pytest.mark.parametrize(
    ("summary", "message"),
    [
        ({"answer": "One."}, "answer: is of type str, wanted a list of texts"),
        ({"answer": ["One.", 2]}, r"answer\[1\] is of type int"),
        ({"figures": {}}, "figures: is of type dict, wanted a list"),
    ],
)
def test_a_summary_that_explains_nothing_is_refused(summary: dict[str, Any], message: str) -> None:
    with pytest.raises(MethodFailed, match=message):
        explained(summary)


def test_figures_are_cheap_to_import() -> None:
    program = "import sys, pickaxe.report; print('matplotlib' in sys.modules or 'jinja2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"
