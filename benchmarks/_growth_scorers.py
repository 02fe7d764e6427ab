"""What `benchmarks.growth` gives to each scorer of data, and what its card says of the growth."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, pairwise

import numpy as np

from benchmarks._growth_inputs import WIDTH, draws, encoder, items, pages, texts, vectors, vocabulary
from benchmarks._growth_kinds import MIDDLE, Growth, scored
from pickaxe import Item

FILTERS, TEXTS, SIGNALS = "Rules and pipelines", "Scorers of texts", "Scorers of vectors and of a model's signals"
PAGES = "pages of eight lines, 97 words"
FEW = 100
ENOUGH = "three decades, from a hundred"


def with_fields(n: int, made: Iterator[str] | None = None, **columns: np.ndarray) -> Iterator[Item]:
    """Items with a value of every column, and a text if there are some."""
    for row in range(n):
        fields = {name: value.item() if isinstance(value := column[row], np.generic) else value
                  for name, column in columns.items()}  # fmt: skip
        yield Item(str(row), None if made is None else next(made), fields)


def noise(n: int, *shape: int, seed: int = 0) -> np.ndarray:
    return draws(seed).random((n, *shape), np.float32)


def labels(n: int, *names: str) -> np.ndarray:
    return np.array(names, object)[np.arange(n) % len(names)]


def named(n: int, made: Iterator[str], field: str, *values: str | bool) -> Iterator[Item]:
    """Items whose field takes the values in turns."""
    for row, text in enumerate(islice(made, n)):
        yield Item(str(row), text, {field: values[row % len(values)]})


def labelled(n: int) -> Iterator[Item]:
    """Texts in turns good and bad; the bad ones have words of their own."""
    for row, text in enumerate(texts(n, seed=1)):
        shown, quality = (f"{text} click here now", "negative") if row % 2 else (text, "positive")
        yield Item(str(row), shown, {"quality": quality})


def losses(n: int) -> Iterator[Item]:
    """Trajectories over eight checkpoints."""
    return with_fields(n, losses=3 - np.cumsum(noise(n, 8) / 4, axis=1))


def concepts() -> list[Item]:
    """A thousand of one to three real words."""
    words = [word.lower() for word in vocabulary()[0][:4000] if word.isalpha() and len(word) > 3][:1200]
    return [Item(str(row), " ".join(words[row : row + 1 + row % 3])) for row in range(1000)]


def entries() -> tuple[str, ...]:
    """20,000 entries: the words and pairs that follow each other."""
    made = dict.fromkeys(vocabulary()[0].tolist())
    for text in texts(4000, seed=7):
        words = text.split()
        made |= dict.fromkeys(map(" ".join, pairwise(words)))
    return tuple(islice(made, 20_000))


def rows_of(array: np.ndarray) -> list[list[float]]:
    listed: list[list[float]] = array.tolist()
    return listed


STAGES = [
    {"name": "quality", "utility": {"name": "rules-gopher-quality"}, "mechanism": {"kind": "threshold", "at_least": 0}},
    {"name": "exact", "utility": {"name": "rules-gopher-quality", "column": "n_words"},
     "mechanism": {"kind": "exact_dedup"}},
    {"name": "near", "utility": {"name": "rules-gopher-quality", "column": "n_words"},
     "mechanism": {"kind": "minhash_dedup"}},
    {"name": "best", "utility": {"name": "rules-gopher-quality", "column": "n_words"},
     "mechanism": {"kind": "top_fraction", "fraction": 0.5}},
]  # fmt: skip
LINEAR = {"score": "linear"}
BOTH = {"fit": "linear", "score": "linear"}


def rules(name: str) -> Growth:
    return scored(name, FILTERS, PAGES, LINEAR, lambda n: items(pages(n)), memory="constant", sizes=MIDDLE,
                  why=ENOUGH)  # fmt: skip


SCORERS: dict[str, Growth] = {
    **{name: rules(name) for name in ("rules-c4", "rules-fineweb", "rules-gopher-quality", "rules-gopher-repetition")},
    "selector": scored(
        "selector", FILTERS, f"{PAGES}; rules, exact and MinHash deduplication, best half",
        {"score": "n log n"}, lambda n: items(pages(n)), params=lambda: {"stages": STAGES},
        sizes=MIDDLE, why=ENOUGH,
    ),
    "dsir": scored(
        "dsir", FILTERS, "texts of 12 words; n / 10 targets and n of the pool to fit", BOTH, lambda n: items(texts(n)),
        lambda n: named(n + n // 10, texts(n + n // 10, seed=1), "raw", False, *[True] * 10),
        params=lambda: {"min_words": 1}, memory="constant", sizes=MIDDLE, why=ENOUGH,
    ),
    "zip-fit": scored(
        "zip-fit", TEXTS, "texts of 12 words, 10 targets (gzip)", LINEAR, lambda n: items(texts(n)),
        lambda n: items(texts(10, seed=1)), memory="constant", sizes=MIDDLE, why="ten compressions a text",
    ),
    "preselect": scored(
        "preselect", TEXTS, "texts of 12 words with six losses; one epoch, 16 dimensions", BOTH,
        lambda n: items(texts(n)), lambda n: with_fields(n, texts(n, seed=1), losses=noise(n, 6)),
        params=lambda: {"benchmark_scores": [40.0, 45.0, 50.0, 52.0, 57.0, 60.0], "dim": 16,
                               "bucket": 20_000, "epoch": 1, "positive": 0.2},
    ),
    "metaclip": scored(
        "metaclip", TEXTS, "texts of 12 words, 20,000 entries", BOTH, lambda n: items(texts(n)),
        lambda n: items(texts(n, seed=1)), params=lambda: {"metadata": entries(), "t": 20}, memory="constant",
    ),
    "concept-frequency": scored(
        "concept-frequency", TEXTS, "texts of 12 words to fit, 1,000 concepts to score", BOTH,
        lambda n: concepts(), lambda n: items(texts(n)),
    ),
    "pretrainers-guide": scored(
        "pretrainers-guide", TEXTS, "texts of 12 words, n / 10 labelled ones to fit", BOTH,
        lambda n: items(texts(n)), lambda n: labelled(n // 10),
    ),
    "domain-specificity": scored(
        "domain-specificity", TEXTS, "texts of 12 words in two groups; n to fit", BOTH,
        lambda n: named(n, texts(n), "group", "left", "right"),
        lambda n: named(n, texts(n, seed=1), "general", True, False),
    ),
    "quad": scored(
        "quad", SIGNALS, f"{WIDTH}-dimensional vectors with influences, 100 clusters", BOTH,
        lambda n: with_fields(n, embedding=vectors(n)),
        lambda n: with_fields(n, embedding=vectors(n), influence=noise(n) - 0.3),
        params=lambda: {"k": 100, "budget": 500},
    ),
    "s2l": scored(
        "s2l", SIGNALS, "losses at eight checkpoints, 100 clusters", BOTH, losses, losses,
    ),
    "got-d": scored(
        "got-d", SIGNALS, f"{WIDTH}-dimensional vectors, 100 targets, at most 30 iterations", BOTH,
        lambda n: with_fields(n, embedding=vectors(n)), lambda n: with_fields(n, embedding=vectors(n)),
        lambda: with_fields(FEW, embedding=vectors(FEW, seed=1)),
        params=lambda: {"max_iterations": 30},
    ),
    "pcb": scored(
        "pcb", SIGNALS, f"{WIDTH}-dimensional vectors, 20 classes, 100 picked by coreset", LINEAR,
        lambda n: with_fields(n, embedding=vectors(n)),
        params=lambda: {
            "classes": [f"class {row}" for row in range(20)], "base": "coreset", "n_query": FEW,
            "class_vectors": [[vector] for vector in rows_of(vectors(20, seed=1))],
        },
    ),
    "mates": scored(
        "mates", SIGNALS, "texts of 12 words, n / 10 probes with given influences; one untrained layer", BOTH,
        lambda n: items(texts(n)),
        lambda n: with_fields(max(10, n // 10), texts(n, seed=1), influence=noise(max(10, n // 10)) - 0.5),
        params=lambda: {"encoder": encoder()},
        sizes=MIDDLE, why="a pass of the encoder for every text",
    ),
    "holding-choice": scored(
        "holding-choice", SIGNALS, "questions with five given logits each", LINEAR,
        lambda n: with_fields(n, choice_logits=noise(n, 5), label=np.arange(n) % 5, group=labels(n, "left", "right")),
    ),
    "min-k-prob": scored(
        "min-k-prob", SIGNALS, "texts of 12 words with 64 given log-probabilities", LINEAR,
        lambda n: with_fields(n, texts(n), token_logprobs=-3 * noise(n, 64)), memory="constant",
    ),
}  # fmt: skip
