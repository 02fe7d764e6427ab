"""rag-relative on FaQuAD: retrieval, answers and degradation side by side, for chunk sizes and chunks in the prompt.

Questions are answered without a model, so that everything runs offline: the reader gives back the sentence of the
chunks that shares the rarest words with the question, and is right when the answer stands in it.  More chunks hold
the answer more often and more sentences that look like it, which is the choice that the study is about.
"""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import pickaxe
from benchmarks.bench_chronicles import lines, row
from pickaxe import Hit, Item, Span
from pickaxe_plugins.retrieval._windows import chunks, words
from pickaxe_plugins.retrieval.rag_relative import rank_of_gold

CUTS = ((1000, 1000), (80, 80), (80, 40), (40, 40), (40, 20))
"""Words in a chunk, and from one to the next."""
KS = (1, 3, 5, 9)
SENTENCE = re.compile(r"[^.!?]+[.!?]*")


def run() -> Iterator[dict[str, Any]]:
    for line in report(900):
        recall = line[f"recall@{line['k']:.0f}"]
        note = (
            f"{line['relative_low']:.3f} to {line['relative_high']:.3f}; degradation {line['degradation']:.3f}, "
            f"right {line['mean_score']:.3f}, MRR@10 {line['mrr@10']:.3f}, recall@k {recall:.3f}, "
            f"answers in no chunk: {line['excluded']}"
        )
        yield row(line["system"], line["relative"], None, "of the gold chunk's", line["questions"], note)
    yield speed()


def report(questions: int) -> list[dict[str, Any]]:
    """A line for each chunk size and k, as `rag-relative` gives it; the references are left out."""
    corpus = Corpus.of(questions)
    items = [item for size, stride in CUTS for item in corpus.answered(size, stride)]
    scores = pickaxe.scorer("rag-relative", ks=KS).score(items)
    systems: list[dict[str, Any]] = scores.summary["systems"]
    return [line for line in systems if not line["system"].startswith("gold")]


@dataclass(frozen=True)
class Corpus:
    """Passages, and questions with the places of their answers."""

    texts: dict[str, str]
    questions: list[Item]
    rarity: dict[str, float]

    @classmethod
    def of(cls, count: int) -> Corpus:
        texts = {each["id"]: each["text"] for each in lines("docs.jsonl")}
        asked = []
        for each in lines("queries.jsonl")[:count]:
            document = each["relevant"][0]
            answer = next(answer for answer in each["answers"] if answer in texts[document])
            start = texts[document].index(answer)
            fields = {"document": document, "start": start, "end": start + len(answer), "answer": answer}
            asked.append(Item(each["id"], each["query"], fields))
        sentences = [frozenset(words(match)) for text in texts.values() for match in SENTENCE.findall(text)]
        holding = Counter(word for sentence in sentences for word in sentence)
        rarity = {word: math.log(len(sentences) / times) for word, times in holding.items()}
        return cls(texts, asked, rarity)

    def answered(self, size: int, stride: int) -> Iterator[Item]:
        """Items of `rag-relative`: BM25's first chunks for each k, and the chunk that holds the answer."""
        documents = [Item(name, text) for name, text in self.texts.items()]
        index = pickaxe.retriever("chronicles", chunk_size=size, stride=stride).index(documents)
        cut = f"{size} words, stride {stride}"
        for question, hits in zip(self.questions, index.search(self.questions, max(10, *KS)), strict=True):
            where = Span(int(question.fields["start"]), int(question.fields["end"]))  # type: ignore[arg-type]  # whole numbers, from `of`
            document = str(question.fields["document"])
            gold = self.gold(document, where, size, stride)
            if gold is not None:
                yield self.item(question, f"gold, {cut}", cut, [gold], {"rank_of_gold": 1})
            rank = {} if gold is None else {"rank_of_gold": rank_of_gold(hits, document, where)}
            for k in KS:
                shown = [self.chunk(hit) for hit in hits[:k]]
                yield self.item(question, f"{cut}, k {k}", cut, shown, {"k": k, "chunk_size": size, **rank})

    def item(self, question: Item, system: str, cut: str, shown: Sequence[str], fields: dict[str, Any]) -> Item:
        right = str(question.fields["answer"]) in self.read(question.text or "", shown)
        named = {"system": system, "reference_system": f"gold, {cut}", "question": question.id}
        return Item(f"{system}/{question.id}", fields={**named, "score": float(right), **fields})

    def read(self, question: str, shown: Sequence[str]) -> str:
        """The sentence with the rarest words of the question; the first of equals."""
        asked = frozenset(words(question))
        sentences = [match for chunk in shown for match in SENTENCE.findall(chunk)]
        return max(sentences, key=lambda text: sum(self.rarity.get(w, 0) for w in asked & set(words(text))), default="")

    def gold(self, document: str, answer: Span, size: int, stride: int) -> str | None:
        """The first chunk of the document that holds the whole answer, if any does."""
        text = self.texts[document]
        spans = chunks(text, size, stride)
        return next((text[start:end] for start, end in spans if start <= answer.start and answer.end <= end), None)

    def chunk(self, hit: Hit) -> str:
        return self.texts[hit.id][hit.spans[0].start : hit.spans[0].end]


def speed() -> dict[str, Any]:
    """Two systems of 10,000 questions, 1,000 resamplings."""
    draw = np.random.default_rng(0)
    items = [
        Item(
            f"{system}/{place}",
            fields={
                "system": system, "reference_system": "gold", "question": f"q{place}",
                "score": float(draw.integers(0, 3)) / 2, "rank_of_gold": int(draw.integers(0, 12)),
            },
        )
        for system in ("gold", "bm25")
        for place in range(10_000)
    ]  # fmt: skip
    start = time.perf_counter()
    pickaxe.scorer("rag-relative").score(items)
    return row("2 systems of 10,000 questions, intervals", time.perf_counter() - start, None, "s", 10_000, "no peer")
