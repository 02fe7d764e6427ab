"""mates: probes a second against a PyTorch loop, scoring against its encoder, and two claims on a small model."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from pydoc_data import topics
from typing import Any

import numpy as np

import pickaxe
from benchmarks._rows import median
from pickaxe import Host, Item
from pickaxe.artifact import writing
from pickaxe.comparison import spearman
from pickaxe.lm.weights import Architecture
from pickaxe.tokenizers import Tokenizer
from pickaxe_plugins.selection.mates import _regress
from pickaxe_plugins.selection.mates._base import Base, counted
from pickaxe_plugins.selection.mates._probe import Prober, State, Step, decoder
from pickaxe_plugins.selection.quad._influence import next_token_loss
from pickaxe_plugins.train import llama, optimisers, trained, vocabulary
from pickaxe_plugins.train.descent import Shuffle, finished, go_on
from pickaxe_plugins.train.settings import Net
from pickaxe_plugins.train.trained import Trained

CODE = "".join(path.read_text("utf-8") for path in sorted(Path(os.__file__).parent.glob("*.py"))[:40])
PROSE = "".join(topics.topics[name] for name in sorted(topics.topics))
NO_PEER = "PyTorch is not installed"
RATE, LENGTH = 2e-3, 64


def run() -> Iterator[dict[str, Any]]:
    yield probes(8, 64)
    yield scoring(64)
    with tempfile.TemporaryDirectory() as folder:
        yield from claims(Path(folder), 100, 32, (20, 120))


def probes(count: int, references: int) -> dict[str, Any]:
    """Probes a second of a network of a million parameters: 128 tokens each, references of 32 tokens."""
    net = Net(layers=5, width=128, heads=4, kv_heads=4, context=256).architecture(512)
    weights, rng = llama.initial(net, 0), np.random.default_rng(0)
    given = [rng.integers(0, 512, 128).astype(np.int32) for _ in range(count)]
    asked = [rng.integers(0, 512, 32).astype(np.int32) for _ in range(references)]
    prober = Prober(decoder(net), State.fresh(weights), Step(1e-3), [counted(ids, 24, 1.0) for ids in asked])
    texts = [counted(ids, 1, 1.0) for ids in given]
    peer = torch_loop(net, weights, given, asked)
    prober.after(texts)
    ours = count / median(lambda: prober.after(texts), 3)
    other = count / median(peer, 3) if peer else None
    found = row(f"probes, 1 M parameters, {references} references", ours, other, "probes/s", count)
    return found if peer is not None else {**found, "note": NO_PEER}


def scoring(count: int) -> dict[str, Any]:
    """Texts a second of scoring, against the encoder alone on the same texts."""
    texts = [PROSE[start : start + 600] for start in range(0, 600 * count, 600)]
    encoder, call = Host().encoder(), pickaxe.Call()
    encoder.encode(texts[:4], call)
    ours = count / median(lambda: _regress.features(encoder, texts, 2, call), 3)
    return row(
        "scoring against its encoder", ours, count / median(lambda: encoder.encode(texts, call), 3), "texts/s", count
    )


def claims(folder: Path, count: int, references: int, steps: tuple[int, int]) -> Iterator[dict[str, Any]]:
    """A pool of code and prose, references of code: is code found, and do preferences change in training?"""
    corpus = cut(CODE, 0, 600) + cut(PROSE, 0, 600)
    tokenizer = vocabulary.learn(corpus, 512, folder)
    net = Net(layers=2, width=64, heads=4, kv_heads=4, context=LENGTH).architecture(tokenizer.vocab_size)
    probed = [Item(f"{row}", text) for row, text in enumerate(mixed(700, count))]
    pool = [Item(f"{row}", text) for row, text in enumerate(mixed(1000, count))]
    asked = [Item(f"{row}", fields=split(text)) for row, text in enumerate(cut(CODE, 1500, references))]
    found: dict[int, list[np.ndarray]] = {}
    for at in steps:
        (place := folder / str(at)).mkdir()
        train(place, net, tokenizer, corpus, at)
        found[at] = [influences(place, probed, half) for half in (asked[::2], asked[1::2])]
    handle = pickaxe.scorer("mates", model=str(place), schedule={"rate": RATE}, probe_max_tokens=LENGTH)
    fitted = handle.fit(probed, validation=asked)
    select = fitted.score(pool)["select"].astype(bool)
    reached = fitted.artifact.notes["quality"]["spearman"]
    yield row("Spearman of a head on the stock encoder, held-out probes", reached, 0.3, "correlation", count)
    yield row(
        "share of the references' domain among the selected", select[::2].sum() / select.sum(), 0.5, "share", count
    )
    (early, other), (late, late_other) = found[steps[0]], found[steps[1]]
    same = (spearman(early, other) + spearman(late, late_other)) / 2
    apart = (spearman(early, late_other) + spearman(other, late)) / 2
    note = f"steps {steps[0]} and {steps[1]}; each measured on another half of the references"
    yield {**row("influences at one checkpoint against two", same, apart, "Spearman", count), "note": note}


def cut(text: str, first: int, count: int) -> list[str]:
    return [text[200 * at : 200 * (at + 1)] for at in range(first, first + count)]


def mixed(first: int, count: int) -> list[str]:
    """Code and prose in turns."""
    pairs = zip(cut(CODE, first, count // 2), cut(PROSE, first, count // 2), strict=True)
    return [text for pair in pairs for text in pair]


def split(text: str) -> dict[str, str]:
    return {"context": text[:60], "target": text[60:120]}


def train(folder: Path, net: Architecture, tokenizer: Tokenizer, corpus: list[str], steps: int) -> None:
    """A model in the middle of its training, as mates reads it."""
    rows = [tokenizer.encode(text)[:LENGTH] for text in corpus]
    losses, shuffle = next_token_loss(net), Shuffle(len(rows), 16, 0)

    def given(step: int) -> Mapping[str, Any]:
        ids, lengths = np.zeros((16, LENGTH), np.int32), np.ones(16, np.int32)
        for place, at in enumerate(shuffle.rows(step)):
            ids[place, : len(rows[at])], lengths[place] = rows[at], len(rows[at])
        return {"ids": ids, "lengths": lengths}

    def loss(weights: Any, batch: Mapping[str, Any], key: Any) -> tuple[Any, Mapping[str, Any]]:
        return losses(weights, batch).mean(), {}

    optimiser = optimisers.adamw(RATE, betas=(0.9, 0.95), decay=0.1, clip=1.0)
    with writing(folder / "run", kind="fit", method="bench", method_version=1, params={}) as out:
        state = finished(go_on(loss, optimiser, Trained(llama.initial(net, 0)), given, steps, out, seed=0))
    tokenizer.save(folder)
    llama.save(state.tree, net, folder)
    trained.write(folder / trained.FILE, state)


def influences(folder: Path, probed: list[Item], asked: list[Item]) -> np.ndarray:
    base = Base.open(Host(), str(folder), False)
    prober = Prober(decoder(base.architecture), base.state, Step(RATE), base.reference(asked))
    texts = [base.probe(item.text or "", LENGTH) for item in probed]
    return prober.before() - prober.after([text for text in texts if text is not None])[0]


def torch_loop(
    net: Architecture, weights: Mapping[str, np.ndarray], given: list[np.ndarray], asked: list[np.ndarray]
) -> Callable[[], None] | None:
    """Copy the weights, step with a new torch.optim.AdamW, evaluate: one probe after the other, in the same network."""
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        return None
    functional = torch.nn.functional
    angles = torch.arange(256)[:, None] * torch.tensor(net.inverse_frequencies(), dtype=torch.float32)

    def turned(x: Any) -> Any:
        cosine, sine = (part[: x.shape[-2]] for part in (angles.cos(), angles.sin()))
        first, second = x.chunk(2, -1)
        return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)

    def norm(x: Any, scale: Any) -> Any:
        return x * (x.pow(2).mean(-1, keepdim=True) + net.eps).rsqrt() * scale

    def loss(w: Mapping[str, Any], ids: Any, first: int) -> Any:
        x = w["embedding"][ids]
        for at in range(net.layers):
            part = {name: w[f"layers.{at}.{name}"] for name in ("q", "k", "v", "o", "gate", "up", "down")}
            h = norm(x, w[f"layers.{at}.attention_norm"])
            q, k, v = ((h @ part[n].T).unflatten(-1, (net.heads, -1)).transpose(1, 2) for n in "qkv")
            mixed = functional.scaled_dot_product_attention(turned(q), turned(k), v, is_causal=True)
            x = x + mixed.transpose(1, 2).flatten(2) @ part["o"].T
            h = norm(x, w[f"layers.{at}.mlp_norm"])
            x = x + (functional.silu(h @ part["gate"].T) * (h @ part["up"].T)) @ part["down"].T
        logits = norm(x, w["norm"])[:, first - 1 : -1] @ w["embedding"].T
        return functional.cross_entropy(logits.flatten(0, 1), ids[:, first:].flatten())

    start = {name: torch.from_numpy(array) for name, array in weights.items()}
    references = torch.from_numpy(np.stack(asked)).long()

    def work() -> None:
        for ids in given:
            now = {name: array.clone().requires_grad_() for name, array in start.items()}
            optimiser = torch.optim.AdamW(now.values(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
            loss(now, torch.from_numpy(ids).long()[None], 1).backward()
            torch.nn.utils.clip_grad_norm_(now.values(), 1.0)
            optimiser.step()
            with torch.no_grad():
                loss(now, references, 24).item()

    return work


def row(name: str, ours: float, peer: float | None, unit: str, n: int) -> dict[str, Any]:
    ratio = None if peer is None else ours / peer
    return {"name": name, "ours": float(ours), "peer": peer, "ratio": ratio, "unit": unit, "n": n}
