"""The demo's real input: encyclopaedic passages with judged questions, mixed with biomedical abstracts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pickaxe import Item, generator

DATA = Path(__file__).parent / "data"
TARGETS = 20
QUESTIONS = 100


@dataclass(frozen=True)
class Corpus:
    """`documents` are mixed; `encyclopaedic` holds the ids a user wants; `qrels` judge the questions."""

    targets: list[Item]
    documents: list[Item]
    encyclopaedic: frozenset[str]
    questions: list[Item]
    answers: dict[str, list[str]]
    qrels: dict[str, dict[str, int]]


def load(seed: int = 0) -> Corpus:
    """Twenty passages become targets; a hundred questions on the other passages are drawn by seed."""
    passages = [Item(row["id"], row["text"]) for row in _rows("xquad_passages.jsonl")]
    abstracts = [Item(f"pubmed-{row['id']}", row["text"]) for row in _rows("pubmedqa_abstracts.jsonl")]
    chosen = set(generator(seed, "targets").permutation(len(passages))[:TARGETS].tolist())
    targets = [item for row, item in enumerate(passages) if row in chosen]
    wanted = [item for row, item in enumerate(passages) if row not in chosen]
    known = {item.id for item in wanted}
    asked = [row for row in _rows("xquad_questions.jsonl") if set(row["relevant"]) <= known]
    drawn = sorted(generator(seed, "questions").permutation(len(asked))[:QUESTIONS].tolist())
    rows = [asked[index] for index in drawn]
    mixed = wanted + abstracts
    order = generator(seed, "mix").permutation(len(mixed))
    return Corpus(
        targets=targets,
        documents=[mixed[index] for index in order],
        encyclopaedic=frozenset(known),
        questions=[Item(row["id"], row["query"]) for row in rows],
        answers={row["id"]: row["answers"] for row in rows},
        qrels={row["id"]: dict.fromkeys(row["relevant"], 1) for row in rows},
    )


def _rows(name: str) -> Iterator[dict[str, Any]]:
    with (DATA / name).open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)
