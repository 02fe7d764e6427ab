"""MetaTool: 199 tools and 1,990 questions that one tool answers, as vectors by latent semantic analysis."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

import pickaxe
from pickaxe import Item
from pickaxe.metrics import mean, mrr

FILES = Path(__file__).parents[1] / "tests" / "golden" / "files" / "26-tool-retrieval"
WIDTH = 64


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FILES / name).read_text(encoding="utf-8").splitlines()]


def items() -> tuple[list[Item], list[Item]]:
    """Tools and questions with `embedding`, unit vectors; questions with `relevant`."""
    tools, questions = lines("metatool_tools.jsonl"), lines("metatool_single_queries.jsonl")
    vectors = weighted([each["text"] for each in tools] + [each["query"] for each in questions])
    axes = np.linalg.svd(vectors[: len(tools)], full_matrices=False)[2][:WIDTH].T
    vectors = vectors @ axes
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    made = iter(vectors.astype(np.float32))
    return (
        [Item(each["id"], each["text"], {"embedding": next(made)}) for each in tools],
        [
            Item(each["id"], each["query"], {"embedding": next(made), "relevant": each["relevant"]})
            for each in questions
        ],
    )


def weighted(texts: list[str]) -> np.ndarray:
    """(n, words) of (1 + log count) * (1 + log((1 + n) / (1 + documents with the word))), rows of length 1."""
    counts = [Counter(re.findall(r"\w\w+", text.lower())) for text in texts]
    words = {word: place for place, word in enumerate(sorted(set().union(*counts)))}
    matrix = np.zeros((len(texts), len(words)))
    for row, count in enumerate(counts):
        for word, times in count.items():
            matrix[row, words[word]] = 1 + np.log(times)
    matrix *= 1 + np.log((1 + len(texts)) / (1 + (matrix > 0).sum(0)))
    return matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-9)


def halves(questions: list[Item], seed: int) -> tuple[list[Item], list[Item]]:
    """To learn from, and to test with."""
    order = pickaxe.generator(seed, "halves").permutation(len(questions))
    half = len(questions) // 2
    return [questions[row] for row in order[:half]], [questions[row] for row in order[half:]]


def mrr10(handle: Any, tools: list[Item], asked: list[Item]) -> float:
    found = handle.index(tools).search(asked, 10)
    run = {query.id: [hit.id for hit in hits] for query, hits in zip(asked, found, strict=True)}
    return mean(mrr(run, {query.id: dict.fromkeys(query.fields["relevant"], 1) for query in asked}))
