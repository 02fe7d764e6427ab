"""Golden cases of RegMix: both regressors on the published tables, the best mixture, the proposals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from golden import golden, understood
from regmix_tables import runs

import pickaxe
from pickaxe_plugins.scaling.regmix import _proposals
from pickaxe_plugins.scaling.regmix._quality import spearman
from pickaxe_plugins.scaling.regmix._search import enough, search

CASE = understood(golden("51-regmix"), "how", "inputs", "expected", "tolerance")
INPUTS = understood(
    CASE["inputs"], "data_folder", "files", "features", "lightgbm", "early_stopping", "simulation", "generator"
)
EXPECTED = understood(
    CASE["expected"],
    "fit", "predict_first6_of_test_1m", "optimal_mixture", "mean_predicted_loss_of_topk", "min_predicted_loss",
    "generator",
)  # fmt: skip
TOLERANCE = understood(
    CASE["tolerance"],
    "spearman_abs", "best_iteration_rel", "prediction_abs", "linear_spearman_abs", "mixture_abs_same_samples",
    "linear_mse_rel", "mse_lightgbm_rel", "note",
)  # fmt: skip
SIMULATION = understood(INPUTS["simulation"], "target", "prior", "rng", "seed", "n", "k")
TARGETS = sorted({*EXPECTED["fit"], *EXPECTED["predict_first6_of_test_1m"], SIMULATION["target"]})
SIZES = ("1m", "60m", "1B")


@pytest.fixture(scope="module")
def tables() -> dict[str, Any]:
    assert INPUTS["files"] == [
        "train_mixture_1m.csv", "train_pile_loss_1m.csv", "test_mixture_{1m,60m,1B}.csv",
        "test_pile_loss_{1m,60m,1B}.csv",
    ]  # fmt: skip
    return {name: runs(name, INPUTS["data_folder"])
            for name in ("train_1m", *(f"test_{size}" for size in SIZES))}  # fmt: skip


def fitted(tables: dict[str, Any], **params: Any) -> Any:
    """On the 512 runs, stopped by the 256, weights as the tables have them."""
    domains, train = tables["train_1m"]
    stopping = understood(INPUTS["early_stopping"], "rounds", "eval_set", "metric")
    assert (stopping["eval_set"], stopping["metric"]) == ("1m test tables", "l2")
    handle = pickaxe.scorer(
        "regmix",
        domains=domains,
        target={name: float(name == SIMULATION["target"]) for name in TARGETS},
        early_stop=stopping["rounds"],
        test_share=0,
        curve_points=0,
        sum_tolerance=0.01,
        **params,
    )
    return handle.fit(train, validation=tables["test_1m"][1])


@pytest.fixture(scope="module")
def gbdt(tables: dict[str, Any]) -> Any:
    settings = understood(
        INPUTS["lightgbm"], "boosting_type", "objective", "n_estimators", "learning_rate", "random_state"
    )
    assert (settings["boosting_type"], settings["objective"]) == ("gbdt", "regression")
    return fitted(tables, rounds=settings["n_estimators"], learning_rate=settings["learning_rate"])


@pytest.fixture(scope="module")
def linear(tables: dict[str, Any]) -> Any:
    return fitted(tables, regressor="linear")


def figures(handle: Any, items: Any, target: str) -> tuple[float, float]:
    """Spearman and mean squared error."""
    predicted = handle.score(items)[f"predicted:{target}"]
    measured = np.array([item.fields["losses"][target] for item in items])
    return float(spearman(predicted, measured)), float(np.mean((predicted - measured) ** 2))


@pytest.mark.parametrize("target", EXPECTED["fit"])
def test_regressors(target: str, tables: dict[str, Any], gbdt: Any, linear: Any) -> None:
    expected = understood(EXPECTED["fit"][target], "best_iteration", *SIZES)
    trees = gbdt.opened.method._fit.models[TARGETS.index(target)]
    rounds = int(trees.nodes[-1, 0]) + 1
    assert rounds == pytest.approx(expected["best_iteration"], rel=TOLERANCE["best_iteration_rel"])
    for size in SIZES:
        wanted = understood(expected[size], "spearman_lightgbm", "spearman_linear", "mse_lightgbm", "mse_linear")
        _, items = tables[f"test_{size}"]
        rank, mse = figures(gbdt, items, target)
        assert rank == pytest.approx(wanted["spearman_lightgbm"], abs=TOLERANCE["spearman_abs"])
        assert mse == pytest.approx(wanted["mse_lightgbm"], rel=TOLERANCE["mse_lightgbm_rel"])
        rank, mse = figures(linear, items, target)
        assert rank == pytest.approx(wanted["spearman_linear"], abs=TOLERANCE["linear_spearman_abs"])
        assert mse == pytest.approx(wanted["mse_linear"], rel=TOLERANCE["linear_mse_rel"])


@pytest.mark.parametrize("target", EXPECTED["predict_first6_of_test_1m"])
def test_predictions(target: str, tables: dict[str, Any], gbdt: Any) -> None:
    expected = EXPECTED["predict_first6_of_test_1m"][target]
    found = gbdt.score(tables["test_1m"][1][: len(expected)])[f"predicted:{target}"]
    np.testing.assert_allclose(found, expected, atol=TOLERANCE["prediction_abs"], rtol=0)


def test_best_mixture_of_the_same_samples(gbdt: Any) -> None:
    assert SIMULATION["rng"] == "numpy legacy: np.random.seed(seed); np.random.dirichlet(prior, n)"
    fit = gbdt.opened.method._fit
    samples = np.random.RandomState(SIMULATION["seed"]).dirichlet(SIMULATION["prior"], SIMULATION["n"])
    *_, best = search(np.array_split(samples, 7), fit.target, SIMULATION["k"])
    enough(best, SIMULATION["k"])
    assert set(fit.domains) == set(EXPECTED["optimal_mixture"])
    for name, weight in zip(fit.domains, best.mean, strict=True):
        expected = EXPECTED["optimal_mixture"][name]
        assert weight == pytest.approx(expected, abs=TOLERANCE["mixture_abs_same_samples"])
    within = TOLERANCE["prediction_abs"]
    assert best.objective.mean() == pytest.approx(EXPECTED["mean_predicted_loss_of_topk"], abs=within)
    assert best.objective[0] == pytest.approx(EXPECTED["min_predicted_loss"], abs=within)


def test_proposals() -> None:
    inputs = understood(INPUTS["generator"], "prior", "temperature", "minimum", "max_epochs", "raw_draws", "strengths")
    expected = understood(EXPECTED["generator"], "upper_bound", "tempered_prior", "accepted_and_rounded", "note")
    prior = np.array(inputs["prior"])
    bound = _proposals.upper_bound(prior, inputs["max_epochs"])
    np.testing.assert_allclose(bound, expected["upper_bound"], rtol=1e-6)
    np.testing.assert_allclose(
        _proposals.tempered(prior, inputs["temperature"]), expected["tempered_prior"], rtol=1e-12
    )
    np.testing.assert_allclose(_proposals.STRENGTHS, inputs["strengths"], rtol=1e-12)
    for draw, wanted in zip(inputs["raw_draws"], expected["accepted_and_rounded"], strict=True):
        found = _proposals.settled(np.array([draw]), bound, inputs["minimum"])
        assert len(found) == (wanted is not None)
        if wanted is not None:
            np.testing.assert_allclose(found[0], wanted, atol=1e-12, rtol=0)
