"""quad: the bandit's rules, a whole fit on given influence and on a tiny model, reuse, resume, bad input."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pickaxe
from pickaxe import Host, Item
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe_plugins.selection.quad import Quad, _influence
from pickaxe_plugins.selection.quad._bandit import Bandit, Neighbours
from pickaxe_plugins.train import llama, vocabulary
from pickaxe_plugins.train.settings import Net

EXAMPLE = Quad.example()


def played(bandit: Bandit, influence: Any, rounds: int) -> list[int]:
    """The pulls of so many rounds; `influence(cluster, pull)` says the mean of a probe."""
    pulls: list[int] = []
    for _ in range(rounds):
        chosen = bandit.choose()
        values = [influence(cluster, bandit.taken[cluster]) for cluster in chosen]
        bandit.learn(chosen, np.array(values))
        pulls += chosen.tolist()
    return pulls


# ---------------------------------------------------------------- the bandit


def simulated(seed: int, alpha: float | None) -> tuple[float, int]:
    """The card's simulation: mean true influence of the pulls, and clusters touched; alpha None draws at random."""
    rng = np.random.default_rng(seed)
    true = rng.normal(0, 0.004, 200)
    noise = rng.normal(0, 0.003, (200, 8))
    if alpha is None:
        pulls = rng.permutation(np.repeat(np.arange(200), 8))[:600]
        return float(true[pulls].mean()), len(set(pulls.tolist()))
    bandit = Bandit(np.full(200, 8), Neighbours.alone(200), alpha=alpha, tau=0.0, arms=10, batch=1)
    pulls = np.array(played(bandit, lambda cluster, pull: true[cluster] + noise[cluster, pull], 60))
    return float(true[pulls].mean()), len(set(pulls.tolist()))


def test_exploring_finds_influence_and_touches_more_clusters() -> None:
    random, greedy, low, middle = (
        np.mean([simulated(seed, alpha) for seed in range(10)], axis=0) for alpha in (None, 0.0, 0.001, 0.002)
    )
    for found in (low, middle):
        assert found[0] > random[0] + 0.002
        assert found[0] >= greedy[0]
        assert found[1] > greedy[1]


def test_without_neighbours_arms_do_not_know_each_other() -> None:
    bandit = Bandit(np.full(6, 9), Neighbours.alone(6), alpha=0.1, tau=0.5, arms=2, batch=3)
    played(bandit, lambda cluster, pull: float(cluster), 5)
    np.testing.assert_allclose(bandit.rewards, bandit.taken * (np.arange(6) - 0.5))
    assert (bandit.counts == bandit.taken).all()


def test_neighbours_share_rewards_by_their_distance() -> None:
    distances = np.array([[0, 0.05, 1], [0.05, 0, 0.3], [1, 0.3, 0]])
    bandit = Bandit(np.full(3, 9), Neighbours.from_distances(distances, 0.2), alpha=0.0, tau=0.1, arms=1, batch=3)
    bandit.learn(bandit.choose(), np.array([0.5]))
    np.testing.assert_allclose(bandit.rewards, [0.4, 0.4 * 0.75, 0])
    assert (bandit.counts.tolist(), bandit.total) == ([1, 1, 0], 2)


