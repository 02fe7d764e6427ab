"""Fields of `token-iou`, read from items and checked."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from pickaxe import Item, Items
from pickaxe.errors import InvalidItems, Violation
from pickaxe_plugins.evaluation.token_iou._metrics import Questions
from pickaxe_plugins.evaluation.token_iou._spans import Ranges

Units = Callable[[str], np.ndarray]
"""Where each unit of a text starts, rising; a unit lies in the range that holds its first character."""

Triple = tuple[int, int, str]


@dataclass
class Table:
    """Ranges of one field: whose they are, where they stand in their item's list, and of which corpus."""

    name: str
    row: list[int] = field(default_factory=list)
    place: list[int] = field(default_factory=list)
    corpus: list[int] = field(default_factory=list)
    start: list[int] = field(default_factory=list)
    end: list[int] = field(default_factory=list)

    def add(self, row: int, ranges: Iterable[tuple[int, int]], corpus: Iterable[int]) -> None:
        before = len(self.start)
        for start, end in ranges:
            self.start.append(start)
            self.end.append(end)
        self.corpus.extend(corpus)
        self.row.extend([row] * (len(self.start) - before))
        self.place.extend(range(len(self.start) - before))


@dataclass(frozen=True)
class Read:
    """The questions as numbers, and what report and flags need: names by row."""

    questions: Questions
    corpus: list[str]
    group: list[str]


