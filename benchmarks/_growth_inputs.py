"""Inputs of any size for `benchmarks.growth`: texts of real words by their real frequencies, vectors, an encoder.

The words and how often they come are those of the passages of XQuAD under tests/golden/files, which also make the
sentences' lengths plausible; nothing is repeated word by word, so that indexes and deduplication have work to do.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import count
from pathlib import Path
from tempfile import mkdtemp

import numpy as np

from pickaxe import Item

PASSAGES = Path(__file__).parents[1] / "tests" / "golden" / "files" / "71-xquad-en" / "docs.jsonl"
BLOCK = 20_000
WIDTH = 64
"""Dimensions of vectors and of the encoder: growth does not depend on them, memory at a million items does."""
_turn = count()
_drawn = [next(_turn)]


def anew() -> None:
    """Draw everything differently from now on: methods remember texts that they met before."""
    _drawn[0] = next(_turn)


def draws(seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, _drawn[0]])


@cache
def vocabulary() -> tuple[np.ndarray, np.ndarray]:
    """The words, most frequent first, and the chances below each."""
    words = Counter(
        word for line in PASSAGES.read_text("utf-8").splitlines() for word in str(json.loads(line)["text"]).split()
    )
    names, counts = zip(*words.most_common(), strict=True)
    return np.array(names, object), np.cumsum(counts) / sum(counts)


def texts(n: int, length: int = 12, seed: int = 0) -> Iterator[str]:
    """Texts of `length` words on average, half of that at least; one in fifty is the one before, a word changed."""
    names, chances = vocabulary()
    rng = draws(seed)
    for start in range(0, n, BLOCK):
        sizes = rng.integers(max(1, length // 2), length + (length + 1) // 2 + 1, min(BLOCK, n - start))
        words = names[np.searchsorted(chances, rng.random(sizes.sum()))].tolist()
        ends = np.cumsum(sizes).tolist()
        for row, (size, end) in enumerate(zip(sizes.tolist(), ends, strict=True)):
            first = end - size
            if row % 50 == 49:
                first = ends[row - 2]
                yield " ".join([*words[first : ends[row - 1] - 1], "changed"])
            else:
                yield " ".join(words[first:end])


def pages(n: int, lines: int = 8, seed: int = 0) -> Iterator[str]:
    """Texts of so many lines of 12 words, which end as sentences do."""
    made = texts(n * lines, seed=seed)
    for _ in range(n):
        yield ".\n".join(next(made) for _ in range(lines)) + "."


def items(made: Iterator[str]) -> list[Item]:
    return [Item(str(row), text) for row, text in enumerate(made)]


def vectors(n: int, width: int = WIDTH, seed: int = 0) -> np.ndarray:
    """(n, width) float32: unit vectors around 200 centres, as those of texts lie."""
    centres = np.random.default_rng(1234).standard_normal((200, width), np.float32)
    rng = draws(seed)
    made = np.empty((n, width), np.float32)
    for start in range(0, n, BLOCK):
        part = made[start : start + BLOCK]
        part[:] = centres[rng.integers(0, len(centres), len(part))]
        part += 0.7 * rng.standard_normal(part.shape, np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return made


@cache
def encoder() -> str:
    """The path of an untrained encoder of one layer, with the tokenizer of `encoder`: so fast that the rest shows."""
    from pickaxe.host import default_host
    from pickaxe.tokenizers import Tokenizer
    from pickaxe_plugins.train import bert, bert_files

    known = default_host().model_path("encoder")
    vocab = Tokenizer.open(known).vocab_size
    config = bert.Config(layers=1, width=WIDTH, heads=2, mlp=WIDTH, vocab=vocab, positions=128)
    folder = Path(mkdtemp(prefix="encoder-"))
    bert_files.save(folder, config, bert.initial(config, 0, scale=0.3), like=known)
    return str(folder)
