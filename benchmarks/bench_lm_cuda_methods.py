"""The decoding methods on a GPU with fp16 weights: what they say against the CPU in fp32, and what they take.

The model is SmolLM2-135M-Instruct where its file is there, else random weights of its shape.  A greedy text agrees
when each of its tokens is the CPU's likeliest up to `TOLERANCE` deviations of the logits, since near ties may fall
either way.  Without a GPU there is one row that says so; `PICKAXE_BENCH_DEVICE=cpu` tries the script on a CPU.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench_lm_cuda import prompt, random_model

DEVICE = os.environ.get("PICKAXE_BENCH_DEVICE", "cuda")
TOKENS, PROMPTS, RUNS = (64, 4, 3) if DEVICE == "cuda" else (8, 2, 1)
TOLERANCE = 0.05
"""Deviations of a position's logits; single logits were seen to differ by 0.012."""
SPECULATIVE: tuple[tuple[str, dict[str, Any]], ...] = (
    ("spectr", {"num_drafts": 1, "draft_length": 3}),
    ("spectr", {"num_drafts": 1, "draft_length": 3, "confidence": 0.6}),
    ("mdsd", {"num_drafts": 3, "depth": 3, "width": 2}),
)


def run() -> Iterator[dict[str, Any]]:
    from pickaxe.errors import RuntimeMissing
    from pickaxe.session import Runtime

    try:
        Runtime(DEVICE)
    except RuntimeMissing as missing:
        yield row("none", None, None, "", 0, str(missing))
        return
    with tempfile.TemporaryDirectory() as folder:
        sides = Sides(Path(folder))
        yield from speculative(sides)
        yield prepack(sides)
        yield from ape(sides)
        yield scoring(sides)
        yield prefixes(sides)


def row(name: str, ours: float | None, peer: float | None, unit: str, n: int, note: str) -> dict[str, Any]:
    """Of the device; a peer in the same unit, seconds or tokens a second."""
    ratio = None if ours is None or peer is None else (peer / ours if unit == "s" else ours / peer)
    return {"name": f"lm-cuda-methods: {name}", "ours": ours, "peer": peer, "ratio": ratio, "unit": unit, "n": n,
            "note": note}  # fmt: skip


class Sides:
    """The device's host and model, and the CPU's in fp32; which model, and what drafts for it."""

    def __init__(self, folder: Path) -> None:
        import pickaxe
        from pickaxe.errors import ModelMissing
        from pickaxe.lm import EngineSettings

        settings = EngineSettings(rows=8, cache_bytes=2 * 2**30)
        self.host = pickaxe.Host(device=DEVICE, engine=settings, state=folder / "state")
        self.cpu_host = pickaxe.Host(device="cpu", engine=settings, state=folder / "cpu-state")
        self.precision = "fp16" if DEVICE == "cuda" else "fp32"
        try:
            self.model, self.drafts = str(self.host.model_path("lm")), {"draft": "model", "draft_vocab": 8192}
        except ModelMissing:
            self.model, self.drafts = str(_with_words(random_model(folder / "random-135m"))), {"draft": "layers"}
        self.lm = self.host.lm(self.model, self.precision)
        self.cpu = self.cpu_host.lm(self.model, "fp32")

    def decoder(self, name: str, cpu: bool = False, **params: Any) -> Any:
        import pickaxe

        given = {"model": self.model, "temperature": 0, "max_tokens": TOKENS, **params}
        host, precision = (self.cpu_host, "fp32") if cpu else (self.host, self.precision)
        return pickaxe.decoder(name, host=host, precision=precision, **given)

    def text(self, place: int, length: int) -> str:
        return str(self.lm.tokenizer.decode(prompt(place, length)))

    def behind(self, ids: Sequence[int], said: Sequence[int]) -> float:
        """How far below the CPU's likeliest the worst of these tokens lies, in deviations of the logits."""
        logits, _ = self.cpu.forward([[*ids, *said[:-1]]], logits_at=np.arange(len(ids) - 1, len(ids) + len(said) - 1))
        gaps = logits[0].max(axis=1) - logits[0][np.arange(len(said)), list(said)]
        return float((gaps / logits[0].std(axis=1)).max())