class Reader:
    """Reads the items of one call; every violation is collected before any is raised."""

    def __init__(self, items: Items, units: Units | None, chunking_needed: bool) -> None:
        self._items, self._units, self._needed = items, units, chunking_needed
        self._wrong: list[Violation] = []
        self._corpora: dict[str, int] = {}
        self._lengths: dict[int, int] = {}
        self._texts: dict[int, str] = {}

    def read(self) -> Read:
        references, retrieved, chunks = Table("references"), Table("retrieved"), Table("all_chunks")
        own = [self._own(row) for row in range(len(self._items))]
        for row, item in enumerate(self._items):
            self._references(row, item, own[row], references)
            self._retrieved(row, item, retrieved)
        group = [str(item.get("group") or "") for item in self._items]
        chunkings = self._chunkings(group, chunks)
        self._raise()
        parts = {each.name: self._in_units(each) for each in (references, retrieved, chunks)}
        self._raise()
        known = np.array([chunkings.get((name, mine), -1) for name, mine in zip(group, own, strict=True)], np.int64)
        if self._needed and (known < 0).any():
            row = int(np.flatnonzero(known < 0)[0])
            raise self._error(row, "all_chunks", "is missing: k=needed takes as many as there are chunks to find")
        start, end = parts["retrieved"]
        of_question = np.array(retrieved.corpus, np.int64) == np.array(own, np.int64)[np.array(retrieved.row, np.int64)]
        owner = np.array([chunkings[group[row], corpus] for row, corpus in _rows(chunks)], np.int64)
        questions = Questions(
            len(own),
            Ranges(np.array(references.row, np.int64), *parts["references"]),
            Ranges(np.array(retrieved.row, np.int64), start, end),
            of_question,
            np.array(retrieved.place, np.int64),
            Ranges(owner, *parts["all_chunks"]),
            known,
            max(int(ends.max(initial=0)) for _, ends in parts.values()),
        )
        return Read(questions, [str(item.get("corpus")) for item in self._items], group)

    # ------------------------------------------------------------ fields

    def _own(self, row: int) -> int:
        """The number of the question's corpus; its text and length are kept."""
        item = self._items[row]
        name = str(item.get("corpus") or "")
        if not name:
            self._note(row, "corpus", "is empty: name the corpus that the references are of")
        number = self._number(name)
        text, length = item.get("corpus_text"), item.get("corpus_length")
        if isinstance(text, str):
            if self._texts.setdefault(number, text) != text:
                self._note(row, "corpus_text", f"is another text than before for corpus {name!r}")
            self._known_length(row, "corpus_text", number, len(text))
        if isinstance(length, (int, np.integer)):
            self._known_length(row, "corpus_length", number, int(length))
        return number

    def _known_length(self, row: int, name: str, corpus: int, length: int) -> None:
        if (before := self._lengths.setdefault(corpus, length)) != length:
            self._note(row, name, f"makes the corpus {length} characters long, it was {before} before")

    def _references(self, row: int, item: Item, corpus: int, into: Table) -> None:
        value = item.get("references")
        if not isinstance(value, np.ndarray) or value.ndim != 2 or value.shape[1:] != (2,) or not value.size:
            shape = value.shape if isinstance(value, np.ndarray) else None
            self._note(row, "references", f"has shape {shape}, wanted one or more [start, end]")
        elif value.dtype.kind not in "iu":
            self._note(row, "references", f"holds {value.dtype}, wanted whole numbers: places in the corpus")
        else:
            into.add(row, value.tolist(), [corpus] * len(value))

    def _retrieved(self, row: int, item: Item, into: Table) -> None:
        if item.get("retrieved") is None:
            self._note(row, "retrieved", 'is missing: give {"retrieved": [[start, end, corpus], …]} or set retriever')
        else:
            self._add(row, "retrieved", into)

    def _chunkings(self, group: list[str], into: Table) -> dict[tuple[str, int], int]:
        """(group, corpus) → number of the chunking.  A list that is given again counts once."""
        numbers: dict[tuple[str, int], int] = {}
        given: dict[str, list[object]] = {}
        for row, item in enumerate(self._items):
            value = item.get("all_chunks")
            if value is None:
                continue
            before = given.setdefault(group[row], [])
            if any(value is each or value == each for each in before):
                continue
            before.append(value)
            first = len(into.corpus)
            self._add(row, "all_chunks", into)
            for corpus in dict.fromkeys(into.corpus[first:]):
                if (group[row], corpus) in numbers:
                    name = next(name for name, number in self._corpora.items() if number == corpus)
                    self._note(
                        row,
                        "all_chunks",
                        f"cuts corpus {name!r} otherwise than before: tell chunkings apart by group",
                    )
                numbers.setdefault((group[row], corpus), len(numbers))
        return numbers

    def _add(self, row: int, name: str, into: Table) -> None:
        value = self._items[row].get(name)
        listed = value.get(name) if isinstance(value, dict) else None
        try:
            triples = [(operator.index(start), operator.index(end), corpus) for start, end, corpus in listed or ()]
        except (TypeError, ValueError):
            listed, triples = None, []
        if not isinstance(listed, (list, tuple)) or not all(isinstance(corpus, str) for _, _, corpus in triples):
            self._note(row, name, f'wants {{"{name}": [[start, end, corpus], …]}}: two whole numbers and a text each')
            return
        into.add(row, ((start, end) for start, end, _ in triples), [self._number(corpus) for _, _, corpus in triples])

    def _number(self, corpus: str) -> int:
        return self._corpora.setdefault(corpus, len(self._corpora))

    # ------------------------------------------------------------ ranges

    def _in_units(self, table: Table) -> tuple[np.ndarray, np.ndarray]:
        """Starts and ends, checked, in the unit of length."""
        start, end = np.array(table.start, np.int64), np.array(table.end, np.int64)
        corpus = np.array(table.corpus, np.int64)
        lengths = np.full(len(self._corpora), np.iinfo(np.int64).max)
        lengths[list(self._lengths)] = list(self._lengths.values())
        for at in np.flatnonzero((start >= end) | (start < 0) | (end > lengths[corpus])).tolist():
            known = self._lengths.get(int(corpus[at]))
            where = "" if known is None else f" of {known} characters"
            what = f"[{start[at]}, {end[at]}): wanted 0 <= start < end, inside the corpus{where}"
            self._note(table.row[at], f"{table.name}[{table.place[at]}]", f"is {what}")
        if self._units is None or self._wrong:
            return start, end
        for number in np.unique(corpus).tolist():
            mine = corpus == number
            text = self._texts.get(number)
            if text is None:
                name = next(name for name, each in self._corpora.items() if each == number)
                row = table.row[int(np.flatnonzero(mine)[0])]
                self._note(row, table.name, f"names corpus {name!r}, whose corpus_text no item holds: unit needs it")
                continue
            starts = self._units(text)
            start[mine], end[mine] = np.searchsorted(starts, start[mine]), np.searchsorted(starts, end[mine])
        if table.name == "references":
            for at in np.flatnonzero(start == end).tolist():
                self._note(table.row[at], f"references[{table.place[at]}]", "holds no unit: nothing to find")
        return start, end

    # ------------------------------------------------------------ errors

    def _note(self, row: int, name: str, what: str) -> None:
        self._wrong.append(Violation(f"items[{row}].fields.{name}", f"{what} (item {self._items[row].id!r})"))

    def _error(self, row: int, name: str, what: str) -> InvalidItems:
        return InvalidItems(f"items[{row}].fields.{name}", f"{what} (item {self._items[row].id!r})")

    def _raise(self) -> None:
        if self._wrong:
            raise InvalidItems(self._wrong)


def _rows(table: Table) -> Iterable[tuple[int, int]]:
    return zip(table.row, table.corpus, strict=True)
