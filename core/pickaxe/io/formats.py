"""Formats: how a file falls into records.

Each format yields `(line, original, payload)`: the 1-based line (or row), the bytes as they stand in the file, and
what `parse` turns into a record later, so that records which nobody needs are never parsed.
"""

from __future__ import annotations

import csv
import datetime
import decimal
import json
import re
import sys
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from pickaxe.extras import require
from pickaxe.io.files import Damaged, Meter

Triple = tuple[int, bytes, Any]
_BOM = b"\xef\xbb\xbf"


class Broken(ValueError):
    """A record that cannot be parsed; the message says why."""


class Format(Protocol):
    header: bytes
    """Bytes in front of the first record that belong to all of them (CSV column names)."""

    def records(self, stream: BinaryIO) -> Iterator[Triple]: ...

    def parse(self, payload: Any) -> Mapping[str, Any]: ...


def _lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(stream, 1):
        yield number, line.removeprefix(_BOM) if number == 1 else line


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Broken(f"is not UTF-8: byte {data[error.start]:#04x} at position {error.start}") from None


class JsonLines:
    """One JSON object a line; blank lines are nothing."""

    header = b""

    def records(self, stream: BinaryIO) -> Iterator[Triple]:
        for number, line in _lines(stream):
            if not line.isspace():
                yield number, line, line

    def parse(self, payload: bytes) -> Mapping[str, Any]:
        try:
            record = json.loads(_decoded(payload))
        except Broken:
            raise
        except (ValueError, RecursionError) as error:
            raise Broken(f"is not JSON: {error}") from None
        if not isinstance(record, dict):
            raise Broken(f"is not a JSON object but {payload[:40].decode(errors='replace').strip()}")
        return record


class TextLines:
    """One text a line; blank lines are nothing."""

    header = b""

    def records(self, stream: BinaryIO) -> Iterator[Triple]:
        for number, line in _lines(stream):
            if not line.isspace():
                yield number, line, line

    def parse(self, payload: bytes) -> Mapping[str, Any]:
        return {"text": _decoded(payload).rstrip("\r\n")}


class WholeFile:
    """One text a file; its id is the file's name."""

    header = b""

    def __init__(self, label: str) -> None:
        self._label = label

    def records(self, stream: BinaryIO) -> Iterator[Triple]:
        data = stream.read().removeprefix(_BOM)
        yield 1, data, data

    def parse(self, payload: bytes) -> Mapping[str, Any]:
        return {"id": self._label, "text": _decoded(payload)}


_NUMBERS = {
    mark: re.compile(rf"-?((0|[1-9]\d*)({re.escape(mark)}\d+)?|{re.escape(mark)}\d+)([eE][+-]?\d+)?") for mark in ".,"
}
"""Decimal mark → what a number looks like with it."""
_LONGEST = 400
"""Characters of a number; Python refuses to read whole numbers of thousands."""


class Delimited:
    """CSV or TSV with a line of column names.

    Cells spelled like JSON numbers or `.5`, with a comma for the point if `decimal` says so, are numbers, `true` and
    `false` truth values, empty cells are absent.  A CSV is parted at semicolons where its first line holds some, and no
    commas unless these are decimal marks.
    """

    def __init__(self, delimiter: str, as_text: frozenset[str], decimal: str = ".") -> None:
        self.header = b""
        self._delimiter = delimiter
        self._as_text = as_text
        self._decimal = decimal
        self._names: list[str] = []

    def records(self, stream: BinaryIO) -> Iterator[Triple]:
        csv.field_size_limit(sys.maxsize)  # the module's default of 128 KiB is less than many a document
        taken: list[bytes] = []

        def lines() -> Iterator[str]:
            for _, line in _lines(stream):
                taken.append(line)
                yield line.decode(errors="surrogateescape")

        rest = lines()
        first = next(rest, "")
        if self._delimiter == "," and ";" in first and ("," not in first or self._decimal == ","):
            self._delimiter = ";"
        rows = csv.reader(chain([first] if first else [], rest), delimiter=self._delimiter, strict=True)
        while True:
            begin = rows.line_num + 1
            payload: Any
            try:
                payload = next(rows, None)
            except csv.Error as error:
                payload = Broken(f"is not {'TSV' if self._delimiter == chr(9) else 'CSV'}: {error}")
            original = b"".join(taken)
            taken.clear()
            if payload is None:
                return
            if begin == 1 and isinstance(payload, list):
                self.header, self._names = original, payload
            elif payload:
                yield begin, original, payload

    def parse(self, payload: list[str] | Broken) -> Mapping[str, Any]:
        if isinstance(payload, Broken):
            raise payload
        if len(payload) != len(self._names):
            raise Broken(f"has {len(payload)} cells, the first line names {len(self._names)} columns")
        return {name: self._cell(name, cell) for name, cell in zip(self._names, payload, strict=True)}

    def _cell(self, name: str, cell: str) -> Any:
        if any("\udc80" <= character <= "\udcff" for character in cell):
            raise Broken(f"is not UTF-8 in column {name!r}")
        if name in self._as_text:
            return cell
        if not cell:
            return None
        if cell in ("true", "false"):
            return cell == "true"
        if len(cell) <= _LONGEST and _NUMBERS[self._decimal].fullmatch(cell):
            return int(cell) if cell.lstrip("-").isdigit() else float(cell.replace(self._decimal, "."))
        return cell


class Parquet:
    """Rows of a Parquet file, a batch in memory at a time."""

    header = b""
    _BATCH = 1024

    def __init__(self, path: Path, meter: Meter) -> None:
        self._path, self._meter = path, meter

    def records(self, stream: BinaryIO) -> Iterator[Triple]:
        parquet = require("pyarrow.parquet", extra="data")
        arrow = require("pyarrow", extra="data")
        before, size = self._meter.read, self._path.stat().st_size
        row = 0
        try:
            with parquet.ParquetFile(self._path) as file:
                total = max(1, file.metadata.num_rows)
                for batch in file.iter_batches(self._BATCH):
                    for record in batch.to_pylist():
                        row += 1
                        yield row, b"", record
                    self._meter.read = before + size * row // total
        except (arrow.ArrowException, OSError) as error:
            raise Damaged(f"not a whole Parquet file ({error})") from error

    def parse(self, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        return {name: plain_value(value) for name, value in payload.items()}


def plain_value(value: Any) -> Any:
    """The value of a table's cell as JSON has it: times and decimals as text, NumPy values as Python's."""
    match value:
        case np.generic() | np.ndarray():
            return plain_value(value.tolist())
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()
        case decimal.Decimal():
            return str(value)
        case dict():
            return {key: plain_value(part) for key, part in value.items()}
        case list():
            return [plain_value(part) for part in value]
    return value
