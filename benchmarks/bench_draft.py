"""draft: how near drafts come to the model `lm`, on its own continuations of held-out texts.

The shipped draft (trained on 16 million tokens on a GPU), the same trained further on a few thousand tokens of one
kind of text, and a new one of the same shape trained on those alone.  All in minutes on two cores.
"""

from __future__ import annotations

import pydoc_data.topics
from collections.abc import Iterator
from typing import Any

import pickaxe
from pickaxe import Item

LEARNED, HELD, LENGTH, EPOCHS = 48, 16, 128, 2
RECIPE = {"epochs": EPOCHS, "batch": 4, "warmup": 4, "checkpoint": 10_000}


def run() -> Iterator[dict[str, Any]]:
    shipped = shipped_draft()
    yield from rows("the shipped draft", shipped, shipped)
    for name, base, rate in (("the shipped draft, trained further", "draft", 3e-4), ("a new draft", None, 2e-3)):
        decoder = pickaxe.decoder("draft", base=base, length=LENGTH, recipe={**RECIPE, "rate": rate})
        handle = decoder.fit(examples()[:LEARNED], validation=examples()[LEARNED:])
        assert handle.artifact is not None
        yield from rows(name, handle.artifact.notes["validation"], shipped)


def rows(name: str, found: dict[str, float], shipped: dict[str, float]) -> Iterator[dict[str, Any]]:
    for measure in ("acceptance", "agreement"):
        yield {
            "name": f"{name}: {measure}",
            "ours": found[measure],
            "peer": shipped[measure],
            "ratio": found[measure] / shipped[measure],
            "unit": "share",
            "n": HELD,
            "note": "peer: the shipped draft",
        }


def examples() -> list[Item]:
    """Beginnings of passages of Python's documentation; the model goes on from half the length."""
    words = " ".join(pydoc_data.topics.topics.values()).split()
    return [Item(str(place), " ".join(words[place * 90 : place * 90 + 90])) for place in range(LEARNED + HELD)]


def shipped_draft() -> dict[str, float]:
    """The measures of the shipped draft as it is."""
    decoder = pickaxe.decoder("draft", base="draft", length=LENGTH, steps=0, recipe=RECIPE)
    handle = decoder.fit(examples()[:1], validation=examples()[LEARNED:])
    assert handle.artifact is not None
    found: dict[str, float] = handle.artifact.notes["validation"]
    return found
