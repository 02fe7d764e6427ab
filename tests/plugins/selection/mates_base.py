"""A small language model in the middle of its training, for the tests of mates: two topics, its optimiser's state."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from topic_corpus import document

from pickaxe import Item
from pickaxe.artifact import writing
from pickaxe_plugins.selection.quad._influence import next_token_loss
from pickaxe_plugins.train import llama, optimisers, trained, vocabulary
from pickaxe_plugins.train.descent import Shuffle, finished, go_on
from pickaxe_plugins.train.settings import Net
from pickaxe_plugins.train.trained import Trained

RATE = 3e-3


def texts(count: int, seed: int) -> list[Item]:
    """Every other text is about cooking, the others are news."""
    draw = random.Random(seed)
    topics = [("cook", "news")[row % 2] for row in range(count)]
    return [Item(f"{topic}-{seed}-{row}", document(topic, draw)) for row, topic in enumerate(topics)]


def references(count: int, seed: int = 9) -> list[Item]:
    """The ends of texts about cooking, behind their beginnings."""
    found = []
    for item in texts(2 * count, seed)[::2]:
        words = str(item.text).split()
        found.append(Item(item.id, fields={"context": " ".join(words[:10]), "target": " " + " ".join(words[10:18])}))
    return found


def base(folder: Path, steps: int, net: Net | None = None) -> Path:
    """Train for so many steps, and write model, tokenizer and state into `folder`."""
    corpus = [str(item.text) for item in texts(400, 0)]
    tokenizer = vocabulary.learn(corpus, 400, folder)
    net = net or Net(layers=1, width=32, heads=2, kv_heads=2, context=64)
    architecture = net.architecture(tokenizer.vocab_size)
    rows = [tokenizer.encode(text)[:32] for text in corpus]
    losses, shuffle = next_token_loss(architecture), Shuffle(len(rows), 16, 0)

    def given(step: int) -> Mapping[str, Any]:
        ids, lengths = np.zeros((16, 32), np.int32), np.ones(16, np.int32)
        for place, row in enumerate(shuffle.rows(step)):
            ids[place, : len(rows[row])], lengths[place] = rows[row], len(rows[row])
        return {"ids": ids, "lengths": lengths}

    optimiser = optimisers.adamw(RATE, betas=(0.9, 0.95), decay=0.1, clip=1.0)
    begin = Trained(llama.initial(architecture, 0))
    with writing(folder / "run", kind="fit", method="base", method_version=1, params={}) as out:
        run = go_on(
            lambda weights, given, key: (losses(weights, given).mean(), {}), optimiser, begin, given, steps, out, seed=0
        )
        state = finished(run)
    llama.save(state.tree, architecture, folder)
    trained.write(folder / trained.FILE, state)
    return folder
