"""mdsd against plain decoding and spectr: tokens per call of the model, and tokens a second."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pickaxe
from pickaxe import Prompt, Sampling

TOKENS = 48
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
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "spectr, n = 4, L = 4": ("spectr", {"num_drafts": 4, "draft_length": 4}),
    "greedy_optimal, width 1": ("mdsd", {**SAME, **GREEDY, "width": 1}),
    "greedy_optimal, width 2": ("mdsd", {**SAME, **GREEDY}),
    "greedy_optimal, width 4": ("mdsd", {**SAME, **GREEDY, "width": 4}),
    "rrs_without, width 2": ("mdsd", {**SAME, **DISTINCT}),
    "verify=auto, width 2": ("mdsd", SAME),
    "n = 2, L = 2, width 1": ("mdsd", {"num_drafts": 2, "depth": 2, "width": 1}),
    "auto": ("mdsd", {**SAME, "auto": True}),
    "n-gram drafts, auto": ("mdsd", {**SAME, "auto": True, "draft": "ngram"}),
}


def run() -> Iterator[dict[str, Any]]:
    for temperature in (1.0, 0.7, 0.0):
        plain = measure("repeated-sampling", {}, temperature)[1]
        for name, (method, params) in VARIANTS.items():
            per_call, per_second = measure(method, params, temperature)
            title = f"T = {temperature}: {name}"
            yield row(f"{title}, tokens a call", per_call, None, "tokens/call", "plain decoding: 1")
            yield row(f"{title}, tokens a second", per_second, plain, "tokens/s", "peer: plain decoding")


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
