"""kv-predict: time to the first token and what is lost, for the model `lm` with half of its layers, and a small base.

The auxiliary model and the predictor are made in a few minutes on two cores, from some ten thousand tokens where the
paper has 140 billion: least squares on 4,096 tokens of Python's documentation, then 16 steps of 512 tokens.
"""

from __future__ import annotations

import pydoc_data.topics
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import pickaxe
from pickaxe import Artifact, Host, Item
from pickaxe.artifact import writing
from pickaxe.lm import LM, logsumexp
from pickaxe_plugins.decoding.kv_predict import Reader
from pickaxe_plugins.train import llama, loop, vocabulary
from pickaxe_plugins.train.settings import Net, Recipe

WORDS, TEXTS, HELD, STEPS = 180, 136, 24, 16
PROMPT, ANSWER = 192, 32
"""Tokens that are read before the answer, and tokens of the answer whose likelihood is compared."""


def run() -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as scratch:
        for steps in (0, STEPS):
            path = Path(scratch) / str(steps)
            fitted(steps, path)
            yield from quality(path, f"lm, half of its layers, {steps} steps")
        yield from speed(path)
        yield from small_base(Path(scratch) / "small")


def row(name: str, ours: float, peer: float, unit: str, n: int, note: str, *, more: bool = False) -> dict[str, Any]:
    """The peer is the base that reads the prompt itself; less is better, unless `more` is."""
    ratio = ours / peer if more else peer / ours
    return {"name": name, "ours": ours, "peer": peer, "ratio": ratio, "unit": unit, "n": n, "note": note}


# ---------------------------------------------------------------- the model `lm`


def pieces() -> list[str]:
    """Texts of so many words, the first ones to learn from and the last ones to measure on."""
    words = " ".join(pydoc_data.topics.topics.values()).split()
    return [" ".join(words[WORDS * place : WORDS * (place + 1)]) for place in range(TEXTS + HELD)]


def fitted(steps: int, path: Path) -> None:
    recipe = {"batch": 2, "rate": 3e-4, "warmup": 3, "checkpoint": 10_000}
    decoder = pickaxe.decoder("kv-predict", keep=0.5, steps=steps, start_tokens=4096, recipe=recipe)
    decoder.fit([Item(str(place), text) for place, text in enumerate(pieces()[:TEXTS])], out=path)


def opened(path: Path) -> Reader:
    host, artifact = Host(), Artifact.open(path)
    record = artifact.read_json("map.json")
    return Reader.open(host.lm(), host.lm_at(artifact.path), record["map"], artifact.file("predictor.onnx"))


def quality(path: Path, name: str) -> Iterator[dict[str, Any]]:
    """Cross-entropy of the next tokens of held-out texts, and how often the first of them is the exact base's."""
    reader = opened(path)
    found: dict[str, list[float]] = {"predicted": [], "exact": [], "alone": []}
    firsts: dict[str, list[int]] = {"predicted": [], "exact": [], "alone": []}
    held = reader.base.tokenizer.encode(" ".join(pieces()[TEXTS:]))
    starts = range(0, len(held) - PROMPT - ANSWER, PROMPT + ANSWER)
    for start in starts:
        ids = held[start : start + PROMPT + ANSWER]
        (past,) = reader.read([ids[: PROMPT - 1]])
        for kind, lm, known in (
            ("predicted", reader.base, past),
            ("exact", reader.base, reader.base.forward([ids[: PROMPT - 1]], logits_at="none")[1]),
            ("alone", reader.aux, reader.aux.forward([ids[: PROMPT - 1]], logits_at="none")[1]),
        ):
            logits, _ = lm.forward([ids[PROMPT - 1 : -1]], past=known, logits_at="all")
            assert logits is not None
            chosen = logits[0][np.arange(ANSWER), ids[PROMPT:]]
            found[kind].append(float((logsumexp(logits[0]) - chosen).mean()))
            firsts[kind].append(int(logits[0, 0].argmax()))
    means = {kind: statistics.fmean(values) for kind, values in found.items()}
    note = f"the auxiliary model alone: {means['alone']:.3f}"
    yield row(
        f"{name}: cross-entropy after {PROMPT} tokens", means["predicted"], means["exact"], "nat", len(starts), note
    )
    same = {kind: np.mean(np.equal(firsts[kind], firsts["exact"])) for kind in firsts}
    note = f"the auxiliary model alone: {same['alone']:.3f}"
    yield row(
        f"{name}: first token is the exact base's", float(same["predicted"]), 1.0, "share", len(starts), note, more=True
    )