def _with_words(folder: Path) -> Path:
    """Its tokenizer with text cut at blanks, and an end of text, which `ape` begins with."""
    path = folder / "tokenizer.json"
    kept = json.loads(path.read_text()) | {"pre_tokenizer": {"type": "WhitespaceSplit"}}
    path.write_text(json.dumps(kept))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 0}))
    return folder


def seconds(work: Callable[[], Any], runs: int = RUNS) -> float:
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def agreement(worst: float) -> str:
    within = "within" if worst <= TOLERANCE else "BEYOND"
    return f"worst token {worst:.4f} deviations behind the CPU's best ({within} {TOLERANCE})"


def answers(decoder: Any, *prompts: Any) -> list[Any]:
    """One per prompt."""
    return [each for each in decoder.complete(prompts) if each.choice >= 0]


# ---------------------------------------------------------------- the methods


def speculative(sides: Sides) -> Iterator[dict[str, Any]]:
    """Tokens a second one prompt at a time, against plain decoding on the device."""
    from pickaxe import Prompt

    prompts = [Prompt(sides.text(place, 24)) for place in range(PROMPTS)]
    plain = sides.decoder("repeated-sampling")
    on_cpu = [each.token_ids for each in answers(sides.decoder("repeated-sampling", cpu=True), *prompts)]
    for name, params in SPECULATIVE:
        decoder = sides.decoder(name, **sides.drafts, **params)
        taken, worst, calls, said = {"ours": 0.0, "plain": 0.0}, 0.0, 0.0, 0
        equal = 0
        for place, each in enumerate(prompts):
            for kind, one in (("ours", decoder), ("plain", plain)):
                one.complete(each)
                start = time.perf_counter()
                (found,) = answers(one, each)
                taken[kind] += time.perf_counter() - start
                if kind == "ours":
                    ids = sides.lm.tokenizer.encode(each.text, add_special=True)
                    worst = max(worst, sides.behind(ids, found.token_ids))
                    calls, said = calls + found.usage["target_calls"], said + len(found.token_ids)
                    equal += found.token_ids == on_cpu[place]
        note = f"{said / calls:.2f} tokens a call; {equal} of {PROMPTS} texts equal; {agreement(worst)}; peer: plain"
        settings = ", ".join(f"{key}={value}" for key, value in (sides.drafts | params).items())
        yield row(f"{name}, {settings}", said / taken["ours"], said / taken["plain"], "tokens/s", said, note)


def prepack(sides: Sides) -> dict[str, Any]:
    """64 prompts in shared rows, against one padded batch; logits against the CPU's, read one by one."""
    from pickaxe.lm.packing import prefill_packed

    count = 64 if DEVICE == "cuda" else 4
    lengths = np.random.default_rng(0).lognormal(np.log(60), 1, count).astype(int).clip(10, 500)
    lists = [prompt(place, int(length)) for place, length in enumerate(lengths)]
    padded = np.zeros((count, lengths.max()), np.int64)
    for place, ids in enumerate(lists):
        padded[place, : len(ids)] = ids
    found = prefill_packed(sides.lm, lists).logits
    wanted = np.array([sides.cpu.prefill(ids)[0] for ids in lists[:8]])
    worst = float((np.abs(found[: len(wanted)] - wanted) / wanted.std(axis=1, keepdims=True)).max())
    sides.lm.forward(padded, lengths=lengths)
    ours, peer = (
        seconds(work)
        for work in (lambda: prefill_packed(sides.lm, lists), lambda: sides.lm.forward(padded, lengths=lengths))
    )
    note = f"{lengths.sum()} tokens; logits differ from the CPU's by {worst:.4f} deviations; peer: padded"
    return row(f"prepack, {count} prompts", ours, peer, "s", count, note)


