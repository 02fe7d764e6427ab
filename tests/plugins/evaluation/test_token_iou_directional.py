"""The paper's direction on 373 real questions: larger chunks, less IoU and Precision Omega, more recall."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

import pickaxe
from pickaxe import Item, Scores
from pickaxe_plugins.evaluation.token_iou import sentences

DATA = Path(__file__).parents[2] / "golden" / "files" / "22-token-iou"
SIZES = (1, 5, 10, 20)
PUBLISHED = {
    "iou": (0.173, 0.061, 0.035, 0.018),
    "recall": (0.51, 0.83, 0.88, 0.94),
    "precision_omega": (0.85, 0.303, 0.168, 0.090),
}
"""Measured on the same data and setting, with another list of stop words."""


@pytest.fixture(scope="module")
def corpora() -> dict[str, str]:
    return {path.stem: path.read_bytes().decode("utf-8") for path in sorted(DATA.glob("[a-z]*.md"))}


@pytest.fixture(scope="module")
def questions(corpora: dict[str, str]) -> list[Item]:
    with (DATA / "questions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = []
    for number, row in enumerate(rows):
        references = json.loads(row["references"])
        corpus = corpora[row["corpus_id"]]
        assert all(corpus[each["start_index"] : each["end_index"]] == each["content"] for each in references)
        spans = np.array([[each["start_index"], each["end_index"]] for each in references])
        found.append(Item(str(number), row["question"], {"references": spans, "corpus": row["corpus_id"]}))
    return found


@pytest.fixture(scope="module")
def scores(corpora: dict[str, str], questions: list[Item]) -> Scores:
    return pickaxe.scorer("token-iou").score([item for size in SIZES for item in retrieved(size, questions, corpora)])


@pytest.mark.parametrize("metric", PUBLISHED)
def test_means_by_chunk_size(scores: Scores, metric: str) -> None:
    lines = scores.summary["Overall"]
    means = [line[f"mean_{metric}"] for line in lines]
    assert [line["questions"] for line in lines] == [373] * len(SIZES)
    assert means == sorted(means, reverse=metric != "recall")
    assert means == pytest.approx(PUBLISHED[metric], rel=0.15)


def retrieved(size: int, questions: Sequence[Item], corpora: dict[str, str]) -> list[Item]:
    """The questions with the 5 nearest chunks of `size` sentences by TF-IDF over all corpora."""
    chunks = [[span.start, span.end, name] for name, text in corpora.items() for span in sentences(size)(text)]
    similar = cosines(
        [item.text or "" for item in questions], [corpora[name][start:end] for start, end, name in chunks]
    )
    everything = {"all_chunks": chunks}
    best = np.argsort(-similar, axis=1, kind="stable")[:, :5].tolist()
    return [
        Item(
            item.id,
            item.text,
            {
                **item.fields,
                "retrieved": {"retrieved": [chunks[chunk] for chunk in row]},
                "all_chunks": everything,
                "group": f"{size} sentences",
            },
        )
        for item, row in zip(questions, best, strict=True)
    ]


def cosines(queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
    """(queries, documents): cosine of (1 + ln tf) idf without English stop words."""
    from bm25s.stopwords import STOPWORDS_EN_PLUS

    stop = frozenset(STOPWORDS_EN_PLUS)
    read = [
        Counter(word for word in re.findall(r"\b\w\w+\b", text.lower()) if word not in stop)
        for text in (*queries, *documents)
    ]
    columns = {word: column for column, word in enumerate(dict.fromkeys(word for each in read for word in each))}
    words = np.array([columns[word] for each in read for word in each])
    ends = np.cumsum([0, *map(len, read)])
    first = ends[len(queries)]
    idf = 1 + np.log((1 + len(documents)) / (1 + np.bincount(words[first:], minlength=len(columns))))
    known = np.bincount(words[first:], minlength=len(columns)) > 0
    weights = (1 + np.log([count for each in read for count in each.values()])) * idf[words] * known[words]
    matrix = sparse.csr_matrix((weights, words, ends), shape=(len(read), len(columns)))
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(1)).ravel())
    rows = sparse.csr_matrix(sparse.diags(1 / np.where(lengths == 0, 1, lengths)) @ matrix)
    return np.asarray((rows[: len(queries)] @ rows[len(queries) :].T).todense())