def first_token(reader: Reader, ids: Sequence[int]) -> None:
    reader.base.prefill(ids[-1:], past=reader.read([ids[:-1]])[0])


def speed(path: Path, runs: int = 5) -> Iterator[dict[str, Any]]:
    """Time to the first token's logits: predicted cache and one token, against the base on the whole prompt."""
    reader = opened(path)
    base: LM = reader.base
    for tokens in (64, 256, 1024):
        ids = np.random.default_rng(0).integers(0, 49_000, tokens).tolist()
        ways: Sequence[Callable[[], Any]] = (
            partial(first_token, reader, ids),
            partial(base.prefill, ids),
            partial(reader.aux.prefill, ids[:-1]),
        )
        walls: list[list[float]] = [[], [], []]
        busy: list[list[float]] = [[], [], []]
        for turn in range(runs + 1):
            for place, way in enumerate(ways):
                wall, used = time.perf_counter(), time.process_time()
                way()
                if turn:
                    walls[place].append(time.perf_counter() - wall)
                    busy[place].append(time.process_time() - used)
        ours, peer, alone = map(statistics.median, walls)
        processor = statistics.median(busy[0]) / statistics.median(busy[1])
        note = f"processor time {processor:.2f}; auxiliary model alone {1e3 * alone:.0f} ms"
        yield row(f"first token after {tokens} tokens", 1e3 * ours, 1e3 * peer, "ms", runs, note)


# ---------------------------------------------------------------- a small base, trained on the spot

NAMES = ("Anna", "Boris", "Clara", "David", "Elena", "Felix", "Greta", "Henry", "Irene", "Jonas")
THINGS = ("boat", "car", "drum", "flute", "hat", "kite", "lamp", "piano", "rope", "tent")
COLOURS = ("black", "blue", "brown", "green", "grey", "pink", "red", "white")
LAYERS, WIDTH, BASE_STEPS, AUX_STEPS, BATCH = 4, 64, 300, 120, 16


def facts(number: int, count: int = 4) -> str:
    """Who has what, said twice."""
    draw = np.random.default_rng(number)
    said = [f"{who} has the {draw.choice(COLOURS)} {draw.choice(THINGS)}." for who in draw.permutation(NAMES)[:count]]
    return " ".join([*said, *(said[place] for place in draw.permutation(count))])


def small_base(folder: Path) -> Iterator[dict[str, Any]]:
    """A base of 4 layers; half of them as auxiliary model, trained together with the predictor."""
    trained_base(folder)
    recipe = {"batch": BATCH, "rate": 3e-3, "warmup": 20, "checkpoint": 10_000, "decay": 0.1}
    learned = [Item(str(number), facts(10**6 + number)) for number in range(BATCH * AUX_STEPS)]
    held = [Item(str(number), facts(2 * 10**6 + number)) for number in range(64)]
    for start, steps in (("random", 0), ("random", AUX_STEPS), ("regression", 0), ("regression", AUX_STEPS)):
        decoder = pickaxe.decoder(
            "kv-predict", model=str(folder), precision="fp32", steps=steps, start=start, recipe=recipe, length=128
        )
        told = decoder.fit(learned[: max(BATCH, BATCH * steps)], validation=held).artifact
        assert told is not None
        found = told.notes["validation"]
        note = (
            f"auxiliary model alone {found['aux_loss']:.3f}; operations {told.notes['prefill_share']:.2f} of the base's"
        )
        name = f"small base, {start} start, {steps} steps: cross-entropy"
        yield row(name, found["base_loss"], found["exact_loss"], "nat", len(held), note)


def trained_base(folder: Path) -> None:
    folder.mkdir(parents=True)
    texts = [facts(number) for number in range(BASE_STEPS * BATCH)]
    tokenizer = vocabulary.learn(texts[:200], 320, folder)
    net = Net(layers=LAYERS, width=WIDTH, heads=4, kv_heads=2, context=512)
    architecture = net.architecture(tokenizer.vocab_size)
    learned = []
    for ids in tokenizer.encode_batch(texts):
        weights = np.full(len(ids), 1 / (len(ids) - 1), np.float32)
        weights[0] = 0
        learned.append(loop.Text(np.array(ids, np.int32), weights))
    recipe = Recipe(epochs=1, batch=BATCH, rate=3e-3, warmup=50, checkpoint=10_000)
    with writing(folder.with_name("out"), kind="fit", method="base", method_version=1, params={}) as out:
        running = loop.train(architecture, llama.initial(architecture, 0), learned, recipe, out, seed=0)
        while True:
            try:
                next(running)
            except StopIteration as end:
                llama.save(end.value, architecture, folder)
                return
