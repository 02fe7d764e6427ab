"""From corpora to retrieved spans: cutting into sentences, indexing, searching."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from pickaxe import Call, Item, Items, Span
from pickaxe.errors import InvalidItems, Unmet
from pickaxe.handle import RetrieverHandle

Chunker = Callable[[str], list[Span]]
"""Cuts a text: the chunks' places in it, none empty."""

_SENTENCE = re.compile(r"(?=\S).*?(?:[.!?](?=\s|\Z)|(?=\s*\Z))", re.DOTALL)


def sentences(size: int) -> Chunker:
    """Cuts a text after every `size` sentences, which end at white space after . ! or ?."""

    def cut(text: str) -> list[Span]:
        found = [match.span() for match in _SENTENCE.finditer(text)]
        return [Span(part[0][0], part[-1][1]) for part in _runs(found, size)]

    return cut


def _runs(found: list[tuple[int, int]], size: int) -> list[list[tuple[int, int]]]:
    return [found[start : start + size] for start in range(0, len(found), size)]


def corpora_of(items: Items) -> dict[str, str]:
    """Name → text; raises `InvalidItems` where no item holds it."""
    texts = {str(item.get("corpus")): str(item.get("corpus_text")) for item in items if item.get("corpus_text")}
    for row, item in enumerate(items):
        if str(item.get("corpus")) not in texts:
            raise InvalidItems(
                f"items[{row}].fields.corpus_text",
                f"is missing for corpus {item.get('corpus')!r}: a retriever needs one item of it to hold the text "
                f"(item {item.id!r})",
            )
    return texts


def searched(
    items: Items,
    corpora: Mapping[str, str],
    retriever: RetrieverHandle,
    chunker: Chunker | None,
    depth: int,
    call: Call,
) -> Items:
    """The questions with `retrieved` and `all_chunks`: one index over the chunks of all corpora.

    Without a chunker the retriever gets whole corpora and must tell the spans of its hits.
    """
    if chunker is None:
        documents = [Item(name, text) for name, text in corpora.items()]
        places: dict[str, tuple[int, int, str]] = {}
    else:
        triples = [(span.start, span.end, name) for name, text in corpora.items() for span in chunker(text)]
        places = {str(number): triple for number, triple in enumerate(triples)}
        documents = [Item(number, corpora[name][start:end]) for number, (start, end, name) in places.items()]
    queries = [Item(str(row), text) for row, text in enumerate(items.texts())]
    results = retriever.index(documents, call=call).search(queries, k=depth, call=call)
    # One object for all questions: it is read once.
    everything: dict[str, Any] = {"all_chunks": [list(triple) for triple in places.values()]}
    given = []
    for item, hits in zip(items, results, strict=True):
        found: list[list[object]] = []
        for hit in hits:
            if chunker is not None:
                found.append(list(places[hit.id]))
            elif hit.spans:
                found.extend([span.start, span.end, hit.id] for span in hit.spans)
            else:
                raise Unmet("this retriever does not tell the spans of its hits: let it index chunks (sentences >= 1)")
        fields = {**item.fields, "retrieved": {"retrieved": found}}
        given.append(replace(item, fields=fields if chunker is None else {**fields, "all_chunks": everything}))
    return Items(given)


def word_starts(text: str) -> np.ndarray:
    """Where runs of anything but white space start."""
    return np.array([match.start() for match in re.finditer(r"\S+", text)], np.int64)
