"""The page: drawn figures, tables of a summary, and what makes it readable for everybody."""

import re
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pickaxe.errors import RuntimeMissing
from pickaxe.report import Axis, Figure, Page, Series, Table, number
from pickaxe.report.draw import COLOURS, svg
from pickaxe.report.tables import tables
from pickaxe.report.words import cell, describe, tick

K = np.geomspace(1, 1000, 20)
CURVE = Series("large", "band", K, 1 - 1 / K, 0.9 - 1 / K, 1.1 - 1 / K)
NAMES = tuple(f"model {row}" for row in range(5))
DECADES = 10.0 ** np.arange(5)
MODELS = Axis("model", categories=NAMES)
FIGURES = {
    "log": Figure(
        "Coverage",
        Axis("samples", scale="log"),
        Axis("coverage", "%"),
        (CURVE, Series("law", "line", K, K / 1000)),
    ),
    "area": Figure("Area", Axis("x"), Axis("y"), (Series("a", "band", (1, 2, 3), (), (0, 1, None), (1, 2, 3)),)),
    "forest": Figure(
        "Forest",
        Axis("difference"),
        MODELS,
        (Series("d", "points", range(5), range(5), np.arange(5) - 1, np.arange(5) + 1),),
    ),
    "bars": Figure(
        "Bars",
        MODELS,
        Axis("time", "s", "log"),
        (
            Series("a", "bars", range(5), DECADES, DECADES / 2, DECADES * 2),
            Series("b", "bars", range(5), 5.0 ** np.arange(5)),
        ),
    ),
    "lying": Figure("Lying", Axis("n"), MODELS, (Series("n", "bars", range(5), range(5), range(5), range(5)),)),
    "histogram": Figure("Histogram", Axis("v"), Axis("items"), (Series("items", "bars", (0.5, 1.5), (3, 4)),)),
    "log bars": Figure("Log", Axis("v", scale="log"), Axis("n"), (Series("n", "bars", (1, 10, 100), (3, 4, 5)),)),
    "gaps": Figure(
        "Gaps",
        Axis("x", scale="log"),
        Axis("y", scale="log"),
        (Series("a", "line", (0, 1, 2), (1, None, 3), (0, 0, 1), (2, 3, 4)),),
    ),
    "nothing": Figure("Nothing", Axis("x"), Axis("y", scale="log"), (Series("a", "points", (), ()),)),
}


