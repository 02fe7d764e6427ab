"""How `select` writes records: in the format they have, compressed as the output's name says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe.io.files import STDIN
from pickaxe.io.readers import Source
from pickaxe.io.writers import Encoding, encoding


@dataclass(frozen=True)
class Job:
    """What `select --pipeline` is asked for."""

    pipeline: Path
    inputs: tuple[str, ...]
    out: str
    report: Path | None
    ids_only: bool
    overwrite: bool
    restart: bool
    workers: int
    progress: str


def with_end(data: bytes) -> bytes:
    return data if data.endswith(b"\n") else data + b"\n"


def encoding_of(items: Source, out: str, ids_only: bool) -> Encoding:
    """The output's compression; records keep the format they have, Parquet rows become JSON Lines."""
    if ids_only:
        return Encoding(compression=encoding(_as_jsonl(out)).compression)
    if len(items.formats) > 1 or items.formats & {"files"}:
        raise InvalidItems("--input", f"mixes or is {', '.join(sorted(items.formats))}: give --ids-only")
    if len(items.headers) > 1:
        raise InvalidItems("--input", "has files with different columns: give --ids-only")
    form = next(iter(items.formats))
    written = "jsonl" if form == "parquet" else form
    if form == "text":
        return Encoding(compression=encoding(_as_jsonl(out)).compression)
    encode = encoding(out)
    if out != STDIN and encode.format != written:
        raise InvalidParams("--output", f"{out!r} must be {written}: the records are written as they stand")
    return Encoding(compression=encode.compression)


def _as_jsonl(out: str) -> str:
    """A stand-in name with the same compression, for outputs that are plain lines."""
    suffix = Path(out).suffix
    return out if out == STDIN else f"lines.jsonl{suffix if suffix in ('.gz', '.zst') else ''}"


def as_line(record: Mapping[str, Any]) -> bytes:
    """A record of JSON Lines whose text was edited."""
    return json.dumps(record, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
