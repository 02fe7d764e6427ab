"""s2l: quotas, order, trajectories of a proxy, bad input."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pickaxe
from pickaxe import Call, Item
from pickaxe.errors import Cancelled, InvalidItems, InvalidParams
from pickaxe_plugins.selection.s2l import _proxy
from pickaxe_plugins.selection.s2l._balance import cluster_quotas, order, quotas
from pickaxe_plugins.train import llama
from pickaxe_plugins.train.settings import Net

RNG = np.random.default_rng(0)
SHAPES = np.array([[2.0, 1.0, 0.5, 0.3], [2.0, 1.9, 1.8, 1.7], [2.0, 2.0, 1.9, 0.5]])
FAMILY = np.array([0] * 30 + [1] * 12 + [2] * 5)
LOSSES = SHAPES[FAMILY] + RNG.normal(0, 0.02, (47, 4))


def items(losses: np.ndarray = LOSSES, **fields: Any) -> list[Item]:
    return [Item(f"i{row:03}", fields={"losses": each, **fields}) for row, each in enumerate(losses)]


def fitted(pool: list[Item] | None = None, seed: int = 0, **params: Any) -> Any:
    return pickaxe.scorer("s2l", **{"clusters": 3, **params}).fit(items() if pool is None else pool, seed=seed)


def handle_of(handle: Any, budget: float) -> Any:
    return pickaxe.scorer("s2l", budget=budget).with_artifact(handle.artifact)


# ---------------------------------------------------------------- quotas and order


@given(
    st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=6), min_size=1, max_size=4),
    st.integers(1, 4),
    st.integers(0, 9),
)
@settings(max_examples=60)
def test_the_first_n_by_priority_have_the_quotas_for_every_n(
    sizes: list[list[int]], min_cluster: int, seed: int
) -> None:
    sources = np.concatenate([np.full(sum(each), at) for at, each in enumerate(sizes)])
    labels = np.concatenate([np.repeat(np.arange(len(each)), each) for each in sizes])
    ranks = order(sources, labels, min_cluster, seed)
    assert sorted(ranks) == list(range(len(ranks)))
    for n in range(len(ranks) + 1):
        of_source = quotas([sum(each) for each in sizes], n)
        for at, each in enumerate(sizes):
            taken = np.bincount(labels[(sources == at) & (ranks < n)], minlength=len(each))
            large, small = cluster_quotas(each, of_source[at], min_cluster)
            assert [count for count, size in zip(taken, each, strict=True) if size >= min_cluster] == [
                count for count, size in zip(large, each, strict=True) if size >= min_cluster
            ]
            assert sum(count for count, size in zip(taken, each, strict=True) if size < min_cluster) == small


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(0, 200))
def test_quotas_are_equal_where_nothing_is_exhausted(sizes: list[int], n: int) -> None:
    taken = quotas(sizes, n)
    assert sum(taken) == min(n, sum(sizes))
    assert all(count <= size for count, size in zip(taken, sizes, strict=True))
    open_ones = sorted((size, count) for size, count in zip(sizes, taken, strict=True) if count < size)
    counts = [count for _, count in open_ones]
    assert not counts or max(counts) - min(counts) <= 1
    by_size = {size: [c for s, c in open_ones if s == size] for size, _ in open_ones}
    levels = [level for size in sorted(by_size) for level in sorted(by_size[size])]
    assert levels == sorted(levels)


@pytest.mark.parametrize("budget", [1, 10, 46, 47])
def test_selected_are_the_budget(budget: int) -> None:
    scores = handle_of(fitted(), budget).score(items())
    assert scores["selected"].sum() == budget
    best = np.argsort(-scores["priority"])[:budget]
    assert scores["selected"][best].all()
    assert len(set(scores["priority"])) == 47


def test_a_new_budget_needs_no_fit_and_shares_are_shares() -> None:
    handle = fitted()
    few, more = (handle_of(handle, each).score(items())["selected"] for each in (6, 0.5))
    assert few.sum() == 6
    assert more.sum() == round(0.5 * 47)
    assert (more >= few).all()


def test_clusters_give_equal_shares() -> None:
    scores = handle_of(fitted(), 15).score(items())
    assert np.bincount(FAMILY[scores["selected"] == 1]).tolist() == [5, 5, 5]
    assert all(len(set(scores["cluster"][family == FAMILY])) == 1 for family in range(3))


def test_the_order_of_items_does_not_matter() -> None:
    shuffled = [items()[row] for row in RNG.permutation(47)]
    one, other = fitted().score(items()), fitted(shuffled).score(items())
    for name in one.columns:
        np.testing.assert_array_equal(one[name], other[name])
    assert (fitted(seed=1).score(items())["priority"] != one["priority"]).any()


def test_a_constant_or_another_order_of_checkpoints_leaves_the_clusters() -> None:
    one = fitted().score(items())["cluster"]
    for changed in (LOSSES + 3, LOSSES[:, ::-1]):
        np.testing.assert_array_equal(fitted(items(changed)).score(items(changed))["cluster"], one)


def test_sources_are_clustered_and_balanced_apart() -> None:
    pool = [*items(LOSSES[:40], source="big"), Item("z", fields={"losses": LOSSES[0], "source": "small"})]
    handle = fitted(pool)
    scores = handle_of(handle, 2).score(pool)
    assert scores["selected"][-1] == 1
    assert scores["cluster"][-1] not in scores["cluster"][:-1]
    together = fitted(pool, use_source=False).score(pool)
    assert together["cluster"][-1] == together["cluster"][0]
    strange = handle.score([Item("new", fields={"losses": LOSSES[0], "source": "unknown"})])
    assert strange["distance"][0] == pytest.approx(0, abs=1e-6)  # the nearest cluster of all is that of z


def test_items_that_are_not_of_the_pool_get_a_cluster_but_no_priority() -> None:
    handle = fitted()
    scores = handle.score([Item("new", fields={"losses": SHAPES[2]}), Item("i000")])
    assert scores["cluster"][0] == handle.score(items())["cluster"][-1]
    assert scores["priority"][0] == 0
    assert [(flag.index, flag.reason) for flag in scores.flags] == [(0, "not-in-pool")]
    assert scores["loss_first"][1] == pytest.approx(LOSSES[0, 0])
    assert scores["loss_last"][1] == pytest.approx(LOSSES[0, -1])


def test_missing_losses_are_zero_or_dropped() -> None:
    holed = LOSSES.copy()
    holed[3, 1] = math.nan
    zero = fitted(items(holed)).score(items(holed))
    assert zero["cluster"].min() == 0
    drop = fitted(items(holed), nan_policy="drop")
    assert drop.artifact.notes["missing"] == 1
    scores = drop.score(items(holed))
    assert scores["cluster"][3] == -1
    assert math.isnan(scores["distance"][3])
    assert scores["priority"][3] == 0
    assert {flag.reason for flag in scores.flags} == {"not-in-pool", "missing-loss"}


def test_thinning() -> None:
    assert fitted(keep_checkpoints=2).artifact.notes["checkpoints"] == 2


# ---------------------------------------------------------------- proxy

NET = {"layers": 1, "width": 32, "heads": 2, "kv_heads": 1, "vocab": 300, "context": 32}
RECIPE = {"epochs": 3, "batch": 4, "warmup": 1, "rate": 3e-3, "checkpoint": 2}
TALKS = [
    Item(f"t{row:02}", fields={"prompt": f"{row} plus {row} is", "answer": "even" if row % 3 else f"{2 * row}"})
    for row in range(10)
]


def proxy(out: Path, talks: list[Item] | None = None, **params: Any) -> Any:
    given = {"proxy": NET, "recipe": RECIPE, "checkpoints": 3, "clusters": 2, **params}
    return pickaxe.scorer("s2l", **given).fitting(TALKS if talks is None else talks, out)


def test_a_proxy_makes_the_trajectories(tmp_path: Path) -> None:
    steps = list(proxy(tmp_path / "a", [*TALKS, Item("empty", fields={"prompt": "?", "answer": ""})]))
    artifact = pickaxe.Artifact.open(tmp_path / "a")
    losses = np.array(artifact.read_array("trajectories.npy"))
    assert losses.shape == (11, 3)
    assert (losses[0] == 0).all()  # ids are sorted: "empty" comes first and has no answer
    assert losses[1:, -1].mean() < losses[1:, 0].mean()
    assert artifact.notes["missing"] == 1
    assert len(set(artifact.notes["proxy"]["hashes"])) == 3
    assert [step.metrics["checkpoints"] for step in steps if step.stage == "train"][-1] == 2
    assert not [name for name in artifact.manifest["files"] if "proxy" in name or "losses-" in name]


@pytest.mark.parametrize("stop", [2, 5, 7])
def test_an_interrupted_fit_goes_on_to_the_same_bytes(tmp_path: Path, stop: int) -> None:
    for _ in proxy(tmp_path / "whole"):
        pass
    running = proxy(tmp_path / "cut")
    for _ in range(stop):
        next(running)
    running.close()
    for _ in proxy(tmp_path / "cut"):
        pass
    assert pickaxe.Artifact.open(tmp_path / "cut").digest == pickaxe.Artifact.open(tmp_path / "whole").digest


def test_only_answer_tokens_count() -> None:
    net = Net(**NET)  # type: ignore[arg-type]  # the values are of the fields' types
    architecture = net.architecture(300)
    weights = llama.initial(architecture, 0)
    ids = np.array([5, 6, 7, 8, 9], np.int32)
    one = _proxy.losses(architecture, weights, [_proxy.masked(ids, 4)], Call())
    hidden = llama.hidden_states(weights, architecture, ids[None])
    logits = np.asarray(llama.logits(weights, hidden), np.float64)[0]
    logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    assert one[0] == pytest.approx(-logprobs[3, 9], abs=1e-4)
    two = _proxy.losses(architecture, weights, [_proxy.masked(ids, 3)], Call())
    assert two[0] == pytest.approx(-(logprobs[2, 8] + logprobs[3, 9]) / 2, abs=1e-4)


def test_batches_do_not_matter() -> None:
    net = Net(**NET)  # type: ignore[arg-type]  # the values are of the fields' types
    architecture, given = _proxy.texts(TALKS, net)
    texts = [text for text in given if text is not None]
    weights = llama.initial(architecture, 0)
    together, apart = (_proxy.losses(architecture, weights, texts, Call(), size) for size in (8, 3))
    np.testing.assert_allclose(together, apart, atol=1e-4)


def test_a_prompt_that_fills_the_context_leaves_no_answer() -> None:
    net = Net(**{**NET, "context": 16})  # type: ignore[arg-type]  # the values are of the fields' types
    long = Item("long", fields={"prompt": "abc " * 100, "answer": "x"})
    assert _proxy.texts([long, *TALKS], net)[1][0] is None


def test_cancelling_stops_the_losses() -> None:
    net = Net(**NET)  # type: ignore[arg-type]  # the values are of the fields' types
    architecture, given = _proxy.texts(TALKS, net)
    call = Call()
    call.cancel()
    with pytest.raises(Cancelled):
        _proxy.losses(architecture, {}, [text for text in given if text is not None], call)


# ---------------------------------------------------------------- bad input


def one(**fields: Any) -> Item:
    return Item("x", fields=fields)


@pytest.mark.parametrize(
    ("pool", "place"),
    [
        ([], "examples"),
        ([one(losses=np.array([1.0])), one(losses=np.array([1.0]))], "two items with id"),
        (
            [one(losses=np.array([1.0])), Item("y", fields={"losses": np.array([1.0, 2.0])})],
            r"examples\[1\].fields.losses",
        ),
        ([one(losses=np.array([1.0])), Item("y")], r"examples\[1\].fields.losses"),
        ([one(losses=np.array([]))], r"examples\[0\].fields.losses"),
        ([one(losses=np.array([-0.1]))], "not negative"),
        ([one(losses=np.array([np.inf]))], "finite"),
        ([one(losses=np.array([[1.0]]))], r"\(T,\)"),
        ([one(prompt="?")], r"examples\[0\].fields.answer"),
        ([one(answer="?")], r"examples\[0\].fields.prompt"),
        ([one(prompt="?", answer="")], "no answer"),
    ],
)
def test_bad_pools_are_named(pool: list[Item], place: str) -> None:
    with pytest.raises(InvalidItems, match=place):
        fitted(pool)


def test_nothing_left_after_dropping() -> None:
    with pytest.raises(InvalidItems, match="without a missing loss"):
        fitted([one(losses=np.array([np.nan]))], nan_policy="drop")


def test_bad_budgets_and_items() -> None:
    for budget in (0, -1, 2.5):
        with pytest.raises(InvalidParams, match="budget"):
            pickaxe.scorer("s2l", budget=budget)
    with pytest.raises(InvalidParams, match="47 items"):
        handle_of(fitted(), 48).score(items())
    with pytest.raises(InvalidItems, match="not one of the pool"):
        fitted().score([Item("new")])
    with pytest.raises(InvalidItems, match="checkpoints"):
        fitted().score([one(losses=np.ones(3))])


def test_more_clusters_than_items_and_a_single_item() -> None:
    assert fitted(clusters=500).score(items())["distance"].max() == pytest.approx(0, abs=1e-6)
    single = [one(losses=np.ones(2))]
    assert fitted(single, budget=1).score(single)["selected"].tolist() == [1]
