"""The rule scorers on texts of 3 kB, against datatrove's filters (PyPI datatrove with spaCy, if installed)."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pickaxe
from benchmarks._web_texts import LENGTH, rates, row, texts
from pickaxe_plugins.selection import _numbered_words

NO_PEER = "datatrove or spaCy is not installed"
GOPHER = ("rules-gopher-quality", "rules-gopher-repetition")
ALL = (*GOPHER, "rules-c4", "rules-fineweb")
FILTERS = {
    "rules-gopher-quality": ("gopher_quality_filter", "GopherQualityFilter"),
    "rules-gopher-repetition": ("gopher_repetition_filter", "GopherRepetitionFilter"),
    "rules-c4": ("c4_filters", "C4QualityFilter"),
    "rules-fineweb": ("fineweb_quality_filter", "FineWebQualityFilter"),
}


def run(count: int = 500) -> Iterator[dict[str, Any]]:
    for names in (*((name,) for name in ALL), GOPHER, ALL):
        given = texts(count, 0)
        few = given[: max(1, count // 10)]  # the peer takes some 20 ms a text
        ours, peer = rates((count, len(few)), (ours_on(names, given), peer_on(names, few)))
        found = row(" + ".join(names), ours, peer, "docs/s", count, NO_PEER)
        yield {**found, "MB/s": ours * LENGTH / 1e6}


def ours_on(names: Sequence[str], given: Sequence[str]) -> Callable[[], None]:
    scorers = [pickaxe.scorer(name) for name in names]

    def work() -> None:
        _numbered_words.forget()
        for scorer in scorers:
            scorer.score(given)

    return work


def peer_on(names: Sequence[str], given: Sequence[str]) -> Callable[[], None] | None:
    try:
        importlib.import_module("spacy")
        document = importlib.import_module("datatrove.data").Document
        kinds = [(f"datatrove.pipeline.filters.{FILTERS[name][0]}", FILTERS[name][1]) for name in names]
        filters = [getattr(importlib.import_module(module), kind)() for module, kind in kinds]
    except ImportError:
        return None

    def work() -> None:
        for each in filters:
            for at, text in enumerate(given):
                each.filter(document(text=text, id=str(at)))

    return work
