"""RegMix on its published tables: what the paper claims, on the figures that its authors measured."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pickaxe
from pickaxe_plugins.scaling.regmix._quality import spearman

sys.path.insert(0, str(Path(__file__).parents[2] / "golden"))
from golden import golden
from regmix_tables import runs

PILE_CC = "metric/the_pile_pile_cc_val_loss"
DOMAINS, TRAIN = runs("train_1m")
PRIOR = dict(zip(DOMAINS, golden("51-regmix")["inputs"]["simulation"]["prior"], strict=True))


def fitted(target: Any, **params: Any) -> Any:
    handle = pickaxe.scorer(
        "regmix",
        target=target,
        domains=DOMAINS,
        sum_tolerance=0.01,
        test_share=0,
        curve_points=0,
        bootstrap=0,
        **params,
    )
    return handle.fit(TRAIN, validation=runs("test_1m")[1])


def ranks(handle: Any, name: str, targets: list[str]) -> dict[str, float]:
    _, items = runs(name)
    found = handle.score(items)
    measured = {target: np.array([item.fields["losses"][target] for item in items]) for target in targets}  # type: ignore[index, call-overload]
    return {target: float(spearman(found[f"predicted:{target}"], measured[target])) for target in targets}


def test_trees_order_every_target_better_than_a_line() -> None:
    targets = sorted(TRAIN[0].fields["losses"])  # type: ignore[arg-type]
    assert len(targets) == 13
    both = dict.fromkeys(targets, 1.0)
    trees, line = (ranks(fitted(both, regressor=each), "test_1m", targets) for each in ("gbdt", "linear"))
    assert all(trees[target] > line[target] for target in targets)
    assert min(trees.values()) > 0.96
    assert max(line.values()) < 0.93


@pytest.fixture(scope="module")
def handle() -> Any:
    return fitted(PILE_CC, prior=PRIOR)


def test_the_order_of_small_models_is_that_of_large_ones(handle: Any) -> None:
    assert ranks(handle, "test_1B", [PILE_CC])[PILE_CC] >= 0.94


def test_the_best_mixture_is_mostly_web_text(handle: Any) -> None:
    optimum = handle.artifact.read_json("optimal_mixture.json")
    assert optimum["train_the_pile_pile_cc"] > 0.8
    assert sum(optimum.values()) == pytest.approx(1)
