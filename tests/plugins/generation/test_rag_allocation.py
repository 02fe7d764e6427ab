"""rag-allocation: the law and its fit, costs, the best configuration within a budget, and what is refused."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pickaxe
from pickaxe import Item, Scores
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe_plugins.generation._rag_law import (
    PUBLISHED,
    Law,
    Sigma,
    budgeted_optimum,
    effective_length,
    fit_quality,
)
from pickaxe_plugins.generation.rag_allocation import configurations

SIGMA = Sigma()
LENGTHS = {"instruction_tokens": 20, "doc_tokens": 100, "qa_tokens": 30}
I = {"x": (0.2, 0.1), "y": (0.9, 0.3), "z": (0.5, 0.7)}  # the letter of the paper


def runs(law: Law = PUBLISHED, noise: float = 0.0, with_i: bool = True, tasks: Sequence[str] = "xyz") -> list[Item]:
    """What the law says of three tasks on a small grid, with normal noise on P."""
    rng = np.random.default_rng(3)
    items: list[Item] = []
    for task in tasks:
        grid = configurations((0, 1, 5, 20), (0, 1, 4), (1, 2, 5))
        theta = np.array([[each.fields[name] for name in "kmn"] for each in grid], float)
        i = np.tile(I[task], (len(grid), 1))
        values = law.value(law.linear(theta, i)) + noise * rng.normal(size=len(grid))
        given = {"i_doc": I[task][0], "i_shot": I[task][1]} if with_i else {}
        items += [
            Item(f"{task}{row}", fields={**each.fields, **given, "task": task, "metric": float(value)})
            for row, (each, value) in enumerate(zip(grid, values, strict=True))
        ]
    return items


def stored(items: Sequence[Item], **params: Any) -> dict[str, Any]:
    artifact = pickaxe.scorer("rag-allocation", **params).fit(items).artifact
    assert artifact is not None
    return dict(artifact.read_json("law.json"))


def scored(items: Sequence[Item], **params: Any) -> Scores:
    return pickaxe.scorer("rag-allocation", **params).score(items)


# ---------------------------------------------------------------- the law


@given(st.floats(SIGMA.floor + 0.0011, SIGMA.floor + SIGMA.height - 0.0011))
def test_sigma_undoes_its_inverse(p: float) -> None:
    assert SIGMA(SIGMA.inverse(p)) == pytest.approx(p, abs=1e-9)


@given(st.floats(-1e6, 1e6))
def test_values_beyond_the_range_are_clipped(p: float) -> None:
    assert np.isfinite(SIGMA.inverse(p))


def test_a_fit_recovers_the_law_exactly() -> None:
    law = Law((0.3, 0.12, 0.2), (-0.05, 0.01, 0.0), -0.6)
    found = stored(runs(law), standardise=False)
    assert found["law"]["a"] == pytest.approx(law.a, abs=1e-9)
    assert found["law"]["b"] == pytest.approx(law.b, abs=1e-9)
    assert found["law"]["c"] == pytest.approx(law.c, abs=1e-9)
    assert found["quality"]["r2"] == pytest.approx(1, abs=1e-12)


def test_b_never_makes_the_regression_worse() -> None:
    for sigma in ("published", "linear"):
        quality = stored(runs(noise=0.2), standardise=False, sigma=sigma)["quality"]
        assert quality["r2"] >= quality["r2_without_b"]
    plain = stored(runs(noise=0.2), standardise=False, interactions=False)
    assert plain["quality"]["r2"] == pytest.approx(plain["quality"]["r2_without_b"])
    assert not any(plain["law"]["b"])


def test_a_refitted_sigma_is_at_least_as_good() -> None:
    other = Law((0.3, 0.1, 0.2), (-0.05, 0.01, 0.0), -0.3, Sigma(2.0, 2.5, -0.2, -1.4))
    published, refit = (stored(runs(other), standardise=False, sigma=sigma) for sigma in ("published", "refit"))
    assert refit["quality"]["mse"] < published["quality"]["mse"]
    assert refit["law"]["sigma"] != published["law"]["sigma"]


def test_without_sigma_the_prediction_is_linear() -> None:
    artifact = pickaxe.scorer("rag-allocation", sigma="linear", standardise=False).fit(runs())
    found = artifact.score(configurations((0, 5), (0, 1), (1, 2), task="x"))
    np.testing.assert_array_equal(found["predicted"], found["linear"])


def test_metrics_are_standardised_per_task() -> None:
    items = [
        Item(each.id, fields={**each.fields, "metric": 10.0 + 5 * float(each.fields["metric"])})  # type: ignore[arg-type]
        if each.fields["task"] == "x"
        else each
        for each in runs(with_i=False)
    ]
    found, plain = stored(items), stored(runs(with_i=False))
    np.testing.assert_allclose(found["law"]["a"], plain["law"]["a"])
    assert found["tasks"]["x"]["i_doc"] == pytest.approx(plain["tasks"]["x"]["i_doc"])


def test_a_task_that_was_held_out_is_judged() -> None:
    handle = pickaxe.scorer("rag-allocation", standardise=False).fit(runs(tasks="xy"), validation=runs(tasks="z"))
    assert handle.artifact is not None
    assert handle.artifact.notes["validation_r2"] == pytest.approx(1)


# ---------------------------------------------------------------- contributions


def test_i_comes_from_the_items_the_bases_or_the_artifact() -> None:
    handle = pickaxe.scorer("rag-allocation", standardise=False).fit(runs())
    grid = configurations((0, 1, 5), (0, 1), (1, 2))
    given = handle.score([Item(e.id, fields={**e.fields, "i_doc": 0.9, "i_shot": 0.3}) for e in grid])
    known = handle.score([Item(e.id, fields={**e.fields, "task": "y"}) for e in grid])
    metric = {(0, 0, 1): -1.0, (1, 0, 1): -0.1, (0, 1, 1): -0.7}
    measured = handle.score(
        [
            Item(e.id, fields={**e.fields, **({"metric": metric[key]} if key in metric else {})})
            for e in grid
            for key in [tuple(e.fields[name] for name in "kmn")]
        ]
    )
    np.testing.assert_allclose(known.primary, given.primary)
    np.testing.assert_allclose(measured.primary, given.primary)


def test_an_unknown_task_without_i_is_refused() -> None:
    handle = pickaxe.scorer("rag-allocation", standardise=False).fit(runs())
    with pytest.raises(InvalidItems, match=r"task 'w'.*\['x', 'y', 'z'\]"):
        handle.score(configurations((0, 1), (0,), (1,), task="w"))


# ---------------------------------------------------------------- cost and choice


def test_cost_counts_every_call() -> None:
    theta = np.array([[5, 2, 1], [5, 2, 3], [0, 0, 1]], float)
    first = 20 + 3 * (5 * 100 + 30)
    assert effective_length(theta, 100, 30, 20).tolist() == [first, 3 * first + 3 * 500, 50]


def test_the_best_stays_within_the_budget_and_never_falls() -> None:
    grid = configurations((0, 1, 5, 20, 100), (0, 1, 4, 16), (1, 2, 5), i_doc=0.8, i_shot=0.2, **LENGTHS)
    before = -np.inf
    for budget in (50, 60, 300, 1000, 5000, 50_000, 10**6, 10**8):
        found = scored(grid, budget=budget)
        best = found.summary["best"]["all"]
        assert best["effective_context_length"] <= budget
        np.testing.assert_array_equal(found["within_budget"], found["effective_context_length"] <= budget)
        within = found["within_budget"]
        assert best["predicted"] == found.primary[within].max() >= before
        before = best["predicted"]
    assert [scored(grid, budget=50).summary["best"]["all"][name] for name in "kmn"] == [0, 0, 1]


def test_a_budget_binds_the_longest_question() -> None:
    """Two questions with short and long documents: the mean would fit, the long one does not."""
    grid = [
        Item(f"{name}/{each.id}", fields={**each.fields, "doc_tokens": tokens})
        for name, tokens in (("short", 10), ("long", 190))
        for each in configurations((0, 5), (0,), (1,), i_doc=1.0, i_shot=0.1, instruction_tokens=0, qa_tokens=10)
    ]
    found = scored(grid, budget=600)
    assert found.summary["best"]["all"]["k"] == 0
    assert found["effective_context_length"].tolist() == [10, 60, 10, 960]
    assert found["within_budget"].tolist() == [True, False, True, False]


def test_ties_go_to_the_first() -> None:
    grid = [Item(name, fields={"k": 1, "m": 0, "n": 1, "i_doc": 0.5, "i_shot": 0.5}) for name in ("one", "two")]
    assert scored(grid).summary["best"]["all"]["id"] == "one"


def test_every_task_has_its_best() -> None:
    handle = pickaxe.scorer("rag-allocation", standardise=False).fit(runs())
    grid = [each for task in "xy" for each in configurations((0, 1), (0, 1), (1, 2), task=task)]
    best = handle.score(grid).summary["best"]
    assert set(best) == {"x", "y"}
    assert best["x"]["effective_context_length"] is None


def test_optimum_of_measured_runs() -> None:
    metric = np.array([[0.1, 0.3], [0.9, 0.9], [0.4, 0.4]])
    lengths = np.array([[10, 10], [20, 400], [50, 60]])
    assert budgeted_optimum(metric, lengths, (10, 60, 400)).tolist() == pytest.approx([0.2, 0.4, 0.9])
    assert np.isnan(budgeted_optimum(metric, lengths, (5,))).all()


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(("name", "value"), [("k", -1), ("m", -2), ("n", 0)])
def test_impossible_configurations_are_named(name: str, value: int) -> None:
    fields = {"k": 1, "m": 1, "n": 1, "i_doc": 0.1, "i_shot": 0.1, name: value}
    with pytest.raises(InvalidItems, match=rf"items\[0\]\.fields\.{name}: is {value}"):
        scored([Item("one", fields=fields)])


def test_a_budget_below_every_configuration_is_refused() -> None:
    grid = configurations((0, 1), (0,), (1,), i_doc=0.1, i_shot=0.1, **LENGTHS)
    with pytest.raises(InvalidParams, match="budget: is 49 tokens, the smallest configuration takes 50"):
        scored(grid, budget=49)


def test_a_budget_needs_lengths() -> None:
    with pytest.raises(InvalidItems, match=r"items\[0\]\.fields\.qa_tokens: is missing"):
        scored(configurations((0,), (0,), (1,), i_doc=0.1, i_shot=0.1, instruction_tokens=1, doc_tokens=1), budget=9)


@pytest.mark.parametrize(
    ("column", "keep"),
    [
        ("log(k)", lambda e: e.fields["k"] == 1),
        ("log(m)", lambda e: e.fields["m"] == 1),
        ("log(n)", lambda e: e.fields["n"] == 1),
        ("i_doc*log(k)", lambda e: e.fields["task"] == "x"),
    ],
)
def test_an_undetermined_column_is_named(column: str, keep: Any) -> None:
    with pytest.raises(InvalidItems) as refused:
        stored([each for each in runs() if keep(each)], standardise=False)
    assert refused.value.metadata["column"] == column
    assert column in refused.value.message


def test_too_few_configurations_are_refused() -> None:
    with pytest.raises(InvalidItems, match=r"5 different configurations; the 6 columns"):
        stored(list(itertools.islice(runs(), 5)), standardise=False)


def test_tasks_without_bases_or_spread_are_refused() -> None:
    lacking = [each for each in runs(with_i=False) if each.fields["k"] != 0]
    with pytest.raises(InvalidItems, match=r"task 'x' have neither i_doc and i_shot nor runs"):
        stored(lacking)
    flat = [Item(each.id, fields={**each.fields, "metric": 1.0}) for each in runs()]
    with pytest.raises(InvalidItems, match="task 'x' have the same metric"):
        stored(flat)


def test_quality_of_a_law_on_its_own_values() -> None:
    theta, i = np.array([[1.0, 0, 1], [5, 1, 2]]), np.array([[0.5, 0.1], [0.5, 0.1]])
    p = PUBLISHED.value(PUBLISHED.linear(theta, i))
    assert fit_quality(PUBLISHED, theta, i, p) == pytest.approx({"r2": 1, "r2_on_p": 1, "mse": 0}, abs=1e-9)
