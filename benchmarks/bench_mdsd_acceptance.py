"""mdsd-acceptance: time a position, beside a linear program and a scan of all subsets; a real pair of models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np

import pickaxe
from benchmarks._rows import median, row
from pickaxe import Item
from pickaxe.host import default_host
from pickaxe_plugins.decoding._speculation.multidraft import Law, RatioOrder
from pickaxe_plugins.decoding._speculation.multiverify import PAIRS, Rule, acceptance, draw, trial
from pickaxe_plugins.decoding._speculation.transport import Distribution

RUNS = 7
TEXTS = Path(__file__).parent / "membership_texts.json"
POSITIONS = 200
SHOWN = ("single", "rrs_with", "k_sequential", "optimal_with", "optimal_without", "optimal_greedy")


def run() -> Iterator[dict[str, Any]]:
    yield optimum(32_000, 2, "with", "aim: 10 ms")
    yield optimum(32_000, 2, "without", "aim: 10 ms")
    yield optimum(32_000, 4, "without", "whole vocabulary")
    yield optimum(2_000, 4, "without", "aim: 40 ms; what top-k = 2,000 leaves of a vocabulary")
    yield scorer()
    yield linear_program()
    yield subsets()
    for law, rule in PAIRS:
        yield selection(law, rule)
    yield from means("synthetic, 2,000 tokens", [pair(2000, seed) for seed in range(100)], 2)
    positions = real_pair()
    for n in (2, 4):
        yield from means("SmolLM2-135M and its small draft", positions, n)
    for temperature in (1.0, 0.7, 0.4):
        yield greedy_against_distinct(positions, temperature)


def pair(size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The card's synthetic target and draft."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2.5, size)
    target, draft = np.exp(logits), np.exp(logits + random.normal(0, 1, size))
    return target / target.sum(), draft / draft.sum()


def optimum(size: int, n: int, law: Any, note: str) -> dict[str, Any]:
    target, draft = pair(size)
    seconds = median(lambda: RatioOrder.of(target, draft).optimum(n, law), RUNS)
    return row(f"optimum, {size:,} tokens, n = {n}, {law} replacement", seconds * 1e3, None, "ms", 1, note)


def scorer() -> dict[str, Any]:
    target, draft = pair(32_000)
    items = [Item(str(place), fields={"target": target, "draft": draft}) for place in range(8)]
    handle = pickaxe.scorer("mdsd-acceptance")
    seconds = median(lambda: handle.score(items), RUNS) / len(items)
    return row("scorer, all columns, 32,000 tokens, n = 2", seconds * 1e3, None, "ms", len(items), "")


def linear_program() -> dict[str, Any]:
    """Independent drafts, 6 tokens, 3 drafts, over all 216 sequences of drafts."""
    from scipy.optimize import linprog

    target, draft = pair(6)
    drafts = list(product(range(6), repeat=3))
    cells = [(place, token) for place, each in enumerate(drafts) for token in set(each)]
    limits = np.zeros((len(drafts) + 6, len(cells)))
    for column, (place, token) in enumerate(cells):
        limits[place, column] = limits[len(drafts) + token, column] = 1
    bounds = [*(float(np.prod(draft[list(each)])) for each in drafts), *target]
    found = linprog(-np.ones(len(cells)), A_ub=limits, b_ub=bounds, method="highs")
    apart = abs(RatioOrder.of(target, draft).optimum(3, "with")[0] + found.fun)
    peer = median(lambda: linprog(-np.ones(len(cells)), A_ub=limits, b_ub=bounds, method="highs"), RUNS)
    ours = median(lambda: RatioOrder.of(target, draft).optimum(3, "with"), RUNS)
    return row("optimum, 6 tokens, n = 3, against scipy linprog", ours * 1e3, peer * 1e3, "ms", 1, f"apart {apart:.0e}")


def subsets() -> dict[str, Any]:
    """Independent drafts, 16 tokens, against all 65,536 subsets of them."""
    target, draft = pair(16)

    def naive() -> float:
        every = (list(each) for size in range(17) for each in combinations(range(16), size))
        return 1 + min(float(target[each].sum() - draft[each].sum() ** 2) for each in every)

    apart = abs(RatioOrder.of(target, draft).optimum(2, "with")[0] - naive())
    peer, ours = median(naive, 3), median(lambda: RatioOrder.of(target, draft).optimum(2, "with"), RUNS)
    note = f"apart {apart:.0e}"
    return row("optimum, 16 tokens, n = 2, against all subsets", ours * 1e3, peer * 1e3, "ms", 1, note)


def selection(law: Law, rule: Rule) -> dict[str, Any]:
    """Drafts of one position tried to the end, as if all were rejected: the most that a position can take."""
    target, draft = (Distribution(each) for each in pair(49_152))
    random = np.random.default_rng(0)
    drafts = [draw(law, draft, 8, random) for _ in range(20)]

    def work() -> None:
        for each in drafts:
            tried = trial(law, rule, target, draft, each)
            list(tried.chances())
            tried.residual().token(0.5)

    seconds = median(work, RUNS) / len(drafts)
    return row(f"selection, 49,152 tokens, n = 8, {law}/{rule}", seconds * 1e3, None, "ms", 20, "aim: 1.5 ms")


def real_pair() -> list[tuple[np.ndarray, np.ndarray]]:
    """Both models' distributions at temperature 1 after the first words of texts that neither knows by heart."""
    target, draft = default_host().lm("lm"), default_host().lm("draft")
    texts = [each["retold"] for each in json.loads(TEXTS.read_text(encoding="utf-8"))]
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for text in texts:
        ids = target.tokenizer.encode(text)
        both = [np.exp(lm.full_logprobs(ids).astype(np.float64)) for lm in (target, draft)]
        found += list(zip(*both, strict=True))
        if len(found) >= POSITIONS:
            break
    return [(t / t.sum(), d / d.sum()) for t, d in found[:POSITIONS]]


