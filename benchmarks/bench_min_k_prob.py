"""min-k-prob against the official loop on the same model, the selection step, and famous texts against retellings.

`membership_texts.json` holds passages that every web corpus has many times (in the public domain, or licences that
are free to copy), each with a retelling written for this benchmark, which no corpus can hold.
"""

from __future__ import annotations

import json
import pydoc_data.topics
import statistics
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import pickaxe
from benchmarks._rows import row
from pickaxe import Call
from pickaxe.lm import LM
from pickaxe_plugins.selection._roc import roc
from pickaxe_plugins.selection.min_k_prob._stats import lowest_means

RATIOS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
RUNS = 5


def run() -> Iterator[dict[str, Any]]:
    lm = pickaxe.Host().lm()
    texts = windows(64, 24)
    yield against_the_loop(lm, texts)
    yield against_the_bare_model(lm, texts)
    yield selection()
    yield from famous()


def windows(words: int, count: int) -> list[str]:
    """Texts of exactly so many words."""
    source = " ".join(pydoc_data.topics.topics.values()).split()
    return [" ".join(source[start : start + words]) for start in range(0, words * count, words)]


def against_the_loop(lm: LM, texts: list[str]) -> dict[str, Any]:
    """Tokens a second of the scorer with two passes; the peer reads `texts[:8]` one at a time, as the authors do."""
    scorer = pickaxe.scorer("min-k-prob", ratios=RATIOS, columns=("ppl_neg", "zlib", "lowercase"))
    scorer.score(texts[:4])
    ours, peer = rates(
        lambda: tokens(lm, texts) / seconds(lambda: scorer.score(texts)),
        lambda: tokens(lm, texts[:8]) / seconds(lambda: [official(lm, text) for text in texts[:8]]),
    )
    return row("64-word texts, two passes", ours, peer, "tokens/s", len(texts), "aim: 5 times the official loop")


def against_the_bare_model(lm: LM, texts: list[str]) -> dict[str, Any]:
    """Tokens a second of one pass with all ratios, against the model alone on ready token lists."""
    lists = lm.tokenizer.encode_batch(texts)
    scorer = pickaxe.scorer("min-k-prob", ratios=RATIOS)
    ours, peer = rates(
        lambda: tokens(lm, texts) / seconds(lambda: scorer.score(texts)),
        lambda: tokens(lm, texts) / seconds(lambda: lm.token_logprobs(lists, Call())),
    )
    return row("64-word texts, one pass", ours, peer, "tokens/s", len(texts), "peer: batched forward; aim: 0.9")


def official(lm: LM, text: str) -> dict[str, float]:
    """The authors' way: all logits of one text, a Python loop over its tokens, and the same for the lower-cased one."""
    perplexities, logprobs = [], []
    for version in (text, text.lower()):
        ids = lm.tokenizer.encode(version)
        logits, _ = lm.forward(np.array([ids]), logits_at="all")
        assert logits is not None
        probabilities = logits[0] - np.log(np.exp(logits[0]).sum(axis=-1, keepdims=True))
        logprobs.append([probabilities[place, token].item() for place, token in enumerate(ids[1:])])
        perplexities.append(-np.mean(logprobs[-1]).item())
    found = {"ppl": float(np.exp(perplexities[0])), "lowercase": -perplexities[1] / perplexities[0]}
    found["zlib"] = perplexities[0] / len(zlib.compress(text.encode()))
    for ratio in RATIOS:
        lowest = np.sort(logprobs[0])[: int(len(logprobs[0]) * ratio)]
        found[f"min_k_{ratio}"] = -np.mean(lowest).item()
    return found


def selection() -> dict[str, Any]:
    values = list(-np.random.default_rng(0).exponential(2, (100_000, 256)))
    taken = statistics.median(seconds(lambda: lowest_means(values, (0.2,))) for _ in range(RUNS))
    return row("selection, 100,000 texts of 256 tokens", taken, None, "s", len(values), "aim: 1 s")


# ---------------------------------------------------------------- does it tell?


def famous() -> Iterator[dict[str, Any]]:
    """AUC of texts that the model `lm` must have seen against retellings of the same that it cannot have seen."""
    pairs = json.loads(Path(__file__).with_name("membership_texts.json").read_text(encoding="utf-8"))
    texts = [pair[side] for pair in pairs for side in ("famous", "retold")]
    labels = np.tile([1, 0], len(pairs))
    for words in (8, 16, 24):
        found = pickaxe.scorer(
            "min-k-prob", words=words, columns=("ppl_neg", "zlib", "lowercase", "min_k_pp"), precision="fp32"
        ).score(texts)
        for name in ("min_k", "ppl_neg", "zlib", "lowercase", "min_k_pp"):
            note = "famous passages against retellings" + ("" if words > 8 else "; very short texts")
            yield row(f"AUC of {name}, {words} words", roc(found[name], labels).auc, None, "AUC", len(texts), note)


# ---------------------------------------------------------------- measuring


def tokens(lm: LM, texts: Sequence[str]) -> int:
    return sum(map(len, lm.tokenizer.encode_batch(list(texts))))


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def rates(ours: Callable[[], float], peer: Callable[[], float]) -> tuple[float, float]:
    """Medians of both, measured in turns."""
    pairs = [(ours(), peer()) for _ in range(RUNS)]
    return statistics.median(first for first, _ in pairs), statistics.median(second for _, second in pairs)
