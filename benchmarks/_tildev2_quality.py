"""tildev2 on 373 questions over four corpora cut in chunks of 80 words, fitted on half of the questions."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import pickaxe
from pickaxe import Item

DATA = Path(__file__).parents[1] / "tests/golden/files/22-token-iou"
SEEDS = tuple(int(each) for each in os.environ.get("PICKAXE_BENCH_SEEDS", "0,1,2").split(","))
CORPORA = os.environ.get("PICKAXE_BENCH_CORPORA", "state_of_the_union,wikitexts,chatlogs,finance").split(",")
WORDS, TOP = 80, 100


def run() -> Iterator[dict[str, Any]]:
    chunks, questions = read()
    texts = {item.id: item.text or "" for item in chunks}
    found = pickaxe.retriever("bm25").index(chunks).search([question for question, _ in questions], TOP)
    candidates = [[hit.id for hit in hits] for hits in found]
    for seed in SEEDS:
        order = np.random.default_rng(seed).permutation(len(questions))
        learned, held = order[: len(order) // 2].tolist(), order[len(order) // 2 :].tolist()
        examples = [example(row, questions[row], candidates[row], texts) for row in learned]
        fitted = pickaxe.reranker("tildev2").fit(examples, seed=seed)
        assert fitted.artifact is not None
        terms = said(questions[row] for row in learned)
        expanded = [Item(item.id, item.text, {"expansion_terms": terms.get(item.id, [])}) for item in chunks]
        weighed = pickaxe.retriever("tildev2", artifact=fitted.artifact.path)
        further = pickaxe.retriever("tildev2", artifact=fitted.artifact.path, expander="provided")
        ways = {
            "bm25": [candidates[row] for row in held],
            "all weights 1": reranked(pickaxe.retriever("tildev2").index(chunks), questions, candidates, held),
            "learned": reranked(weighed.index(chunks), questions, candidates, held),
            "learned, expanded": reranked(further.index(expanded), questions, candidates, held),
        }
        for name, rankings in ways.items():
            value = mrr(rankings, [questions[row][1] for row in held])
            yield {
                "name": f"MRR@10 of {name}, seed {seed}", "ours": value, "peer": None, "ratio": None,
                "unit": "MRR@10", "n": len(held), "note": f"{len(chunks)} chunks, BM25's best {TOP}",
            }  # fmt: skip


def read() -> tuple[list[Item], list[tuple[str, set[str]]]]:
    """Chunks of 80 words, and questions with the chunks that a reference overlaps."""
    chunks, spans = [], {}
    for name in CORPORA:
        text = (DATA / f"{name}.md").read_text(encoding="utf-8")
        words = [match.span() for match in re.finditer(r"\S+", text)]
        for at in range(0, len(words), WORDS):
            part = words[at : at + WORDS]
            key = f"{name}-{at // WORDS}"
            spans[key] = (name, part[0][0], part[-1][1])
            chunks.append(Item(key, text[part[0][0] : part[-1][1]]))
    questions = []
    with (DATA / "questions.csv").open(encoding="utf-8", newline="") as stream:
        for line in csv.DictReader(stream):
            if line["corpus_id"] not in CORPORA:
                continue
            references = [(each["start_index"], each["end_index"]) for each in json.loads(line["references"])]
            right = {
                key
                for key, (name, start, end) in spans.items()
                if name == line["corpus_id"] and any(start < last and first < end for first, last in references)
            }
            questions.append((line["question"], right))
    return chunks, questions


def example(
    row: int, question: tuple[str, set[str]], candidates: Sequence[str], texts: Mapping[str, str]
) -> Item:  # fmt: skip
    text, right = question
    wrong = [texts[key] for key in candidates[:30] if key not in right]
    return Item(str(row), text, {"positives": [texts[key] for key in sorted(right)], "negatives": wrong})


def said(questions: Any) -> dict[str, list[str]]:
    """The words of the questions about each chunk."""
    found: dict[str, list[str]] = {}
    for text, right in questions:
        for key in right:
            found.setdefault(key, []).extend(re.findall(r"\w+", text))
    return found


def reranked(
    index: Any, questions: Sequence[tuple[str, set[str]]], candidates: Sequence[list[str]], rows: Sequence[int]
) -> list[list[str]]:
    reranker = pickaxe.reranker("tildev2", artifact=index.artifact.path)
    return [reranker.rerank(questions[row][0], [Item(key) for key in candidates[row]], 10).ids for row in rows]


def mrr(rankings: Sequence[Sequence[str]], right: Sequence[set[str]]) -> float:
    values = [
        next((1 / place for place, key in enumerate(ranking[:10], 1) if key in wanted), 0.0)
        for ranking, wanted in zip(rankings, right, strict=True)
    ]
    return float(np.mean(values))
