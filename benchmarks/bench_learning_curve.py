"""learning-curve against scipy's curve_fit level by level, and predictions of a tagger's accuracy on more data."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

import pickaxe
from benchmarks._rows import median, row
from pickaxe import Item
from pickaxe.extras import require
from pickaxe_plugins.scaling.learning_curve._trace import Rules, pattern, trace

WORDS, STEP = 400_000, 5_000


def run() -> Iterator[dict[str, Any]]:
    yield traces(curves=1_000, levels=40)
    for bootstrap in (0, 200):
        yield scorer(curves=200, levels=40, bootstrap=bootstrap)
    yield from tagger()


def curves_of(count: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = STEP * np.arange(1.0, n + 1)
    a, b, c = rng.uniform(2, 4, (count, 1)), rng.uniform(0.3, 0.5, (count, 1)), rng.uniform(0.9, 0.97, (count, 1))
    return x, c - a * x**-b + rng.normal(0, 0.001, (count, n))


def traces(curves: int, levels: int) -> dict[str, Any]:
    """All trends of all curves; the peer fits a sample of them, each from one good start."""
    x, y = curves_of(curves, levels + 2)
    shape, rules = pattern("power", float(x[0])), Rules(anchors=False)
    seconds = median(lambda: trace(x, y, shape, rules), 3)
    fit = require("scipy.optimize", "scaling").curve_fit
    warnings.simplefilter("ignore", require("scipy.optimize", "scaling").OptimizeWarning)  # covariance, not wanted
    sample = y[:10]
    found = trace(x, sample, shape, rules).plain
    worse = 0

    def peer() -> None:
        nonlocal worse
        worse = 0
        for place, values in enumerate(sample):
            for n in range(3, len(x) + 1):
                try:
                    (a, b, c), *_ = fit(power, x[:n], values[:n], (3.0, 0.4, 0.95), maxfev=2000)
                except RuntimeError:  # out of steps
                    worse += 1
                    continue
                sse = float(((power(x[:n], a, b, c) - values[:n]) ** 2).sum())
                worse += sse > float(found.sse[place, n - 1]) * (1 + 1e-6) + 1e-12

    theirs = median(peer, 3) * curves / len(sample)
    fits = curves * levels
    note = f"aim: 2 s for all of ours (took {seconds:.2f} s); peer found no fit as good in {worse} of {10 * levels}"
    return row(f"{curves} curves x {levels} levels", fits / seconds, fits / theirs, "trends/s", fits, note)


def power(x: np.ndarray, a: float, b: float, c: float) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        values: np.ndarray = c - a * x**-b
    return values


def scorer(curves: int, levels: int, bootstrap: int) -> dict[str, Any]:
    x, y = curves_of(curves, levels)
    items = [Item(str(place), fields={"x": x, "y": each, "group": str(place)}) for place, each in enumerate(y)]
    handle = pickaxe.scorer("learning-curve", bootstrap=bootstrap)
    seconds = median(lambda: handle.score(items), 3)
    name = f"scorer, {curves} curves of {levels} points, {bootstrap} bootstrap fits"
    return row(name, seconds, None, "s", curves, "with levels, anchors, held-out error and report")


def tagger() -> Iterator[dict[str, Any]]:
    """The final accuracy of a most-frequent-tag tagger with suffix back-off, predicted from the first words."""
    x, y = tagging_curve()
    for share in (0.1, 0.2, 0.4, 0.5):
        n = round(len(x) * share)
        found = pickaxe.scorer("learning-curve").score(
            [Item("tagger", fields={"x": x[:n], "y": y[:n], "target_size": float(x[-1])})]
        )
        points = 100 * (float(found.primary[0]) - float(y[-1]))
        note = (
            f"predicted {found.primary[0]:.3f} ({found['predicted_low'][0]:.3f} to {found['predicted_high'][0]:.3f}), "
            f"measured {y[-1]:.3f}; limit {found['asymptote'][0]:.3f}, prediction level {found['plevel'][0]}"
        )
        yield row(f"tagger at {WORDS} words from {int(x[n - 1])}", points, None, "points", n, note)


def tagging_curve() -> tuple[np.ndarray, np.ndarray]:
    """Accuracy over words seen, on a synthetic corpus: Zipf words, tags that follow endings with exceptions."""
    rng = np.random.default_rng(0)
    vocabulary, endings, tags = 60_000, 120, 12
    ending = rng.integers(0, endings, vocabulary)
    favourite = rng.integers(0, tags, endings)[ending]
    own = np.where(rng.random(vocabulary) < 0.75, favourite, rng.integers(0, tags, vocabulary))
    weights = 1 / np.arange(1, vocabulary + 1) ** 1.05

    def sample(n: int) -> tuple[np.ndarray, np.ndarray]:
        words = rng.choice(vocabulary, n, p=weights / weights.sum())
        return words, np.where(rng.random(n) < 0.92, own[words], rng.integers(0, tags, n))

    words, said = sample(WORDS)
    test_words, test_tags = sample(20_000)
    by_word, by_ending = np.zeros((vocabulary, tags), np.int64), np.zeros((endings, tags), np.int64)
    sizes, scores = np.arange(STEP, WORDS + 1, STEP), []
    for size in sizes:
        part = slice(size - STEP, size)
        np.add.at(by_word, (words[part], said[part]), 1)
        np.add.at(by_ending, (ending[words[part]], said[part]), 1)
        known = by_word.sum(1) > 0
        guess = np.where(known, by_word.argmax(1), by_ending.argmax(1)[ending])
        scores.append(float(np.mean(guess[test_words] == test_tags)))
    return sizes.astype(np.float64), np.array(scores)
