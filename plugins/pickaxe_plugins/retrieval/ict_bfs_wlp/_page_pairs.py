"""Pages, and the pairs of sentence and passage that pre-training draws from them (arXiv:2002.03932)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

import pickaxe
from pickaxe import Item
from pickaxe.errors import InvalidItems

Task = Literal["ict", "bfs", "wlp"]
TASKS: tuple[Task, ...] = ("ict", "bfs", "wlp")
BLOCK = 1024
"""Pairs that are drawn from one stream of random numbers; any block can be drawn without those before it."""
Place = tuple[str, int, int]
"""Page, section and paragraph, from 0."""

_SENTENCE = re.compile(r"""(?:(?<=[.!?…])|(?<=[.!?…]["'”’)\]]))\s+(?=["'“‘(\[]*[^\sa-z])""")
_HEADING = re.compile(r"^#{1,6}\s+\S.*$", re.MULTILINE)


@dataclass(frozen=True)
class Page:
    """A document with its structure."""

    id: str
    sections: Sequence[Sequence[Sequence[str]]]
    """Sentences of paragraphs of sections."""
    title: str = ""
    links: Sequence[str] = ()
    """Ids of pages that it links to."""


def page(item: Item, row: int) -> Page:
    """The page of an item: its `sections`, or its text with Markdown headings and blank lines between paragraphs.

    Without headings the first paragraph is the first section.
    """
    given = item.get("sections")
    if given is None:
        parts = [_paragraphs(part) for part in _HEADING.split(item.text or "")]
        filled = [part for part in parts if part]
        sections = [filled[0][:1], filled[0][1:]] if len(filled) == 1 else filled
    else:
        sections = given.get("sections") if isinstance(given, dict) else given  # type: ignore[assignment]  # checked now
        if not _is_nested(sections):
            raise InvalidItems(
                f"examples[{row}].fields.sections", f"must be sections of paragraphs of text (item {item.id!r})"
            )
    links = item.get("links")
    return Page(
        item.id,
        [[found for text in section if (found := sentences(text))] for section in sections],
        str(item.get("title") or ""),
        links if isinstance(links, (list, tuple)) else (),
    )


def _is_nested(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(
        isinstance(part, (list, tuple)) and all(isinstance(text, str) for text in part) for part in value
    )


def _paragraphs(text: str) -> list[str]:
    return [part for part in re.split(r"\n\s*\n", text) if part.strip()]


def sentences(text: str) -> list[str]:
    """Cut after a full stop, a question or exclamation mark that blanks and no small letter follow."""
    return [part for part in (each.strip() for each in _SENTENCE.split(text.strip())) if part]


@dataclass(frozen=True, slots=True)
class Pair:
    """A query with the passage that it belongs to."""

    task: Task
    query: str
    passage: str
    query_at: tuple[str, int, int, int]
    """Page, section, paragraph, sentence."""
    passage_at: Place
    title: str
    """Of the passage's page."""


class Corpus:
    """The passages of all pages, and what each task can draw from them."""

    def __init__(self, pages: Sequence[Page], min_tokens: int = 1, keep_prob: float = 0.0) -> None:
        """Sentences of fewer than `min_tokens` words are no queries; `keep_prob`: how often ICT leaves the query in."""
        self._keep = keep_prob
        self.titles = {each.id: each.title for each in pages}
        if len(self.titles) < len(pages):
            raise InvalidItems("examples", "hold two pages of one id")
        self.places: list[Place] = []
        self.passages: list[Sequence[str]] = []
        own: dict[str, list[int]] = {each.id: [] for each in pages}
        first: dict[str, list[int]] = {each.id: [] for each in pages}
        for each in pages:
            for number, section in enumerate(each.sections):
                for place, passage in enumerate(section):
                    (first if number == 0 else own)[each.id].append(len(self.passages))
                    self.places.append((each.id, number, place))
                    self.passages.append(passage)
        self._askable = [
            [place for place, text in enumerate(passage) if len(text.split()) >= min_tokens]
            for passage in self.passages
        ]
        self._own = {name: first[name] + own[name] for name in own}
        self._asked = {
            name: [(row, place) for row in rows for place in self._askable[row]] for name, rows in first.items()
        }
        self._single = [row for row, passage in enumerate(self.passages) if len(passage) > 1 and self._askable[row]]
        self._pages = [name for name, rows in self._own.items() if len(rows) > 1 and self._asked[name]]
        self._links = [
            (target, each.id)
            for each in pages
            for target in dict.fromkeys(each.links)
            if target != each.id and self._asked.get(target) and self._own[each.id]
        ]

    def possible(self, task: Task) -> int:
        """How many passages (ict), pages (bfs) or links (wlp) the task draws from; 0: the data do not allow it."""
        return {"ict": len(self._single), "bfs": len(self._pages), "wlp": len(self._links)}[task]

    def admissible(self, task: Task) -> Iterator[Pair]:
        """Every pair that the task may draw."""
        if task == "ict":
            yield from (self.pair(task, row, place, row) for row in self._single for place in self._askable[row])
        elif task == "bfs":
            for name in self._pages:
                for row, place in self._asked[name]:
                    yield from (self.pair(task, row, place, other) for other in self._own[name] if other != row)
        else:
            for target, source in self._links:
                for row, place in self._asked[target]:
                    yield from (self.pair(task, row, place, other) for other in self._own[source])

    def pair(self, task: Task, row: int, sentence: int, passage: int, kept: bool = False) -> Pair:
        """That sentence of passage `row` with another passage, or with the rest of its own."""
        found = self.passages[passage]
        if task == "ict" and not kept:
            found = [*found[:sentence], *found[sentence + 1 :]]
        place = self.places[passage]
        query = self.passages[row][sentence]
        return Pair(task, query, " ".join(found), (*self.places[row], sentence), place, self.titles[place[0]])

    def block(self, number: int, mix: Mapping[Task, float], seed: int) -> list[Pair]:
        """The pairs from `number` * BLOCK on, of the tasks by their weights.  The same whoever asks, in any order."""
        random = pickaxe.generator(seed, "pairs", number)
        tasks: list[Task] = list(mix)
        shares = np.array([mix[task] for task in tasks], float)
        chosen = random.choice(len(tasks), BLOCK, p=shares / shares.sum()).tolist()
        return [
            self._drawn(tasks[task], *draws)
            for task, draws in zip(chosen, random.random((BLOCK, 3)).tolist(), strict=True)
        ]

    def _drawn(self, task: Task, first: float, second: float, third: float) -> Pair:
        """One pair from three numbers in [0, 1): passage, page or link; then the sentence; then the passage."""
        if task == "ict":
            row = self._single[int(first * len(self._single))]
            places = self._askable[row]
            return self.pair(task, row, places[int(second * len(places))], row, third < self._keep)
        if task == "bfs":
            name = self._pages[int(first * len(self._pages))]
            asked, own = self._asked[name], self._own[name]
            row, place = asked[int(second * len(asked))]
            other = int(third * (len(own) - 1))  # the first section's passages come first, each at its own place
            return self.pair(task, row, place, own[other + (other >= row - own[0])])
        target, source = self._links[int(first * len(self._links))]
        asked, own = self._asked[target], self._own[source]
        row, place = asked[int(second * len(asked))]
        return self.pair(task, row, place, own[int(third * len(own))])


def pretraining_pairs(
    pages: Iterable[Page],
    tasks: Sequence[Task] = TASKS,
    seed: int = 0,
    *,
    weights: Mapping[Task, float] | None = None,
    start: int = 0,
    min_tokens: int = 1,
    keep_prob: float = 0.0,
) -> Iterator[Pair]:
    """An endless stream of pairs, from number `start` on; the same for the same seed, wherever it is begun.

    Raises `ValueError` when the pages allow none of the tasks.
    """
    corpus = Corpus(list(pages), min_tokens, keep_prob)
    mix = mixture(corpus, tasks, weights or {})
    number = start // BLOCK
    drawn = corpus.block(number, mix, seed)[start % BLOCK :]
    while True:
        yield from drawn
        number += 1
        drawn = corpus.block(number, mix, seed)


def mixture(corpus: Corpus, tasks: Iterable[Task], weights: Mapping[Task, float]) -> dict[Task, float]:
    """The weights of those tasks that the data allow; raises `ValueError` when there is none."""
    mix = {task: weights.get(task, 1.0) for task in tasks if corpus.possible(task)}
    if not any(mix.values()):
        raise ValueError(
            "no task can be drawn: ict wants passages of two sentences, bfs pages of two passages, wlp links of pages"
        )
    return mix
