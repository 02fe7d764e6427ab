"""How likely a document's language model finds a set of words: query likelihood, and PROP's labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

import pickaxe
from pickaxe import Call, Column, Example, InputField, Item, Items, Method, Progress, Scores
from pickaxe.artifact import ArtifactWriter
from pickaxe.data import Flag
from pickaxe.errors import InvalidItems
from pickaxe.hooks import hookimpl
from pickaxe_plugins.reranking.prop import _statistics
from pickaxe_plugins.reranking.prop._statistics import Collector, Statistics
from pickaxe_plugins.reranking.prop._stemmer import stem

STEP = 1000
"""Documents between two steps of progress."""


class LanguageModelParams(pickaxe.Params):
    """Those of the documents' language models."""

    background: _statistics.Background = Field(
        "df", description="P(w|C): by document frequency (df), as the official code, or by occurrences (cf)."
    )
    mu: Literal["auto"] | Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        "auto", description="Weight of the background; auto: the mean length of documents."
    )
    min_cf: int = Field(10, ge=0, description="Words that occur less often have no background probability.")
    stem: bool = Field(False, description="Put words of one stem (Porter) together.")

    def weight(self, found: Statistics) -> float:
        """mu as a number."""
        return found.mean_length if self.mu == "auto" else float(self.mu)


class PropPairs(Method[LanguageModelParams]):
    """How likely a set of words, or a query, is under the language model of a document.

    The words of `text` under P(w|D) of `document`, smoothed by the corpus that `fit` has seen.  Higher: the words
    represent the document better.  Compare sets of equally many words, or the mean per word.
    """

    title = "PROP: Pre-training with Representative Words Prediction for Ad-hoc Retrieval"
    paper = "arXiv:2010.10137"
    version = 1
    Params = LanguageModelParams
    scope = "item"
    reads = (
        InputField("text", "text", "The words, or a query."),
        InputField("document", "text", "The document that they are to represent."),
    )
    fit_reads = (InputField("text", "text", "A document of the corpus."),)
    columns = (
        Column(
            "loglik", "Sum of the natural logarithms of P(w|D) over the words that have one.", "float64", nullable=True
        ),
        Column("loglik_per_word", "Their mean.", "float64", nullable=True),
        Column("n_oov", "Words without any probability: in neither corpus nor document.", "int64", direction="lower"),
    )
    fitted = "required"
    stages = ("statistics",)
    cost = "A pass over the documents; scoring counts the words of each document."
    reproduced = "Language models and labels of the reference case."

    @classmethod
    def example(cls) -> Example:
        documents = ("The rain in Spain stays in the plain.", "Green tea is brewed with hot water.", "The Moon orbits.")
        return Example(
            params={"min_cf": 0},
            examples=tuple(Item(str(row), text) for row, text in enumerate(documents)),
            items=(
                Item("a", "rain plain", {"document": documents[0]}),
                Item("b", "tea water", {"document": documents[0]}),
            ),
        )

    @hookimpl
    def fit(self, examples: Iterable[Item], out: ArtifactWriter, call: Call) -> Iterator[Progress]:
        collector = Collector(self.params.stem)
        for row, item in enumerate(examples, 1):
            collector.add(item.text or "")
            if row % STEP == 0:
                call.check()
                yield Progress("statistics", row)
        enough(collector)
        collector.finish().write(out)
        out.notes["skipped_documents"] = collector.skipped
        yield Progress("statistics", collector.documents + collector.skipped)

    @cached_property
    def _statistics(self) -> Statistics:
        assert self.artifact is not None  # the handle sees to it
        return Statistics.open(self.artifact)

    @cached_property
    def _background(self) -> np.ndarray:
        return self._statistics.background(self.params.background, self.params.min_cf)

    def _words(self, text: str) -> list[str]:
        found = _statistics.words(text)
        return [stem(word) for word in found] if self.params.stem else found

    @hookimpl
    def score(self, items: Items, call: Call) -> Scores:
        found, mu = self._statistics, self.params.weight(self._statistics)
        rows = np.empty((len(items), 3))
        for row, item in enumerate(items):
            call.check()
            document = self._words(str(item.get("document")))
            asked = self._words(item.text or "")
            rows[row] = _scored(asked, document, found, self._background, mu)
        flags = tuple(
            Flag(row, "no-words", "no word of the text has a probability, so it has no likelihood")
            for row in np.flatnonzero(np.isnan(rows[:, 0])).tolist()
        )
        columns = {"loglik": rows[:, 0], "loglik_per_word": rows[:, 1], "n_oov": rows[:, 2].astype(np.int64)}
        return Scores(columns, flags=flags)


def _scored(
    asked: list[str], document: list[str], found: Statistics, background: np.ndarray, mu: float
) -> tuple[float, float, int]:
    """loglik, its mean, and how many words have no probability.

    Words that only the document has are no words of the corpus, but P(w|D) counts them.
    """
    numbers = found.numbers(asked)
    chances = np.zeros(len(asked))
    known = numbers >= 0
    chances[known] = _statistics.smoothed(found.counts(document), background, mu, numbers[known])
    for place in np.flatnonzero(~known).tolist():
        chances[place] = document.count(asked[place]) / (len(document) + mu)
    total, lacking = _statistics.loglik(chances)
    counted = len(asked) - lacking
    return (total, total / counted, lacking) if counted else (float("nan"), float("nan"), lacking)


def enough(collector: Collector) -> None:
    """Raise `InvalidItems` when there are no two documents with words."""
    if collector.documents < 2:
        raise InvalidItems(
            "examples",
            f"are {collector.documents} documents with words of a-z ({collector.skipped} have none): 2 are needed",
        )
