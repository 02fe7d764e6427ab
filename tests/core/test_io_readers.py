"""Sources: every format gives the same items, as often as asked; what is broken is named, counted or set aside."""

import datetime
import decimal
import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from pickaxe import Item
from pickaxe.errors import InvalidItems, InvalidParams, Violation
from pickaxe.io.readers import Layout, Source

ROWS = [{"id": f"r{row}", "text": f"text {row} é", "score": row / 2} for row in range(3000)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
ITEMS = [Item(str(row["id"]), str(row["text"]), {"score": row["score"]}) for row in ROWS]  # type: ignore[dict-item]


def csv_of(delimiter: str) -> bytes:
    lines = [delimiter.join(ROWS[0]), *(delimiter.join(map(str, row.values())) for row in ROWS)]
    return "\n".join(lines).encode()


def write(path: Path) -> Path:
    """The rows in the format that the name says."""
    name = path.name
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=500)
        return path
    data = csv_of(",") if ".csv" in name else csv_of("\t") if ".tsv" in name else LINES
    if name.endswith(".gz"):
        data = gzip.compress(data[:50_000]) + gzip.compress(data[50_000:])
    elif name.endswith(".zst"):
        data = zstandard.compress(data[:50_000]) + zstandard.compress(data[50_000:])
    path.write_bytes(data)
    return path


NAMES = ["a.jsonl", "a.ndjson", "a.jsonl.gz", "a.jsonl.zst", "a.csv", "a.csv.gz", "a.tsv", "a.tsv.zst", "a.parquet"]


