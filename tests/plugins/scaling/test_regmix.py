"""RegMix: trees and their files, the search, what may be wrong with a table of runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pickaxe
from pickaxe import Item
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe.extras import require
from pickaxe.report import explained
from pickaxe_plugins.scaling.regmix import _search, propose
from pickaxe_plugins.scaling.regmix._proposals import unique
from pickaxe_plugins.scaling.regmix._quality import quality, spearman
from pickaxe_plugins.scaling.regmix._trees import from_lightgbm, joined, parted

DOMAINS = ("books", "code", "web")
PRIOR = {"books": 0.2, "code": 0.3, "web": 0.5}
QUICK: dict[str, Any] = {
    "prior": PRIOR, "n_simulate": 2000, "top_k": 16, "min_leaf": 4, "learning_rate": 0.1, "rounds": 80, "bootstrap": 2,
    "curve_points": 2,
}  # fmt: skip


def mixture(weights: Any) -> dict[str, float]:
    return dict(zip(DOMAINS, map(float, weights), strict=True))


def runs(n: int = 120, seed: int = 0) -> list[Item]:
    """Books lower the first loss and raise the second."""
    weights = np.random.default_rng(seed).dirichlet(np.ones(3), n)
    return [
        Item(f"run-{row}", fields={"mixture": mixture(w), "losses": {"a": 4 - w[0] + 0.2 * w[1] ** 2, "b": 3 + w[0]}})
        for row, w in enumerate(weights)
    ]


def fitted(items: list[Item] | None = None, **params: Any) -> Any:
    return pickaxe.scorer("regmix", **{**QUICK, "target": "a", **params}).fit(runs() if items is None else items)


@pytest.fixture(scope="module")
def handle() -> Any:
    return fitted()


def predicted(handle: Any, *weights: Any) -> np.ndarray:
    found: np.ndarray = handle.score([Item(str(w), fields={"mixture": mixture(w)}) for w in weights])["predicted"]
    return found


# ---------------------------------------------------------------- trees


@pytest.mark.parametrize("leaves", [2, 31, 64])
def test_trees_predict_exactly_what_the_library_predicts(leaves: int) -> None:
    lightgbm = require("lightgbm", extra="regmix")
    rng = np.random.default_rng(0)
    x, y = rng.random((400, 5)).round(2), rng.random(400)
    booster = lightgbm.train({"num_leaves": leaves, "min_data_in_leaf": 2, "num_threads": 1, "verbosity": -1},
                             lightgbm.Dataset(x, y), 30)  # fmt: skip
    trees = from_lightgbm(booster, 30)
    thresholds = np.unique(trees.values[trees.nodes[:, 1] == 2])
    at = rng.random((500, 5)) * 1.4 - 0.2
    at[: len(thresholds), 2] = thresholds  # a value at the threshold goes left
    np.testing.assert_allclose(trees.predict(at), booster.predict(at), rtol=0, atol=1e-12)
    table, starts = joined([trees, trees])
    for part in parted(table, starts.tolist()):
        np.testing.assert_array_equal(part.predict(at), trees.predict(at))


def test_a_tree_without_a_split_is_a_constant() -> None:
    lightgbm = require("lightgbm", extra="regmix")
    data = lightgbm.Dataset(np.zeros((30, 2)), np.arange(30.0))
    trees = from_lightgbm(lightgbm.train({"num_threads": 1, "verbosity": -1}, data, 3), 3)
    assert trees.predict(np.ones((4, 2))) == pytest.approx([14.5] * 4)


@pytest.mark.parametrize("regressor", ["gbdt", "linear"])
def test_the_artifact_predicts_as_the_fit_and_key_order_changes_nothing(regressor: str) -> None:
    handle = fitted(regressor=regressor)
    again = pickaxe.scorer("regmix", artifact=handle.artifact.path)
    weights = np.random.default_rng(1).dirichlet(np.ones(3), 50)
    straight = [Item(str(row), fields={"mixture": mixture(w)}) for row, w in enumerate(weights)]
    turned = [
        Item(item.id, fields={"mixture": dict(reversed(item.fields["mixture"].items()))})  # type: ignore[union-attr]
        for item in straight
    ]
    expected = handle.score(straight)["predicted"]
    np.testing.assert_array_equal(again.score(straight)["predicted"], expected)
    np.testing.assert_array_equal(again.score(turned)["predicted"], expected)


def test_the_order_of_the_file_changes_nothing() -> None:
    weights = np.random.default_rng(1).dirichlet(np.ones(3), 20)
    one, other = fitted(), fitted(runs()[::-1])
    np.testing.assert_array_equal(predicted(one, *weights), predicted(other, *weights))
    assert one.artifact.read_json("optimal_mixture.json") == other.artifact.read_json("optimal_mixture.json")


# ---------------------------------------------------------------- scores


def test_columns(handle: Any) -> None:
    found = handle.score([Item("x", fields={"mixture": mixture((0.2, 0.3, 0.5))})])
    assert [each.name for each in found.schema] == ["score", "predicted", "extrapolation", "predicted:a"]
    assert found["score"][0] == -found["predicted"][0]
    assert found["predicted:a"][0] == found["predicted"][0]


def test_more_is_better_with_sign_max() -> None:
    handle = fitted(target="b", sign="max")
    found = handle.score([Item(str(w), fields={"mixture": mixture(w)}) for w in ((0.8, 0.1, 0.1), (0.1, 0.1, 0.8))])
    np.testing.assert_array_equal(found["score"], found["predicted"])
    assert found["score"][0] > found["score"][1]
    assert handle.artifact.read_json("optimal_mixture.json")["books"] > 0.7


def test_several_targets_are_averaged_and_weight_0_is_only_predicted() -> None:
    handle = fitted(target={"a": 1.0, "b": 3.0})
    found = handle.score([Item("x", fields={"mixture": mixture((0.2, 0.3, 0.5))})])
    assert found["predicted"] == pytest.approx((found["predicted:a"] + 3 * found["predicted:b"]) / 4)
    handle = fitted(target={"a": 1.0, "b": 0.0})
    found = handle.score([Item("x", fields={"mixture": mixture((0.2, 0.3, 0.5))})])
    assert found["predicted"][0] == found["predicted:a"][0] != found["predicted:b"][0]


def test_extrapolation_is_measured_flagged_and_said(handle: Any) -> None:
    seen = np.array([list(item.fields["mixture"].values()) for item in runs()])  # type: ignore[union-attr]
    found = handle.score(
        [Item("in", fields={"mixture": mixture(seen[0])}), Item("out", fields={"mixture": mixture((1, 0, 0))})]
    )
    parts = pickaxe.scorer("regmix", artifact=handle.artifact.path).opened.method._fit
    expected = max(1 - parts.high[0], *(low for low in parts.low[1:]))
    np.testing.assert_allclose(found["extrapolation"], [0, expected], atol=1e-12)
    assert [(flag.index, flag.reason) for flag in found.flags] == [(1, "extrapolates")]
    assert any("1 of them have a weight outside" in line for line in explained(found.summary)[0])


def test_wide_tables_and_tensors_read_the_same(handle: Any) -> None:
    wide = [
        Item(item.id, fields={**item.fields["mixture"], "a": item.fields["losses"]["a"]})  # type: ignore[dict-item, index, call-overload]
        for item in runs()
    ]
    tensors = [
        Item(
            item.id,
            fields={"weights": np.array(list(item.fields["mixture"].values())), "losses": item.fields["losses"]},
        )  # type: ignore[union-attr]
        for item in runs()
    ]
    expected = predicted(handle, (0.3, 0.3, 0.4))
    for given_items in (wide, tensors):
        other = fitted(given_items, domains=DOMAINS)
        np.testing.assert_array_equal(predicted(other, (0.3, 0.3, 0.4)), expected)
        np.testing.assert_array_equal(other.score(given_items[:2])["predicted"], handle.score(runs()[:2])["predicted"])


def test_the_report_says_what_the_columns_say(handle: Any) -> None:
    items = runs(60, seed=5)
    found = handle.score(items)
    answer, figures = explained(found.summary)
    optimum = handle.artifact.read_json("optimal_mixture.json")
    best = max(optimum, key=optimum.get)
    assert answer[0].startswith(f"Train on: {best} {optimum[best]:.3g}")
    winner = items[int(np.argmax(found["score"]))].id
    assert any(f"{winner} is predicted best" in line for line in answer)
    assert figures[0].y.categories[-1] == best
    assert figures[0].series[0].x[-1] == optimum[best]
    measured = [item.fields["losses"]["a"] for item in items]  # type: ignore[index, call-overload]
    assert figures[1].series[0].x == tuple(found["predicted"])
    assert figures[1].series[0].y == pytest.approx(measured)
    ranks = float(spearman(found["predicted"], np.array(measured)))
    assert found.summary["predicted against measured"]["a"]["spearman"] == pytest.approx(ranks)
    assert found.summary["learning curve"][-1]["runs"] == found.summary["regressor"]["runs"]


def test_without_a_prior_nothing_is_searched() -> None:
    handle = fitted(prior=None)
    assert not handle.artifact.has("optimal_mixture.json")
    assert "fit with prior" in explained(handle.score(runs()[:3]).summary)[0][0]


# ---------------------------------------------------------------- search


def test_the_mean_of_all_draws_is_the_prior() -> None:
    prior = np.array([0.2, 0.3, 0.5])
    *_, best = _search.search(_search.simulated(prior, 1.0, 100_000, 0), lambda x: x[:, 0], 100_000)
    np.testing.assert_allclose(best.mean, prior, atol=0.01)


def test_the_best_are_found_block_by_block_and_ties_go_to_the_first() -> None:
    rows = np.arange(100.0).reshape(50, 2)
    *_, best = _search.search(np.array_split(rows, 7), lambda x: np.floor(x[:, 0] / 10), 7)
    np.testing.assert_array_equal(best.mixtures, rows[:7])
    assert (best.drawn, best.allowed) == (50, 50)


def test_draws_do_not_depend_on_how_many_are_asked_for() -> None:
    prior = np.array([0.5, 0.0, 0.5])
    few, many = (np.concatenate(list(_search.simulated(prior, 1.0, n, 3))) for n in (1000, 20_000))
    np.testing.assert_array_equal(few, many[:1000])
    assert (few[:, 1] == 0).all()


def test_caps_hold_and_the_answer_is_a_mixture() -> None:
    found = fitted(caps={"books": 0.4}, available_tokens={"code": 2e9}, target_tokens=20e9, max_epochs=3)
    optimum = found.artifact.read_json("optimal_mixture.json")
    assert sum(optimum.values()) == pytest.approx(1)
    assert min(optimum.values()) >= 0
    assert 0.3 < optimum["books"] <= 0.4
    assert optimum["code"] <= 0.3
    top = found.artifact.read_array("top_mixtures.npy")
    assert (top[:, :2] <= [0.4, 0.3]).all()
    np.testing.assert_allclose(top[:, :3].mean(0), [optimum[name] for name in DOMAINS])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"caps": {"books": 0.2, "code": 0.2, "web": 0.2}}, "allow 0.6 of a mixture"),
        ({"caps": {"law": 0.2}}, "caps.law: is no domain; known are books, code, web"),
        ({"caps": {"books": 1e-6, "code": 1e-6}}, "loosen the caps"),
        ({"caps": {"books": 2.0}}, "not between 0 and 1"),
        ({"available_tokens": {"books": 1.0}}, "give both or none"),
        ({"prior": {"books": 1.0}}, "prior.code: is missing"),
        ({"prior": {"books": 0.0}}, "one must be above 0"),
        ({"target": "c"}, "have no target 'c'; there are a, b"),
        ({"target": ""}, "name one of a, b"),
        ({"target": {"a": -1.0}}, "must not be negative"),
        ({"min_leaf": 60}, "leaves no split among the"),
        ({"top_k": 5000}, "more than the 2000 simulated"),
        ({"domains": ("books", "books")}, "given twice"),
        ({"test_share": 0.5, "validation_share": 0.49}, "to fit on: lower them"),
    ],
)
def test_wrong_parameters_are_named(params: dict[str, Any], message: str) -> None:
    with pytest.raises((InvalidParams, InvalidItems), match=message):
        fitted(**params)


def changed(**fields: Any) -> list[Item]:
    first, *others = runs(40)
    return [Item(first.id, fields={**first.fields, **fields}), *others]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (runs(9), "9 proxy runs, at least 10"),
        (changed(mixture={"books": 0.5, "code": 0.5}), "mixture.web: is missing: give 0"),
        (changed(mixture={"books": 0.5, "code": 0.6, "web": -0.1}), "mixture.web: is negative"),
        (changed(mixture={"books": 0.5, "code": 0.3, "web": 0.1}), "add up to 0.9, not to 1"),
        (changed(mixture={"books": 50, "code": 30, "web": 20}), "look like percent"),
        (changed(mixture={"books": "0,5", "code": 0.3, "web": 0.2}), "write a decimal point"),
        (changed(losses={"a": float("nan"), "b": 1.0}), "losses.a: is nan"),
        (changed(losses={"a": None, "b": 1.0}), "have no target 'a'; there are b .*: fill it"),
        ([*runs(40), Item("run-3", fields=runs(40)[4].fields)], "was used before, with other weights or losses"),
        ([Item(i.id, fields={**i.fields, "losses": {"a": 2.0}}) for i in runs(40)], "nothing to learn"),
        ([Item(i.id, fields={**i.fields, "mixture": mixture([0.5, 0.3, 0.2])}) for i in runs(40)], "the same mixture"),
    ],
)
def test_wrong_tables_are_named(items: list[Item], message: str) -> None:
    with pytest.raises((InvalidItems, InvalidParams), match=message):
        fitted(items)


def test_wrong_mixtures_to_score(handle: Any) -> None:
    for weights, message in (
        ({**mixture((0.2, 0.3, 0.5)), "law": 0.0}, "law: is no domain"),
        ({"web": 1.0}, "books: is missing"),
    ):
        with pytest.raises(InvalidItems, match=message):
            handle.score([Item("x", fields={"mixture": weights})])


def test_sums_off_1_may_be_scaled() -> None:
    items = [
        Item(i.id, fields={**i.fields, "mixture": {k: 100 * v for k, v in i.fields["mixture"].items()}}) for i in runs()
    ]  # type: ignore[union-attr]
    np.testing.assert_allclose(
        predicted(fitted(items, normalise=True), (20, 30, 50)), predicted(fitted(), (0.2, 0.3, 0.5)), rtol=1e-6
    )


def test_the_same_run_twice_counts_once() -> None:
    np.testing.assert_array_equal(
        predicted(fitted([*runs(), runs()[5]]), (0.2, 0.3, 0.5)), predicted(fitted(), (0.2, 0.3, 0.5))
    )


def test_another_target_than_the_fitted_one(handle: Any) -> None:
    with pytest.raises(InvalidParams, match="fit again"):
        pickaxe.scorer("regmix", artifact=handle.artifact.path, target="b").score(runs()[:1])


def test_negative_losses_are_warned_of() -> None:
    items = [Item(i.id, fields={"mixture": i.fields["mixture"], "loss": -float(n)}) for n, i in enumerate(runs(60))]
    answer, _ = explained(fitted(items, target="").score(items[:2]).summary)
    assert any("negative in some runs" in line for line in answer)


def test_a_rank_correlation_needs_two_values() -> None:
    rng = np.random.default_rng(0)
    assert quality(np.ones(5), np.arange(5.0), rng).spearman is None
    assert quality(np.ones(1), np.ones(1), rng).words().startswith("undefined")
    assert "too few" in quality(np.arange(3.0), np.arange(3.0), rng).words()


# ---------------------------------------------------------------- proposals


@settings(deadline=None, max_examples=15)
@given(st.lists(st.floats(0.01, 1.0), min_size=2, max_size=8), st.integers(0, 1000))
def test_proposals_keep_their_promises(weights: list[float], seed: int) -> None:
    prior = {str(place): weight for place, weight in enumerate(weights)}
    found = np.array([[each[name] for name in prior] for each in propose(prior, 8, seed, max_epochs=4, oversample=4)])
    shares = np.array(weights) / sum(weights)
    assert found.shape == (8, len(weights))
    assert (found <= np.minimum(4 * shares, 1) + 1e-12).all()
    np.testing.assert_allclose(found / 2e-4, np.round(found / 2e-4), atol=1e-9)
    assert ((found == 0) | (found >= 2e-4 - 1e-15)).all()
    assert (np.abs(found.sum(1) - 1) <= len(weights) * 1e-4 + 1e-12).all()
    assert len(unique(found)) == 8


def test_proposals_depend_on_the_seed_alone() -> None:
    assert propose(PRIOR, 5, 1) == propose(dict(reversed(PRIOR.items())), 5, 1)
    assert propose(PRIOR, 5, 1) != propose(PRIOR, 5, 2)


@pytest.mark.parametrize(
    ("prior", "n", "options", "message"),
    [
        ({}, 5, {}, "prior"),
        ({"a": -1.0, "b": 2.0}, 5, {}, "prior"),
        (PRIOR, 0, {}, "at least 1"),
        (PRIOR, 5, {"max_epochs": 0.5}, "all bounds together allow 0.5"),
        ({"a": 1.0}, 5, {}, "only 1 different"),
    ],
)
def test_wrong_proposals(prior: dict[str, float], n: int, options: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidParams, match=message):
        propose(prior, n, **options)  # type: ignore[arg-type]
