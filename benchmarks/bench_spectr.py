"""spectr: tokens a second and per target call against plain decoding, the paper's direction, and the selection.

Speed is measured in processor time on one thread, in which other work on the machine hardly shows; both decoders
take turns prompt by prompt.  The rows named "wall clock" use all threads.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import pickaxe
from pickaxe import Completion, Message, Prompt, Sampling
from pickaxe_plugins.decoding._speculation.transport import Distribution, KSequential

TOKENS = 64
QUESTIONS = (
    "Explain how a refrigerator works.",
    "Write a short story about a dragon who is afraid of fire.",
    "List five healthy breakfast ideas.",
    "What is the capital of France, and what is it known for?",
    "Describe the water cycle to a child.",
    "How do I sort a list in Python?",
    "Give me tips for learning the guitar.",
    "Summarise the causes of the First World War.",
    "What are the benefits of regular exercise?",
    "Write an email that asks for a day off.",
    "Why is the sky blue?",
    "Explain the difference between a virus and a bacterium.",
    "How does a bicycle stay upright?",
    "Plan a weekend trip to the mountains.",
    "What is photosynthesis?",
    "Tell me about the history of chess.",
    "How can I save money on groceries?",
    "Write a poem about autumn leaves.",
    "What does a software engineer do all day?",
    "Explain supply and demand.",
)
CHEAP = {"draft_vocab": 8192}
"""The draft model with its frequent tokens only."""
SURE = {**CHEAP, "num_drafts": 1, "draft_length": 5, "confidence": 0.6}
"""One draft that goes on while it is sure."""
SETTINGS: tuple[tuple[str, float, dict[str, Any]], ...] = (
    ("one draft, L=1", 1.0, {**CHEAP, "num_drafts": 1, "draft_length": 1}),
    ("one draft, L=5 while sure", 1.0, SURE),
    ("two drafts, L=1", 1.0, {**CHEAP, "num_drafts": 2, "draft_length": 1}),
    ("auto", 1.0, {**CHEAP, "auto": True}),
    ("one draft, L=1", 0.0, {**CHEAP, "num_drafts": 1, "draft_length": 1}),
    ("one draft, L=5 while sure", 0.0, SURE),
    ("n-grams, L=4", 0.0, {"draft": "ngram", "ngram_least": 3, "draft_length": 4}),
    ("auto", 0.0, {**CHEAP, "auto": True}),
)


def run() -> Iterator[dict[str, Any]]:
    yield from selection()
    for temperature in (1.0, 0.0):
        yield versus(f"wall clock, one draft, L=5 while sure, T={temperature:g}", QUESTIONS, temperature, SURE)
    pickaxe.configure(threads=1)
    for name, temperature, params in SETTINGS:
        yield versus(f"{name}, T={temperature:g}", QUESTIONS, temperature, params, time.process_time)
    for count in (1, 2, 4, 8):
        for length in (2, 4, 8):
            params = {"num_drafts": count, "draft_length": length}
            yield versus(f"K={count}, L={length}, T=1", QUESTIONS[:4], 1.0, params, time.process_time)
    yield from direction()


# ---------------------------------------------------------------- speed


@dataclass
class _Timed:
    """A decoder, and what its answers took."""

    decoder: Any
    clock: Callable[[], float]
    tokens: int = 0
    seconds: float = 0.0
    calls: float = 0.0

    def answer(self, prompt: Prompt, seed: int) -> None:
        begin = self.clock()
        found = [each for each in self.decoder.complete(prompt, seed=seed) if each.choice >= 0]
        self.seconds += self.clock() - begin
        self.tokens += sum(len(each.token_ids) for each in found)
        self.calls += sum(each.usage.get("target_calls", 0) for each in found)

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds


def versus(
    name: str,
    questions: tuple[str, ...],
    temperature: float,
    params: dict[str, Any],
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """One setting against plain decoding of the same model."""
    ours = _Timed(pickaxe.decoder("spectr", max_tokens=TOKENS, **params), clock)
    plain = _Timed(pickaxe.decoder("repeated-sampling", max_tokens=TOKENS, top_p=1.0), clock)
    prompts = [asked(question, temperature) for question in questions]
    for each in (ours, plain):
        each.decoder.complete(prompts[0])
    for seed, prompt in enumerate(prompts):
        for each in (ours, plain) if seed % 2 else (plain, ours):
            each.answer(prompt, seed)
    return {
        "name": f"spectr, {name}",
        "ours": ours.rate,
        "peer": plain.rate,
        "ratio": ours.rate / plain.rate,
        "unit": "tokens/s",
        "n": ours.tokens,
        "note": f"{ours.tokens / ours.calls:.2f} tokens per target call; peer: plain decoding",
    }


def asked(question: str, temperature: float) -> Prompt:
    return Prompt(messages=(Message("user", question),), sampling=Sampling(temperature=temperature))


# ---------------------------------------------------------------- direction


def direction() -> Iterator[dict[str, Any]]:
    """Tokens per target call at temperature 1 and L = 4: more drafts, more tokens."""
    prompts = [asked(question, 1.0) for question in QUESTIONS]
    per_call: dict[int, float] = {}
    for count in (1, 2, 4, 8):
        decoder = pickaxe.decoder("spectr", max_tokens=TOKENS, num_drafts=count, draft_length=4)
        found: list[Completion] = decoder.complete(prompts)
        tokens = sum(len(each.token_ids) for each in found)
        per_call[count] = tokens / sum(each.usage["target_calls"] for each in found)
        yield {
            "name": f"tokens per target call, K={count} L=4, T=1",
            "ours": per_call[count],
            "peer": None if count == 1 else per_call[1],
            "ratio": None if count == 1 else per_call[count] / per_call[1],
            "unit": "tokens",
            "n": tokens,
            "note": "aim: above 1.2" if count == 1 else "peer: K=1; aim at K=4: a ratio of 1.05",
        }


# ---------------------------------------------------------------- selection


def selection(size: int = 49_152, k: int = 8, runs: int = 50) -> Iterator[dict[str, Any]]:
    """Milliseconds of one position: eight drafts drawn and one of them or the residual selected."""
    random = np.random.default_rng(0)
    scores = 3 * random.standard_normal(size)
    for name, kept in (("whole vocabulary", size), ("top 200", 200)):
        target, draft = (_law(scores + noise * random.standard_normal(size), kept) for noise in (0, 1))
        taken = []
        for _ in range(runs):
            begin = time.perf_counter()
            drafts = draft.tokens(random.random(k))
            KSequential(target, draft, k).select(drafts, random)
            taken.append(1000 * (time.perf_counter() - begin))
        yield {
            "name": f"selection among {k} drafts, {name}",
            "ours": statistics.median(taken),
            "peer": None,
            "ratio": None,
            "unit": "ms",
            "n": runs,
            "note": f"vocabulary of {size}; aim: below 1.5",
        }


def _law(scores: np.ndarray, kept: int) -> Distribution:
    ids = np.sort(np.argsort(-scores)[:kept])
    probs = np.exp(scores[ids])
    return Distribution(probs / probs.sum(), None if kept == len(scores) else ids)
