"""fullrank: prompts, tokens and seconds of the strategies with the language model, and what it adds of its own."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

import pickaxe
from pickaxe import Chunk, Item, Method, Prompt, catalog
from pickaxe.hooks import hookimpl
from pickaxe_plugins.reranking.fullrank import listwise_messages, schedule, write_permutation

WORDS = ("water", "tea", "leaf", "river", "stone", "light", "paper", "glass", "metal", "green", "early", "often")
NO_PEER = "the package rank-llm is not installed; sliding is its schedule"


class Instant(Method[pickaxe.Params]):
    """A decoder that answers at once with the incoming order."""

    @hookimpl
    def decode(self, prompts: Sequence[Prompt]) -> Iterator[Chunk]:
        for place, prompt in enumerate(prompts):
            n = prompt.messages[-1].content.count("\n[")
            yield Chunk(place, text=write_permutation(range(n)), finish_reason="stop")


def run() -> Iterator[dict[str, Any]]:
    yield from outside_the_model()
    yield from prompt_tokens()
    yield from with_the_model()


def outside_the_model() -> Iterator[dict[str, Any]]:
    """Milliseconds of processor time a query beside the model, 100 candidates of 100 words."""
    given = candidates(100, 100)
    with catalog.register(Instant, "instant", "decoder"):
        for strategy in ("full", "sliding", "complete"):
            reranker = pickaxe.reranker("fullrank", decoder="instant", strategy=strategy)
            taken = []
            for _ in range(20):
                start = time.process_time()
                ranking = reranker.rerank("green tea", given)
                taken.append(1e3 * (time.process_time() - start))
            yield row(f"{strategy}, outside the model", statistics.median(taken), None, "ms/query", 100)
            yield row(f"{strategy}, prompts at n = 100", ranking.usage["prompts"], None, "prompts", 100)
            yield row(f"{strategy}, passage reads at n = 100", ranking.usage["passage_reads"], None, "passages", 100)


def prompt_tokens() -> Iterator[dict[str, Any]]:
    """Tokens of all prompts for 100 candidates of 100 words, by the language model's tokenizer."""
    lm = pickaxe.Host().lm("lm")
    texts = [item.text or "" for item in candidates(100, 100)]

    def tokens(windows: Sequence[tuple[int, int]]) -> float:
        prompts = [listwise_messages("green tea", texts[start:end], 100) for start, end in windows]
        return sum(len(lm.tokenizer.encode_chat(prompt)) for prompt in prompts)

    full, sliding = tokens([(0, 100)]), tokens(schedule(100, 20, 10))
    complete = tokens(
        [(done + start, done + end) for done in range(0, 90, 10) for start, end in schedule(100 - done, 20, 10)]
    )
    for name, peer in (("sliding", sliding), ("complete", complete)):
        found = row(f"full against {name}, prompt tokens at n = 100", full, peer, "tokens", 100)
        yield {**found, "ratio": peer / full, "note": f"full takes {full / peer:.0%}"}


def with_the_model() -> Iterator[dict[str, Any]]:
    """n = 40 passages of 30 words; full as ours, sliding and complete as what it replaces."""
    given = candidates(40, 30)
    used: dict[str, dict[str, float]] = {}
    for strategy in ("full", "sliding", "complete"):
        reranker = pickaxe.reranker("fullrank", model="lm", strategy=strategy, max_passage_len=30)
        if not used:
            reranker.rerank("green tea", given[:2])
        start = time.perf_counter()
        ranking = reranker.rerank("green tea", given)
        used[strategy] = {**ranking.usage, "seconds": time.perf_counter() - start}
    for other in ("sliding", "complete"):
        for name, unit in (
            ("prompts", "prompts"), ("prompt_tokens", "tokens"), ("output_tokens", "tokens"), ("seconds", "s"),
        ):  # fmt: skip
            found = row(f"full against {other}, {name}", used["full"][name], used[other][name], unit, len(given))
            yield {**found, "ratio": used[other][name] / used["full"][name]}


def candidates(n: int, words: int) -> list[Item]:
    draw = np.random.default_rng(0)
    return [Item(f"c{place}", " ".join(draw.choice(WORDS, words))) for place in range(n)]


def row(name: str, ours: float, peer: float | None, unit: str, n: int) -> dict[str, Any]:
    ratio = None if peer is None else ours / peer
    found = {"name": name, "ours": ours, "peer": peer, "ratio": ratio, "unit": unit, "n": n}
    return {**found, "note": NO_PEER} if peer is None else found
