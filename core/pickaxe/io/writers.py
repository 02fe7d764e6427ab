"""Formats of output: rows in, whole chunks of bytes out, so that a file can be cut between two chunks."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pickaxe.data import Column, DType
from pickaxe.errors import InvalidParams
from pickaxe.extras import require
from pickaxe.io.files import COMPRESSIONS
from pickaxe.io.rows import Row, column_names, free_names

OutputFormat = Literal["jsonl", "csv", "tsv", "parquet"]
_SUFFIXES: Mapping[str, OutputFormat] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
_ROW_GROUP = 64 * 1024


@dataclass(frozen=True)
class Encoding:
    """How rows of these columns are written.  Each chunk is a whole gzip member or zstd frame of its own."""

    format: OutputFormat = "jsonl"
    compression: str = ""
    columns: tuple[str, ...] = ()
    """Column names of CSV and TSV."""

    def header(self) -> bytes:
        """What comes before the first row."""
        if self.format not in ("csv", "tsv"):
            return b""
        return self.pack(self._table([dict(zip(self.columns, self.columns, strict=True))]))

    def chunk(self, rows: Sequence[Row]) -> bytes:
        if self.format in ("csv", "tsv"):
            return self.pack(self._table(rows))
        return self.pack(b"".join(json_line(row) for row in rows))

    def pack(self, data: bytes) -> bytes:
        """The data, compressed."""
        if self.compression == "gzip":
            return gzip.compress(data, 6, mtime=0)
        if self.compression == "zstd":
            compressed: bytes = require("zstandard", extra="data").compress(data)
            return compressed
        return data

    def _table(self, rows: Sequence[Row]) -> bytes:
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter="\t" if self.format == "tsv" else ",", lineterminator="\n")
        for row in rows:
            writer.writerow([_cell(row.get(name)) for name in self.columns])
        return text.getvalue().encode(errors="surrogatepass")


def _cell(value: Any) -> Any:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case list() | dict():
            return json.dumps(value, ensure_ascii=False)
    return value


def json_line(row: Mapping[str, Any]) -> bytes:
    """One row of JSON Lines.  Half surrogate pairs, which UTF-8 lacks, are escaped."""
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(row, allow_nan=False).encode() + b"\n"


def encoding(path: str | os.PathLike[str], tables: bool = True) -> Encoding:
    """The encoding that an output's suffix names; "-" is JSON Lines.

    Raises `InvalidParams` for other suffixes, and for tables where the rows are none (`tables` False).
    """
    if os.fspath(path) == "-":
        return Encoding()
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    compression = COMPRESSIONS.get(suffixes.pop(), "") if suffixes and suffixes[-1] in COMPRESSIONS else ""
    known = [suffix for suffix, name in _SUFFIXES.items() if tables or name == "jsonl"]
    found = suffixes[-1] if suffixes else ""
    if found not in known or (found == ".parquet" and compression):
        raise InvalidParams(
            "output", f"{os.fspath(path)!r} must end in {', '.join(known)}; .gz or .zst may follow all but .parquet"
        )
    return Encoding(_SUFFIXES[found], compression)


def score_columns(columns: Sequence[Column], segments: bool = False) -> dict[str, DType]:
    """The columns of a table of scores."""
    names = column_names(each.name for each in columns)
    declared: dict[str, DType] = dict(zip(names, (each.dtype for each in columns), strict=True))
    extra = free_names(declared)[: 2 if segments else 1]
    return {"id": "str", **declared, **dict.fromkeys(extra, "str")}


def to_parquet(rows: Path, target: Path, columns: Mapping[str, DType]) -> None:
    """Turn a file of JSON Lines into Parquet, in constant memory."""
    arrow = require("pyarrow", extra="data")
    parquet = require("pyarrow.parquet", extra="data")
    names = {"str": "string", "bool": "bool_"}
    schema = arrow.schema([(name, getattr(arrow, names.get(dtype, dtype))()) for name, dtype in columns.items()])
    with parquet.ParquetWriter(target, schema) as writer, rows.open("rb") as stream:
        lines = iter(stream)
        while part := [_typed(json.loads(line), columns) for line in islice(lines, _ROW_GROUP)]:
            writer.write_table(arrow.Table.from_pylist(part, schema=schema))


def _typed(row: Row, columns: Mapping[str, DType]) -> Row:
    typed: Row = {}
    for name, dtype in columns.items():
        value = row.get(name)
        if dtype.startswith("float") and isinstance(value, str):
            value = math.inf if value == "Infinity" else -math.inf
        elif isinstance(value, list):
            value = json.dumps(value)
        typed[name] = value
    return typed
