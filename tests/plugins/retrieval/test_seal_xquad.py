"""`seal` on XQuAD-en with the words of the questions alone, as a phrase-aware BM25."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import pickaxe
from pickaxe import Item

FILES = Path(__file__).parents[2] / "golden" / "files" / "71-xquad-en"
WORDS: dict[str, Any] = {
    "model": "draft", "use_titles": False, "generate": False, "unigrams": 0, "query_logprob": -1.0,
}  # fmt: skip
QUESTIONS = slice(0, None, 12)
"""Of all articles: documents with equal scores come in their order."""


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FILES / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """Scoring → results of the questions."""
    documents = [Item(each["id"], each["text"]) for each in lines("docs.jsonl")]
    index = pickaxe.retriever("seal", **WORDS).index(documents)
    asked = [Item(each["id"], each["query"]) for each in lines("queries.jsonl")[QUESTIONS]]
    return {
        scoring: pickaxe.retriever("seal", **WORDS, scoring=scoring, artifact=index.artifact.path).search(asked, 10)
        for scoring in ("intersective", "lm_fm", "lm")
    }


def hits_at_10(results: Any) -> float:
    gold = [each["relevant"] for each in lines("queries.jsonl")[QUESTIONS]]
    held = [any(hit.id in right for hit in hits) for right, hits in zip(gold, results, strict=True)]
    return sum(held) / len(held)


def test_words_alone_find_passages_by_what_is_rare(found: dict[str, Any]) -> None:
    """Without a model all keys are equally likely, so the best key is as good as all; counts are what matters."""
    shares = {scoring: hits_at_10(results) for scoring, results in found.items()}
    assert shares["intersective"] >= shares["lm_fm"] - 0.03
    assert shares["lm_fm"] > 2 * shares["lm"]
    assert shares["intersective"] >= 5 * 10 / 240
    assert shares["intersective"] > 0.9


def test_spans_are_words_of_the_question(found: dict[str, Any]) -> None:
    texts = {each["id"]: each["text"] for each in lines("docs.jsonl")}
    for query, hits in zip(lines("queries.jsonl")[QUESTIONS], found["intersective"], strict=True):
        asked = query["query"].lower()
        said = [texts[hit.id][span.start : span.end].lower() for hit in hits for span in hit.spans]
        assert said
        assert all(word in asked for piece in said for word in piece.split())
