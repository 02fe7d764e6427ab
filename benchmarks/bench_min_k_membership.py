"""min-k-prob where members are known exactly: a small net trained on half of the texts of one source.

Texts are pieces of 64 words of encyclopaedia passages; every other one is a member.  AUC of members against the
others after training for some epochs, on the first words of each text.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import pickaxe
from pickaxe.artifact import writing
from pickaxe.tokenizers import Tokenizer
from pickaxe_plugins.selection._roc import roc
from pickaxe_plugins.train import llama, loop, vocabulary
from pickaxe_plugins.train.settings import Net, Recipe

SOURCE = Path(__file__).parent.parent / "demo" / "data" / "xquad_passages.jsonl"
WORDS = 64
LENGTHS = (16, 32, 64)
EPOCHS = (1, 3, 10)
COLUMNS = ("min_k", "ppl_neg", "zlib")
NET = Net(layers=4, width=128, heads=4, kv_heads=2, vocab=2000, context=512)
SEED = 0


def run() -> Iterator[dict[str, Any]]:
    texts = pieces()
    members = np.arange(len(texts)) % 2 == 0
    with tempfile.TemporaryDirectory() as scratch:
        for epochs in EPOCHS:
            folder = Path(scratch) / str(epochs)
            folder.mkdir()
            tokenizer = vocabulary.learn(texts, NET.vocab, folder)
            train(folder, tokenizer, [text for text, member in zip(texts, members, strict=True) if member], epochs)
            yield from measured(folder, texts, members, epochs)


def pieces() -> list[str]:
    """Texts of exactly 64 words, none across two passages."""
    found = []
    for line in SOURCE.read_text(encoding="utf-8").splitlines():
        words = json.loads(line)["text"].split()
        found += [" ".join(words[at : at + WORDS]) for at in range(0, len(words) - WORDS + 1, WORDS)]
    return found


def train(folder: Path, tokenizer: Tokenizer, texts: list[str], epochs: int) -> None:
    """A plain language model of the texts, saved to the folder."""
    architecture = NET.architecture(tokenizer.vocab_size)
    recipe = Recipe.model_validate({"epochs": epochs, "batch": 8, "rate": 2e-3, "warmup": 20})
    learned = []
    for ids in tokenizer.encode_batch(texts):
        weights = np.full(len(ids), 1 / (len(ids) - 1), np.float32)
        weights[0] = 0
        learned.append(loop.Text(np.array(ids, np.int32), weights))
    with writing(folder / "run", kind="fit", method="bench", method_version=1, params={}) as out:
        running = loop.train(architecture, llama.initial(architecture, SEED), learned, recipe, out, SEED)
        while True:
            try:
                next(running)
            except StopIteration as end:
                llama.save(end.value, architecture, folder)
                return


def measured(folder: Path, texts: list[str], members: np.ndarray, epochs: int) -> Iterator[dict[str, Any]]:
    scorer = pickaxe.scorer("min-k-prob", model=str(folder), precision="fp32", columns=COLUMNS[1:])
    for length in LENGTHS:
        scores = scorer.score([" ".join(text.split()[:length]) for text in texts])
        for column in COLUMNS:
            yield {
                "name": f"{column}, {epochs} epochs, {length} words, AUC",
                "ours": roc(np.asarray(scores[column], np.float64), members).auc,
                "peer": None,
                "ratio": None,
                "unit": "AUC",
                "n": len(texts),
                "note": "members known exactly; 0.5 is chance",
            }
