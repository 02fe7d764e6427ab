"""Targets and the pool of candidates of `got-d`: cut into units, turned into vectors, the pool kept on the disk."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pickaxe import Call, Item, Progress
from pickaxe.errors import InvalidItems
from pickaxe.randomness import generator
from pickaxe_plugins.selection._embeddings import Embedder, blocks, mapped


@dataclass(frozen=True)
class Pool:
    """Candidates, one row a unit."""

    items: int
    vectors: np.ndarray
    """(m, d), mapped from a file."""
    domains: list[str]
    domain_of: np.ndarray
    """(m,) index into domains, -1 without one."""

    def rows_of(self, names: Sequence[str]) -> np.ndarray:
        """Candidates of these domains, and those without a domain."""
        kept = [self.domains.index(name) for name in names]
        return np.flatnonzero(np.isin(self.domain_of, [-1, *kept]))


def pieces(item: Item, length: int | None) -> list[Item]:
    """The item in pieces of so many characters; whole where it has an embedding or is short."""
    text = item.text
    if length is None or text is None or len(text) <= length or item.get("embedding") is not None:
        return [item]
    return [replace(item, text=text[start : start + length]) for start in range(0, len(text), length)]


def concatenated_units(texts: Iterable[str], length: int) -> list[str]:
    """Units of equal length as the paper's code makes them: texts are joined without separator until they have
    `length` characters; the first of these are a unit and what is beyond is lost, as is an unfinished last one.
    """
    units, buffer = [], ""
    for text in texts:
        buffer += text
        if len(buffer) >= length:
            units.append(buffer[:length])
            buffer = ""
    return units


def read_targets(
    items: Iterable[Item] | None, embedder: Embedder, unit_chars: int | None, sample: int | None, call: Call
) -> np.ndarray:
    """(n, d) vectors of the targets; raises `InvalidItems` without any."""
    found = [
        embedder.rows([unit for item in block for unit in pieces(item, unit_chars)], "validation", call, start)
        for start, block in blocks(items or ())
    ]
    if not found:
        raise InvalidItems("validation", "is empty: give the targets as validation items")
    targets = np.concatenate(found)
    if sample is not None and sample < len(targets):
        chosen = generator(call.seed, "got-d", "targets").choice(len(targets), sample, replace=False)
        targets = targets[np.sort(chosen)]
    return targets


def read_pool(
    items: Iterable[Item], embedder: Embedder, unit_chars: int | None, path: Path, call: Call
) -> Generator[Progress, None, Pool]:
    """Write the candidates' vectors to `path` as they come, so that they need not fit into memory."""
    count, names, codes = 0, dict[str, int](), list[np.ndarray]()
    with path.open("wb") as file:
        for start, block in blocks(items):
            call.check()
            units = [unit for item in block for unit in pieces(item, unit_chars)]
            embedder.rows(units, "examples", call, start).tofile(file)
            codes.append(np.array([_code(unit, names) for unit in units], np.int32))
            count += len(block)
            yield Progress("read", count)
    domain_of = np.concatenate(codes) if codes else np.empty(0, np.int32)
    if len(domain_of) < 2:
        raise InvalidItems("examples", f"are {len(domain_of)} candidates, wanted two or more")
    assert embedder.dtype is not None  # set by the first row, as is the width
    assert embedder.width is not None
    return Pool(count, mapped(path, embedder.dtype, embedder.width), list(names), domain_of)


def _code(item: Item, names: dict[str, int]) -> int:
    name = item.get("domain")
    return names.setdefault(name, len(names)) if isinstance(name, str) and name else -1
