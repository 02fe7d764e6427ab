"""A made-up corpus of four topics, where better models lose clearly less on one; a scorer to learn it."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any

import numpy as np

import pickaxe
from pickaxe import Item

SMALL: dict[str, Any] = {"dim": 16, "bucket": 10_000}
BENCHMARK = (40.0, 45.0, 47.0, 52.0, 60.0, 61.0)

TOPICS = {
    "maths": "lemma theorem proof integer vector matrix kernel polynomial bounded continuous metric norm",
    "shop": "offer cheap click order price delivery sale discount cart brand review shipping",
    "cook": "rice tomato garlic butter simmer oil cheese sauce pepper stir dough whisk",
    "news": "minister election market police court report government strike budget union talks vote",
}
COMMON = ["the", "a", "of", "and", "to", "in", "is", "was", "for", "that", "with", "on", "as", "it", "be", "by"]


def document(topic: str, draw: random.Random) -> str:
    words = TOPICS[topic].split()
    return " ".join(draw.choice(words if draw.random() < 0.3 else COMMON) for _ in range(draw.randint(30, 90)))


def corpus(count: int, seed: int) -> Iterator[tuple[str, str]]:
    """(topic, text); mathematics is one of four topics."""
    draw = random.Random(seed)
    for _ in range(count):
        topic = draw.choice(list(TOPICS))
        yield topic, document(topic, draw)


def examples(count: int = 600, seed: int = 0) -> list[Item]:
    """Better models lose clearly less on mathematics and hardly less on the rest."""
    noise = np.random.default_rng(seed)
    items = []
    for row, (topic, text) in enumerate(corpus(count, seed)):
        gap = 0.012 if topic == "maths" else 0.003
        bits = 1.0 - gap * np.arange(len(BENCHMARK)) + noise.normal(0, 0.012, len(BENCHMARK))
        items.append(Item(f"{topic}-{row}", text, {"losses": bits * len(text) * math.log(2)}))
    return items


def scorer(**params: Any) -> Any:
    return pickaxe.scorer("preselect", **{**SMALL, "benchmark_scores": BENCHMARK, **params})
