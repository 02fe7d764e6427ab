"""Acceptance of multi-draft verification: against a linear program, all subsets, enumeration; the scorer."""

from __future__ import annotations

from itertools import product
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from mdsd_cases import LAWS, pairs, sequences
from scipy.optimize import linprog

import pickaxe
from pickaxe import Item
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe.host import default_host
from pickaxe_plugins.decoding._speculation.multidraft import (
    Law,
    RatioOrder,
    greedy_optimum,
    greedy_recursive,
    most_probable,
)
from pickaxe_plugins.decoding._speculation.transport import Distribution, KSequential

PREFIX_LAWS: tuple[Literal["without", "with"], ...] = ("without", "with")


def sets(law: Law, draft: np.ndarray, n: int) -> dict[frozenset[int], float]:
    found: dict[frozenset[int], float] = {}
    for drafts, chance in sequences(law, draft, n).items():
        found[frozenset(drafts)] = found.get(frozenset(drafts), 0.0) + chance
    return found


def by_linear_program(target: np.ndarray, law: dict[frozenset[int], float]) -> float:
    """Largest mass that flows from sets of drafts to tokens in them."""
    cells = [(row, token) for row, drafts in enumerate(law) for token in drafts]
    limits = np.zeros((len(law) + len(target), len(cells)))
    for column, (row, token) in enumerate(cells):
        limits[row, column] = limits[len(law) + token, column] = 1
    found = linprog(-np.ones(len(cells)), A_ub=limits, b_ub=[*law.values(), *target], method="highs")
    return -float(found.fun)


def optimum(law: Law, target: np.ndarray, draft: np.ndarray, n: int) -> float:
    if law == "greedy":
        return greedy_optimum(target, draft, n)
    return RatioOrder.of(target, draft).optimum(n, law)[0]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [2, 4, 6])
def test_optimum_is_the_linear_programs(size: int, n: int, law: Law) -> None:
    for target, draft in pairs(size):
        assert optimum(law, target, draft, n) == pytest.approx(by_linear_program(target, sets(law, draft, n)), abs=1e-7)


@pytest.mark.parametrize("law", PREFIX_LAWS)
@pytest.mark.parametrize("n", [2, 3])
def test_no_subset_is_below_the_best_prefix(n: int, law: Literal["without", "with"]) -> None:
    for target, draft in pairs(6):
        chances = sets(law, draft, n)
        gaps = []
        for chosen in product([False, True], repeat=6):
            tokens = set(np.flatnonzero(chosen).tolist())
            inside = sum(chance for drafts, chance in chances.items() if drafts <= tokens)
            gaps.append(target[list(tokens)].sum() - inside)
        assert optimum(law, target, draft, n) == pytest.approx(1 + min(gaps), abs=1e-9)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_probability_that_all_drafts_lie_in_a_prefix(n: int) -> None:
    for target, draft in pairs(6, 9):
        order = RatioOrder.of(target, draft)
        chances = sequences("without", order.draft, n)
        wanted = [
            sum(chance for drafts, chance in chances.items() if max(drafts) < length)
            for length in range(order.support + 1)
        ]
        np.testing.assert_allclose(order.all_inside(n, "without"), wanted, atol=1e-9)


