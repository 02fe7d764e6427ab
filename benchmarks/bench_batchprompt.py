"""batchprompt: tokens, calls and accuracy against single prompting, its overhead, and the small model's logits.

Three parts: a simulated model whose accuracy falls along the prompt (.9 at the first place, .6 at the 32nd), the cost
of the wrapper itself, and `lm` in mode logits on two-class reviews.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

import pickaxe
from pickaxe import Call, Chunk, Item, Method, Prompt, catalog
from pickaxe.hooks import hookimpl
from pickaxe_plugins.decoding.batchprompt.task import answer

LABELS = ("negative", "positive")
INSTRUCTION = (
    "Decide for every customer review whether its writer liked what the review is about. A review is positive when the "
    "writer is happy, would come back or recommends it to others; it is negative when the writer is unhappy, complains "
    "or warns others. Judge the opinion of the writer and nothing else: not the style, not the spelling, not whether "
    "you would agree. When a review has both praise and complaint, decide by what weighs more for the writer. Irony "
    "counts as what is meant and not as what is said. Prices, places and names are no opinion by themselves. "
    "Reviews come from shops, restaurants, hotels, cinemas and concerts, and most of them are one sentence long. "
    "Never leave a review out, and never invent one that is not there."
)
POSITIVE = (
    "I loved every minute of it", "A warm, funny and clever film", "The best meal I have had in years",
    "Great service and friendly staff", "She sings beautifully on this album", "It works perfectly and looks lovely",
    "An absolute joy from start to finish", "Highly recommended, five stars", "The hotel was clean and quiet",
    "My kids adore this toy", "Brilliant acting and a great story", "Fast delivery, excellent quality",
)  # fmt: skip
NEGATIVE = (
    "A complete waste of time", "The food was cold and the waiter was rude", "It broke after two days",
    "Boring, slow and far too long", "The worst concert I have ever been to", "Terrible sound and ugly design",
    "I want my money back", "Dirty rooms and loud neighbours", "The plot makes no sense at all",
    "It smells awful and does not work", "Very disappointing, avoid it", "The staff ignored us for an hour",
)  # fmt: skip


def run() -> Iterator[dict[str, Any]]:
    with catalog.register(Fading, "fading", "decoder"):
        yield from simulated()
        yield overhead()
    yield from small_model()


class Fading(Method):
    """A decoder that knows every label and errs more towards the end of a prompt; sure answers err less."""

    @hookimpl
    def decode(self, prompts: Sequence[Prompt], call: Call) -> Iterator[Chunk]:
        for row, prompt in enumerate(prompts):
            truths = re.findall(r"^Input \d+: .*?(\d)$", prompt.messages[-1].content, re.MULTILINE)
            drawn = pickaxe.generator(prompt.sampling.seed or 0, "fading").random((len(truths), 2))
            chances = 0.9 - 0.3 * np.arange(len(truths)) / 31
            right = drawn[:, 0] < chances
            sure = drawn[:, 1] < np.where(right, 0.9, 0.5)
            labels = np.where(right, np.array(truths, int), 1 - np.array(truths, int)).tolist()
            lines = [answer(place, *pair) for place, pair in enumerate(zip(labels, sure.tolist(), strict=True))]
            yield Chunk(row, 0, "\n".join(lines), finish_reason="stop")


# ---------------------------------------------------------------- simulation


def simulated(n: int = 1280) -> Iterator[dict[str, Any]]:
    items = [Item(str(row), f"review number {row} {row * row % 7 % 2}") for row in range(n)]
    truth = np.array([row * row % 7 % 2 for row in range(n)])
    for size in (8, 16, 32):
        for rounds in (1, 3, 5):
            for stop in (False, True) if rounds > 1 else (False,):
                scores = label(items, decoder="fading", batch_size=size, rounds=rounds, early_stop=stop)
                usage = scores.summary["usage"]
                share = usage["input_tokens"] / usage["single_prompt_tokens"]
                accuracy = float(np.mean(scores["label_index"] == truth))
                note = f"accuracy {accuracy:.3f} (0.9 alone); {usage['calls'] / n:.3f} calls an item"
                name = f"input tokens, batch {size}, {rounds} rounds{', early stop' if stop else ''}"
                yield _row(name, usage["input_tokens"] / n, usage["single_prompt_tokens"] / n, 1 / share, n, note)


def overhead(n: int = 1280) -> dict[str, Any]:
    items = [Item(str(row), f"review number {row} {row % 2}") for row in range(n)]
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        scores = label(items, decoder="fading", early_stop=False)
        times.append(time.perf_counter() - begin)
    note = (
        f"{scores.summary['usage']['calls']} calls of 32 items, the simulated model included; aim: below 1 ms.  "
        "The authors' code asks a hosted model: not run"
    )
    return _row("wrapper, 5 rounds", float(np.median(times)) / n * 1e3, None, None, n, note, "ms/item")


# ---------------------------------------------------------------- the model lm


def small_model() -> Iterator[dict[str, Any]]:
    items = [Item(text, text, {"label": LABELS[1]}) for text in POSITIVE]
    items += [Item(text, text, {"label": LABELS[0]}) for text in NEGATIVE]
    random.Random(0).shuffle(items)
    wanted = [item.fields["label"] for item in items]
    begin = time.perf_counter()
    single = label(items, mode="logits", batch_size=1, rounds=1)
    alone = (time.perf_counter() - begin) / len(items)
    correct = float(np.mean(single["label"] == wanted))
    for rounds in (1, 5):
        begin = time.perf_counter()
        scores = label(items, mode="logits", batch_size=8, rounds=rounds)
        taken = (time.perf_counter() - begin) / len(items)
        usage = scores.summary["usage"]
        read, read_alone = (each["input_tokens"] - each["cached_tokens"] for each in (usage, single.summary["usage"]))
        accuracy = float(np.mean(scores["label"] == wanted))
        share = usage["input_tokens"] / usage["single_prompt_tokens"]
        note = (
            f"accuracy {accuracy:.2f}, alone {correct:.2f}; input tokens {share:.2f} of single prompts, "
            f"tokens read with a shared beginning {read} against {read_alone}"
        )
        yield _row(f"lm, logits, batch 8, {rounds} rounds", taken, alone, alone / taken, len(items), note, "s/item")
    written = label(items[:8], mode="text", batch_size=1, rounds=1, retry=0, max_tokens=32)
    yield _row("lm, text, single prompts: votes", float(written["votes"].mean()), None, None, 8, "", "votes/item")


def label(items: Sequence[Item], **params: Any) -> pickaxe.Scores:
    return pickaxe.scorer("batch-label", labels=LABELS, instruction=INSTRUCTION, **params).score(items)


def _row(
    name: str, ours: float, peer: float | None, ratio: float | None, n: int, note: str, unit: str = "tokens/item"
) -> dict[str, Any]:
    return {"name": name, "ours": ours, "peer": peer, "ratio": ratio, "unit": unit, "n": n, "note": note}
