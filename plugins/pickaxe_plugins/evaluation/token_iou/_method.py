"""How well do retrieved chunks cover what answers a question?  Span metrics of arXiv 2502.15854."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

import pickaxe
from pickaxe import Call, Column, Example, Flag, InputField, Item, Items, Method, MethodRef, Scores
from pickaxe.errors import InvalidItems
from pickaxe.handle import RetrieverHandle
from pickaxe.hooks import hookimpl
from pickaxe_plugins.evaluation._span_search import Chunker, corpora_of, searched, sentences, word_starts
from pickaxe_plugins.evaluation.token_iou import _report
from pickaxe_plugins.evaluation.token_iou._metrics import Empty, Mode, Take, measure
from pickaxe_plugins.evaluation.token_iou._read import Read, Reader, Units

__all__ = ["Params", "TokenIou", "evaluate", "sentences"]

DEEPEST = 20
"""Most chunks that are searched for where k is "needed"."""


class Params(pickaxe.Params):
    """Parameters of `token-iou`."""

    unit: Literal["char", "word", "token"] = Field(
        "char", description="What lengths count; spans are always given in characters."
    )
    mode: Mode = Field(
        "strict",
        description="strict: chunk and reference meet where they share something, overlapping references are merged; "
        "official: the published code, where touching at a border is meeting.",
    )
    k: int | Literal["needed"] = Field(
        5, description="First chunks of each list that count; needed: as many as chunks of the corpus meet a reference."
    )
    empty_policy: Empty = Field(
        "zero",
        description="Precision, IoU and F1 of a question for which nothing was retrieved: zero, nan (left out of "
        "means) or error.",
    )
    tokenizer: str = Field("draft", min_length=1, description="Language model whose tokens unit=token counts.")
    retriever: MethodRef | None = Field(
        None, description="A retriever to search with for questions that come without `retrieved`."
    )
    sentences: int = Field(
        5, ge=0, description="Sentences in a chunk for `retriever`; 0: it cuts corpora itself and tells spans."
    )

    @field_validator("k")
    @classmethod
    def _at_least_one(cls, k: Take) -> Take:
        if isinstance(k, int) and k < 1:
            raise ValueError(f"must be at least 1, or needed (got {k})")
        return k


class TokenIou(Method[Params]):
    """How well do retrieved chunks cover what answers a question, and how much else do they hold?

    Questions come with the spans that answer them.  IoU, recall and precision judge what was retrieved; Precision
    Omega judges the cutting alone.
    """

    title = (
        "Enhancing Domain-Specific Retrieval-Augmented Generation: "
        "Synthetic Data Generation and Evaluation using Reasoning Models"
    )
    paper = "arXiv:2502.15854"
    version = 1
    Params = Params
    scope = "group"
    reads = (
        InputField("text", "text", "The question; a retriever needs it.", False),
        InputField("references", "tensor", "Spans that answer it, (n, 2) whole numbers [start, end), characters."),
        InputField("corpus", "text", "Name of the corpus that the references are of."),
        InputField("retrieved", "struct", '{"retrieved": [[start, end, corpus], ...]}, best first.', False),
        InputField(
            "all_chunks",
            "struct",
            'Every chunk of the corpora: {"all_chunks": [[start, end, corpus], ...]}; once per group is enough.',
            False,
        ),
        InputField("corpus_text", "text", "The corpus; once per corpus is enough.", False),
        InputField("corpus_length", "int64", "Its length in characters, to check spans without the text.", False),
        InputField("group", "text", "What is compared: a chunking, a retriever.", False),
    )
    columns = (
        Column("iou", "Shared length over that of all retrieved chunks and what they miss.", "float64", nullable=True),
        Column("recall", "Share of the references that was retrieved.", "float64"),
        Column("precision", "Share of the retrieved length that is of a reference.", "float64", nullable=True),
        Column(
            "precision_omega",
            "Precision of retrieving every chunk that meets a reference; none without all_chunks.",
            "float64",
            nullable=True,
        ),
        Column("f1", "Harmonic mean of precision and recall.", "float64", nullable=True),
        Column("n_hit_chunks", "Counted chunks that meet a reference.", "int64"),
        Column(
            "chunks_needed",
            "Chunks of the corpus that meet a reference; none without all_chunks.",
            "float64",
            "chunks",
            "lower",
            True,
        ),
    )
    cost = "Sorting the spans; 10,000 questions of 5 chunks and Omega over 200,000 chunks in about a second."
    reproduced = (
        "The published code's figures in official mode; on its four corpora and 373 questions, 5, 10 and 20 sentences "
        "a chunk with TF-IDF: IoU 0.061, 0.035, 0.019, recall 0.83, 0.89, 0.95, Precision Omega 0.303, 0.168, 0.090."
    )

    @classmethod
    def example(cls) -> Example:
        """A corpus of 400 characters in chunks of 100 and of 200; the second hundred answers every question."""
        found = (
            (100, [[100, 200]]),
            (100, [[100, 200], [0, 100]]),
            (200, [[0, 200], [200, 400]]),
            (200, [[200, 400]]),
        )
        items = tuple(
            Item(
                f"question {row}",
                "When does the ferry leave?",
                {
                    "references": np.array([[100, 200]]),
                    "corpus": "guide",
                    "retrieved": {"retrieved": [[start, end, "guide"] for start, end in spans]},
                    "all_chunks": {
                        "all_chunks": [[start, start + size, "guide"] for start in range(0, 400, size)],
                    },
                    "group": f"chunks of {size}",
                },
            )
            for row, (size, spans) in enumerate(found)
        )
        return Example({}, items, True)

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        if not len(items):
            return Scores({each.name: np.zeros(0, each.dtype) for each in self.columns})
        read = Reader(self._searched(items, call), self._units(), self.params.k == "needed").read()
        call.check()
        columns = dict(measure(read.questions, self.params.mode, self.params.k))
        empty = np.isnan(columns["iou"])
        if empty.any() and self.params.empty_policy == "error":
            row = int(np.flatnonzero(empty)[0])
            raise InvalidItems(
                f"items[{row}].fields.retrieved",
                f"is empty, so precision and IoU have no value; empty_policy says what then (item {items[row].id!r})",
            )
        if self.params.empty_policy == "zero":
            columns |= {name: np.where(empty, 0.0, columns[name]) for name in ("iou", "precision", "f1")}
        groups = _report.by_corpus(columns, read.group, read.corpus)
        summary = _report.summary(columns, read.group, groups, self.params.unit)
        return Scores(columns, groups, summary, tuple(_flags(read, columns, empty)))

    def _searched(self, items: Items, call: Call) -> Items:
        """The items, those of a retriever with what it found."""
        if self.params.retriever is None or not any(item.get("retrieved") is None for item in items):
            return items
        if given := [row for row, item in enumerate(items) if item.get("retrieved") is not None]:
            raise InvalidItems(
                f"items[{given[0]}].fields.retrieved",
                "is given for some questions and missing for others: give it for all, or for none with retriever",
            )
        chunker = sentences(self.params.sentences) if self.params.sentences else None
        depth = self.params.k if isinstance(self.params.k, int) else DEEPEST
        return searched(items, corpora_of(items), self.host.retriever(self.params.retriever), chunker, depth, call)

    def _units(self) -> Units | None:
        if self.params.unit == "char":
            return None
        if self.params.unit == "word":
            return word_starts
        tokenizer = self.host.lm(self.params.tokenizer).tokenizer
        return lambda text: np.array([start for start, _ in tokenizer.offsets(text)], np.int64)


def _flags(read: Read, columns: Mapping[str, np.ndarray], empty: np.ndarray) -> Iterable[Flag]:
    cut = {group for group, chunking in zip(read.group, read.questions.chunking, strict=True) if chunking >= 0}
    for row in range(read.questions.n):
        if empty[row]:
            yield Flag(row, "nothing-retrieved", "no chunk counts for this question")
        if columns["chunks_needed"][row] == 0:
            yield Flag(row, "no-chunk", "no chunk of the corpus meets a reference: are they places in the same text?")
        elif read.group[row] in cut and read.questions.chunking[row] < 0:
            yield Flag(row, "no-chunking", f"all_chunks of the group holds no chunk of corpus {read.corpus[row]!r}")


def evaluate(
    chunker: Chunker,
    retriever: str | MethodRef | RetrieverHandle,
    questions: Iterable[Item],
    corpora: Mapping[str, str],
    k: Take = 5,
    *,
    call: Call | None = None,
    **params: Any,
) -> Scores:
    """Cut the corpora (name → text), index the chunks, search every question, and score what was found.

    `chunker` gives the places of chunks in a text, e.g. `sentences(5)`; questions need text, references and corpus.
    `params` are those of `token-iou`.
    """
    handle = retriever
    if not isinstance(handle, RetrieverHandle):
        named = MethodRef.model_validate(handle)
        handle = pickaxe.retriever(named.name, artifact=named.artifact or None, **named.params)
    depth = k if isinstance(k, int) else DEEPEST
    found = searched(Items(questions), corpora, handle, chunker, depth, call or Call())
    return pickaxe.scorer("token-iou", k=k, **params).score(found)
