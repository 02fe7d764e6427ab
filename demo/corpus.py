"""The demo's real input: descriptions of tools with judged requests, mixed with passages nobody asks for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pickaxe import Item, generator

DATA = Path(__file__).parent / "data"
TARGETS = 30
REQUESTS = 100


@dataclass(frozen=True)
class Corpus:
    """`documents` are mixed; `tools` holds the ids a user wants; `qrels` judge the requests."""

    targets: list[Item]
    documents: list[Item]
    tools: frozenset[str]
    requests: list[Item]
    qrels: dict[str, dict[str, int]]


def load(seed: int = 0) -> Corpus:
    """Thirty descriptions become targets; a hundred requests for the other tools are drawn by seed."""
    tools = [Item(row["id"], row["text"]) for row in _rows("tools.jsonl")]
    passages = [Item(row["id"], row["text"]) for row in _rows("xquad_passages.jsonl")]
    order = generator(seed, "targets").permutation(len(tools))
    targets = [tools[row] for row in sorted(order[:TARGETS])]
    wanted = [tools[row] for row in sorted(order[TARGETS:])]
    known = frozenset(item.id for item in wanted)
    asked = [row for row in _rows("requests.jsonl") if known.issuperset(row["relevant"])]
    drawn = [asked[row] for row in sorted(generator(seed, "requests").permutation(len(asked))[:REQUESTS])]
    mixed = wanted + passages
    return Corpus(
        targets=targets,
        documents=[mixed[row] for row in generator(seed, "mix").permutation(len(mixed))],
        tools=known,
        requests=[Item(row["id"], row["query"].strip()) for row in drawn],
        qrels={row["id"]: dict.fromkeys(row["relevant"], 1) for row in drawn},
    )


def _rows(name: str) -> Iterator[dict[str, Any]]:
    with (DATA / name).open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)
