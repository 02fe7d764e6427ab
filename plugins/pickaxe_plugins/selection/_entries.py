"""Long lists of entries or concepts: where they come from, and finding all of them in a text in one pass."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pickaxe import Host
from pickaxe.errors import InvalidParams
from pickaxe.extras import require

WINDOW = 1 << 20
"""Bytes searched at once: a text of 100 MB would otherwise make one list of millions of matches."""


def read_list(name: str, host: Host, field: str) -> Any:
    """The JSON value of a `.json` file, else the file's lines; on a server `name` is one of its resources."""
    path = host.resource(name) if host.serving else Path(name)
    try:
        content = path.read_text(encoding="utf-8")
        return json.loads(content) if path.suffix == ".json" else content.splitlines()
    except (OSError, ValueError) as error:
        raise InvalidParams(field, f"{name!r} cannot be read: {error}") from error


def checked_list(values: object, field: str, fold: Callable[[str], str] = str) -> tuple[str, ...]:
    """The entries, each once (of equal ones the first stays, with a warning).

    Raises `InvalidParams` for an empty list, an entry that is no text, and an empty or blank one.
    """
    if not isinstance(values, (list, tuple)) or not all(isinstance(each, str) for each in values):
        raise InvalidParams(field, "must be a list of texts")
    if not values:
        raise InvalidParams(field, "is empty: give at least one entry")
    folded = list(map(fold, values))
    for row, entry in enumerate(folded):
        if not entry.strip():
            raise InvalidParams(f"{field}[{row}]", "is empty or blank; remove it")
    unique = tuple(dict.fromkeys(folded))
    if len(unique) < len(folded):
        warnings.warn(f"{field}: {len(folded) - len(unique)} duplicates were left out", stacklevel=2)
    return unique


def digest(entries: Iterable[str]) -> str:
    """sha256 of the entries in their order."""
    joined = json.dumps(list(entries), ensure_ascii=True)
    return hashlib.sha256(joined.encode()).hexdigest()


class Matcher:
    """An Aho-Corasick automaton: which of many byte patterns occur in a text, overlapping ones included."""

    def __init__(self, patterns: Sequence[bytes]) -> None:
        library = require("ahocorasick_rs", extra="patterns")
        self._longest = max(map(len, patterns))
        self._automaton = library.BytesAhoCorasick(patterns, implementation=library.Implementation.ContiguousNFA)

    def found(self, text: bytes) -> list[int]:
        """Positions in the list of those patterns that occur in the text, ascending, each once."""
        find = self._automaton.find_matches_as_indexes
        if len(text) <= WINDOW:
            return sorted({match[0] for match in find(text, overlapping=True)})
        ids: set[int] = set()
        for start in range(0, len(text), WINDOW):
            window = text[start : start + WINDOW + self._longest - 1]
            ids.update(match[0] for match in find(window, overlapping=True))
        return sorted(ids)
