"""spectr against plain decoding of the same model, one request at a time: 20 prompts of 64 tokens.

All decoders take turns prompt by prompt in one process, with all threads; no prompt is remembered, so each reads it.
The setting was chosen on other prompts.  `PICKAXE_BENCH_PASSES` (5): how often the 20 questions are gone through;
two other tasks, whose answers repeat the text that is given, are gone through a fifth as often.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np

import pickaxe
from benchmarks._growth_inputs import PASSAGES
from benchmarks.bench_spectr import CHEAP, QUESTIONS, SURE, TOKENS, asked
from pickaxe.lm import EngineSettings
from pickaxe_plugins.decoding._speculation.rounds import walk
from pickaxe_plugins.decoding._speculation.transport import Distribution, KSequential
from pickaxe_plugins.decoding._speculation.tree import Tree
from pickaxe_plugins.decoding.spectr import Sequential

PASSES = int(os.environ.get("PICKAXE_BENCH_PASSES", "5"))
SETTINGS = {
    "one draft, L=5 while sure": SURE,
    "with n-grams": {**SURE, "draft": "both"},
    "auto": {**CHEAP, "auto": True, "num_drafts": 1, "draft_length": 4},
}
"""Besides plain decoding."""


def run() -> Iterator[dict[str, Any]]:
    yield joint_law()
    for task, prompts, passes in tasks():
        for temperature in (0.0, 1.0):
            yield from speed(task, prompts, temperature, passes)


# ---------------------------------------------------------------- speed


def tasks() -> Iterator[tuple[str, Sequence[str], int]]:
    """Name, 20 prompts, and how often they are gone through."""
    texts = [json.loads(line)["text"] for line in PASSAGES.read_text("utf-8").splitlines()[:200:10]]
    correct = [f"Correct the spelling in this text and return it whole:\n{text[:400]}" for text in texts]
    sum_up = [f"Summarise this text in two sentences:\n{text[:600]}" for text in texts]
    few = max(1, PASSES // 5)
    yield from (("questions", QUESTIONS, PASSES), ("correct a text", correct, few), ("sum a text up", sum_up, few))


Taken = tuple[float, float, int, float]
"""Seconds by the wall clock and of processor time, tokens, calls of the model."""


def speed(task: str, prompts: Sequence[str], temperature: float, count: int) -> Iterator[dict[str, Any]]:
    host = pickaxe.Host(engine=EngineSettings(prefix_bytes=0))
    plain = {"temperature": temperature, "max_tokens": TOKENS, "top_p": 1.0}
    decoders = {
        "plain": pickaxe.decoder("repeated-sampling", host=host, **plain),
        **{name: pickaxe.decoder("spectr", host=host, **plain, **params) for name, params in SETTINGS.items()},
    }
    for decoder in decoders.values():
        decoder.complete(asked("Where do whales sleep?", temperature))
    passes = [one_pass(decoders, prompts, temperature, number) for number in range(count)]
    for name in SETTINGS:
        yield compared(name, f"{task}, T={temperature:g}", passes)


def one_pass(
    decoders: dict[str, Any], prompts: Sequence[str], temperature: float, number: int
) -> dict[str, list[Taken]]:
    """What each prompt took, by decoder."""
    found: dict[str, list[Taken]] = {name: [] for name in decoders}
    order = list(decoders)
    for place, question in enumerate(prompts):
        for name in order if place % 2 else order[::-1]:
            found[name].append(answered(decoders[name], question, temperature, 100 * number + place))
    return found


def answered(decoder: Any, question: str, temperature: float, seed: int) -> Taken:
    wall, work = time.perf_counter(), time.process_time()
    answers = [each for each in decoder.complete(asked(question, temperature), seed=seed) if each.choice >= 0]
    wall, work = time.perf_counter() - wall, time.process_time() - work
    tokens = sum(len(each.token_ids) for each in answers)
    return wall, work, tokens, sum(each.usage.get("target_calls", len(each.token_ids)) for each in answers)


def compared(name: str, where: str, passes: Sequence[dict[str, list[Taken]]]) -> dict[str, Any]:
    """Tokens a second of all prompts of a pass together; medians of the passes."""

    def rates(decoder: str, clock: int) -> np.ndarray:
        sums = np.array([np.sum(each[decoder], axis=0) for each in passes])
        return sums[:, 2] / sums[:, clock]

    ours, plain = (float(np.median(rates(each, 0))) for each in (name, "plain"))
    wall, work = (float(np.median(rates(name, clock) / rates("plain", clock))) for clock in (0, 1))
    pairs = [
        (other[0] / other[2]) / (mine[0] / mine[2])
        for each in passes
        for mine, other in zip(each[name], each["plain"], strict=True)
    ]
    sums = np.sum([np.sum(each[name], axis=0) for each in passes], axis=0)
    note = (
        f"{sums[2] / sums[3]:.2f} tokens per call; ratio in processor time {work:.3f}, "
        f"median of single prompts {statistics.median(pairs):.3f}; reach 1.2, aim 1.6"
    )
    return {"name": f"{where}: {name}", "ours": ours, "peer": plain, "ratio": wall,
            "unit": "tokens/s", "n": int(sums[2]), "note": note}  # fmt: skip


# ---------------------------------------------------------------- exactness

TARGET = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.3, 0.4, 0.3]])
DRAFT = np.array([[0.3, 0.3, 0.4], [0.5, 0.25, 0.25], [0.2, 0.2, 0.6]])
"""Laws of the next of three tokens, by the token before."""


class Law(Distribution):
    """Equal only to itself, so that its selections can be remembered."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__


class Remembering(Sequential):
    """Works out the selection between two laws once."""

    def __init__(self) -> None:
        super().__init__()
        self._selection = cache(KSequential)

    def verify(self, target: Any, law: Any, drafted: Sequence[int], random: Any) -> tuple[int, bool]:
        return self._selection(target, law, len(drafted)).select(drafted, random)


def joint_law(rounds: int = 300_000) -> dict[str, Any]:
    """The chi-square test of two tokens of a round, two drafts of two tokens, against the target's joint law."""
    from scipy.stats import chisquare

    targets, drafts = [Law(row) for row in TARGET], [Law(row) for row in DRAFT]
    verifier, random = Remembering(), np.random.default_rng(0)

    def said(start: int) -> list[int]:
        tree, level = Tree([start], 2), [0]
        for _ in range(2):
            level = [
                child
                for node in level
                for law in (drafts[tree.tokens[node]],)
                for child in tree.add(node, law, verifier.propose(tree, node, law, random))
            ]
        return [trial.token for trial in walk(tree, lambda node: targets[tree.tokens[node]], verifier, random)]

    counts = np.zeros_like(TARGET)
    for _ in range(rounds):
        first, *more = said(0)
        counts[first, more[0] if more else said(first)[0]] += 1
    wanted = TARGET[0][:, None] * TARGET * rounds
    found = chisquare(counts.ravel(), wanted.ravel())
    return {"name": "joint law of two tokens, chi-square", "ours": float(found.pvalue), "peer": None, "ratio": None,
            "unit": "p-value", "n": rounds, "note": f"statistic {found.statistic:.2f} of 8 degrees"}  # fmt: skip