def means(name: str, positions: list[tuple[np.ndarray, np.ndarray]], n: int) -> Iterator[dict[str, Any]]:
    """Mean acceptance over positions, and how the verifiers and optima follow each other."""
    rows = [{"target": target, "draft": draft} for target, draft in positions]
    items = [Item(str(place), fields=fields) for place, fields in enumerate(rows)]
    scores = pickaxe.scorer("mdsd-acceptance", n=n, samples=200).score(items)
    columns = {**scores.columns, "single": pickaxe.scorer("mdsd-acceptance", n=1).score(items)["optimal"]}
    columns["rrs_without"] = np.where(
        np.isnan(columns["rrs_without"]), columns["rrs_without_mc"], columns["rrs_without"]
    )
    for column in (*SHOWN, "rrs_without"):
        yield row(f"{name}, n = {n}: {column}", float(columns[column].mean()), None, "probability", len(items), "")
    for low, high in (
        ("rrs_with", "k_sequential"),
        ("k_sequential", "optimal_with"),
        ("optimal_with", "optimal_without"),
    ):
        gap = columns[high] - columns[low]
        note = f"standard error {gap.std(ddof=1) / np.sqrt(len(gap)):.4f}"
        yield row(f"{name}, n = {n}: {high} - {low}", float(gap.mean()), None, "probability", len(items), note)


def greedy_against_distinct(positions: list[tuple[np.ndarray, np.ndarray]], temperature: float) -> dict[str, Any]:
    """Both laws with the verifiers that a decoder has for them: greedy_optimal and recursive rejection."""
    random = np.random.default_rng(0)
    found = []
    for pair_of in positions:
        target, draft = (each ** (1 / temperature) for each in pair_of)
        arrays = target / target.sum(), draft / draft.sum()
        found.append([acceptance(law, rule, *arrays, 4, 1000, random) for law, rule in (PAIRS[0], ("without", "rrs"))])
    greedy, distinct = np.mean(found, axis=0)
    note = "ours greedy_optimal, peer rrs_without"
    name = f"SmolLM2-135M and its small draft, n = 4, temperature {temperature}"
    return row(name, float(greedy), float(distinct), "probability", len(positions), note)
