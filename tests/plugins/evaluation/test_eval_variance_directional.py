"""The paper's main claim on a small scale: over seeds, probabilities of the right option vary less than accuracy."""

import itertools

import numpy as np
import pytest

import pickaxe
from pickaxe import Item

SYMBOLS, CONTEXT, WIDTH, STEPS, CHECKPOINTS, QUESTIONS = 48, 3, 64, 1200, 20, 250


def chain(rng: np.random.Generator, length: int) -> np.ndarray:
    """Symbols of a random Markov chain of order 2, most of whose transitions go to a few symbols."""
    ends = np.cumsum(rng.dirichlet(np.full(SYMBOLS, 0.1), (SYMBOLS, SYMBOLS)), axis=2)
    draws, symbols = rng.random(length), np.zeros(length, np.int64)
    for at in range(2, length):
        symbols[at] = min(np.searchsorted(ends[symbols[at - 2], symbols[at - 1]], draws[at]), SYMBOLS - 1)
    return symbols


class Net:
    """Two hidden layers over one-hot contexts, trained by Adam on cross-entropy."""

    def __init__(self, rng: np.random.Generator) -> None:
        sizes = (SYMBOLS * CONTEXT, WIDTH, WIDTH, SYMBOLS)
        self.weights = [rng.normal(0, (2 / a) ** 0.5, (a, b)) for a, b in itertools.pairwise(sizes)]
        self.weights[0] *= (SYMBOLS / 2) ** 0.5  # of each symbol's inputs only one is not 0
        self.moments = [(np.zeros_like(each), np.zeros_like(each)) for each in self.weights]

    def layers(self, inputs: np.ndarray) -> list[np.ndarray]:
        found = [inputs]
        for weight in self.weights[:-1]:
            found.append(np.maximum(found[-1] @ weight, 0))
        logits = found[-1] @ self.weights[-1]
        logits -= np.log(np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1, keepdims=True)) + logits.max(
            axis=1, keepdims=True
        )
        return [*found, logits]

    def learn(self, inputs: np.ndarray, targets: np.ndarray, step: int) -> None:
        *hidden, logprobs = self.layers(inputs)
        error = np.exp(logprobs)
        error[np.arange(len(targets)), targets] -= 1
        error /= len(targets)
        for layer in reversed(range(len(self.weights))):
            slope = hidden[layer].T @ error
            error = (error @ self.weights[layer].T) * (hidden[layer] > 0)
            mean, square = self.moments[layer]
            mean += 0.1 * (slope - mean)
            square += 0.001 * (slope**2 - square)
            self.weights[layer] -= 0.003 * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)


def one_hot(contexts: np.ndarray) -> np.ndarray:
    return np.eye(SYMBOLS)[contexts].reshape(len(contexts), -1)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_continuous_metric_beats_accuracy(world: int) -> None:
    rng = np.random.default_rng(world)
    symbols = chain(rng, 30_000)
    windows = np.lib.stride_tricks.sliding_window_view(symbols, CONTEXT + 1)
    train, test = windows[:-3000], windows[-3000:]
    questions = test[rng.choice(len(test), QUESTIONS, replace=False)]
    options = np.stack([np.append(rng.permutation(np.delete(np.arange(SYMBOLS), q[-1]))[:3], q[-1]) for q in questions])
    scores = np.empty((2, 5, CHECKPOINTS))
    for seed in range(5):
        own = np.random.default_rng(100 + seed)
        net = Net(own)
        for step in range(1, STEPS + 1):
            batch = train[own.integers(0, len(train), 64)]
            net.learn(one_hot(batch[:, :-1]), batch[:, -1], step)
            if step % (STEPS // CHECKPOINTS) == 0:
                logprobs = np.take_along_axis(net.layers(one_hot(questions[:, :-1]))[-1], options, axis=1)
                masses = np.exp(logprobs) / np.exp(logprobs).sum(axis=1, keepdims=True)
                at = step * CHECKPOINTS // STEPS - 1
                scores[:, seed, at] = (logprobs.argmax(axis=1) == 3).mean(), masses[:, 3].mean()
    items = [Item(name, fields={"scores": each}) for name, each in zip(("accuracy", "mass"), scores, strict=True)]
    found = pickaxe.scorer("eval-variance").score(items)
    (snr, snr_mass), (tau, tau_mass) = found["snr"], found["monotonicity"]
    assert snr_mass > 1.2 * snr
    assert tau_mass > tau
