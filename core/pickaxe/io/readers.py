"""Sources of items: files of any supported format, read in constant memory, as often as wanted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pickaxe.data import Item
from pickaxe.errors import InvalidItems, InvalidParams, Violation
from pickaxe.io.files import Damaged, InputFile, Meter, Spool, expand, opened
from pickaxe.io.formats import Broken, Delimited, Format, JsonLines, Parquet, TextLines, WholeFile
from pickaxe.io.layout import PLAIN, Layout
from pickaxe.io.tables import Gather

OnError: TypeAlias = Literal["fail", "skip", "quarantine"]
Check: TypeAlias = Callable[[Item, str], Iterable[Violation]]
"""(item, where) → what is wrong with it, e.g. fields that a method needs."""
Inputs: TypeAlias = "str | os.PathLike[str] | Iterable[str | os.PathLike[str]]"

FORMAT_NAMES = ("auto", "jsonl", "csv", "tsv", "parquet", "text", "files")
_REMEMBERED = 20


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
        layout: Layout = PLAIN,
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
        if self._layout.gather is None:
            yield from self._each(start)
        else:
            yield from islice(self._gathered(self._layout.gather), start, None)

    def _gathered(self, gather: Gather) -> Iterator[Record]:
        """Items of rows that belong together; a broken row breaks its item."""
        rows = {record.where: record for record in self._each(0)}
        pairs = ((where, record.item) for where, record in rows.items())
        for name, group in gather.groups(pairs):
            original = b"".join(_line(rows[where].original) for where, _ in group)
            first = group[0][0]
            try:
                yield Record(self._checked(gather.item(name, group), first), first, original)
            except InvalidItems as error:
                self._refuse(original, error)

    def _each(self, start: int) -> Iterator[Record]:
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
        return Delimited("\t" if name == "tsv" else ",", self._layout.texts(), self._layout.decimal)

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
            if self._layout.gather is None:
                self._checked(item, where)
        except InvalidItems as error:
            self._refuse(original or _as_line(payload), error)
            return None
        return Record(item, where, original or _as_line(parsed))

    def _checked(self, item: Item, where: str) -> Item:
        if self._check is not None and (found := list(self._check(item, where))):
            raise InvalidItems(found)
        return item

    def _refuse(self, original: bytes, error: InvalidItems) -> None:
        if self._on_error == "fail":
            raise error
        self.skipped += 1
        if len(self.broken) < _REMEMBERED:
            self.broken += error.violations[:1]
        if self._on_error == "quarantine" and self._quarantine is not None:
            with self._quarantine.open("ab") as stream:
                stream.write(_line(original))


def _total(files: Sequence[InputFile]) -> int | None:
    if any(file.path is None or not file.path.is_file() for file in files):
        return None
    return sum(file.path.stat().st_size for file in files if file.path is not None)


def _line(data: bytes) -> bytes:
    return data if data.endswith(b"\n") else data + b"\n"


def _as_line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False, default=str).encode(errors="surrogateescape") + b"\n"
