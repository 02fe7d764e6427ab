"""What STAR and ADORE learn from: queries, documents, and which are judged relevant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from pickaxe import Item
from pickaxe.errors import InvalidItems, Violation


@dataclass(frozen=True)
class Queries:
    """Queries with the rows of their relevant documents."""

    items: list[Item] = field(default_factory=list)
    relevant: list[tuple[int, ...]] = field(default_factory=list)
    skipped: int = 0
    """Queries that no document is relevant for."""

    def padded(self) -> np.ndarray:
        """(q, most) int32 of the relevant rows, -1 behind them."""
        rows = np.full((len(self.items), max(map(len, self.relevant))), -1, np.int32)
        for place, known in enumerate(self.relevant):
            rows[place, : len(known)] = known
        return rows


@dataclass
class Collection:
    """The documents: those given, and passages that only a query names."""

    documents: list[Item]

    def __post_init__(self) -> None:
        self._rows: dict[str, int] = {}
        for row, item in enumerate(self.documents):
            if item.id in self._rows:
                raise InvalidItems(f"unlabelled[{row}].id", f"{item.id!r} was used before")
            self._rows[item.id] = row
        self._texts = {item.text: row for row, item in reversed(list(enumerate(self.documents)))}

    def queries(self, items: Iterable[Item], label: str) -> Queries:
        """The queries that have relevant documents; raises `InvalidItems` for ids that are no document's."""
        found, wrong, skipped = Queries(), [], 0
        for place, item in enumerate(items):
            rows = dict.fromkeys(self._judged(item))
            if None in rows:
                wrong.append(Violation(f"{label}[{place}].fields.relevant", f"names no document (item {item.id!r})"))
            elif rows:
                found.items.append(item)
                found.relevant.append(tuple(row for row in rows if row is not None))
            else:
                skipped += 1
        if wrong:
            raise InvalidItems(wrong)
        if not found.items:
            raise InvalidItems(label, f"are {skipped} queries without a relevant document: give relevant or positive")
        return Queries(found.items, found.relevant, skipped)

    def _judged(self, item: Item) -> Iterator[int | None]:
        names = item.get("relevant")
        for name in names if isinstance(names, (list, tuple)) else ():
            yield self._rows.get(name)
        passage = item.get("positive")
        if isinstance(passage, str):
            if passage not in self._texts:
                self._texts[passage] = len(self.documents)
                self.documents.append(Item(f"passage {len(self.documents)}", passage))
            yield self._texts[passage]


def read(
    examples: Iterable[Item], validation: Iterable[Item] | None, unlabelled: Iterable[Item] | None
) -> tuple[list[Item], Queries, Queries | None]:
    """Documents, the queries to learn from and those to choose by."""
    collection = Collection(list(unlabelled or ()))
    learned = collection.queries(examples, "examples")
    checked = None if validation is None else collection.queries(validation, "validation")
    everything = set(range(len(collection.documents)))
    if all(everything <= set(known) for known in learned.relevant):
        raise InvalidItems(
            "examples", f"leave no wrong document: all {len(everything)} documents are relevant for every query"
        )
    return collection.documents, learned, checked
