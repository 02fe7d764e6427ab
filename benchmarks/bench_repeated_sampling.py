"""repeated-sampling: shared prompt and batches against separate decodes, and two-digit additions by the model `lm`.

The additions are the card's experiment: 100 problems, 64 samples each, exact check, at two temperatures.
"""

from __future__ import annotations

import pydoc_data.topics
import statistics
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

import pickaxe
from pickaxe import WHOLE_PROMPT, Item, Prompt, Sampling

PROBLEMS = 100
SAMPLES = 64
SHOTS = "Q: What is 21 + 34?\nA: 55\n\nQ: What is 48 + 17?\nA: 65\n\n"


def run() -> Iterator[dict[str, Any]]:
    for words in (20, 300):
        for batch in (16, 32):
            yield throughput(words, batch)
    for temperature in (0.6, 1.0):
        yield from additions(temperature)


# ---------------------------------------------------------------- speed


def throughput(words: int, batch: int, tokens: int = 24, runs: int = 3) -> dict[str, Any]:
    """Samples a second at n = 64, against 64 decodes of one sample that each read the prompt."""
    text = " ".join(" ".join(pydoc_data.topics.topics.values()).split()[:words])
    together = Prompt(text, sampling=Sampling(n=SAMPLES, max_tokens=tokens, temperature=1.0))
    alone = Prompt(text, sampling=Sampling(max_tokens=tokens, temperature=1.0))
    decoder = pickaxe.decoder("repeated-sampling", batch=batch)
    decoder.complete(together)
    separate = SAMPLES // 4
    ours, peer = [], []
    for _ in range(runs):
        begin = time.perf_counter()
        decoder.complete(together)
        ours.append(SAMPLES / (time.perf_counter() - begin))
        begin = time.perf_counter()
        for seed in range(separate):
            decoder.complete(alone, seed=seed)
        peer.append(separate / (time.perf_counter() - begin))
    return {
        "name": f"samples, prompt of {words} words, batch {batch}",
        "ours": statistics.median(ours),
        "peer": statistics.median(peer),
        "ratio": statistics.median(ours) / statistics.median(peer),
        "unit": "samples/s",
        "n": SAMPLES,
        "note": f"{tokens} tokens each; peer: a decode per sample ({separate} of them timed); aim: 6",
    }


# ---------------------------------------------------------------- additions


def additions(temperature: float) -> Iterator[dict[str, Any]]:
    scores = pickaxe.scorer("coverage", k=(1, 16, SAMPLES), subset_points=7).score(sampled(temperature))
    report = scores.summary["groups"]["all"]
    choice = report["selection"]
    coverage = {k: float(scores[f"pass_at_{k}"].mean()) for k in (1, 16, SAMPLES)}
    voted = dict(zip(choice["k"], choice["majority"], strict=True))
    gain = coverage[SAMPLES] - coverage[1]
    beyond = (coverage[SAMPLES] - coverage[16], voted[SAMPLES] - voted[16])
    law = report["law"]
    law_note = "no law" if law is None else f"a {law['a']:.3f}, b {law['b']:.3f}; aim: error below 0.03"
    for name, value, note in (
        ("coverage(1)", coverage[1], ""),
        (f"coverage({SAMPLES})", coverage[SAMPLES], f"gain {gain:.3f}, aim: at least 0.15"),
        (f"majority({SAMPLES})", voted[SAMPLES], f"from 16 on {beyond[1]:+.3f}, coverage {beyond[0]:+.3f}"),
        ("mean error of the law", None if law is None else law["mean_abs_error"], law_note),
    ):
        yield {
            "name": f"additions, T={temperature}: {name}",
            "ours": value,
            "peer": None,
            "ratio": None,
            "unit": "share",
            "n": PROBLEMS * SAMPLES,
            "note": note,
        }


def sampled(temperature: float) -> list[Item]:
    """The additions as problems of a run: answers and reference."""
    rng = np.random.default_rng(0)
    pairs = rng.integers(10, 100, (PROBLEMS, 2))
    prompts = [
        Prompt(
            f"{SHOTS}Q: What is {a} + {b}?\nA:", sampling=Sampling(n=SAMPLES, stop=("\n",)), fields={"sum": int(a + b)}
        )
        for a, b in pairs
    ]
    decoder = pickaxe.decoder(
        "repeated-sampling", temperature=temperature, max_tokens=16, batch=32, extract="regex", pattern=r"\d+"
    )
    found = [each for each in decoder.complete(prompts) if each.choice == WHOLE_PROMPT]
    return [
        Item(
            f"{a}+{b}",
            fields={
                "answers": tuple(each.records[0]["answers"]),
                "scores": np.array(each.records[0]["scores"]),
                "reference": str(a + b),
            },
        )
        for (a, b), each in zip(pairs, found, strict=True)
    ]