@pytest.mark.parametrize("size", [300, 5000])
def test_prefixes_of_a_large_vocabulary(size: int) -> None:
    random = np.random.default_rng(size)
    logits = random.normal(0, 3, size)
    draft = np.exp(logits - logits.max())
    order = RatioOrder.of(random.dirichlet(np.ones(size)), draft / draft.sum())
    rounds = 5_000_000 // size
    race = random.exponential(size=(rounds, size)) / order.draft
    last = np.argpartition(race, 3, axis=1)[:, :3].max(axis=1)
    inside = order.all_inside(3, "without")
    for length in (size // 2, size * 9 // 10):
        assert inside[length] == pytest.approx(float((last < length).mean()), abs=4 * np.sqrt(0.25 / rounds))


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_recursive_rejection_of_distinct_drafts(n: int) -> None:
    """Residuals of one family give the same as the definition, draft by draft."""

    def accepted(target: np.ndarray, draft: np.ndarray, left: int) -> float:
        if not left or not draft.any():
            return 0.0
        chance = np.divide(target, draft, out=np.zeros_like(draft), where=draft > 0)
        kept = draft * np.minimum(1, chance)
        total, residual = float(kept.sum()), np.maximum(target - draft, 0)
        if residual.sum() < 1e-15:
            return 1.0
        for token in np.flatnonzero(draft - kept > 1e-15):
            rest = draft.copy()
            rest[token] = 0
            if rest.any():
                beyond = accepted(residual / residual.sum(), rest / rest.sum(), left - 1)
                total += float(draft[token] - kept[token]) * beyond
        return total

    for target, draft in pairs(5):
        order = RatioOrder.of(target, draft)
        exact = order.recursive_without(n)
        assert exact == pytest.approx(accepted(target, draft, min(n, order.support)), abs=1e-9)
        estimate, error = order.estimated_without(n, 4000, np.random.default_rng(n))
        assert estimate == pytest.approx(exact, abs=5 * error + 1e-12)


def test_exact_for_two_drafts_of_any_vocabulary() -> None:
    random = np.random.default_rng(3)
    target, draft = random.dirichlet(np.full(500, 0.1), 2)
    order = RatioOrder.of(target, draft)
    exact = order.recursive_without(2)
    estimate, error = order.estimated_without(2, 20_000, random)
    assert estimate == pytest.approx(exact, abs=4 * error)
    assert order.recursive_without(3) is None


def test_drafts_that_outweigh_all_others_by_far() -> None:
    """What is left beside them is not lost in rounding."""
    draft = np.array([1.0, 1e-9, 2e-9, 1e-18, 3e-18])
    draft /= draft.sum()
    target = np.array([0.1, 0.2, 0.3, 0.2, 0.2])
    order = RatioOrder.of(target, draft)
    for n in (2, 3, 4):
        wanted = by_linear_program(target, sets("without", draft, n))
        assert order.optimum(n, "without")[0] == pytest.approx(wanted, abs=1e-7)
        estimate, error = order.estimated_without(n, 4000, np.random.default_rng(n))
        assert order.recursive_without(n) == pytest.approx(estimate, abs=5 * error + 1e-7)


# ---------------------------------------------------------------- what must hold for all


weights = st.integers(2, 7).flatmap(
    lambda size: st.tuples(
        *[arrays(np.float64, size, elements=st.floats(0, 1, width=32)).filter(lambda each: each.sum() > 1e-3)] * 2
    )
)


@settings(max_examples=60, deadline=None)
@given(weights, st.integers(1, 5))
def test_order_of_optima_and_verifiers(pair: tuple[np.ndarray, np.ndarray], n: int) -> None:
    target, draft = (each / each.sum() for each in pair)
    order = RatioOrder.of(target, draft)
    independent, distinct = order.optimum(n, "with")[0], order.optimum(n, "without")[0]
    sequential = KSequential(Distribution(target), Distribution(draft), n).acceptance
    close = 1e-9
    assert (1 - (1 - 1 / n) ** n) * independent - close <= sequential <= independent + close
    assert order.recursive_with(n) <= independent + close
    assert independent <= distinct + close <= 1 + 2 * close
    rejection = order.recursive_without(n)
    assert rejection is not None
    assert rejection <= distinct + close
    assert greedy_recursive(target, draft, n) <= greedy_optimum(target, draft, n) + close <= 1 + 2 * close
    for law in PREFIX_LAWS:
        assert order.optimum(n, law)[0] <= order.optimum(n + 1, law)[0] + close
    if n == 2:
        assert order.recursive_with(2) <= min(rejection, sequential) + close


@settings(max_examples=40, deadline=None)
@given(weights)
def test_one_draft_is_ordinary_speculative_sampling(pair: tuple[np.ndarray, np.ndarray]) -> None:
    target, draft = (each / each.sum() for each in pair)
    order, wanted = RatioOrder.of(target, draft), np.minimum(target, draft).sum()
    found = [optimum(law, target, draft, 1) for law in LAWS]
    found += [order.recursive_with(1), order.recursive_without(1), greedy_recursive(target, draft, 1)]  # type: ignore[list-item]
    assert found == pytest.approx([wanted] * len(found), abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_a_draft_equal_to_the_target_is_always_accepted(n: int) -> None:
    target = np.array([0.5, 0.3, 0.15, 0.05])
    order = RatioOrder.of(target, target)
    found = [optimum(law, target, target, n) for law in LAWS] + [order.recursive_with(n), order.recursive_without(n)]
    assert found == pytest.approx([1.0] * len(found), abs=1e-12)


def test_drafts_that_must_hold_the_targets_support() -> None:
    target, draft = np.array([1.0, 0.0]), np.array([0.5, 0.5])
    assert optimum("without", target, draft, 2) == pytest.approx(1, abs=1e-12)
    assert optimum("greedy", target, draft, 2) == pytest.approx(1, abs=1e-12)
    assert optimum("with", target, draft, 2) == pytest.approx(0.75, abs=1e-12)


def test_most_probable_tokens_are_the_lowest_ids_among_equals() -> None:
    draft = np.array([0.2, 0.1, 0.2, 0.2, 0.3])
    assert [most_probable(draft, count).tolist() for count in (0, 1, 3)] == [[], [4], [4, 0, 2]]


def test_means_of_random_pairs_of_2000_tokens() -> None:
    """The card's synthetic check on 20 of its seeds; the order held in every one of them."""
    rows = []
    for seed in range(20):
        random = np.random.default_rng(seed)
        logits = random.normal(0, 2.5, 2000)
        target, draft = np.exp(logits), np.exp(logits + random.normal(0, 1, 2000))
        item = Item(str(seed), fields={"target": target / target.sum(), "draft": draft / draft.sum()})
        single, scores = (pickaxe.scorer("mdsd-acceptance", n=n).score([item]) for n in (1, 2))
        names = ("rrs_with", "k_sequential", "optimal_with", "optimal_without", "optimal_greedy")
        rows.append([single["optimal"][0], *(scores[name][0] for name in names)])
    table = np.array(rows)
    assert np.all(np.diff(table[:, :5], axis=1) > 0)
    np.testing.assert_allclose(table.mean(axis=0), [0.634, 0.727, 0.751, 0.803, 0.815, 0.708], atol=0.03)


@pytest.mark.parametrize("n", [2, 4])
def test_means_of_a_pair_of_models(n: int) -> None:
    """The shipped model and its first layer; the benchmark has SmolLM2 and the shipped model."""
    host = default_host()
    target, draft = host.lm("draft"), host.lm("draft", layers=1)
    ids = target.tokenizer.encode(
        "The quick brown fox jumps over the lazy dog, and then it sleeps. One and one is two."
    )
    rows = [np.exp(lm.full_logprobs(ids).astype(np.float64)) for lm in (target, draft)]
    items = [
        Item(str(place), fields={"target": t / t.sum(), "draft": d / d.sum()})
        for place, (t, d) in enumerate(zip(*rows, strict=True))
    ]
    scores = pickaxe.scorer("mdsd-acceptance", n=n, samples=0).score(items)
    mean = [scores[name].mean() for name in ("rrs_with", "k_sequential", "optimal_with", "optimal_without")]
    assert np.all(np.diff(mean) > 0)
    assert mean[3] - mean[2] > 0.002


# ---------------------------------------------------------------- the scorer


CLOSE = Item("close", fields={"target": np.array([0.5, 0.3, 0.15, 0.05]), "draft": np.array([0.4, 0.3, 0.2, 0.1])})


def test_columns_belong_together() -> None:
    target, draft = np.random.default_rng(1).dirichlet(np.full(40, 0.3), 2)
    item = Item("large", fields={"target": target.astype(np.float32), "draft": draft, "n": 3})
    for law, verify, reached in (
        ("greedy", "auto", "optimal_greedy"),
        ("without", "rrs", "rrs_without_mc"),
        ("with", "k_sequential", "k_sequential"),
        ("with", "rrs", "rrs_with"),
    ):
        scores = pickaxe.scorer("mdsd-acceptance", law=law, verify=verify).score([CLOSE, item])
        assert scores["optimal"].tolist() == scores[f"optimal_{law}"].tolist()
        assert scores["gap"][1] == scores["optimal"][1] - scores[reached][1]
        assert np.isnan(scores["rrs_without"]).tolist() == [False, True]
        assert np.isnan(scores["rrs_without_mc"]).tolist() == [True, False]
        assert scores["rrs_without_mc_se"][1] > 0
        assert scores["n_used"].tolist() == [2, 3]
    greedy = pickaxe.scorer("mdsd-acceptance", verify="rrs").score([CLOSE])
    assert greedy["gap"][0] == pytest.approx(0.05, abs=1e-12)


def test_estimates_go_by_the_item_and_the_seed() -> None:
    target, draft = np.random.default_rng(1).dirichlet(np.full(40, 0.3), 2)
    items = [Item(name, fields={"target": target, "draft": draft}) for name in ("a", "b")]
    scorer = pickaxe.scorer("mdsd-acceptance", n=3)
    first, second = scorer.score(items)["rrs_without_mc"], scorer.score(items[::-1])["rrs_without_mc"]
    assert first.tolist() == second[::-1].tolist()
    assert first[0] != first[1]
    assert scorer.score(items, call=pickaxe.Call(seed=1))["rrs_without_mc"][0] != first[0]
    without = pickaxe.scorer("mdsd-acceptance", n=3, samples=0, law="without").score(items)
    assert np.isnan([without["rrs_without_mc"], without["gap"]]).all()


def test_fewer_tokens_than_drafts() -> None:
    item = Item("one", fields={"target": np.array([0.2, 0.8, 0.0]), "draft": np.array([0.0, 1.0, 0.0]), "n": 16})
    scores = pickaxe.scorer("mdsd-acceptance").score([item])
    assert scores["n_used"].tolist() == [1]
    for name in ("optimal", "optimal_with", "optimal_without", "rrs_with", "rrs_without", "k_sequential"):
        assert scores[name][0] == pytest.approx(0.8, abs=1e-9), name


def test_no_items() -> None:
    assert len(pickaxe.scorer("mdsd-acceptance").score([])) == 0


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"target": np.array([0.5, 0.5])}, "fields.draft: is missing (item 'bad')"),
        ({"target": "half", "draft": np.ones(1)}, "fields.target: is text, wanted tensor"),
        ({"target": np.array([0.5, 0.6]), "draft": np.ones(1)}, "fields.target: sums to 1.1"),
        ({"target": np.array([1.5, -0.5]), "draft": np.ones(1)}, "fields.target: holds a negative number"),
        ({"target": np.array([0.5, 0.5]), "draft": np.array([np.nan, 1])}, "fields.draft: holds a negative number"),
        ({"target": np.array([0.5, 0.5]), "draft": np.ones(1)}, "fields.draft: has 1 tokens, target has 2"),
        ({"target": np.ones((1, 1)), "draft": np.ones(1)}, "fields.target: has shape (1, 1)"),
        ({"target": np.ones(1), "draft": np.ones(1), "n": 0}, "fields.n: is 0; must be in 1..16"),
        ({"target": np.ones(1), "draft": np.ones(1), "n": 2.5}, "fields.n: is float64, wanted int64"),
    ],
)
def test_items_that_cannot_be_used(fields: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidItems) as caught:
        pickaxe.scorer("mdsd-acceptance").score([CLOSE, Item("bad", fields=fields)])  # type: ignore[arg-type]
    assert f"items[1].{said}" in str(caught.value)


@pytest.mark.parametrize(
    "params",
    [
        {"law": "greedy", "verify": "k_sequential"},
        {"law": "with", "verify": "greedy_optimal"},
        {"law": "without", "verify": "k_sequential"},
        {"n": 0},
        {"n": 17},
        {"samples": 1},
    ],
)
def test_params_that_are_refused(params: dict[str, object]) -> None:
    with pytest.raises(InvalidParams):
        pickaxe.scorer("mdsd-acceptance", **params)