@pytest.mark.parametrize("name", NAMES)
def test_every_format_gives_the_items_twice(tmp_path: Path, name: str) -> None:
    source = Source(write(tmp_path / name))
    assert list(source) == ITEMS
    assert source.meter.read == source.meter.total == (tmp_path / name).stat().st_size
    assert list(source) == ITEMS
    assert [record.item for record in source.records(start=2990)] == ITEMS[2990:]


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith((".gz", ".zst", ".parquet"))])
def test_cut_files_are_named_with_the_place(tmp_path: Path, name: str) -> None:
    whole = write(tmp_path / name).read_bytes()
    cut = tmp_path / f"cut-{name}"
    for size in (len(whole) * 2 // 3, len(whole) - 1):
        cut.write_bytes(whole[:size])
        for on_error in ("fail", "skip"):  # what is missing cannot be skipped
            with pytest.raises(InvalidItems, match=rf"cut-{name}.*(after line \d+|at its start)"):
                list(Source(cut, on_error=on_error))


def test_other_data_after_the_compressed_part(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(LINES) + b"garbage")
    with pytest.raises(InvalidItems, match="cannot be read"):
        list(Source(path))


def test_text_lines_whole_files_patterns_and_directories(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.txt").write_text("one\n\ntwo\n")
    (tmp_path / "a.jsonl").write_text('{"text": "z"}\n')
    (tmp_path / ".hidden.txt").write_text("no")
    (tmp_path / "other.bin").write_text("no")
    assert list(Source(tmp_path)) == [Item("a.jsonl:1", "z"), Item("deep/b.txt", "one\n\ntwo\n")]
    assert list(Source(tmp_path, format="text"))[-2:] == [Item("deep/b.txt:3", "two"), Item("other.bin:1", "no")]
    assert [item.id for item in Source(tmp_path / "deep" / "*.txt")] == ["b.txt:1", "b.txt:3"]
    assert [item.id for item in Source(tmp_path / "**" / "*.txt", format="files")] == ["b.txt"]
    assert [item.text for item in Source([tmp_path / "a.jsonl", tmp_path / "deep" / "b.txt"])] == ["z", "one", "two"]


def test_layout(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"key": 5, "body": "B", "label": "x", "more": 1, "text": "old"}\n')
    item = next(iter(Source(path, layout=Layout("body", "key", ("kind",), {"label": "kind"}))))
    assert item == Item("5", "B", {"kind": "x"})
    for layout in (Layout(text="absent"), Layout(id="absent"), Layout(fields=("absent",))):
        with pytest.raises(InvalidItems, match=r"a\.jsonl:1.*absent"):
            list(Source(path, layout=layout))


def test_csv_cells_and_their_types(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbfid,text,n,flag,zip,empty\r\n1,"a, ""b""\nc",-2.5e3,true,007,\r\n2,17,3,false,x,\r\n')
    first, second = Source(path)
    assert first == Item("1", 'a, "b"\nc', {"n": -2500.0, "flag": True, "zip": "007"})
    assert second == Item("2", "17", {"n": 3, "flag": False, "zip": "x"})
    records = list(Source(path).records())
    assert b"".join(record.original for record in records) == path.read_bytes().split(b"\r\n", 1)[1]


BROKEN = [
    b'{"id": "a", "text": "fine"}\n',
    b'{"id": "b", "text": \n',
    b"[1, 2]\n",
    b'{"id": "c", "text": "\xff"}\n',
    b"\n",
    b'{"id": "d", "text": 5}\n',
    b'{"id": "e", "text": "fine"}\n',
    b'{"id": "f", "te',
]


def test_broken_records_fail_with_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"".join(BROKEN))
    with pytest.raises(InvalidItems) as caught:
        list(Source(path))
    assert caught.value.violations[0].field == f"{path}:2"


def test_broken_records_are_counted_and_set_aside_as_they_are(tmp_path: Path) -> None:
    path, aside = tmp_path / "a.jsonl", tmp_path / "aside"
    path.write_bytes(b"".join(BROKEN))
    source = Source(path, on_error="quarantine", quarantine=aside)
    for _ in range(2):  # a second reading sets aside anew, not twice
        assert [item.id for item in source] == ["a", "e"]
        assert source.skipped == 5
        assert [each.field for each in source.broken] == [
            f"{path}:2",
            f"{path}:3",
            f"{path}:4",
            f"{path}:6.text",
            f"{path}:8",
        ]
        assert aside.read_bytes() == b"".join([*BROKEN[1:4], BROKEN[5], BROKEN[7], b"\n"])
    assert [record.item.id for record in source.records(start=1)] == ["e"]


def test_records_that_the_method_cannot_use_are_broken_too(tmp_path: Path) -> None:
    def check(item: Item, where: str) -> Sequence[Violation]:
        return [] if item.get("score") != 1.0 else [Violation(f"{where}.fields.score", "is 1")]

    source = Source(write(tmp_path / "a.jsonl"), check=check)
    with pytest.raises(InvalidItems, match=r"a\.jsonl:3\.fields\.score: is 1"):
        list(source)


def test_broken_csv_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'id,text\n1\n2,"x"y\n3,fine\n4,\xff\n5,a,b\n')
    source = Source(path, on_error="skip")
    assert [item.id for item in source] == ["3"]
    assert [each.field.rpartition(":")[2] for each in source.broken] == ["2", "3", "5", "6"]


def test_parquet_values_that_json_lacks(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    when = datetime.datetime(2020, 1, 2, 3, 4, 5)
    pq.write_table(
        pa.table({"id": ["a"], "when": [when], "price": [decimal.Decimal("1.50")], "v": [[1.0, 2.0]], "raw": [b"x"]}),
        path,
    )
    with pytest.raises(InvalidItems, match=r"raw: is a bytes.*--fields"):
        list(Source(path))
    item = next(iter(Source(path, layout=Layout(fields=("when", "price", "v")))))
    assert (item.get("when"), item.get("price")) == ("2020-01-02T03:04:05", "1.50")
    assert np.array_equal(item.fields["v"], [1.0, 2.0])


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(data)))


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
def test_standard_input_can_be_read_again_even_after_half(monkeypatch: pytest.MonkeyPatch, pack: type[bytes]) -> None:
    stdin(monkeypatch, pack(LINES))
    source = Source("-")
    assert next(iter(source)) == ITEMS[0]
    assert list(source) == ITEMS
    assert list(source) == ITEMS
    assert source.identity() is None
    assert source.meter.total is None


def test_standard_input_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, LINES)
    source = Source("-", once=True)
    assert list(source) == ITEMS
    with pytest.raises(InvalidItems, match="only once"):
        list(source)


@pytest.mark.parametrize(
    ("given", "message"),
    [("none.jsonl", "does not exist"), ("no*.jsonl", "matches no file"), ("empty", "directory"), ("a.xyz", "--format")],
)
def test_inputs_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.xyz").touch()
    with pytest.raises(InvalidItems, match=message):
        Source(given)


def test_options_that_make_no_sense(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    with pytest.raises(InvalidParams, match="quarantine"):
        Source(tmp_path / "a.jsonl", on_error="quarantine")
    with pytest.raises(InvalidParams, match="format"):
        Source(tmp_path / "a.jsonl", format="xml")
    assert list(Source(tmp_path / "a.jsonl")) == []


def test_identity_changes_with_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl")
    before = Source(path).identity()
    assert before == Source(path).identity()
    path.write_bytes(LINES[:-1])
    assert before != Source(path).identity()
