"""Small models and texts for the tests of methods that train: KV prediction, drafts."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pickaxe import Item
from pickaxe.artifact import writing
from pickaxe.lm.weights import Architecture
from pickaxe.tokenizers import Tokenizer
from pickaxe_plugins.train import llama, loop, vocabulary
from pickaxe_plugins.train.settings import Net, Recipe

NAMES = ("Anna", "Boris", "Clara", "David", "Elena", "Felix", "Greta", "Henry")
COLOURS = ("black", "blue", "green", "grey", "red", "white")
THINGS = ("boat", "car", "drum", "hat", "kite", "lamp")
NET = Net(layers=4, width=64, heads=4, kv_heads=2, vocab=320, context=160)


def text(row: int) -> str:
    """Two facts; the colour follows from the name, the thing from the colour, and the second half says them again."""
    draw = np.random.default_rng(row)
    facts = []
    for who in draw.permutation(len(NAMES))[:2]:
        colour = who % len(COLOURS)
        facts.append(f"{NAMES[who]} has the {COLOURS[colour]} {THINGS[(colour + who) % len(THINGS)]}.")
    return " ".join([*facts, "So", *reversed(facts)])


def items(first: int, count: int) -> list[Item]:
    return [Item(str(row), text(row)) for row in range(first, first + count)]


def tokenizer_in(folder: Path) -> Tokenizer:
    folder.mkdir(parents=True, exist_ok=True)
    return vocabulary.learn([text(row) for row in range(64)], NET.vocab, folder)


def saved(folder: Path, seed: int = 0, **changes: Any) -> tuple[Architecture, dict[str, np.ndarray]]:
    """A random model in the folder; its weights are larger than at a start, so that attention matters."""
    tokenizer = tokenizer_in(folder)
    architecture = replace(NET.architecture(tokenizer.vocab_size), **changes)
    draw = np.random.default_rng(seed)
    weights = {
        name: array + 0.1 * draw.standard_normal(array.shape).astype(np.float32)
        for name, array in llama.initial(architecture, seed).items()
    }
    llama.save(weights, architecture, folder)
    return architecture, weights


def identity(architecture: Architecture) -> dict[str, np.ndarray]:
    """The predictor that copies."""
    size = architecture.kv_heads * architecture.head_size
    matrix = np.broadcast_to(np.eye(size, dtype=np.float32), (architecture.layers, size, size))
    bias = np.zeros((architecture.layers, size), np.float32)
    return {"key_weight": matrix, "value_weight": matrix, "key_bias": bias, "value_bias": bias}


@functools.cache
def trained_base(steps: int = 120, batch: int = 8) -> Path:
    """A model of 4 layers that has learned to say who has what; trained once for all tests of a process."""
    folder = Path(tempfile.mkdtemp(dir=_scratch().name)) / "base"
    tokenizer = tokenizer_in(folder)
    architecture = NET.architecture(tokenizer.vocab_size)
    learned = [_whole(row) for row in tokenizer.encode_batch([text(row) for row in range(steps * batch)])]
    recipe = Recipe(epochs=1, batch=batch, rate=5e-3, warmup=20, checkpoint=10_000)
    scratch: Mapping[str, Any] = {"kind": "fit", "method": "base", "method_version": 1, "params": {}}
    with writing(folder.with_name("scratch"), **scratch) as out:
        running = loop.train(architecture, llama.initial(architecture, 0), learned, recipe, out, seed=0)
        while True:
            try:
                next(running)
            except StopIteration as end:
                llama.save(end.value, architecture, folder)
                return folder


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="pickaxe-tiny-")


def _whole(ids: list[int]) -> loop.Text:
    weights = np.full(len(ids), 1 / (len(ids) - 1), np.float32)
    weights[0] = 0
    return loop.Text(np.array(ids, np.int32), weights)
