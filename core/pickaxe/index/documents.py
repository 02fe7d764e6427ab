"""The documents of an index on disk: written as they pass, read one by one.

documents.jsonl   one {"id", "text", …} a line      offsets.npy   (n + 1,) uint64, bytes where lines start
ids.json          n document ids
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from pickaxe.artifact import Artifact, ArtifactWriter
from pickaxe.data import Item
from pickaxe.errors import InvalidItems, InvalidParams, Violation

T = TypeVar("T")

TABLE, OFFSETS, IDS = "documents.jsonl", "offsets.npy", "ids.json"

_ENCODER = json.JSONEncoder(ensure_ascii=False)


def batched(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` values, the last one shorter."""
    iterator = iter(values)
    while batch := list(islice(iterator, size)):
        yield batch


class Documents:
    """The documents of a finished index.  A row is a document's place, from 0."""

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @cached_property
    def _offsets(self) -> np.ndarray:
        return self._artifact.read_array(OFFSETS)

    @cached_property
    def _bytes(self) -> np.ndarray:
        """The table, memory-mapped; there is no index without a document, so it is never empty."""
        return np.memmap(self._artifact.file(TABLE), np.uint8, "r")

    @cached_property
    def ids(self) -> list[str]:
        found: list[str] = self._artifact.read_json(IDS)
        return found

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.ids)}

    def row_of(self, name: str) -> int:
        """The row of the document with this id; raises `InvalidItems` when there is none."""
        if name not in self._rows:
            raise InvalidItems("id", f"{name!r} is not in this index of {len(self)} documents")
        return self._rows[name]

    def find(self, name: str) -> int:
        """The row of the document with this id, or -1."""
        return self._rows.get(name, -1)

    def line(self, row: int) -> bytes:
        """The document as it stands in the table."""
        start, end = int(self._offsets[row]), int(self._offsets[row + 1])
        return self._bytes[start:end].tobytes()

    def record(self, row: int) -> dict[str, Any]:
        """ "id", "text" and the further fields that the index keeps."""
        found: dict[str, Any] = json.loads(self.line(row).decode("utf-8", "surrogatepass"))
        return found

    def text(self, row: int) -> str:
        return str(self.record(row)["text"])

    def item(self, row: int) -> Item:
        """The document as an item."""
        record = self.record(row)
        return Item(record.pop("id"), record.pop("text"), record)

    def kept(self, remove: frozenset[str]) -> np.ndarray:
        """Rows of the documents that stay when these ids leave; raises `InvalidParams` for ids that are not here."""
        unknown = sorted(remove - self._rows.keys())
        if unknown:
            shown = ", ".join(map(repr, unknown[:5])) + (" …" if len(unknown) > 5 else "")
            raise InvalidParams("remove", f"names {len(unknown)} ids that are not in the index: {shown}")
        return np.array([row for row, name in enumerate(self.ids) if name not in remove], np.int64)


class DocumentWriter:
    """Writes documents as they come, after those of `base` that stay; in memory it holds ids and offsets alone.

    A context manager: its normal end writes what is known only then.  `fields` names what is kept beside the text,
    where a document has it.
    """

    def __init__(
        self,
        out: ArtifactWriter,
        fields: Sequence[str] = (),
        base: Documents | None = None,
        remove: frozenset[str] = frozenset(),
    ) -> None:
        """`base` are the documents of the index that this one grows from, `remove` the ids that leave it."""
        if base is None and remove:
            raise InvalidParams("remove", "names documents, but there is no index to remove them from")
        self._out, self._fields = out, fields
        self._stream = out.file(TABLE).open("wb")
        self._offsets = array("Q", [0])
        self._ids: dict[str, None] = {}
        self.kept = np.empty(0, np.int64) if base is None else base.kept(remove)
        """Rows of the base that stay; they are the first rows of this index, in their order."""
        for row in self.kept.tolist():
            assert base is not None
            self._write(base.ids[row], base.line(row))

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, document: Item) -> int:
        """Take in one document and return its row; raises `InvalidItems` when its id is here already."""
        if document.id in self._ids:
            raise InvalidItems(
                f"documents[{len(self) - len(self.kept)}].id",
                f"{document.id!r} is in the index already: remove it in the same call to replace it",
            )
        record: Mapping[str, Any] = {
            "id": document.id,
            "text": document.text or "",
            **{name: value for name in self._fields if (value := document.get(name)) is not None},
        }
        self._write(document.id, _ENCODER.encode(record).encode("utf-8", "surrogatepass") + b"\n")
        return len(self) - 1

    def _write(self, name: str, line: bytes) -> None:
        self._stream.write(line)
        self._offsets.append(self._offsets[-1] + len(line))
        self._ids[name] = None

    def __enter__(self) -> DocumentWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
        if kind is not None:
            return
        if not self._ids:
            raise InvalidItems([Violation("documents", "are none: an index needs at least one document")])
        self._out.write_array(OFFSETS, np.frombuffer(self._offsets, np.uint64))
        self._out.file(IDS).write_text(json.dumps(list(self._ids)), encoding="utf-8")
        self._out.notes["documents"] = len(self)
