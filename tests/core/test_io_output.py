"""Writers: rows and formats; outputs that resume, refuse and clean up."""

import csv
import gzip
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import zstandard

from pickaxe import Chunk, Column, Completion, Flag, Groups, Hit, Ranked, Ranking, Scores, Segment, Span, completions
from pickaxe.errors import AlreadyExists, InvalidParams, Unmet
from pickaxe.io import resume
from pickaxe.io.resume import Output, output
from pickaxe.io.rows import completion_row, group_rows, hit_row, ranking_row, score_rows
from pickaxe.io.writers import Encoding, encoding, score_columns

SCHEMA = (
    Column("f32", "", nullable=True),
    Column("i64", "", "int64"),
    Column("ok", "", "bool"),
    Column("label", "", "str"),
)
SCORES = Scores(
    {
        "f32": np.array([0.1, np.nan, np.inf], np.float32),
        "i64": np.array([2**60, -1, 0]),
        "ok": np.array([True, False, True]),
        "label": np.array(["a,b", 'q"é', "\ud800"]),
    },
    flags=(Flag(1, "SHORT", "too short"), Flag(1, "ODD")),
    schema=SCHEMA,
    groups=Groups(("g",), {"low": np.array([-np.inf])}),
)
ROWS = score_rows(["x", "y", "z"], SCORES)
COLUMNS = score_columns(SCHEMA)


def test_score_rows() -> None:
    expected = [
        {"id": "x", "f32": float(np.float32(0.1)), "i64": 2**60, "ok": True, "label": "a,b"},
        {"id": "y", "f32": None, "i64": -1, "ok": False, "label": 'q"é', "flag": "SHORT: too short; ODD"},
        {"id": "z", "f32": "Infinity", "i64": 0, "ok": True, "label": "\ud800"},
    ]
    assert expected == ROWS
    assert group_rows(SCORES) == [{"group": "g", "low": "-Infinity"}]
    segmented = Scores({"f32": np.zeros(1)}, segments=((Segment(0, 2, 0.5),),))
    assert score_rows(["x"], segmented)[0]["segments"] == [[0, 2, 0.5]]


def test_columns_named_like_ours() -> None:
    names = ("id", "flag", "segments")
    scores = Scores({name: np.zeros(1) for name in names}, flags=(Flag(0, "F"),), segments=((Segment(0, 1, 2),),))
    columns = score_columns([Column(name, "") for name in names], segments=True)
    assert list(columns) == list(score_rows(["x"], scores)[0])
    assert list(columns) == ["id", "id_", "flag", "segments", "flag_", "segments_"]


def test_other_rows() -> None:
    assert hit_row(Hit("d", 1.5)) == {"id": "d", "score": 1.5}
    assert hit_row(Hit("d", 1.5, {"bm25": math.nan}, (Span(0, 3),))) == {
        "id": "d",
        "score": 1.5,
        "columns": {"bm25": None},
        "spans": [[0, 3]],
    }
    ranking = Ranking((Ranked(1, "b", 2.0),), np.array([np.nan, 2.0], np.float32), "budget", {"calls": 3.0})
    assert ranking_row("q", ranking) == {
        "query": "q",
        "ranking": [{"id": "b", "index": 1, "score": 2.0}],
        "scores": [None, 2.0],
        "cut": "budget",
        "usage": {"calls": 3.0},
    }
    made: Completion = completions([Chunk(0, 0, "a", (1,), (-0.5,)), Chunk(0, 0, finish_reason="stop")])[0]
    assert completion_row("p", made) == {
        "id": "p",
        "choice": 0,
        "text": "a",
        "token_ids": [1],
        "logprobs": [-0.5],
        "finish_reason": "stop",
    }


def unpacked(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(data)
    if path.suffix == ".zst":
        return zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
    return data


@pytest.mark.parametrize("name", ["o.jsonl", "o.jsonl.gz", "o.jsonl.zst"])
def test_json_lines(tmp_path: Path, name: str) -> None:
    with output(tmp_path / name, encoding(name)) as file:
        file.begin(COLUMNS)
        file.append(ROWS[:2])
        file.append(ROWS[2:])
    lines = unpacked(tmp_path / name).decode().splitlines()
    assert [json.loads(line) for line in lines] == ROWS
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["o.csv", "o.tsv.gz"])
def test_tables(tmp_path: Path, name: str) -> None:
    with output(tmp_path / name, encoding(name)) as file:
        file.begin(COLUMNS)
        file.append(ROWS[:2])
    text = unpacked(tmp_path / name).decode()
    rows = list(csv.DictReader(text.splitlines(), delimiter="\t" if "tsv" in name else ","))
    assert rows[0] == {
        "id": "x", "f32": "0.10000000149011612", "i64": str(2**60), "ok": "true", "label": "a,b", "flag": "",
    }  # fmt: skip
    assert rows[1]["f32"] == ""
    assert rows[1]["label"] == 'q"é'


