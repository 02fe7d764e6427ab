"""ape: time to the first token over cached contexts against reading them in order, and what answers lose by it.

Times are processor seconds of one thread: they say how much work each way is, whatever else the machine does.
The questions are made up: eight short passages, each with a number that belongs to a town, and one town asked for.
"""

from __future__ import annotations

import pydoc_data.topics
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

import pickaxe
from pickaxe import Host, Item, Prompt, Sampling
from pickaxe.lm import KV, LM, Contexts, logsumexp
from pickaxe.randomness import generator
from pickaxe_plugins.decoding.ape import assemble, encode

PASSAGES, QUESTIONS, FITTED_ON = 8, 60, 10
TOWNS = (
    "Aldbury", "Brackley", "Carnforth", "Dunmow", "Elstead", "Fairford", "Garstang", "Hexham", "Ilkley", "Keswick",
    "Lanark", "Melrose", "Nairn", "Oundle", "Penrith", "Quorn", "Ripon", "Selby", "Tetbury", "Uckfield", "Wantage",
)  # fmt: skip
PREFIX = "Here are notes from several archives.\n\n"


def run() -> Iterator[dict[str, Any]]:
    for count, length in ((8, 200), (1, 256), (4, 256), (16, 256)):
        yield from first_token(count, length)
    yield from quality()


# ---------------------------------------------------------------- speed


