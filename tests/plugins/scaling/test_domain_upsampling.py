"""Plans of the last phase, mixes, draws, and errors that name the domain."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pickaxe
from pickaxe import Item
from pickaxe.errors import InvalidItems, InvalidParams, Unmet
from pickaxe.report import explained
from pickaxe_plugins.scaling.domain_upsampling import Credits, schedule
from pickaxe_plugins.scaling.domain_upsampling._mix import Domains, Plan, final_mix, without

WEIGHTS = st.lists(st.floats(0.01, 1.0), min_size=2, max_size=12)


def domain(name: str, weight: float, tokens: float, group: str) -> Item:
    return Item(name, fields={"base_weight": weight, "available_tokens": tokens, "group": group})


PILE = [
    domain("cc", 0.7, 1e12, "web"), domain("news", 0.1, 1e11, "web"),
    domain("wiki", 0.1, 5e9, "books"), domain("python", 0.1, 1e11, "code"),
]  # fmt: skip
SHARES = {"web": 0.4, "books": 0.3, "code": 0.3}


def plan(items: list[Item] = PILE, **params: object) -> pickaxe.Scores:
    return pickaxe.scorer("domain-upsampling", **{"group_share": SHARES, "total_tokens": 1e12, **params}).score(items)


# ---------------------------------------------------------------- mixes and plans


@settings(deadline=None)
@given(WEIGHTS, st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_mixes_sum_to_one_and_keep_proportions_inside_groups(weights: list[float], groups: int, seed: int) -> None:
    names = [str(each) for each in range(len(weights))]
    labels = [str(place % groups) for place in range(len(weights))]
    domains = Domains.of(names, labels, weights, [1.0] * len(weights), "items")
    shares = np.random.default_rng(seed).dirichlet(np.ones(len(set(labels)))) + 1e-3
    mix = final_mix(domains, dict(zip(sorted(set(labels)), (shares / shares.sum()).tolist(), strict=True)))
    assert mix.sum() == pytest.approx(1, abs=1e-9)
    for label in set(labels):
        rows = np.array(labels) == label
        np.testing.assert_allclose(
            mix[rows] / mix[rows].sum(), domains.base[rows] / domains.base[rows].sum(), rtol=1e-9
        )


@settings(deadline=None)
@given(WEIGHTS, st.data())
def test_leaving_out_keeps_the_other_ratios(weights: list[float], data: st.DataObject) -> None:
    mix = np.array(weights) / sum(weights)
    removed = data.draw(st.integers(0, len(weights) - 1))
    rest = without(mix, removed)
    assert rest[removed] == 0
    assert rest.sum() == pytest.approx(1, abs=1e-9)
    others = np.arange(len(mix)) != removed
    np.testing.assert_allclose(rest[others] / rest[others][0], mix[others] / mix[others][0], rtol=1e-9)


def test_tokens_add_up_and_the_effective_mix_is_that_of_both_phases() -> None:
    found = plan(delta=0.3)
    assert found["tokens_seen"].sum() == pytest.approx(1e12)
    base = np.array([item.fields["base_weight"] for item in PILE])
    np.testing.assert_allclose(found["effective_weight"], 0.7 * base + 0.3 * found["final_weight"])
    np.testing.assert_allclose(found["epochs"], found["tokens_seen"] / [1e12, 1e11, 5e9, 1e11])
    assert found.schema[0].name == "final_weight"


def test_a_small_delta_is_the_base_mix() -> None:
    domains = Domains.of(["a", "b"], ["a", "b"], [0.9, 0.1], [1.0, 1.0], "items")
    near = Plan.of(domains, np.array([0.5, 0.5]), 1.0, 1e-12)
    np.testing.assert_allclose(near.effective, domains.base)


def test_a_group_without_a_share_keeps_its_own() -> None:
    found = plan(group_share={"books": 0.2, "code": 0.0})
    np.testing.assert_allclose(found["final_weight"], [0.7, 0.1, 0.2, 0.0])


def test_no_shares_keep_the_base_mix() -> None:
    np.testing.assert_allclose(plan(group_share={})["final_weight"], [0.7, 0.1, 0.1, 0.1], rtol=1e-12)


def test_repetition_is_flagged_and_said() -> None:
    found = plan(delta=0.2)
    assert found["repeat_warning"].tolist() == [False, False, True, False]
    assert [(flag.index, flag.reason) for flag in found.flags] == [(2, "repeats")]
    answer, figures = explained(found.summary)
    assert "books from 0.1 to 0.3" in answer[0]
    assert "wiki 28" in answer[1]
    assert figures[0].series[1].x == tuple(found["final_weight"])
    assert figures[1].series[0].x == tuple(found["epochs"])


def test_base_mix_of_the_parameters() -> None:
    items = [Item(item.id, fields={"available_tokens": 1e12, "group": item.fields["group"]}) for item in PILE]
    found = plan(items, base_mix={"cc": 7, "news": 1, "wiki": 1, "python": 1})
    np.testing.assert_allclose(found["final_weight"], plan()["final_weight"])


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"delta": 0.0}, "delta"),
        ({"delta": 1.0}, "delta"),
        ({"group_share": {"web": 0.4, "books": 0.3, "code": 0.31}}, "adds up to 1.01"),
        ({"group_share": {"web": 0.5, "law": 0.5}}, "is no group; known are books, code, web"),
        ({"group_share": {"web": -0.5, "code": 1.5}}, "wanted a number that is not negative"),
        ({"base_mix": {"cc": 1.0}}, "must name exactly the domains"),
        ({"sweep": (1.5,)}, "sweep"),
    ],
)
def test_wrong_parameters_are_named(params: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidParams, match=message):
        plan(**params)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (domain("cc", -0.1, 1, "web"), r"items\[0\].fields.base_weight: is -0.1"),
        (domain("cc", 0.1, 0, "web"), "is 0, yet domain 'cc' has base weight"),
        (domain("cc", 0.1, float("nan"), "web"), "available_tokens: is nan"),
        (Item("cc", fields={"available_tokens": 1.0, "group": "web"}), "base_weight: is missing"),
        (domain("news", 0.1, 1, "web"), "domain 'news' was given before"),
    ],
)
def test_wrong_domains_are_named(item: Item, message: str) -> None:
    with pytest.raises(InvalidItems, match=message):
        plan([item, *PILE[1:]])


def test_weights_that_are_all_zero() -> None:
    with pytest.raises(InvalidItems, match="add up to 0"):
        plan([domain("a", 0, 1, "web"), domain("b", 0, 1, "web")])


def test_utility_needs_a_fit() -> None:
    with pytest.raises(Unmet, match="call fit"):
        pickaxe.scorer("domain-upsampling", mode="utility").score([Item("cc")])


# ---------------------------------------------------------------- draws


@settings(deadline=None, max_examples=50)
@given(WEIGHTS, st.integers(1, 400))
def test_draws_stay_close_to_the_mix(weights: list[float], n: int) -> None:
    mix = np.array(weights) / sum(weights)
    order = Credits(len(mix)).draw(mix, n)
    counts = np.cumsum(np.eye(len(mix), dtype=int)[order], axis=0)
    ahead = counts - np.arange(1, n + 1)[:, None] * mix
    k = len(mix)
    assert ahead.max() <= 1 - 1 / k + 1e-9
    assert ahead.min() >= -(np.sum(1 / np.arange(1, k + 1)) - 1) - 1e-9


@settings(deadline=None, max_examples=30)
@given(WEIGHTS, st.integers(0, 200), st.integers(1, 200))
def test_draws_go_on_exactly(weights: list[float], before: int, after: int) -> None:
    mix = np.array(weights) / sum(weights)
    whole = Credits(len(mix)).draw(mix, before + after)
    first = Credits(len(mix))
    head = first.draw(mix, before)
    again = Credits(len(mix), first.credits, first.counts)
    np.testing.assert_array_equal(np.concatenate([head, again.draw(mix, after)]), whole)


def test_the_same_final_mix_gives_the_same_draws() -> None:
    base = [0.7, 0.2, 0.1]
    one = list(schedule([10, 5, 3], base, 500, delta=0.2))
    assert one == list(schedule([10, 5, 3], base, 500, delta=0.2, final_mix=base))
    assert one == list(schedule([10, 5, 3], base, 500, delta=0.0, final_mix=[0.0, 0.0, 1.0]))


def test_documents_cycle_in_one_order_across_the_switch() -> None:
    drawn = list(schedule([7, 4], [0.8, 0.2], 200, delta=0.5, final_mix=[0.2, 0.8], seed=3))
    for place, size in enumerate((7, 4)):
        order = [document for domain, document in drawn if domain == place]
        assert sorted(order[:size]) == list(range(size))
        assert all(document == order[row % size] for row, document in enumerate(order))
    assert drawn != list(schedule([7, 4], [0.8, 0.2], 200, delta=0.5, final_mix=[0.2, 0.8], seed=4))


def test_mixes_are_shares_of_tokens() -> None:
    drawn = [domain for domain, _ in schedule([9, 9], [0.5, 0.5], 3000, mean_tokens=[100, 200])]
    assert drawn.count(0) == pytest.approx(2 * drawn.count(1), abs=3)


@pytest.mark.parametrize(
    ("documents", "mix", "delta", "message"),
    [
        ([3, 0], [0.5, 0.5], 0.2, "documents"),
        ([3], [0.5, 0.5], 0.2, "2 weights, there are 1 domains"),
        ([3, 3], [-0.5, 1.5], 0.2, "not negative"),
        ([3, 3], [0.5, 0.5], 1.5, "delta"),
    ],
)
def test_wrong_schedules(documents: list[int], mix: list[float], delta: float, message: str) -> None:
    with pytest.raises(InvalidParams, match=message):
        next(schedule(documents, mix, 10, delta))
