"""RegMix on its published tables: time of fit and search against LightGBM alone, and the figures of the paper."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import pickaxe
from benchmarks._rows import median
from pickaxe import Item
from pickaxe.extras import require
from pickaxe_plugins.scaling.regmix._quality import spearman
from pickaxe_plugins.scaling.regmix._search import simulated

TABLES = Path(__file__).parent.parent / "tests" / "golden" / "files" / "51-regmix"
PILE_CC = "metric/the_pile_pile_cc_val_loss"
PRIOR = (
    0.11328527, 0.07960865, 0.00391349, 0.1853759, 0.05108136, 0.01596293, 0.10175077, 0.00370752, 0.06652935,
    0.00175077, 0.02708548, 0.23686921, 0.01184346, 0.00792997, 0.00803296, 0.03882595, 0.04644696,
)  # fmt: skip
"""Token shares of the Pile's domains, in the order of the tables."""
N, K, RUNS = 100_000, 128, 3


def run() -> Iterator[dict[str, Any]]:
    train, test, large = (table(*name) for name in (("train", "1m"), ("test", "1m"), ("test", "1B")))
    domains = tuple(train[0].fields["mixture"])  # type: ignore[arg-type]
    yield whole(domains, train, test)
    yield prediction(domains, train, test)
    yield defaults(domains, train)
    yield from figures(domains, train, test, large)


def table(part: str, size: str) -> list[Item]:
    mixtures, losses = read(f"{part}_mixture_{size}.csv"), read(f"{part}_pile_loss_{size}.csv")
    return [Item(name, fields={"mixture": mixtures[name], "losses": losses[name]}) for name in mixtures]


def read(name: str) -> dict[str, dict[str, float]]:
    with (TABLES / name).open(newline="") as stream:
        (_, *names), *rows = csv.reader(stream)
    return {row[0]: dict(zip(names, map(float, row[1:]), strict=True)) for row in rows}


def scorer(domains: tuple[str, ...], target: Any, **params: Any) -> Any:
    """As the paper: stopped by the validation runs, nothing beside it."""
    prior = dict(zip(domains, PRIOR, strict=True))
    settings = {"test_share": 0, "curve_points": 0, "bootstrap": 0, "prior": prior, **params}
    return pickaxe.scorer("regmix", domains=domains, target=target, sum_tolerance=0.01, **settings)


def whole(domains: tuple[str, ...], train: list[Item], test: list[Item]) -> dict[str, Any]:
    """Fit on 512 runs and search 100,000 mixtures; the peer does the same with LightGBM's own prediction."""
    handle = scorer(domains, PILE_CC)
    spent = time.process_time()
    ours = median(lambda: handle.fit(train, validation=test), RUNS)
    note = f"{(time.process_time() - spent) / RUNS:.1f} s of one processor; peer: lightgbm, one thread"
    peer = median(lambda: best_by_library(train, test), RUNS)
    return row("fit and search of 100,000 mixtures", ours, peer, "s", N, note)


def prediction(domains: tuple[str, ...], train: list[Item], test: list[Item]) -> dict[str, Any]:
    handle, booster = scorer(domains, PILE_CC).fit(train, validation=test), library(train, test)
    samples = np.concatenate(list(simulated(np.array(PRIOR), 1.0, N, 0)))
    trees = handle.opened.method._fit.models[0]
    ours, peer = (
        median(lambda: trees.predict(samples), RUNS),
        median(lambda: booster.predict(samples, num_threads=1), RUNS),
    )
    apart = float(np.abs(trees.predict(samples) - booster.predict(samples)).max())
    note = f"largest difference {apart:.1e}; peer: lightgbm.predict, one thread"
    return row(f"prediction of 100,000 mixtures, {booster.best_iteration} trees", ours, peer, "s", N, note)


def defaults(domains: tuple[str, ...], train: list[Item]) -> dict[str, Any]:
    """With all that an honest answer needs: held-out runs, a learning curve, refits."""
    prior = dict(zip(domains, PRIOR, strict=True))
    handle = pickaxe.scorer("regmix", domains=domains, target=PILE_CC, sum_tolerance=0.01, prior=prior)
    spent = time.process_time()
    seconds = median(lambda: handle.fit(train), RUNS)
    note = f"{(time.process_time() - spent) / RUNS:.1f} s of one processor; aim: 10 s"
    return row("the same by default: test split, learning curve, 8 refits", seconds, None, "s", N, note)


def figures(
    domains: tuple[str, ...], train: list[Item], test: list[Item], large: list[Item]
) -> Iterator[dict[str, Any]]:
    """Rank correlations of every target, and the optimum of one."""
    targets = sorted(train[0].fields["losses"])  # type: ignore[arg-type]
    both = [
        scorer(domains, dict.fromkeys(targets, 1.0), prior=None, regressor=each).fit(train, validation=test)
        for each in ("gbdt", "linear")
    ]
    for name, items in (("256 other 1M runs", test), ("64 runs of 1B", large)):
        trees, line = (ranks(handle, items, targets) for handle in both)
        yield row(f"Spearman on {name}, Pile-CC", trees[PILE_CC], line[PILE_CC], "", len(items), "peer: linear")
        yield row(f"Spearman on {name}, lowest of 13", min(trees.values()), min(line.values()), "", len(items),
                  f"trees: {min(trees, key=trees.__getitem__)}; highest {max(trees.values()):.3f} and "
                  f"{max(line.values()):.3f}")  # fmt: skip
    optimum = scorer(domains, PILE_CC).fit(train, validation=test).artifact.read_json("optimal_mixture.json")
    top = sorted(optimum.items(), key=lambda each: -each[1])[:4]
    note = ", ".join(f"{name.removeprefix('train_the_pile_')} {weight:.3f}" for name, weight in top)
    yield row("Pile-CC in the best mixture", optimum["train_the_pile_pile_cc"], None, "", N, note)


def ranks(handle: Any, items: list[Item], targets: list[str]) -> Mapping[str, float]:
    found = handle.score(items)
    return {
        target: float(spearman(found[f"predicted:{target}"], np.array([i.fields["losses"][target] for i in items])))  # type: ignore[index, call-overload]
        for target in targets
    }


def library(train: list[Item], test: list[Item]) -> Any:
    lightgbm = require("lightgbm", extra="regmix")
    (x, y), held = arrays(train), arrays(test)
    data = lightgbm.Dataset(x, y)
    settings = {"objective": "regression", "metric": "l2", "learning_rate": 0.01, "num_threads": 1, "verbosity": -1}
    stop = [lightgbm.early_stopping(3, verbose=False)]
    return lightgbm.train(settings, data, 1000, valid_sets=[data.create_valid(*held)], callbacks=stop)


def best_by_library(train: list[Item], test: list[Item]) -> np.ndarray:
    samples = np.random.default_rng(0).dirichlet(PRIOR, N)
    predicted = library(train, test).predict(samples, num_threads=1)
    mean: np.ndarray = samples[np.argsort(predicted, kind="stable")[:K]].mean(0)
    return mean


def arrays(items: list[Item]) -> tuple[np.ndarray, np.ndarray]:
    x = np.array([list(item.fields["mixture"].values()) for item in items])  # type: ignore[union-attr]
    return x, np.array([item.fields["losses"][PILE_CC] for item in items])  # type: ignore[index, call-overload]


def row(name: str, ours: float, peer: float | None, unit: str, n: int, note: str) -> dict[str, Any]:
    ratio = None if peer is None else (peer / ours if unit == "s" else ours / peer)
    return {"name": name, "ours": ours, "peer": peer, "ratio": ratio, "unit": unit, "n": n, "note": note}