def ape(sides: Sides) -> Iterator[dict[str, Any]]:
    """The first token over contexts that are kept, against reading them in order; the text against the CPU's."""
    from pickaxe import Item, Prompt, Sampling

    count, length = (8, 200) if DEVICE == "cuda" else (2, 20)
    context = tuple(Item(str(place), sides.text(place + 50, length)) for place in range(count))
    asked = Prompt(sides.text(99, 10), context=context, sampling=Sampling(max_tokens=1))
    warm, ordered = sides.decoder("ape"), sides.decoder("ape", mode="sequential", cache=False)
    for decoder in (warm, ordered):
        decoder.complete(asked)
    asked_again = iter(range(10_000))

    def in_order() -> None:  # behind another prefix each time, since the engine knows the beginning otherwise
        ordered.complete(Prompt(asked.text, context=context, sampling=asked.sampling,
                                fields={"prefix": sides.text(200 + next(asked_again), 3)}))  # fmt: skip

    in_order()
    note = "contexts kept; peer: read in order"
    yield row(f"ape, first token, {count} contexts of {length}", seconds(lambda: warm.complete(asked)),
              seconds(in_order), "s", RUNS, note)  # fmt: skip
    whole = Prompt(asked.text, context=context, sampling=Sampling(max_tokens=16))
    mine, other = (answers(each, whole)[0] for each in (warm, sides.decoder("ape", cpu=True)))
    equal = next((i for i, pair in enumerate(zip(mine.token_ids, other.token_ids, strict=False)) if pair[0] != pair[1]),
                 min(len(mine.token_ids), len(other.token_ids)))  # fmt: skip
    worst = max(abs(a - b) for a, b in zip(mine.logprobs[:equal], other.logprobs[:equal], strict=True)) if equal else 0
    note = f"of {len(other.token_ids)}; their log-probabilities differ by at most {worst:.4f}"
    yield row("ape, tokens equal to the CPU's from the start", equal, len(other.token_ids), "tokens", 1, note)


def scoring(sides: Sides) -> dict[str, Any]:
    """Log-probabilities of texts in batches, against one text at a time."""
    count = 256 if DEVICE == "cuda" else 6
    lengths = np.random.default_rng(1).lognormal(np.log(60), 0.7, count).astype(int).clip(8, 400)
    lists = [prompt(place, int(length)) for place, length in enumerate(lengths)]
    found, wanted = sides.lm.token_logprobs(lists), sides.cpu.token_logprobs(lists[:16])
    worst = max(float(np.abs(a - b).max()) for a, b in zip(found, wanted, strict=False))
    ours = seconds(lambda: sides.lm.token_logprobs(lists))
    peer = seconds(lambda: [sides.lm.token_logprobs([each]) for each in lists], 1)
    note = f"{lengths.sum()} tokens; differ from the CPU's by at most {worst:.4f}; peer: one by one"
    return row(f"token_logprobs of {count} texts", ours, peer, "s", count, note)


def prefixes(sides: Sides) -> dict[str, Any]:
    """The first token of a prompt whose beginning was read before, against new ones."""
    from pickaxe import Call, Sampling
    from pickaxe.lm import Generation

    length = 900 if DEVICE == "cuda" else 60

    def first(ids: Sequence[int]) -> int:
        (step,) = sides.lm.generate(Generation(ids, Sampling(max_tokens=1, temperature=0)), Call())
        return int(step.token_id)

    known = prompt(500, length)
    first(known)
    numbers = iter(range(501, 10_000))
    warm = seconds(lambda: first([*known, next(numbers)]))
    cold = seconds(lambda: first(prompt(next(numbers), length + 1)))
    worst = sides.behind([*known, 7], [first([*known, 7])])
    return row(f"first token, {length} of {length + 1} tokens known", warm, cold, "s", RUNS,
               f"{agreement(worst)}; peer: nothing known")  # fmt: skip


if __name__ == "__main__":
    for line in run():
        print(json.dumps(line), flush=True)
