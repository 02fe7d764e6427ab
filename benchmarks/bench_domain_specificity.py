"""domain-specificity: words a second of the n-gram pair beside kenlm, models batched or one by one, the claims."""

from __future__ import annotations

import importlib
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import pickaxe
from benchmarks._rows import row
from pickaxe_plugins.selection.domain_specificity._word_ngrams import NgramModel, Vocabulary, joined

CORPORA = Path(__file__).parents[1] / "tests" / "golden" / "files" / "22-token-iou"
AREAS = ("finance", "state_of_the_union", "chatlogs", "wikitexts")
CHUNK = 60


def run(texts: int = 8) -> Iterator[dict[str, Any]]:
    yield speed()
    yield batched(texts)
    yield from apart()
    yield gains()


def chunks(*names: str) -> list[str]:
    """Stretches of 60 words."""
    found = []
    for name in names:
        words = re.findall(r"\w+|[^\w\s]+", (CORPORA / f"{name}.md").read_text("utf-8").lower())
        found += [" ".join(words[start : start + CHUNK]) for start in range(0, len(words) - CHUNK + 1, CHUNK)]
    return found


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def finance() -> tuple[Any, list[str]]:
    """The pair fitted on one half, and the other half."""
    texts = chunks("finance")
    half = len(texts) // 2
    return pickaxe.scorer("domain-specificity").fit(texts[:half], unlabelled=chunks("wikitexts", "chatlogs")), texts[
        half:
    ]


def speed() -> dict[str, Any]:
    scorer, texts = finance()
    words = CHUNK * len(texts)
    ours = words / seconds(lambda: scorer.score(texts))
    try:
        importlib.import_module("kenlm")
    except ImportError:
        return row("n-gram pair", ours, None, "words/s", words, "peer kenlm (queries of two models) is not installed")
    return row("n-gram pair", ours, kenlm_rate(texts), "words/s", words, "peer: kenlm, two queries of a tiny model")


def kenlm_rate(texts: Sequence[str]) -> float:
    import tempfile

    kenlm = importlib.import_module("kenlm")
    vocabulary = sorted({word for text in texts for word in text.split()})
    lines = ["\\data\\", f"ngram 1={len(vocabulary) + 3}", "", "\\1-grams:", "-1\t<unk>", "-1\t<s>", "-1\t</s>"]
    lines += [f"-3\t{word}" for word in vocabulary] + ["", "\\end\\", ""]
    with tempfile.NamedTemporaryFile("w", suffix=".arpa", encoding="utf-8") as stream:
        stream.write("\n".join(lines))
        stream.flush()
        model = kenlm.Model(stream.name)
        taken = seconds(lambda: [model.score(text) for text in texts for _ in range(2)])
    return CHUNK * len(texts) / taken


def batched(count: int) -> dict[str, Any]:
    """The causal pair, all texts in one call and one text a call."""
    texts = chunks("finance")[:count]
    scorer = pickaxe.scorer("domain-specificity", loss="causal", general="draft", domain="draft")
    scorer.score(texts[:1])
    together = count / seconds(lambda: scorer.score(texts), 1)
    alone = count / seconds(lambda: [scorer.score([text]) for text in texts], 1)
    return row("causal pair (draft), batched", together, alone, "texts/s", count, "peer: the same, one text a call")


def apart() -> Iterator[dict[str, Any]]:
    scorer, held = finance()
    inside, outside = scorer.score(held)["ds"], scorer.score(chunks("state_of_the_union"))["ds"]
    n = len(inside) + len(outside)
    yield row("mean DS, held-out finance", float(inside.mean()), None, "nats/word", len(inside), "to be above 0")
    yield row("mean DS, speeches", float(outside.mean()), None, "nats/word", len(outside), "to be below 0")
    auc = float((inside[:, None] > outside).mean())
    yield row("AUC of the two", auc, None, "", n, "to be at least 0.95")


def gains() -> dict[str, Any]:
    """Over four areas: Spearman of mean DS and the domain model's gain in held-out next-word accuracy."""
    specific, gained = [], []
    for area in AREAS:
        texts = chunks(area)[:200]
        own, held = texts[::2], texts[1::2]
        others = [text for name in AREAS if name != area for text in chunks(name)[:200]]
        general = [others[at] for at in np.random.default_rng(0).permutation(len(others))]
        vocabulary = Vocabulary()
        sides = [[vocabulary.add(text) for text in side] for side in (own, general[: len(own)])]
        models = [NgramModel.counted(side, len(vocabulary), 2, 0.6) for side in sides]
        read = [vocabulary.read(text) for text in held]
        domain, wide = (model.log_probs(*joined(read)).mean() for model in models)
        specific.append(domain - wide)
        hits = [accuracy(guesses(model), read) for model in models]
        gained.append(float(hits[0] - hits[1]))
    ranks = [np.argsort(np.argsort(values)) for values in (specific, gained)]
    told = ", ".join(f"{a}: DS {d:.2f}, gain {g:.3f}" for a, d, g in zip(AREAS, specific, gained, strict=True))
    return row("Spearman of DS and gain", float(np.corrcoef(*ranks)[0, 1]), None, "", len(AREAS), told)


def accuracy(next_words: dict[int, int], texts: Sequence[np.ndarray]) -> float:
    pairs = [pair for text in texts for pair in zip(text[:-1].tolist(), text[1:].tolist(), strict=True)]
    return statistics.mean(next_words[before] == after for before, after in pairs)


def guesses(model: NgramModel) -> dict[int, int]:
    """The likeliest next word after each word."""
    grams, single = model.grams[0], (model.words + 0.5) / (model.words.sum() + 0.5 * (len(model.words) + 1))
    best = {word: (0.4 * float(single.max()), int(single.argmax())) for word in range(len(model.words) + 1)}
    for key, number in zip(grams.keys.tolist(), grams.counts.tolist(), strict=True):
        before, after = key >> 32, key & 0xFFFFFFFF
        chance = 0.6 * number / int(grams.totals[before]) + 0.4 * float(single[after])
        best[before] = max(best[before], (chance, after))
    return {word: after for word, (_, after) in best.items()}