class Tags(HTMLParser):
    """Elements with their attributes, and the text of the page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def page(**given: Any) -> Page:
    return Page("Report", answer=("One & two.",), figures=tuple(FIGURES.values()), **given)


# ---------------------------------------------------------------- figures


@pytest.mark.parametrize("figure", FIGURES.values(), ids=FIGURES)
def test_a_figure_is_drawn_with_text_and_alternative(figure: Figure) -> None:
    text = svg(figure, "f1")
    tags = Tags(text)
    assert tags.found[0] == ("svg", tags.found[0][1] | {"role": "img", "aria-labelledby": "f1-title f1-desc"})
    assert f'<title id="f1-title">{figure.title}</title>' in text
    assert figure.x.title in text
    assert figure.y.title in text
    for name in (*figure.x.categories, *figure.y.categories):
        assert name in text
    if len(figure.series) > 1:
        assert all(f">{each.name}</text>" in text for each in figure.series)


@pytest.mark.parametrize("figure", FIGURES.values(), ids=FIGURES)
def test_equal_figures_give_equal_bytes_whatever_the_user_s_style(figure: Figure) -> None:
    once = svg(figure, "f1")
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "black", "svg.fonttype": "path"}):
        assert svg(figure, "f1") == once
        assert mpl.rcParams["font.size"] == 30


def test_ids_belong_to_one_figure_only() -> None:
    text = svg(FIGURES["bars"], "f7")
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert all(each.startswith("f7-") for each in ids)
    assert set(re.findall(r'(?:url\(|href=")#([^")]+)', text)) <= set(ids)


def test_intervals_are_drawn() -> None:
    plain = Figure("p", Axis("x"), Axis("y"), (Series("a", "points", (1, 2), (1, 2)),))
    whiskers = Figure("p", Axis("x"), Axis("y"), (Series("a", "points", (1, 2), (1, 2), (0, 1), (2, 3)),))
    band = Figure("p", Axis("x"), Axis("y"), (Series("a", "band", (1, 2), (1, 2), (0, 1), (2, 3)),))
    assert "LineCollection" in svg(whiskers, "f")
    assert "FillBetweenPolyCollection" in svg(band, "f")
    assert "Collection" not in svg(plain, "f")


def test_colours_stand_out_from_white() -> None:
    for colour in COLOURS:
        red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
        linear = [
            value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in (red, green, blue)
        ]
        luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        assert 1.05 / (luminance + 0.05) >= 4.5, colour


def test_a_figure_in_words() -> None:
    assert describe(FIGURES["forest"]) == (
        "difference over model, drawn as points. d: 5 values, lowest 0 at model 0, highest 4 at model 4, the widest "
        "interval from 3 to 5."
    )
    assert "samples on a log scale" in describe(FIGURES["log"])
    assert describe(FIGURES["nothing"]).endswith("a: no values.")


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456, "0.1235"), (-2.0, "-2"), (123456.0, "123456"), (123456.7, "123457"), (1.5e-7, "1.5×10⁻⁷"),
        (2.5e20, "2.5×10²⁰"), (float("nan"), "no value"), (float("inf"), "∞"), (-float("inf"), "-∞"),
    ],
)  # fmt: skip
def test_number(value: float, text: str) -> None:
    assert number(value) == text


@given(st.floats(-1e300, 1e300))
def test_number_keeps_four_digits(value: float) -> None:
    plain = number(value).translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")).replace("×10", "e")
    assert float(plain) == pytest.approx(value, rel=6e-4)


@pytest.mark.parametrize(
    ("value", "text"), [(1e6, "10⁶"), (2e7, "2×10⁷"), (0.1, "0.1"), (1000, "1000"), (1e-5, "10⁻⁵")]
)
def test_tick(value: float, text: str) -> None:
    assert tick(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "no value"), (True, "yes"), ([1, None], "1, no value"), ({"a": 1}, '{"a": 1}'), ("x", "x")],
)
def test_cell(value: Any, text: str) -> None:
    assert cell(value) == text


# ---------------------------------------------------------------- the page


def test_equal_pages_have_equal_bytes() -> None:
    assert page().html() == page().html()


def test_the_page_needs_nothing_else() -> None:
    html = page(tables=(Table("T", ("a", "b"), (("x", 1),)),)).html()
    tags = Tags(html)
    assert not tags.all("script")
    assert not tags.all("link")
    assert not tags.all("img")
    assert not re.search(r"(?:href|src)=\"(?!#)", html)
    assert "http://" not in html
    assert "https://" not in html
    assert "default-src 'none'" in html


def test_structure_serves_readers_of_all_kinds() -> None:
    html = page(tables=(Table("T", ("a", "b"), (("x", 1), ("y", None))),), made=(Table("M", ("a",), (("x",),)),)).html()
    tags = Tags(html)
    assert tags.all("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in tags.found if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert len(tags.all("caption")) == len(tags.all("table"))
    assert all(each["scope"] in ("row", "col") for each in tags.all("th"))
    ids = [attributes["id"] for _, attributes in tags.found if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_every_figure_has_its_data_as_a_table() -> None:
    html = page().html()
    for figure in FIGURES.values():
        assert f"Data of “{figure.title}”" in html
    rows = Page("p", figures=(FIGURES["forest"],)).html()
    assert '<th scope="row">model 4</th><td class="n">4</td><td class="n">3</td><td class="n">5</td>' in rows


def test_points_that_a_log_axis_cannot_show_are_counted() -> None:
    html = Page("p", figures=(FIGURES["gaps"],)).html()
    assert "1 points at or below zero are not drawn on the log axis." in html


def test_text_is_escaped() -> None:
    evil = "<script>alert(1)</script>"
    series = (Series(evil, "points", (1,), (0,)), Series("b", "bars", (1,), (0,)))
    figure = Figure(evil, Axis(evil), Axis("y", categories=(evil,)), series, evil)
    html = Page(evil, evil, (evil,), (figure,), (Table(evil, (evil,), ((evil,),), evil),), footer=evil).html()
    assert "<script" not in html
    assert html.count("&lt;script&gt;") > 8


def test_long_tables_are_folded_and_cut() -> None:
    rows = tuple((row, row) for row in range(2000))
    html = Page("p", tables=(Table("Long", ("a", "b"), rows),)).html()
    assert "<summary>Long (2000 rows)</summary>" in html
    assert "The first 1000 of 2000 rows." in html
    assert html.count("<tr>") == 1001


def test_a_page_is_written_whole(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    Page("Bericht – è \ud800").write(target)
    assert "Bericht – è ?" in target.read_text(encoding="utf-8")


@pytest.mark.parametrize("library", ["matplotlib", "jinja2"])
def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(RuntimeMissing, match=r"pickaxe\[plot\]"):
        page().html()


# ---------------------------------------------------------------- summaries as tables


def test_single_values_and_columns() -> None:
    values, columns = tables({"a": 1.5, "b": None, "curve": {"loss": [3, 2, 1], "k": [1, 2, 4]}, "answer": ["x"]})
    assert (values.caption, values.rows) == ("Values", (("a", 1.5), ("b", None)))
    assert (columns.caption, columns.columns) == ("Curve", ("k", "loss"))
    assert columns.rows == ((1, 3), (2, 2), (4, 1))


def test_objects_of_objects_are_rows_and_what_is_deeper_follows() -> None:
    law = {"law": {"a": 1, "interval": [0, 2]}, "points": [{"k": 1, "loss": 3}], "k": [1, 2, 3], "y": [4, 5, 6]}
    rows, columns, points = tables({"by_model": {"small": law}})
    assert (rows.caption, rows.columns) == ("By model", ("name", "law.a", "law.interval"))
    assert rows.rows == (("small", 1, [0, 2]),)
    assert (columns.caption, columns.columns) == ("By model › small", ("k", "y"))
    assert (points.caption, points.columns, points.rows) == (
        "By model › small › points",
        ("row", "k", "loss"),
        ((1, 1, 3),),
    )


def test_lists_of_objects_keep_what_some_lack() -> None:
    [found] = tables({"runs": [{"id": "a", "x": 1}, {"id": "b", "y": {"z": 2}}]})
    assert found.columns == ("row", "id", "x", "y.z")
    assert found.rows == ((1, "a", 1, None), (2, "b", None, 2))


def test_matrices_and_long_lists() -> None:
    matrix, ragged = tables({"matrix": [[1, 2], [3, 4]], "ragged": [[1], [2, 3]]})
    assert matrix.rows == ((1, 1, 2), (2, 3, 4))
    assert ragged.rows == ((1, 1, ""), (2, 2, 3))
    [long] = tables({"values": list(range(9))})
    assert len(long.rows) == 9


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(min_size=1, max_size=3), json_values, max_size=4))
def test_any_summary_becomes_tables_of_even_rows(summary: dict[str, Any]) -> None:
    for table in tables(summary):
        assert table.columns
        assert {len(row) for row in table.rows} <= {len(table.columns)}
        assert table.shown
