"""wrap: small models on real, rephrased and mixed text; passages a second by batch, with shared style prompts or not.

The models are trained on made-up towns.  Real text has their facts between boilerplate; synthetic text asks and
answers about some of them, as a rephraser in the style qa would; what is held out are questions about the other towns,
and real text about towns that nothing else names.
"""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import pickaxe
from pickaxe import WHOLE_PROMPT, Call, Host, Item, Prompt
from pickaxe.lm import LM, EngineSettings
from pickaxe_plugins.generation.wrap import passages, styles
from pickaxe_plugins.generation.wrap._compare import KINDS
from pickaxe_plugins.generation.wrap._method import Params
from pickaxe_plugins.generation.wrap._rephrase import write_by_model
from pickaxe_plugins.generation.wrap._styles import PROMPTS, SYSTEM, messages

SEEDS = 3
TOWNS, ASKED, UNSEEN = 240, 120, 60
"""Towns of the real text, the first of them that are asked about, and towns of the held-out real text."""
NET = {"layers": 5, "width": 192, "heads": 4, "kv_heads": 2, "vocab": 512, "context": 128}
RECIPE = {"epochs": 1, "batch": 8, "rate": 3e-3, "warmup": 5}
TOKENS = 25_000
"""Tokens that each model reads."""
TEXTS = Path(__file__).parent / "membership_texts.json"


def run() -> Iterator[dict[str, Any]]:
    yield from directional()
    yield from speed()
    yield from rejects()


def row(
    name: str, ours: float, peer: float | None, ratio: float | None, unit: str, n: int, note: str
) -> dict[str, Any]:
    return {"name": name, "ours": ours, "peer": peer, "ratio": ratio, "unit": unit, "n": n, "note": note}


# ---------------------------------------------------------------- the claim


def directional() -> Iterator[dict[str, Any]]:
    """Mean perplexities over the seeds; the claim is that the mix beats real text by 10 % on questions, and
    synthetic text by 10 % on real text."""
    found = [trained(seed) for seed in range(SEEDS)]
    for domain, rivals in (("questions", ("real", "synthetic")), ("noisy", ("synthetic", "real"))):
        for place, rival in enumerate(rivals):
            ours, theirs = ([each[kind][domain] for each in found] for kind in ("mixed", rival))
            aim = "; aim: ratio above 1.11" if not place else ""
            yield row(
                f"perplexity of held-out {domain}: mixed against {rival}",
                statistics.fmean(ours),
                statistics.fmean(theirs),
                statistics.fmean(theirs) / statistics.fmean(ours),
                "perplexity",
                SEEDS,
                f"seeds {shown(ours)} against {shown(theirs)}{aim}",
            )


def trained(seed: int) -> dict[str, dict[str, float]]:
    """Perplexity by kind of training text and domain."""
    towns = [Town(seed, number) for number in range(TOWNS + UNSEEN)]
    real = [Item(f"r{town.number}", town.page(), {"origin": "real"}) for town in towns[:TOWNS]]
    synthetic = [Item(f"s{town.number}", town.asked(), {"origin": "synthetic"}) for town in towns[:ASKED]]
    held_out = [Item(f"q{town.number}", town.asked(), {"domain": "questions"}) for town in towns[ASKED:TOWNS]]
    held_out += [Item(f"n{town.number}", town.page(), {"domain": "noisy"}) for town in towns[TOWNS:]]
    decoder = pickaxe.decoder("wrap", counter="words", train=True, train_tokens=TOKENS, net=NET, recipe=RECIPE)
    artifact = decoder.fit([*real, *synthetic], validation=held_out, seed=seed).artifact
    assert artifact is not None
    report: dict[str, Any] = artifact.read_json("training.json")
    assert 2e6 <= report["parameters"] <= 4e6
    found: dict[str, dict[str, float]] = report["perplexity"]
    assert set(found) == set(KINDS)
    return found


class Town:
    """A made-up town with its facts, and two ways to write them."""

    BOILERPLATE = (
        "Home | About | Login",
        "We use cookies !! [accept] [decline]",
        ">> click here to subscribe <<",
        "(c) all rights reserved",
        "share: fb tw mail",
        "loading ... please wait",
        "404 image not found",
        "Top 10 deals near you",
        "advertisement",
        "page 1 of 7 next >",
    )
    GOODS = ("glass", "cheese", "bells", "paper", "honey", "boats", "lace", "salt", "clocks", "cider")

    def __init__(self, seed: int, number: int) -> None:
        draw = pickaxe.generator(seed, "town", number)
        self.seed, self.number = seed, number
        self.name, self.river, self.mayor = (self._word(draw) for _ in range(3))
        self.year, self.goods = int(draw.integers(900, 1990)), str(draw.choice(self.GOODS))

    @staticmethod
    def _word(draw: np.random.Generator) -> str:
        starts, ends = (
            ("b", "d", "k", "l", "m", "n", "r", "st", "v", "t"),
            ("a", "e", "i", "o", "ul", "en", "or", "ash"),
        )
        return "".join(str(draw.choice(starts)) + str(draw.choice(ends)) for _ in range(3)).capitalize()

    def page(self) -> str:
        facts = (
            f"{self.name} lies on the {self.river}",
            f"{self.name.upper()} est. {self.year}",
            f"known 4 its {self.goods}",
            f"mayor: {self.mayor}",
        )
        draw = pickaxe.generator(self.seed, "boilerplate", self.number)
        noise = [str(each) for each in draw.choice(self.BOILERPLATE, 5, replace=False)]
        lines = [noise.pop()]
        for fact in facts:
            lines += [fact, noise.pop()]
        return " \n".join(lines)

    def asked(self) -> str:
        pairs = (
            (f"On which river does {self.name} lie?", f"It lies on the river {self.river}."),
            (f"When was {self.name} founded?", f"The town was founded in the year {self.year}."),
            (f"What is {self.name} known for?", f"It is known for its {self.goods}."),
            (f"Who is the mayor of {self.name}?", f"The mayor is {self.mayor}."),
        )
        return "\n\n".join(f"Question: {question}\nAnswer: {answer}" for question, answer in pairs)


