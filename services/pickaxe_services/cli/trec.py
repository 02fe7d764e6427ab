"""TREC runs: `query Q0 document rank score tag`, one line per ranked document."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pickaxe import metrics
from pickaxe.errors import InvalidItems
from pickaxe.io.files import COMPRESSIONS
from pickaxe.io.writers import Encoding


def trec_encoding(out: str) -> Encoding:
    """Lines as they are, compressed when the suffix says so."""
    return Encoding(compression=COMPRESSIONS.get(Path(out).suffix, ""))


def trec_lines(query: str, ranked: Sequence[tuple[str, float]], tag: str) -> bytes:
    """The lines of one query, best first.  Ids must be without blanks, which the format cannot hold."""
    for name in (query, *(document for document, _ in ranked)):
        if not name or name.split() != [name]:
            raise InvalidItems(f"id {name!r}", "has blanks or is empty, which a TREC run cannot hold; ask for no run")
    lines = [f"{query} Q0 {document} {rank} {score!r} {tag}\n" for rank, (document, score) in enumerate(ranked, 1)]
    return "".join(lines).encode()


def read_qrels(path: str) -> metrics.Qrels:
    """Judgments of a file; raises `InvalidItems` when it cannot be read or holds none."""
    found = metrics.read_qrels(path)
    if not found:
        raise InvalidItems(path, "holds no judgments")
    return found
