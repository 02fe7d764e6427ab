"""Wide, long and foreign tables as items: from CSV files and from data frames."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pickaxe import Item, Items
from pickaxe.errors import InvalidItems, InvalidParams, Violation
from pickaxe.io.layout import Layout
from pickaxe.io.readers import Source
from pickaxe.io.tables import Gather, Wide, comma_hint

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(*lines: str, name: str = "t.csv") -> Path:
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return written


def wide(*texts: str, **more: Any) -> Layout:
    return Layout(wide=tuple(map(Wide.parse, texts)), **more)


def long(text: str, **more: Any) -> Layout:
    return Layout(gather=Gather.parse(text), **more)


def items(path: Path, layout: Layout, **more: Any) -> list[Item]:
    return list(Source(path, layout=layout, **more))


# ---------------------------------------------------------------- wide


def test_columns_become_an_array_in_their_order(write: Write) -> None:
    path = write("id,seed_2,seed_10,name,seed_1", "a,0.5,1,x,0.25")
    [item] = items(path, wide("scores=seed_*"))
    np.testing.assert_array_equal(item.fields["scores"], [0.5, 1, 0.25])
    assert item.fields["name"] == "x"
    assert "seed_1" not in item.fields


def test_the_star_can_be_a_second_field(write: Write) -> None:
    [item] = items(write("id,acc@1000,acc@2e3", "a,0.5,0.6"), wide("y@x=acc@*"))
    np.testing.assert_array_equal(item.fields["x"], [1000, 2000])
    np.testing.assert_array_equal(item.fields["y"], [0.5, 0.6])


def test_columns_become_an_object_without_empty_cells(write: Write) -> None:
    path = write("index,train_pile_cc,train_arxiv,loss/pile_cc_val", "3,0.75,,2.5")
    [item] = items(path, wide("mixture={train_*}", "losses={loss/*_val}", id="index"))
    assert item == Item("3", fields={"mixture": {"pile_cc": 0.75}, "losses": {"pile_cc": 2.5}})


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ("a,1,", r"t.csv:2: column 's_2' is empty: fill it"),
        ("a,1,x", r"t.csv:2: column 's_2' holds 'x': write a number"),
        ('a,1,"0,5"', r"column 's_2' holds '0,5': .* give --decimal ,"),
    ],
)
def test_a_cell_that_is_no_number_is_named_with_a_remedy(write: Write, cells: str, message: str) -> None:
    with pytest.raises(InvalidItems, match=message):
        items(write("id,s_1,s_2", cells), wide("s=s_*"))


def test_a_pattern_that_fits_nothing_names_the_columns(write: Write) -> None:
    with pytest.raises(InvalidItems, match=r"has no column like 'seed\*'; there are id, s_1"):
        items(write("id,s_1", "a,1"), wide("s=seed*"))


def test_a_star_that_is_no_number_is_named(write: Write) -> None:
    with pytest.raises(InvalidItems, match="the column 'acc_last', whose 'last' is no number for 'x'"):
        items(write("id,acc_1,acc_last", "a,1,2"), wide("y@x=acc_*"))


@pytest.mark.parametrize("text", ["scores", "=s_*", "s=seed", "s=*_*", "s@x={a_*}"])
def test_a_wide_that_cannot_be_understood(text: str) -> None:
    with pytest.raises(InvalidParams, match="is not of the form"):
        Wide.parse(text)


@pytest.mark.parametrize("text", ["s=s_*", "y@x=acc_*", "m={train_*_share}"])
def test_a_wide_is_written_as_it_is_read(text: str) -> None:
    assert str(Wide.parse(text)) == text


# ---------------------------------------------------------------- long


def test_rows_of_a_run_become_one_item(write: Write) -> None:
    path = write("run,x,y,model", "a,1,0.5,m", "b,1,0.4,n", "a,2,0.7,m", "b,3,0.6,n")
    a, b = items(path, long("run=x,y"))
    assert (a.id, a.fields["model"], b.id) == ("a", "m", "b")
    np.testing.assert_array_equal(a.fields["x"], [1, 2])
    np.testing.assert_array_equal(b.fields["y"], [0.4, 0.6])


def test_a_run_of_one_row_and_a_constant_one_are_arrays_too(write: Write) -> None:
    a, b = items(write("run,y,name", "a,1,s", "b,2,s", "b,2,s"), long("run=y,name"))
    np.testing.assert_array_equal(a.fields["y"], [1])
    np.testing.assert_array_equal(b.fields["y"], [2, 2])
    assert b.fields["name"] == ("s", "s")


def test_a_second_key_is_a_second_dimension(write: Write) -> None:
    rows = [f"arc,{seed},{step},{seed + step / 10}" for step in (1, 2, 3) for seed in (7, 8)]
    [item] = items(write("benchmark,seed,step,score", *rows), long("benchmark,seed=score,step"))
    np.testing.assert_array_equal(item.fields["score"], [[7.1, 7.2, 7.3], [8.1, 8.2, 8.3]])
    assert set(item.fields) == {"benchmark", "score", "step"}


def test_wide_rows_are_gathered_into_a_matrix(write: Write) -> None:
    layout = Layout(wide=(Wide.parse("scores=step_*"),), gather=Gather.parse("benchmark=scores"))
    [item] = items(write("benchmark,seed,step_1,step_2", "arc,1,0.1,0.2", "arc,1,0.3,0.4"), layout)
    np.testing.assert_array_equal(item.fields["scores"], [[0.1, 0.2], [0.3, 0.4]])


def test_the_key_is_text_whatever_it_looks_like(write: Write) -> None:
    assert [item.id for item in items(write("run,y", "007,1", "7,2"), long("run=y"))] == ["007", "7"]


def test_names_are_those_after_renaming(write: Write) -> None:
    [item] = items(write("Lauf,Wert", "a,1", "a,2"), long("run=y", rename={"Lauf": "run", "Wert": "y"}))
    np.testing.assert_array_equal(item.fields["y"], [1, 2])


@pytest.mark.parametrize(
    ("lines", "gather", "message"),
    [
        (("run,y", "a,1", "a,"), "run=y", r"t.csv:3: has no 'y', which is gathered: fill the cell"),
        (("run,y", "a,1", ",2"), "run=y", r"t.csv:3: has no text or number under 'run'"),
        (("run,y", "a,1", "a,x"), "run=y", r"t.csv:3: 'y' is 'x', other rows have numbers"),
        (("run,y,m", "a,1,k", "a,2,l"), "run=y", r"t.csv:3: 'm' of 'a' is 'l', at .*:2 it is 'k'.*\(run=y,m\)"),
        (("b,s,y", "a,1,1", "a,1,2", "a,2,3"), "b,s=y", r"t.csv:4: s '2' of 'a' has 1 rows of 'y', '1' has 2"),
    ],
)  # fmt: skip
def test_rows_that_do_not_fit_are_named(write: Write, lines: tuple[str, ...], gather: str, message: str) -> None:
    with pytest.raises(InvalidItems, match=message):
        items(write(*lines), long(gather))


@pytest.mark.parametrize("text", ["run", "run=", "=y", "a,b,c=y", "run=x,,y"])
def test_a_gather_that_cannot_be_understood(text: str) -> None:
    with pytest.raises(InvalidParams, match="is not of the form"):
        Gather.parse(text)


def test_a_broken_item_is_set_aside_with_all_its_rows(write: Write, tmp_path: Path) -> None:
    path = write("run,y,m", "a,1,k", "b,5,k", "a,2,l")
    source = Source(path, layout=long("run=y"), on_error="quarantine", quarantine=tmp_path / "q")
    assert [item.id for item in source] == ["b"]
    assert source.skipped == 1
    assert (tmp_path / "q").read_text() == "a,1,k\na,2,l\n"


def test_the_check_sees_whole_items(write: Write) -> None:
    seen: list[Item] = []

    def check(item: Item, where: str) -> list[Violation]:
        seen.append(item)
        return []

    list(Source(write("run,y", "a,1", "a,2"), layout=long("run=y"), check=check))
    [item] = seen
    np.testing.assert_array_equal(item.fields["y"], [1, 2])


def test_a_later_start_skips_items_and_not_rows(write: Write) -> None:
    source = Source(write("run,y", "a,1", "a,2", "b,3"), layout=long("run=y"))
    assert [record.item.id for record in source.records(1)] == ["b"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-5, 5)), min_size=1, max_size=20))
def test_gathering_loses_no_row_and_keeps_their_order(rows: list[tuple[str, int]]) -> None:
    found = Items.from_table([{"run": run, "y": y} for run, y in rows], gather="run=y")
    assert found.ids == list(dict.fromkeys(run for run, _ in rows))
    assert {item.id: item.fields["y"].tolist() for item in found} == {  # type: ignore[union-attr]
        name: [y for run, y in rows if run == name] for name in found.ids
    }


# ---------------------------------------------------------------- other marks, other names


def test_decimal_commas_and_semicolons(write: Write) -> None:
    path = write("id;loss;n;v", "a;0,25;3;1.5", "b;-1,5e-3;4;1.5")
    a, b = items(path, Layout(decimal=","))
    assert (a.fields["loss"], a.fields["n"], b.fields["loss"]) == (0.25, 3, -0.0015)
    assert a.fields["v"] == "1.5"


def test_semicolons_part_cells_where_the_first_line_has_no_comma(write: Write) -> None:
    assert items(write("id;loss", "a;0.25"), Layout())[0] == Item("a", fields={"loss": 0.25})
    assert items(write("id,a;b", "x,1"), Layout())[0].fields == {"a;b": 1}
    assert items(write('"id;x"', "a"), Layout())[0].fields == {"id;x": "a"}


def test_decimal_commas_in_quotes_and_in_tsv(write: Write) -> None:
    assert items(write("id,loss", 'a,"0,25"'), Layout(decimal=","))[0].fields["loss"] == 0.25
    assert items(write("id\tloss", "a\t0,25", name="t.tsv"), Layout(decimal=","))[0].fields["loss"] == 0.25


def test_numbers_without_a_leading_zero_and_digits_without_end(write: Write) -> None:
    long = "9" * 5000
    assert items(write("id,a,b,c,d", f"x,.5,-.5e1,5.,{long}"), Layout())[0].fields == {
        "a": 0.5, "b": -5.0, "c": "5.", "d": long,
    }  # fmt: skip
    assert items(write("id;a;b", "x;,5;.5"), Layout(decimal=","))[0].fields == {"a": 0.5, "b": ".5"}


def test_without_the_option_a_comma_is_text(write: Write) -> None:
    assert items(write("id,loss", 'a,"0,25"'), Layout())[0].fields["loss"] == "0,25"


@pytest.mark.parametrize("decimal", [".", ","])
def test_an_empty_file(tmp_path: Path, decimal: str) -> None:
    (tmp_path / "e.csv").write_bytes(b"")
    assert items(tmp_path / "e.csv", Layout(decimal=decimal)) == []


def test_another_decimal_mark_is_refused() -> None:
    with pytest.raises(InvalidParams, match="must be a point or a comma"):
        Layout(decimal="'")


def test_a_name_cannot_be_taken_twice(write: Write) -> None:
    with pytest.raises(InvalidItems, match="has a column 'loss', as which 'val' is to be read: map that one too"):
        items(write("id,val,loss", "a,1,2"), Layout(rename={"val": "loss"}))
    [item] = items(write("id,val,loss", "a,1,2"), Layout(rename={"val": "loss", "loss": "train_loss"}))
    assert item.fields == {"loss": 1, "train_loss": 2}


@pytest.mark.parametrize(
    ("value", "hinted"), [("0,25", True), ("-3,5e2", True), ("1,2,3", False), ("a,b", False), (0.25, False)]
)
def test_comma_hint(value: Any, hinted: bool) -> None:
    assert bool(comma_hint(value)) == hinted


# ---------------------------------------------------------------- data frames

ROWS = [{"name": "a", "loss": 0.5, "seed_1": 1, "seed_2": 2}, {"name": "b", "loss": None, "seed_1": 3, "seed_2": 4}]


class Frame:
    """A pandas frame as far as it is used; pandas itself is no dependency of the tests."""

    def __init__(self, rows: list[dict[str, Any]], missing: Any = math.nan) -> None:
        self.rows = [{name: missing if value is None else value for name, value in row.items()} for row in rows]

    def notna(self) -> list[list[bool]]:
        return [[value == value for value in row.values()] for row in self.rows]

    def astype(self, kind: type) -> "Frame":
        assert kind is object
        return self

    def where(self, mask: list[list[bool]], other: Any) -> "Frame":
        kept = [
            {name: value if keep else other for (name, value), keep in zip(row.items(), line, strict=True)}
            for row, line in zip(self.rows, mask, strict=True)
        ]
        return Frame(kept, other)

    def to_dict(self, orient: str) -> list[dict[str, Any]]:
        assert orient == "records"
        return self.rows


class Polars:
    def to_dicts(self) -> list[dict[str, Any]]:
        return ROWS


@pytest.mark.parametrize(
    "table",
    [ROWS, Frame(ROWS), Polars(), pa.Table.from_pylist(ROWS), {key: [row[key] for row in ROWS] for key in ROWS[0]}],
    ids=["rows", "pandas", "polars", "arrow", "columns"],
)
def test_tables_become_items(table: Any) -> None:
    found = Items.from_table(table, id="name", map={"loss": "val_loss"}, wide=["scores=seed_*"])
    assert found.ids == ["a", "b"]
    assert found[0].fields["val_loss"] == 0.5
    assert "val_loss" not in found[1].fields
    np.testing.assert_array_equal(found.column("scores"), [[1, 2], [3, 4]])


def test_rows_without_an_id_are_called_by_their_number() -> None:
    assert Items.from_table([{"text": "x"}, {"text": "y"}]).ids == ["0", "1"]


def test_numpy_values_in_rows() -> None:
    [item] = Items.from_table([{"n": np.int64(3), "x": np.array([1.0, 2.0]), "ok": np.bool_(True)}])
    assert (item.fields["n"], item.fields["ok"]) == (3, True)
    np.testing.assert_array_equal(item.fields["x"], [1.0, 2.0])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("text", "table: is of type str"),
        (3, "table: is of type int"),
        ([1], "row 0: is of type int"),
        ({"a": [1], "b": [1, 2]}, "columns of different lengths"),
        ([{"s_1": 1}, {"s_1": "x"}], "row 1: column 's_1' holds 'x'"),
    ],
)
def test_tables_that_cannot_be_used(table: Any, message: str) -> None:
    with pytest.raises(InvalidItems, match=message):
        Items.from_table(table, wide=["s=s_*"] if isinstance(table, list) and table != [1] else [])