def shown(values: list[float]) -> str:
    return " ".join(f"{value:.2f}" for value in values)


# ---------------------------------------------------------------- speed

OUTPUT = 64
"""Tokens written for a passage."""
BATCHES = {1: 4, 8: 8, 32: 32}
"""Passages decoded together, and how many of them are timed."""


def speed() -> Iterator[dict[str, Any]]:
    """Passages a second of one core with the style prompt read once, against reading it for every passage.

    In CPU time, which other work on the machine moves least.
    """
    lm = Host(threads=1).lm()
    found = {batch: alternating(lm, batch, count) for batch, count in BATCHES.items()}
    for batch, (shared, alone) in found.items():
        yield row(
            f"passages of 100 tokens, batch {batch}: style prompt read once against every time",
            shared,
            alone,
            shared / alone,
            "passages/CPU s",
            BATCHES[batch],
            f"{OUTPUT} tokens written each; aim: 1.3",
        )
    for batch in (8, 32):
        yield row(
            f"passages of 100 tokens, batch {batch} against 1",
            found[batch][0],
            found[1][0],
            found[batch][0] / found[1][0],
            "passages/CPU s",
            BATCHES[batch],
            "style prompt read once; aim at 32: 4",
        )


def alternating(lm: LM, batch: int, count: int, runs: int = 2) -> tuple[float, float]:
    """Mean passages a second of runs in turn: with the cache of prompts, and without."""
    rates: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(runs):
        for shared, found in rates.items():
            found.append(rate(lm, batch, count, shared, turn))
    return statistics.fmean(rates[True]), statistics.fmean(rates[False])


def rate(lm: LM, batch: int, count: int, shared: bool, turn: int) -> float:
    """Passages a second of one core, on an engine of its own, so that no run finds what another has read."""
    settings = EngineSettings(rows=batch) if shared else EngineSettings(rows=batch, prefix_bytes=0)
    fresh = LM(lm.name, lm.network, lm.tokenizer, settings)
    (style,) = styles("medium")
    sampling = pickaxe.Sampling(max_tokens=OUTPUT, temperature=0.8, top_p=0.95)
    prompts = [Prompt(messages=messages(style, SYSTEM, text), sampling=sampling) for text in pieces(lm, turn, count)]
    params = Params.model_validate({})
    begin = time.process_time()
    if batch == 1:  # one after the other: the next is asked for when this one is whole
        for prompt in prompts:
            list(write_by_model(fresh, [prompt], params, Call()))
    else:
        list(write_by_model(fresh, prompts, params, Call()))
    return count / (time.process_time() - begin)


def pieces(lm: LM, turn: int, count: int) -> list[str]:
    """Passages of about 100 tokens, other ones in every turn."""
    texts = [each["retold"] for each in json.loads(TEXTS.read_text(encoding="utf-8"))]
    order = pickaxe.generator(0, "passages", turn).permutation(np.repeat(np.arange(len(texts)), 5))
    document = " ".join(texts[place] for place in order)
    found = passages(document, 100, lambda text: len(lm.tokenizer.encode(text)))
    return [passage.text for passage, _ in zip(found, range(count), strict=False)]


# ---------------------------------------------------------------- rejects


def rejects() -> Iterator[dict[str, Any]]:
    """How much of what the small model writes is rejected, by style."""
    texts = [each["retold"] for each in json.loads(TEXTS.read_text(encoding="utf-8"))][:12]
    begin = time.perf_counter()
    found = pickaxe.decoder("wrap", styles=list(PROMPTS)).complete(texts)
    seconds = time.perf_counter() - begin
    records = [each.records[0] for each in found if each.choice != WHOLE_PROMPT]
    for name in PROMPTS:
        reasons = Counter(each["rejected"] for each in records if each["style"] == name)
        bad = reasons.total() - reasons[None]
        told = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common() if reason)
        yield row(f"rejected, style {name}", bad / len(texts), None, None, "share", len(texts), told or "none")
    written = sum(each.usage["completion_tokens"] for each in found if each.choice == WHOLE_PROMPT)
    yield row(
        "tokens written by the model lm",
        written / seconds,
        None,
        None,
        "tokens/s",
        int(written),
        "peers (a vLLM script with these prompts, datatrove pipelines) are not installed",
    )
