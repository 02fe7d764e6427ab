"""Sources of items: files of any supported format, read in constant memory, as often as wanted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pickaxe.data import Item
from pickaxe.errors import InvalidItems, InvalidParams, Violation
from pickaxe.io.files import Damaged, InputFile, Meter, Spool, expand, opened
from pickaxe.io.formats import Broken, Delimited, Format, JsonLines, Parquet, TextLines, WholeFile
from pickaxe.io.items import item_from_json

OnError: TypeAlias = Literal["fail", "skip", "quarantine"]
Check: TypeAlias = Callable[[Item, str], Iterable[Violation]]
"""(item, where) → what is wrong with it, e.g. fields that a method needs."""
Inputs: TypeAlias = "str | os.PathLike[str] | Iterable[str | os.PathLike[str]]"

FORMAT_NAMES = ("auto", "jsonl", "csv", "tsv", "parquet", "text", "files")
_REMEMBERED = 20


@dataclass(frozen=True)
class Layout:
    """Which columns of a record are what."""

    text: str = "text"
    """The column that holds the text."""
    id: str = "id"
    """The column that holds the id; records without one get `file name:line`."""
    fields: tuple[str, ...] | None = None
    """Columns that become fields; None: all others."""
    rename: Mapping[str, str] = field(default_factory=dict)
    """Their name → the name that the method reads."""

    def item(self, record: Mapping[str, Any], where: str, default_id: str) -> Item:
        """The item; raises `InvalidItems` when a named column is missing or a value cannot be used."""
        if self == _PLAIN:
            return item_from_json(record, where, default_id)
        columns = {self.rename.get(name, name): value for name, value in record.items()}
        chosen = {"id": self._named(columns, "id", where), "text": self._named(columns, "text", where)}
        rest = {name: value for name, value in columns.items() if name not in ("id", "text", self.id, self.text)}
        if self.fields is not None:
            if missing := [name for name in self.fields if name not in rest]:
                raise InvalidItems(where, f"has no column {missing[0]!r}; there are {', '.join(columns)}")
            rest = {name: rest[name] for name in self.fields}
        return item_from_json(chosen | rest, where, default_id)

    def _named(self, columns: Mapping[str, Any], role: Literal["id", "text"], where: str) -> Any:
        name: str = getattr(self, role)
        if name != role and name not in columns:
            raise InvalidItems(where, f"has no column {name!r} for the {role}; there are {', '.join(columns)}")
        return columns.get(name)


_PLAIN = Layout()


@dataclass(frozen=True, slots=True)
class Record:
    """An item and where it came from."""

    item: Item
    where: str
    """`path:line`."""
    original: bytes
    """The bytes as they stand in the file, line end and all; of a Parquet row its JSON object in a line."""


class Source(Iterable[Item]):
    """Items of files; iterate as often as needed.

    `on_error` decides about records that cannot be parsed, mapped or that `check` refuses: `fail` raises
    `InvalidItems` naming file and line, `skip` counts them in `skipped`, `quarantine` also keeps the raw lines in
    the file `quarantine`.  Damaged compression and cut files always raise.  Standard input is kept in a temporary
    file for a second reading unless `once`.
    """

    def __init__(
        self,
        inputs: Inputs,
        *,
        format: str = "auto",
        layout: Layout = _PLAIN,
        on_error: OnError = "fail",
        quarantine: Path | None = None,
        check: Check | None = None,
        once: bool = False,
    ) -> None:
        if on_error == "quarantine" and quarantine is None:
            raise InvalidParams("quarantine", "is missing: name the file that keeps the broken lines")
        if format not in FORMAT_NAMES:
            raise InvalidParams("format", f"must be one of {', '.join(FORMAT_NAMES)} (got {format!r})")
        given = [inputs] if isinstance(inputs, (str, os.PathLike)) else list(inputs)
        self.files: Sequence[InputFile] = expand(given, every_suffix=format != "auto")
        self.meter = Meter(total=_total(self.files))
        self.skipped = 0
        """Broken records of the latest reading."""
        self.broken: list[Violation] = []
        """The first of them."""
        self.headers: list[bytes] = []
        """The different lines of column names met in CSV and TSV."""
        self._formats = [file.format(format) for file in self.files]
        self._layout, self._on_error, self._quarantine, self._check = layout, on_error, quarantine, check
        self._spool = Spool(keep=not once)

    def __iter__(self) -> Iterator[Item]:
        return (record.item for record in self.records())

    @property
    def formats(self) -> frozenset[str]:
        return frozenset(self._formats)

    def identity(self) -> list[list[Any]] | None:
        """[path, size, time of change] of every file; None when standard input is among them."""
        listing: list[list[Any]] = []
        for file in self.files:
            if file.path is None:
                return None
            status = file.path.stat()
            listing.append([str(file.path.resolve()), status.st_size, status.st_mtime_ns])
        return listing

    def records(self, start: int = 0) -> Iterator[Record]:
        """Records from number `start` on.  Broken ones do not count."""
        self.meter.read, self.skipped = 0, 0
        self.broken.clear()
        if self._quarantine is not None:
            self._quarantine.unlink(missing_ok=True)
        left = start
        for file, name in zip(self.files, self._formats, strict=True):
            form = self._form(file, name)
            for line, original, payload in self._raw(file, form):
                if left and self._on_error == "fail":  # every record counts: no need to parse it
                    left -= 1
                    continue
                record = self._record(file, form, line, original, payload)
                if record is None:
                    continue
                if left:
                    left -= 1
                    continue
                yield record

    def _form(self, file: InputFile, name: str) -> Format:
        match name:
            case "jsonl":
                return JsonLines()
            case "text":
                return TextLines()
            case "files":
                return WholeFile(file.label)
            case "parquet":
                if file.path is None:
                    raise InvalidItems(file.shown, "cannot be Parquet, which needs a file")
                return Parquet(file.path, self.meter)
        theirs = {ours: their for their, ours in self._layout.rename.items()}
        names = {theirs.get(each, each) for each in (self._layout.text, self._layout.id)}
        return Delimited("\t" if name == "tsv" else ",", frozenset(names))

    def _raw(self, file: InputFile, form: Format) -> Iterator[tuple[int, bytes, Any]]:
        line = 0
        # Parquet counts its own progress: its reader opens the file by path.
        with opened(file, Meter() if isinstance(form, Parquet) else self.meter, self._spool) as stream:
            try:
                for line, original, payload in form.records(stream):
                    if form.header and form.header not in self.headers:
                        self.headers.append(form.header)
                    yield line, original, payload
            except Damaged as error:
                place = f"after line {line}" if line else "at its start"
                raise InvalidItems(file.shown, f"is damaged or cut short {place}: {error}; get it anew") from error

    def _record(self, file: InputFile, form: Format, line: int, original: bytes, payload: Any) -> Record | None:
        where = f"{file.shown}:{line}"
        try:
            try:
                parsed = form.parse(payload)
            except Broken as error:
                raise InvalidItems(where, str(error)) from None
            item = self._layout.item(parsed, where, f"{file.label}:{line}")
            if self._check is not None and (found := list(self._check(item, where))):
                raise InvalidItems(found)
        except InvalidItems as error:
            if self._on_error == "fail":
                raise
            self._set_aside(original or _as_line(payload), error)
            return None
        return Record(item, where, original or _as_line(parsed))

    def _set_aside(self, original: bytes, error: InvalidItems) -> None:
        self.skipped += 1
        if len(self.broken) < _REMEMBERED:
            self.broken += error.violations[:1]
        if self._on_error == "quarantine" and self._quarantine is not None:
            with self._quarantine.open("ab") as stream:
                stream.write(original if original.endswith(b"\n") else original + b"\n")


def _total(files: Sequence[InputFile]) -> int | None:
    if any(file.path is None or not file.path.is_file() for file in files):
        return None
    return sum(file.path.stat().st_size for file in files if file.path is not None)


def _as_line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False, default=str).encode(errors="surrogateescape") + b"\n"