def test_parquet(tmp_path: Path) -> None:
    with output(tmp_path / "o.parquet", encoding("o.parquet")) as file:
        file.begin(COLUMNS)
        file.append(ROWS[:2])
        file.append([{**ROWS[2], "label": "c"}])
    table = pq.read_table(tmp_path / "o.parquet")
    assert [str(each.type) for each in table.schema] == ["string", "float", "int64", "bool", "string", "string"]
    assert table["f32"].to_pylist() == [float(np.float32(0.1)), None, math.inf]
    assert table["flag"].to_pylist() == [None, "SHORT: too short; ODD", None]
    assert os.listdir(tmp_path) == ["o.parquet"]


@pytest.mark.parametrize(("name", "tables"), [("o", True), ("o.txt", True), ("o.parquet.gz", True), ("o.csv", False)])
def test_suffixes_that_name_no_format(name: str, tables: bool) -> None:
    with pytest.raises(InvalidParams, match="must end in"):
        encoding(name, tables)


# ---------------------------------------------------------------- resuming


def rows(start: int) -> Iterator[list[dict[str, Any]]]:
    for row in range(start, 40, 4):
        yield [{"id": str(each), "value": each} for each in range(row, row + 4)]


def write(path: Path, request: Any = "r", stop: int = 99, fail: BaseException | None = None, **options: Any) -> Output:
    wanted = None if request is None else {"what": request}
    with output(path, encoding(path), request=wanted, **options) as file:
        file.begin({"id": "str", "value": "int64"})
        for batch in rows(file.done):
            if file.done >= stop:
                raise fail or KeyboardInterrupt
            file.append(batch)
    return file


NAMES = ["o.jsonl", "o.jsonl.gz", "o.csv.zst", "o.parquet"]


@pytest.mark.parametrize("name", NAMES)
def test_a_stopped_run_goes_on_and_ends_in_the_same_bytes(tmp_path: Path, name: str) -> None:
    write(tmp_path / f"whole-{name}")
    for stop in (0, 12, 12, 28):
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / name, stop=stop)
    assert not (tmp_path / name).exists()
    assert write(tmp_path / name).resumed == 28
    assert (tmp_path / name).read_bytes() == (tmp_path / f"whole-{name}").read_bytes()
    assert sorted(os.listdir(tmp_path)) == sorted([name, f"whole-{name}"])


@pytest.mark.parametrize("name", NAMES)
def test_bytes_beyond_the_journal_are_dropped(tmp_path: Path, name: str) -> None:
    """What a kill leaves: rows, and half a row, that were written after the journal."""
    write(tmp_path / f"whole-{name}")
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / name, stop=12)
    with (tmp_path / f"{name}.partial").open("ab") as stream:
        stream.write(b'{"id": "12", "val')
    write(tmp_path / name)
    assert (tmp_path / name).read_bytes() == (tmp_path / f"whole-{name}").read_bytes()


def test_another_request_is_refused_until_told_to_restart(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    with pytest.raises(KeyboardInterrupt):
        write(path, stop=12)
    with pytest.raises(AlreadyExists, match=r"another what.*--restart"):
        write(path, request="other")
    assert write(path, request="other", restart=True).resumed == 0


def test_a_finished_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    write(path)
    before = path.read_bytes()
    with pytest.raises(AlreadyExists, match="--overwrite"):
        write(path)
    with pytest.raises(KeyboardInterrupt):
        write(path, stop=8, overwrite=True)
    assert path.read_bytes() == before
    assert write(path, overwrite=True).resumed == 8


def test_without_a_request_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "o.jsonl", request=None, stop=8)
    assert os.listdir(tmp_path) == []


def test_a_journal_without_its_file_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "o.jsonl", stop=8)
    (tmp_path / "o.jsonl.partial").unlink()
    assert write(tmp_path / "o.jsonl").resumed == 0


def test_a_partial_file_shorter_than_its_journal(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "o.jsonl", stop=8)
    (tmp_path / "o.jsonl.partial").write_bytes(b"")
    with pytest.raises(AlreadyExists, match="shorter than its journal"):
        write(tmp_path / "o.jsonl")


def test_two_writers(tmp_path: Path) -> None:
    with output(tmp_path / "o.jsonl", Encoding(), request={}), pytest.raises(AlreadyExists, match="another process"):
        write(tmp_path / "o.jsonl")


def test_a_full_disk_says_so_and_the_run_goes_on_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "o.jsonl"
    monkeypatch.setattr(resume, "SYNC_SECONDS", 0.0)

    class Full:
        """A stream on a disk with room for half a row more."""

        def __init__(self, stream: Any) -> None:
            self._stream = stream

        def write(self, data: bytes) -> None:
            self._stream.write(data[:7])
            self._stream.flush()
            raise OSError(28, "No space left on device")

        def __getattr__(self, name: str) -> Any:
            return getattr(self._stream, name)

    def fill() -> None:
        with output(path, Encoding(), request={"what": "r"}) as file:
            for batch in rows(0):
                if file.done == 8:
                    file._stream = Full(file._stream)  # type: ignore[assignment]
                file.append(batch)

    with pytest.raises(Unmet, match=r"No space left.*free some space; 8 inputs are done"):
        fill()
    assert write(path).resumed == 8
    write(tmp_path / "whole.jsonl")
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Unmet, match="cannot be written"):
        write(tmp_path / "none" / "o.jsonl")
