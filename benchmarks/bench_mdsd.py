"""mdsd against plain decoding and spectr: tokens per call of the model, and tokens a second."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pickaxe
from pickaxe import Prompt, Sampling

TOKENS = 32
PROMPTS = (
    "The capital of France is",
    "Once upon a time, there was a little",
    "To make a good cup of tea, first",
    "def fibonacci(n):\n",
    "The history of the Roman Empire",
    "Dear Sir or Madam,",
    "The three laws of motion say that",
    "In the middle of the night,",
    "Photosynthesis is the process by which",
    "My favourite book is",
)
GREEDY = {"law": "greedy", "verify": "greedy_optimal"}
DISTINCT = {"law": "without", "verify": "rrs"}
SAME = {"num_drafts": 4, "depth": 4}
SPECTR = ("spectr, n = 4, L = 4", "spectr", {"num_drafts": 4, "draft_length": 4})
AUTO = ("auto", "mdsd", {**SAME, "auto": True})
SAMPLED: tuple[tuple[str, str, dict[str, Any]], ...] = (
    SPECTR,
    ("greedy_optimal, width 1", "mdsd", {**SAME, **GREEDY, "width": 1}),
    ("greedy_optimal", "mdsd", {**SAME, **GREEDY}),
    ("rrs_without", "mdsd", {**SAME, **DISTINCT}),
    ("verify=auto", "mdsd", SAME),
    AUTO,
)
BEST: tuple[tuple[str, str, dict[str, Any]], ...] = (
    SPECTR,
    ("n = 1", "mdsd", {**SAME, "num_drafts": 1}),
    ("n = 4", "mdsd", SAME),
    AUTO,
)


def run() -> Iterator[dict[str, Any]]:
    for temperature, variants in ((1.0, SAMPLED), (0.5, SAMPLED), (0.0, BEST)):
        for name, method, params in variants:
            plain = measure("repeated-sampling", {}, temperature)[1]
            per_call, per_second = measure(method, params, temperature)
            plain = (plain + measure("repeated-sampling", {}, temperature)[1]) / 2
            title = f"T = {temperature}: {name}"
            yield row(f"{title}, tokens a call", per_call, None, "tokens/call", "plain decoding: 1")
            yield row(
                f"{title}, tokens a second", per_second, plain, "tokens/s", "peer: plain decoding, before and after"
            )


def measure(method: str, params: dict[str, Any], temperature: float) -> tuple[float, float]:
    """Tokens per call of the model, and tokens a second, over all prompts."""
    decoder = pickaxe.decoder(method, temperature=temperature, **params)
    decoder.complete(Prompt(PROMPTS[0], sampling=Sampling(max_tokens=4)))
    tokens = calls = 0.0
    begin = time.perf_counter()
    for prompt in PROMPTS:  # one after the other: the engine would decode plain samples of many prompts together
        found = decoder.complete(Prompt(prompt, sampling=Sampling(max_tokens=TOKENS)), seed=1)
        tokens += sum(len(each.token_ids) for each in found)
        calls += sum(each.usage.get("target_calls", 0) for each in found)
    return tokens / calls, tokens / (time.perf_counter() - begin)


def row(name: str, ours: float, peer: float | None, unit: str, note: str) -> dict[str, Any]:
    ratio = None if peer is None else ours / peer
    return {"name": name, "ours": ours, "peer": peer, "ratio": ratio, "unit": unit, "n": len(PROMPTS), "note": note}
