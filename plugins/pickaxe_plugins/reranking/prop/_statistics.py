"""Words of a corpus, and how likely a document's language model finds them (Dirichlet smoothing)."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from pickaxe import Artifact
from pickaxe.artifact import ArtifactWriter
from pickaxe_plugins.reranking.prop._stemmer import stem

Background = Literal["df", "cf"]
RARE = 100
"""Words that occur less often are never passed over when words are drawn."""
TIE = 1e-9
"""Log-likelihoods that are no further apart are equal."""
_WORD = re.compile("[a-z]+")


@functools.cache
def stop_words() -> frozenset[str]:
    """The union of the INQUERY list and an English one, as in Albert-Ma/PROP (Apache-2.0, commit 8f0248f)."""
    return frozenset((Path(__file__).parent / "stop_words.txt").read_text(encoding="utf-8").split())


def words(text: str) -> list[str]:
    """Lower-cased runs of a-z that are no stop words."""
    stopped = stop_words()
    return [word for word in _WORD.findall(text.lower()) if word not in stopped]


@dataclass(frozen=True)
class Counts:
    """A document: its words' numbers (u,), rising, how often each occurs (u,), and its length in all words."""

    numbers: np.ndarray
    counts: np.ndarray
    length: int


@dataclass(frozen=True)
class Statistics:
    """What a corpus says of words; a word's number is its place in `vocabulary`, which is sorted."""

    vocabulary: tuple[str, ...]
    cf: np.ndarray
    """How often each occurs, (v,)."""
    df: np.ndarray
    """How many documents hold it, (v,)."""
    documents: int

    @cached_property
    def total(self) -> int:
        """N, all words."""
        return int(self.cf.sum())

    @property
    def mean_length(self) -> float:
        return self.total / self.documents

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.vocabulary)}

    def background(self, kind: Background, min_cf: int = 0) -> np.ndarray:
        """P(w|C), (v,): shares of all words ("cf"), or of all document frequencies ("df"), the official way.

        Words that occur fewer than `min_cf` times have none.
        """
        counted = np.where(self.cf >= min_cf, self.cf if kind == "cf" else self.df, 0)
        whole = self.total if kind == "cf" else counted.sum()
        found: np.ndarray = counted / max(int(whole), 1)
        return found

    def keep(self, t: float, rare: int = RARE) -> np.ndarray:
        """The probability that a drawn word is kept, (v,): min(1, sqrt(t / f) + t / f) with f = cf / N."""
        odds = t * self.total / self.cf
        return np.where(self.cf < rare, 1.0, np.minimum(1, np.sqrt(odds) + odds))

    def numbers(self, given: Iterable[str]) -> np.ndarray:
        """Numbers of the words, -1 for unknown ones."""
        return np.array([self._numbers.get(word, -1) for word in given], np.int64)

    def counts(self, given: Sequence[str]) -> Counts:
        """A document's words, counted; unknown ones count for its length alone."""
        numbers = self.numbers(given)
        found, counts = np.unique(numbers[numbers >= 0], return_counts=True)
        return Counts(found, counts, len(given))

    def write(self, out: ArtifactWriter) -> None:
        out.write_json("words.json", list(self.vocabulary))
        out.write_array("cf.npy", self.cf)
        out.write_array("df.npy", self.df)
        out.notes |= {"documents": self.documents, "words": self.total, "mean_length": self.mean_length}

    @classmethod
    def open(cls, artifact: Artifact) -> Statistics:
        cf, df = (np.array(artifact.read_array(f"{name}.npy")) for name in ("cf", "df"))
        return cls(tuple(artifact.read_json("words.json")), cf, df, int(artifact.notes["documents"]))


class Collector:
    """Takes documents' words one after the other."""

    def __init__(self, stems: bool = False) -> None:
        self._cf: Counter[str] = Counter()
        self._df: Counter[str] = Counter()
        self._stems, self._forms = stems, dict[str, Counter[str]]()
        self.documents = 0
        self.skipped = 0
        """Documents without words."""

    def add(self, text: str) -> list[str]:
        """The document's words (or stems); one without any is skipped and counted."""
        found = words(text)
        if self._stems:
            stems = [stem(word) for word in found]
            for one, word in zip(stems, found, strict=True):
                self._forms.setdefault(one, Counter())[word] += 1
            found = stems
        self.count(found)
        return found

    def count(self, found: Sequence[str]) -> None:
        """The same for words that are cut already."""
        if not found:
            self.skipped += 1
            return
        counted = Counter(found)
        self._cf.update(counted)
        self._df.update(counted.keys())
        self.documents += 1

    def finish(self) -> Statistics:
        vocabulary = tuple(sorted(self._cf))
        cf, df = (np.array([each[word] for word in vocabulary], np.int64) for each in (self._cf, self._df))
        return Statistics(vocabulary, cf, df, self.documents)

    def forms(self) -> dict[str, dict[str, int]]:
        """Of each stem, the words that it stood for and how often; empty without stems."""
        return {one: dict(sorted(forms.items())) for one, forms in self._forms.items()}


def smoothed(document: Counts, background: np.ndarray, mu: float, numbers: np.ndarray | None = None) -> np.ndarray:
    """P(w|D) = (tf + mu P(w|C)) / (|D| + mu) of these words, or of all."""
    wanted = np.arange(len(background)) if numbers is None else numbers
    places = np.minimum(np.searchsorted(document.numbers, wanted), max(len(document.numbers) - 1, 0))
    tf = np.zeros(len(wanted))
    if len(document.numbers):
        tf = np.where(document.numbers[places] == wanted, document.counts[places], 0)
    found: np.ndarray = (tf + mu * background[wanted]) / (document.length + mu)
    return found


def loglik(chances: np.ndarray) -> tuple[float, int]:
    """The sum of log P over a set's words that have any probability, and how many have none."""
    known = chances > 0
    return float(np.log(chances[known]).sum()), int((~known).sum())