def test_greedy_takes_the_best_mean_and_one_cluster_is_a_test_in_sequence() -> None:
    bandit = Bandit(np.full(3, 100), Neighbours.alone(3), alpha=0.0, tau=0.0, arms=3, batch=10)
    played(bandit, lambda cluster, pull: [1.0, 3.0, 2.0][cluster], 1)
    assert bandit.choose().tolist() == [1, 2, 0]
    alone = Bandit(np.array([40]), Neighbours.alone(1), alpha=1.0, tau=0.0, arms=1, batch=10)
    played(alone, lambda cluster, pull: [1.0, -1.0, 1.0, -1.0][pull], 4)
    assert (alone.taken[0], alone.accepted[0], len(alone.choose())) == (4, 2, 0)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=8),
    st.integers(1, 6),
    st.integers(1, 4),
    st.integers(0, 99),
    st.floats(0, 1),
)
def test_no_cluster_gives_more_than_it_has(
    sizes: list[int], batch: int, arms: int, seed: int, threshold: float
) -> None:
    rng = np.random.default_rng(seed)
    neighbours = Neighbours.from_centres(rng.normal(size=(len(sizes), 3)), threshold)
    bandit = Bandit(np.array(sizes), neighbours, alpha=0.1, tau=0.0, arms=arms, batch=batch)
    played(bandit, lambda cluster, pull: rng.normal(), 60)
    assert (bandit.taken == np.array(sizes) // batch).all() or bandit.eligible.any()
    assert (bandit.taken * batch <= bandit.sizes).all()
    assert (bandit.accepted <= bandit.taken).all()
    assert bandit.total == bandit.counts.sum()
    assert np.isfinite(bandit.scores).all()


def test_blocks_of_centres_give_the_matrixs_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    centres = np.random.default_rng(0).normal(size=(30, 3))
    unit = centres / np.linalg.norm(centres, axis=1, keepdims=True)
    distances = np.maximum(1 - unit @ unit.T, 0)
    np.fill_diagonal(distances, 0)
    whole = Neighbours.from_distances((distances + distances.T) / 2, 0.3)
    monkeypatch.setattr("pickaxe_plugins.selection.quad._bandit.BLOCK", 70)
    found = Neighbours.from_centres(centres, 0.3)
    assert (found.starts == whole.starts).all()
    assert (found.indices == whole.indices).all()
    np.testing.assert_allclose(found.shares, whole.shares, atol=1e-12)


@pytest.mark.parametrize(
    ("distances", "wrong"),
    [
        (np.zeros((2, 3)), "square"),
        (np.array([[0, 1], [2, 0]]), "symmetric"),
        (np.array([[1, 1], [1, 0]]), "diagonal"),
        (np.array([[0, np.nan], [np.nan, 0]]), "none at all"),
    ],
)
def test_what_is_no_distance_matrix_is_refused(distances: np.ndarray, wrong: str) -> None:
    with pytest.raises(InvalidParams, match=wrong):
        Neighbours.from_distances(np.asarray(distances, float), 0.2)


# ---------------------------------------------------------------- a fit on given influence


def fitted(pool: Any = EXAMPLE.examples, validation: Any = None, **params: Any) -> Any:
    return pickaxe.scorer("quad", **{**EXAMPLE.params, **params}).fit(pool, validation=validation)


def about(handle: Any, name: str = "about.json") -> Any:
    return handle.artifact.read_json(name)


def test_the_influential_cluster_is_selected_and_ranks_first() -> None:
    handle = fitted(tau=0.01, max_rounds=99)
    scores = handle.score(EXAMPLE.examples)
    chosen = {item.id for item, picked in zip(EXAMPLE.examples, scores["selected"], strict=True) if picked}
    assert chosen == {f"good{row}" for row in range(12)}
    best = np.argsort(-scores["cluster_score"], kind="stable")[:12]
    assert {EXAMPLE.examples[row].id for row in best} == chosen
    assert about(handle)["exhausted"] is False


def test_other_items_get_their_nearest_cluster() -> None:
    handle = fitted()
    there = handle.score([EXAMPLE.examples[0]])
    other = handle.score([Item("new", fields={"embedding": 7 * np.eye(4, dtype=np.float32)[0]})])
    assert there["cluster"][0] == other["cluster"][0]
    assert (there["selected"][0], other["selected"][0]) == (1, 0)
    assert np.isnan(other["influence"][0])
    assert there["influence"][0] == EXAMPLE.examples[0].get("influence")


def test_the_log_says_why_each_batch_was_accepted() -> None:
    handle = fitted(max_rounds=4, budget=None)
    log = about(handle, "rounds.json")
    assert [entry["round"] for entry in log] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert all(entry["accepted"] == (entry["reward"] > 0) for entry in log)
    assert all(entry["reward"] == pytest.approx(entry["influence"] - 0.002) for entry in log)
    accepted = sum(entry["accepted"] for entry in log)
    assert handle.score(EXAMPLE.examples)["selected"].sum() == 3 * accepted


def groups(levels: list[list[float]]) -> list[Item]:
    return [
        Item(f"{name}-{row}", fields={"cluster": f"c{name}", "influence": value})
        for name, values in enumerate(levels)
        for row, value in enumerate(values)
    ]


def test_accepted_batches_are_selected_and_compat_selects_the_first_ones() -> None:
    pool = groups([[-1.0, -1, 1, 1]])
    free = {"k": None, "arms_per_round": 1, "batch_size": 2, "budget": None, "probe_size": 1}
    ours = fitted(pool, **free)
    assert ours.score(pool)["selected"].tolist() == [0, 0, 1, 1]
    assert about(ours)["exhausted"] is True
    theirs = fitted(pool, **free, compat=True)  # probes items 0 and 1, both bad
    assert theirs.score(pool)["selected"].tolist() == [0, 0, 0, 0]
    assert "nothing was accepted" in theirs.artifact.notes["warning"]
    swapped = groups([[-1.0, 1, -1, -1]])  # the second probe is good: the first batch is given out
    assert fitted(swapped, **free, compat=True).score(swapped)["selected"].tolist() == [1, 1, 0, 0]


def test_a_budget_is_passed_by_less_than_a_round() -> None:
    pool = groups([[1.0] * 40] * 4)
    free = {"k": None, "arms_per_round": 3, "batch_size": 4, "max_rounds": 100}
    for budget in (1, 12, 13, 100):
        amount = about(fitted(pool, **free, budget=budget))["amount"]
        assert budget <= amount < budget + 12
    counted = [Item(item.id, fields={**item.fields, "tokens": 10}) for item in pool]
    tokens = about(fitted(counted, **free, budget=130, budget_unit="tokens"))
    assert (tokens["amount"], tokens["selected"]) == (240, 24)


def test_a_budget_larger_than_the_pool_ends_exhausted() -> None:
    found = about(fitted(groups([[1.0] * 9] * 2), k=None, budget=1000, max_rounds=99))
    assert (found["exhausted"], found["selected"]) == (True, 18)


def test_tau_can_be_a_quantile_of_the_first_probes() -> None:
    pool = groups([[float(level)] * 8 for level in range(5)])
    free = {"k": None, "arms_per_round": 5, "batch_size": 4, "budget": None, "max_rounds": 1}
    assert about(fitted(pool, **free, tau="quantile:0.5"))["tau"] == 2.0


def test_an_interrupted_fit_ends_the_same(tmp_path: Path) -> None:
    handle = pickaxe.scorer("quad", **EXAMPLE.params)
    whole = handle.fit(EXAMPLE.examples, out=tmp_path / "whole")
    steps = handle.fitting(EXAMPLE.examples, out=tmp_path / "broken")
    list(itertools.islice(steps, 6))
    steps.close()
    again = handle.fit(EXAMPLE.examples, out=tmp_path / "broken")
    assert whole.artifact.digest == again.artifact.digest


@pytest.mark.parametrize(
    ("pool", "params", "error", "wrong"),
    [
        ([], {}, InvalidItems, "empty"),
        (EXAMPLE.examples[:2], {}, InvalidParams, "k"),
        (EXAMPLE.examples, {"arms_per_round": 4}, InvalidParams, "arms_per_round"),
        ([EXAMPLE.examples[0]] * 4, {}, InvalidItems, "twice"),
        (groups([[1.0] * 3]), {}, InvalidParams, "have one"),
        (groups([[float("nan")] * 3]), {"k": None}, InvalidItems, "finite"),
        ([*groups([[1.0]]), Item("x", fields={"cluster": "c"})], {"k": None}, InvalidItems, "none"),
        ([Item("x", fields={"cluster": "c"})], {"k": None}, InvalidItems, "text"),
        ([Item("x", fields={"embedding": np.array([np.nan]), "influence": 0.0})], {"k": 1}, InvalidItems, "finite"),
    ],
)
def test_bad_pools_are_refused(pool: Any, params: Any, error: type[Exception], wrong: str) -> None:
    with pytest.raises(error, match=wrong):
        fitted(pool, **params)


@pytest.mark.parametrize("params", [{"alpha": -1}, {"damping": 0}, {"tau": "quantile:1.5"}, {"tau": "much"}, {"k": 0}])
def test_bad_parameters_are_refused(params: Any) -> None:
    with pytest.raises(InvalidParams):
        pickaxe.scorer("quad", **params)


def test_items_that_have_no_place_are_named() -> None:
    handle = fitted(groups([[1.0] * 9] * 2), k=None)
    with pytest.raises(InvalidItems, match="'x'"):
        handle.score([Item("x", fields={"cluster": "unknown"})])
    assert handle.score([Item("x", fields={"cluster": "c1"})])["cluster"].tolist() == ["c1"]


# ---------------------------------------------------------------- measured by a model

WORDS = ["the cat sat on the mat", "a dog ran in the park", "one two three four five six", "red green blue and black"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = vocabulary.learn(WORDS, 300, folder)
    architecture = Net(layers=1, width=32, heads=2, kv_heads=1, context=64).architecture(tokenizer.vocab_size)
    llama.save(llama.initial(architecture, 0), architecture, folder)
    return folder


def influence(model: Path, **changes: Any) -> _influence.Influence:
    params = Quad.Params(model=str(model), window=32, max_chunks=None, **changes)
    return _influence.Influence(Host(), Quad(params, Host()).influence_settings())


def test_a_reference_has_influence_on_itself(model: Path) -> None:
    call = pickaxe.Call()
    measured = influence(model)
    for text in WORDS:
        direction = measured.direction([text], WORDS, call)
        found = measured.of(WORDS, direction, call)
        assert found[WORDS.index(text)] > 0
        assert found.argmax() == WORDS.index(text)


def test_heavy_damping_is_the_cosine_of_gradients(model: Path) -> None:
    from pickaxe_plugins.train import gradients

    call = pickaxe.Call()
    measured = influence(model, damping=1e9)
    found = measured.of(WORDS, measured.direction(WORDS[:1], WORDS, call), call)
    passed = next(measured._signals([measured.chunks(text)[0] for text in WORDS], call))[0]
    products = gradients.gram(passed, passed)
    lengths = np.sqrt(np.diag(products))
    np.testing.assert_allclose(found, products[0] / lengths[0] / lengths, atol=1e-4)


def test_projected_influence_is_near_the_exact_one(model: Path) -> None:
    call = pickaxe.Call()
    exact, projected = (influence(model, projection_dim=size) for size in (0, 2048))
    ours, theirs = (each.of(WORDS, each.direction(WORDS[:2], WORDS, call), call) for each in (exact, projected))
    assert np.abs(ours - theirs).max() < 0.1


def test_long_documents_are_the_mean_of_their_pieces(model: Path) -> None:
    call = pickaxe.Call()
    measured = influence(model)
    direction = measured.direction(WORDS, WORDS, call)
    text = " ".join(WORDS * 4)
    pieces = measured.chunks(text)
    assert len(pieces) > 2
    parts = [_influence.cosines(batch, direction) for batch, _ in measured._signals(pieces, call)]
    found = measured.of([text, "", WORDS[0]], direction, call)
    assert found[0] == pytest.approx(np.concatenate(parts).mean(), abs=1e-6)
    assert found[1] == 0


def test_a_fit_measures_only_what_it_probes_and_its_direction_can_be_used_again(model: Path) -> None:
    pool = [Item(f"{row}", f"{WORDS[row % 4]} {row}", {"cluster": str(row % 4)}) for row in range(24)]
    params = {
        "k": None, "model": str(model), "window": 16, "neighbour_threshold": 0, "arms_per_round": 2, "probe_size": 1,
        "batch_size": 2, "max_rounds": 2, "budget": None, "tau": -1.0,
    }  # fmt: skip
    first = fitted(pool, [Item("r", WORDS[0])], **params)
    assert about(first)["probed"] == 4
    assert np.isfinite(first.score(pool)["influence"]).sum() == 4
    assert first.score(pool)["selected"].sum() == 8
    again = pickaxe.scorer("quad", **{**EXAMPLE.params, **params}).fit(pool, init_from=first.artifact.path)
    np.testing.assert_array_equal(again.score(pool)["influence"], first.score(pool)["influence"])
    with pytest.raises(InvalidItems, match="validation"):
        fitted(pool, [], **params)
    with pytest.raises(InvalidParams, match="layers"):
        fitted(pool, [Item("r", WORDS[0])], **params, layers="nothing")