def first_token(count: int, length: int, runs: int = 3) -> Iterator[dict[str, Any]]:
    """Seconds until the first token, with contexts of so many tokens: kept ones, new ones, and in order."""
    lm = Host(threads=1).lm()
    words = lm.tokenizer.encode(" ".join(pydoc_data.topics.topics.values()))
    pieces = [lm.tokenizer.decode(words[place * length : (place + 1) * length]) for place in range(count)]
    context = tuple(Item(str(place), text) for place, text in enumerate(pieces))
    prompt = Prompt("What is a Python expression?", context=context, sampling=Sampling(max_tokens=1))
    with tempfile.TemporaryDirectory() as folder:
        host = Host(threads=1, state=Path(folder))
        warm, new = pickaxe.decoder("ape", host=host), pickaxe.decoder("ape", host=host, cache=False)
        in_order = pickaxe.decoder("ape", host=host, mode="sequential")
        for decoder in (warm, warm, new):
            decoder.complete(prompt)  # opens sessions, and keeps the contexts
        seconds: dict[str, list[float]] = {"warm": [], "cold": [], "sequential": []}
        for _ in range(runs):
            seconds["warm"].append(timed(warm, prompt))
        for turn in range(max(1, runs - count // 4)):
            seconds["cold"].append(timed(new, prompt))
            other = replace(prompt, fields={"prefix": f"Part {turn}."})  # or the engine knows the beginning already
            seconds["sequential"].append(timed(in_order, other))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name in ("warm", "cold"):
        yield {
            "name": f"first token, {count} contexts of {length} tokens, {name}",
            "ours": medians[name],
            "peer": medians["sequential"],
            "ratio": medians["sequential"] / medians[name],
            "unit": "s",
            "n": runs,
            "note": "peer: the same read in order" + ("; aim: 4" if name == "warm" else ""),
        }


def timed(decoder: Any, prompt: Prompt) -> float:
    begin = time.process_time()
    decoder.complete(prompt)
    return time.process_time() - begin


# ---------------------------------------------------------------- quality


def questions(seed: int, count: int) -> list[tuple[list[str], str, str]]:
    """(passages, query, answer) each: the answer stands in one of the passages."""
    found = []
    for row in range(count):
        random = generator(seed, "question", row)
        towns = random.permutation(TOWNS)[:PASSAGES]
        numbers = random.integers(1000, 10000, PASSAGES)
        passages = [
            f"The library of {town} opened in {1850 + int(random.integers(90))}. Its shelf mark is {number}."
            for town, number in zip(towns, numbers, strict=True)
        ]
        asked = int(random.integers(PASSAGES))
        found.append((passages, f"The shelf mark of the library of {towns[asked]} is", f" {numbers[asked]}."))
    return found


def quality() -> Iterator[dict[str, Any]]:
    lm = Host().lm()
    examples = [
        Item(str(row), query, {"contexts": tuple(passages), "answer": answer, "prefix": PREFIX})
        for row, (passages, query, answer) in enumerate(questions(1, FITTED_ON))
    ]
    fitted = pickaxe.decoder("ape", separator="\n").fit(examples)
    assert fitted.artifact is not None
    chosen = fitted.artifact.read_json("settings.json")
    best = chosen["temperature_context"], chosen["scale"]
    asked = [ids_of(lm, *question) for question in questions(0, QUESTIONS)]
    settings = {
        f"ape, fitted T={best[0]} S={best[1]}": best,
        "ape, T=S=0.9": (0.9, 0.9),
        "ape, T=S=1": (1.0, 1.0),
    }
    shared = np.array([after_a_prefix(lm, each, list(settings.values())) for each in asked])
    found = {
        "sequential": in_order(lm, asked),
        **dict(zip(settings, shared.T, strict=True)),
        "parallel without a shared prefix": np.array([without_prefix(lm, each) for each in asked]),
    }
    worst = list(found.values())[-1]
    for name, values in found.items():
        gains = values - worst
        drawn = generator(0, "bootstrap").integers(0, len(gains), (10_000, len(gains)))
        p = float((gains[drawn].mean(axis=1) <= 0).mean())
        yield {
            "name": f"log-likelihood per answer token, {name}",
            "ours": float(values.mean()),
            "peer": None,
            "ratio": None,
            "unit": "nats",
            "n": len(values),
            "note": f"gain over no shared prefix {gains.mean():+.3f}, bootstrap p {p:.4f}",
        }


Asked = tuple[list[int], list[list[int]], list[int], list[int]]


def ids_of(lm: LM, passages: Sequence[str], query: str, answer: str) -> Asked:
    """Prefix, contexts, query and answer as token ids."""
    tokenizer = lm.tokenizer
    assert tokenizer.bos_id is not None
    contexts = tokenizer.encode_batch([f"{text}\n" for text in passages])
    return [tokenizer.bos_id, *tokenizer.encode(PREFIX)], contexts, tokenizer.encode(query), tokenizer.encode(answer)


def in_order(lm: LM, asked: Sequence[Asked]) -> np.ndarray:
    whole = [[*prefix, *chain(*contexts), *query, *answer] for prefix, contexts, query, answer in asked]
    logprobs = lm.token_logprobs(whole)
    return np.array([found[-len(each[3]) :].mean() for found, each in zip(logprobs, asked, strict=True)])


def after_a_prefix(lm: LM, asked: Asked, settings: Sequence[tuple[float, float]]) -> list[float]:
    """Mean log-probability of the answer's tokens for each T and S."""
    prefix, contexts, query, answer = asked
    _, lead = lm.forward([prefix], logits_at="none")
    parts = [lead, *encode(lm, lead, contexts, batch=8)]
    start = len(prefix) + max(map(len, contexts))
    return [answered(lm, parts, len(prefix), start, query, answer, pair) for pair in settings]


def without_prefix(lm: LM, asked: Asked) -> float:
    """The same where contexts are read from position 0 on and the prefix is read with the query."""
    prefix, contexts, query, answer = asked
    parts = [lm.forward([each], logits_at="none")[1] for each in contexts]
    return answered(lm, parts, 0, max(map(len, contexts)), [*prefix, *query], answer, (1.0, 1.0))


def answered(
    lm: LM,
    parts: Sequence[KV],
    prefix: int,
    start: int,
    query: list[int],
    answer: list[int],
    settings: tuple[float, float],
) -> float:
    ids = [*query, *answer[:-1]]
    cache = assemble(parts, len(ids))
    logits, _ = lm.forward(
        [ids],
        past=cache,
        positions=start + np.arange(len(ids))[None],
        contexts=Contexts(np.arange(cache.width) >= prefix, *settings),
        logits_at=np.arange(len(ids) - len(answer), len(ids)),
    )
    assert logits is not None
    return float((logits[0, np.arange(len(answer)), answer] - logsumexp(logits[0])).mean())
