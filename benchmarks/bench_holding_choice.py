"""holding-choice: questions a second beside `transformers` (if installed), and what training brings on made-up ones."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import pickaxe
from pickaxe import Host, Item

TOPICS = ("rent", "search", "patent", "divorce", "tax", "libel", "theft", "merger", "custody", "copyright")
CHOICES = 5


def run(questions: int = 48, trained: int = 96) -> Iterator[dict[str, Any]]:
    scorer = pickaxe.scorer("holding-choice", layers=2, epochs=2, batch=8, rate=5e-4, dropout=0.0)
    handle = scorer.fit([question(row) for row in range(trained)])
    held = [question(row) for row in range(10_000, 10_000 + questions)]
    start = time.perf_counter()
    scores = handle.score(held)
    taken = time.perf_counter() - start
    yield speed(questions / taken, held, handle.artifact.path)
    right = float((scores["chosen"] == [item.fields["label"] for item in held]).mean())
    told = f"2 layers of MiniLM, {trained} made-up questions, 2 epochs; blind: {1 / CHOICES}"
    yield {"name": "accuracy", "ours": right, "peer": None, "ratio": None, "unit": "", "n": questions, "note": told}


def question(row: int) -> Item:
    """The right holding names the prompt's topic."""
    draw = np.random.default_rng(row)
    topics = draw.permutation(TOPICS)[:CHOICES]
    right = int(draw.integers(CHOICES))
    text = f"the court was asked about {topics[right]} by the party"
    choices = [f"holding that {topic} is for the state to decide" for topic in topics]
    return Item(f"q{row}", text, {"choices": choices, "label": right})


def speed(ours: float, held: list[Item], artifact: Path) -> dict[str, Any]:
    found = {"name": "questions of five choices", "ours": ours, "unit": "questions/s", "n": len(held)}
    try:
        transformers, torch = importlib.import_module("transformers"), importlib.import_module("torch")
    except ImportError:
        return {**found, "peer": None, "ratio": None, "note": "transformers and torch are not installed"}
    with torch.no_grad():
        model = transformers.AutoModelForMultipleChoice.from_pretrained(str(artifact))
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(Host().model_path("encoder")))
        start = time.perf_counter()
        for item in held:
            choices = list(item.fields["choices"])  # type: ignore[call-overload]  # texts
            given = tokenizer([item.text] * len(choices), choices, return_tensors="pt", padding=True)
            model(**{name: values[None] for name, values in given.items()})
        peer = len(held) / (time.perf_counter() - start)
    return {**found, "peer": peer, "ratio": ours / peer, "note": "AutoModelForMultipleChoice, one question a call"}
