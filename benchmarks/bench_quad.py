"""quad: the bandit at 10,000 clusters, EK-FAC and influence of a small model against a PyTorch hook loop."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import pickaxe
from benchmarks._rows import median
from pickaxe import Host
from pickaxe_plugins.selection.quad._bandit import Bandit, Neighbours
from pickaxe_plugins.selection.quad._influence import Influence, Settings
from pickaxe_plugins.train import gradients, kronecker, llama, vocabulary
from pickaxe_plugins.train.settings import Net

CODE = "".join(path.read_text("utf-8") for path in sorted(Path(os.__file__).parent.glob("*.py"))[:40])
NO_PEER = "PyTorch is not installed"


def run() -> Iterator[dict[str, Any]]:
    yield bandit(10_000, 200)
    yield bandit(100, 200)
    with tempfile.TemporaryDirectory() as folder:
        yield from influence(Path(folder), 16)
    yield from layer(32)


def bandit(clusters: int, rounds: int) -> dict[str, Any]:
    """Seconds of so many rounds of 50 arms, rewards given; clusters have some ten neighbours each."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(clusters // 10, 64)).repeat(10, axis=0) + rng.normal(0, 0.2, (clusters, 64))
    neighbours = Neighbours.from_centres(centres, 0.2)

    def play() -> None:
        played = Bandit(np.full(clusters, 200), neighbours, alpha=0.002, tau=0.002, arms=50, batch=10)
        for _ in range(rounds):
            chosen = played.choose()
            played.learn(chosen, rng.normal(0, 0.004, len(chosen)))

    note = f"{len(neighbours.indices) / clusters:.1f} neighbours a cluster, itself among them"
    return {**row(f"bandit, {clusters} clusters, {rounds} rounds", median(play, 3), None, "s", rounds), "note": note}


def influence(folder: Path, count: int) -> Iterator[dict[str, Any]]:
    """Texts a second of a network of a million parameters: the direction of references, and influences."""
    texts = [CODE[start : start + 400] for start in range(0, 400 * count, 400)]
    tokenizer = vocabulary.learn(texts, 512, folder)
    net = Net(layers=5, width=128, heads=4, kv_heads=4, context=256).architecture(tokenizer.vocab_size)
    weights = llama.initial(net, 0)
    llama.save(weights, net, folder)
    settings = Settings(str(folder), r"\.(q|k|v|o|gate|up|down)$", 128, 1, 8, "ekfac", 1e-3, 0, 0)
    measured, call = Influence(Host(), settings), pickaxe.Call()
    direction = measured.direction(texts[:8], texts[:8], call)
    size = sum(array.size for array in weights.values())
    note = f"{size} parameters, 128 tokens a text"
    factors = count / median(lambda: measured.direction(texts, texts, call), 3)
    yield {**row("EK-FAC factors and direction, 1 M parameters", factors, None, "texts/s", count), "note": note}
    scores = count / median(lambda: measured.of(texts, direction, call), 3)
    yield {**row("influence, 1 M parameters", scores, None, "texts/s", count), "note": note}


def layer(count: int) -> Iterator[dict[str, Any]]:
    """EK-FAC of one linear layer (512 -> 512) from given inputs and slopes, against the same in a PyTorch loop."""
    rng = np.random.default_rng(0)
    inputs, slopes = (rng.normal(size=(count, 128, 512)).astype(np.float32) for _ in range(2))

    def ours() -> None:
        passed = {"w": gradients.Signal(inputs, slopes)}
        covariances = kronecker.Covariances()
        covariances.add(passed)
        diagonals = kronecker.Diagonals(covariances.bases())
        diagonals.add(passed)
        gradients.inner(passed, {"w": diagonals.bases()["w"].inverse(slopes[0].T @ inputs[0], 1e-3)})

    peer = torch_layer(inputs, slopes)
    taken, other = median(ours, 3), median(peer, 3) if peer else None
    found = row("EK-FAC and inner products of a layer of 512 x 512", taken, other, "s", count)
    yield {**found, "ratio": None if other is None else other / taken}


def torch_layer(inputs: np.ndarray, slopes: np.ndarray) -> Callable[[], None] | None:
    """What a loop over examples with hooks does with what the hooks caught."""
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        return None
    a, s = torch.from_numpy(inputs), torch.from_numpy(slopes)

    def work() -> None:
        covariance_a = sum(each.T @ each for each in a).double() / len(a)
        covariance_s = sum(each.T @ each for each in s).double() / len(s)
        _, qa = torch.linalg.eigh(covariance_a)
        _, qs = torch.linalg.eigh(covariance_s)
        qa, qs = qa.float(), qs.float()
        diagonal = sum((qs.T @ (s[row].T @ a[row]) @ qa) ** 2 for row in range(len(a))) / len(a)
        solved = qs @ ((qs.T @ (s[0].T @ a[0]) @ qa) / (diagonal + 1e-3)) @ qa.T
        for row in range(len(a)):
            ((s[row].T @ a[row]) * solved).sum().item()

    return work


def row(name: str, ours: float, peer: float | None, unit: str, n: int) -> dict[str, Any]:
    ratio = None if peer is None else ours / peer
    found = {"name": name, "ours": ours, "peer": peer, "ratio": ratio, "unit": unit, "n": n}
    return found if peer is not None else {**found, "note": NO_PEER}
