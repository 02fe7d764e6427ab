"""pcb: picks and their balance, base methods, the learner, digits, bad input."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from digits import Digits
from hypothesis import given, settings
from hypothesis import strategies as st

import pickaxe
from pickaxe import Call, Item
from pickaxe.errors import ArtifactMismatch, InvalidItems, InvalidParams
from pickaxe.report import explained
from pickaxe_plugins.selection.pcb import _classes, _pick, balanced

RNG = np.random.default_rng(0)
NAMES = ["north", "east", "south"]
CENTRES = np.array([[0.0, 1, 0.2], [1.0, 0, 0.1], [0.0, -1, 0.3]])
TRUTH = RNG.integers(0, 3, 60)
ROWS = CENTRES[TRUTH] + RNG.normal(0, 0.5, (60, 3))
PARAMS: dict[str, Any] = {
    "classes": NAMES,
    "class_vectors": [[row] for row in CENTRES.tolist()],
    "logit_scale": 10.0,
    "gamma": 0.4,
}


def items(labelled: Sequence[int] = (0, 1, 2, 3, 4), rows: np.ndarray = ROWS) -> list[Item]:
    return [
        Item(f"i{at:02}", fields={"embedding": row} | ({"label": NAMES[TRUTH[at]]} if at in labelled else {}))
        for at, row in enumerate(rows)
    ]


def scored(given: list[Item] | None = None, seed: int = 0, **params: Any) -> pickaxe.Scores:
    return pickaxe.scorer("pcb", **{**PARAMS, **params}).score(items() if given is None else given, seed=seed)


def filled(counts: np.ndarray, available: np.ndarray, n: int) -> list[int]:
    """Picks per class of the max-min rule, where every class has enough."""
    counts, taken = counts.copy(), np.zeros(len(counts), int)
    for _ in range(n):
        at = int(np.where(taken < available, counts, 10**9).argmin())
        counts[at] += 1
        taken[at] += 1
    return taken.tolist()


# ---------------------------------------------------------------- picks


@pytest.mark.parametrize("base", ["entropy", "coreset", "badge", "random"])
@pytest.mark.parametrize("fallback", ["reference", "next_class"])
def test_picks_are_unlabelled_informative_and_counted(base: str, fallback: str) -> None:
    scores = scored(base=base, fallback=fallback, n_query=7)
    chosen = np.flatnonzero(scores["selected"])
    assert len(chosen) == 7
    assert not set(chosen) & set(range(5))
    assert sorted(scores["order"][chosen]) == list(range(1, 8))
    assert scores["informative"].sum() == 24
    assert scores["informative"][chosen].all()
    np.testing.assert_array_equal(scores["priority"][chosen], 8 - scores["order"][chosen])
    rest = np.setdiff1d(np.arange(5, 60), chosen)
    assert ((scores["priority"][rest] > 0) & (scores["priority"][rest] < 1)).all()
    assert (scores["priority"][:5] == 0).all()


@given(st.integers(0, 500), st.integers(2, 5), st.integers(1, 30))
@settings(max_examples=50)
def test_balance_fills_the_smallest_classes(seed: int, k: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    pseudo, counts = rng.integers(0, k, 40), rng.integers(0, 6, k)
    picks = balanced(pseudo, counts, n, rng, "next_class")
    available = np.bincount(pseudo, minlength=k)
    assert len(set(picks.rows.tolist())) == n
    assert picks.forced.all()
    assert np.bincount(pseudo[picks.rows], minlength=k).tolist() == filled(counts, available, n)
    reference = balanced(pseudo, counts, n, rng, "reference")
    assert len(set(reference.rows.tolist())) == n
    if reference.forced.all():
        assert np.bincount(pseudo[reference.rows], minlength=k).tolist() == filled(counts, available, n)


def test_all_informative_and_random_is_pure_balance() -> None:
    scores = scored(gamma=1, base="random", n_query=9, fallback="next_class")
    counts = np.bincount(TRUTH[:5], minlength=3)
    pool = np.bincount(scores["pseudo_label"][5:], minlength=3)
    picked = np.bincount(scores["pseudo_label"][scores["selected"] == 1], minlength=3)
    assert picked.tolist() == filled(counts, pool, 9)


def test_the_first_round_is_random() -> None:
    one, other = (scored(items(()), seed=seed)["selected"] for seed in (0, 1))
    assert one.sum() == other.sum() == 3
    assert (one != other).any()


@pytest.mark.parametrize("base", ["entropy", "coreset", "badge", "random"])
def test_seed_and_order(base: str) -> None:
    one = scored(base=base)
    shuffle = RNG.permutation(60)
    other = scored([items()[row] for row in shuffle], base=base)
    for name in one.columns:
        np.testing.assert_allclose(other[name], one[name][shuffle], atol=1e-12, err_msg=name)


def test_entropy_takes_the_least_certain() -> None:
    scores = scored()
    pool = np.arange(5, 60)
    least = pool[np.argsort(-scores["entropy"][pool])[:24]]
    assert set(least) == set(np.flatnonzero(scores["informative"]))


def test_a_subset_smaller_than_the_query_is_raised() -> None:
    scores = scored(gamma=0.02, n_query=5)
    assert scores["informative"].sum() == scores["selected"].sum() == 5
    assert [flag.reason for flag in scores.flags] == ["subset-raised"]
    assert any("raised" in line for line in explained(scores.summary)[0])


def test_answer_and_figure() -> None:
    scores = scored(n_query=4)
    answer, figures = explained(scores.summary)
    counts = np.bincount(TRUTH[:5], minlength=3)
    assert NAMES[int(counts.argmin())] in answer[1]
    assert scores.summary["Imbalance"]["now"] == pytest.approx(counts.std())
    assert sorted(figures[0].series[0].x) == sorted(counts.tolist())
    assert scores.summary["Classes"]["labelled"] == counts.tolist()
    assert sum(scores.summary["Classes"]["selected by pseudo label"]) == 4


# ---------------------------------------------------------------- base methods


def test_badge_never_makes_its_embeddings_and_agrees_with_them() -> None:
    p = RNG.dirichlet(np.ones(4), 30)
    x = RNG.normal(size=(30, 5))
    a = _pick.badge_factors(p)
    explicit = (a[:, :, None] * x[:, None]).reshape(30, -1)
    np.testing.assert_allclose((a @ a.T) * (x @ x.T), explicit @ explicit.T, atol=1e-5)
    chosen = _pick.badge(p, x, 30, np.random.default_rng(0), Call())
    assert chosen[0] == np.linalg.norm(explicit, axis=1).argmax()
    assert sorted(chosen) == list(range(30))


def test_badge_with_copies_takes_each_once() -> None:
    p, x = np.full((6, 2), 0.5), np.ones((6, 3))
    assert sorted(_pick.badge(p, x, 6, np.random.default_rng(0), Call())) == list(range(6))


def test_coreset_spreads() -> None:
    x = RNG.normal(size=(40, 3))
    chosen = _pick.k_center(x, x[:2], 10, Call())
    known = [*x[:2]]
    for row in chosen:
        apart = np.linalg.norm(x[:, None] - np.array(known), axis=2).min(axis=1)
        assert apart[row] == pytest.approx(apart.max())
        known.append(x[row])


# ---------------------------------------------------------------- classes and learner


def test_learning_helps_and_is_measured() -> None:
    weak = [[row] for row in (CENTRES + 0.8 * RNG.normal(size=CENTRES.shape)).tolist()]
    labelled = [item for item in items(range(60)) if "label" in item.fields]
    scorer = pickaxe.scorer("pcb", **{**PARAMS, "class_vectors": weak}, lr=0.05, epochs=50)
    before = (scorer.score(items(()))["pseudo_label"] == TRUTH).mean()
    handle = scorer.fit(labelled[:40], validation=labelled[40:])
    after = (handle.score(items(()))["pseudo_label"] == TRUTH).mean()
    assert after > before
    notes = handle.artifact.notes
    assert 0 <= notes["accuracy"] <= 1
    assert notes["labelled"] == np.bincount(TRUTH[:40], minlength=3).tolist()


def test_a_fitted_scorer_gives_probabilities() -> None:
    handle = pickaxe.scorer("pcb", **PARAMS).fit(items()[:5])
    scores = handle.score(items())
    p = np.stack([scores[f"p:{name}"] for name in NAMES], axis=1)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    np.testing.assert_array_equal(p.argmax(axis=1), scores["pseudo_label"])
    bare = pickaxe.scorer("pcb").with_artifact(handle.artifact).score(items())
    np.testing.assert_array_equal(bare["entropy"], scores["entropy"])
    with pytest.raises(ArtifactMismatch, match="other classes"):
        pickaxe.scorer("pcb", classes=["a", "b", "c"]).with_artifact(handle.artifact).score(items())


@pytest.mark.parametrize("normalised", [True, False])
def test_the_slope_is_that_of_the_loss(normalised: bool) -> None:
    vectors, x, y = RNG.normal(size=(3, 4)), RNG.normal(size=(8, 4)), RNG.integers(0, 3, 8)
    _, slope = _classes._slope(vectors, x, y, 2.0, normalised)
    for at in np.ndindex(vectors.shape):
        ends = []
        for step in (1e-6, -1e-6):
            moved = vectors.copy()
            moved[at] += step
            ends.append(_classes._slope(moved, x, y, 2.0, normalised)[0])
        assert slope[at] == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-6)


def test_descriptions_may_be_several() -> None:
    two = [[row, (np.array(row) + 0.1).tolist()] for row in CENTRES.tolist()]
    for mode in ("AS", "AE"):
        handle = pickaxe.scorer("pcb", **{**PARAMS, "class_vectors": two, "mode": mode}, epochs=3).fit(items()[:5])
        assert handle.score(items())["selected"].sum() == 3


def test_texts_and_names_go_through_the_encoder() -> None:
    texts = ["What is the capital of Peru?", "How many legs has an ant?", "Where is the Nile?", "How much is 3 + 4?"]
    scores = pickaxe.scorer("pcb", classes=["a place", "a number"], template="A question about {}", n_query=1).score(
        texts
    )
    assert scores["pseudo_label"].tolist() == [0, 1, 0, 1]
    assert scores["selected"].sum() == 1
    told = {"a place": ["asks where something is", "asks for a city"], "a number": ["asks how many or how much"]}
    scores = pickaxe.scorer("pcb", classes=list(told), mode="AE", descriptions=told, n_query=1).score(texts)
    assert scores["pseudo_label"].tolist() == [0, 1, 0, 1]


# ---------------------------------------------------------------- digits


def test_digits() -> None:
    found = {how: np.array([Digits(seed).run(how) for seed in range(3)]) for how in ("random", "entropy", "pcb")}
    accuracy = {how: each[:, 0].mean() for how, each in found.items()}
    assert accuracy["pcb"] > accuracy["entropy"] + 0.005
    assert accuracy["pcb"] > accuracy["random"] + 0.01
    assert (found["pcb"][:, 1] < found["entropy"][:, 1]).all()


# ---------------------------------------------------------------- bad input


def test_too_many_wanted() -> None:
    with pytest.raises(InvalidParams, match="only 55"):
        scored(n_query=56)


@pytest.mark.parametrize(
    "params",
    [
        {"classes": ["one"], "class_vectors": []},
        {"classes": ["a", "a", "b"]},
        {"classes": ["a", "b"]},
        {"class_vectors": [[[1.0]], [[1.0]], [[1.0, 2.0]]]},
        {"class_vectors": [[[1.0], [2.0]], [[1.0]], [[1.0]]]},
        {"mode": "AS", "class_vectors": []},
        {"mode": "AE", "class_vectors": [[[1.0]], [], [[1.0]]]},
        {"gamma": 0},
        {"gamma": 1.5},
        {"n_query": 0},
    ],
)
def test_bad_params(params: dict[str, Any]) -> None:
    with pytest.raises(InvalidParams):
        scored(**params)


def test_bad_items() -> None:
    with pytest.raises(InvalidParams, match="classes"):
        pickaxe.scorer("pcb").score(items())
    with pytest.raises(InvalidItems, match="no class"):
        scored([*items(), Item("x", fields={"embedding": ROWS[0], "label": "west"})])
    with pytest.raises(InvalidItems, match=r"items\[60\].fields.embedding"):
        scored([*items(), Item("x", fields={"embedding": np.array([1.0, np.nan, 0.0])})])
    with pytest.raises(InvalidItems, match="all 0"):
        scored([*items(), Item("x", fields={"embedding": np.zeros(3)})])
    with pytest.raises(InvalidItems, match="numbers"):
        scored([Item("x", fields={"embedding": np.ones(4)})])
    with pytest.raises(InvalidItems, match="examples"):
        pickaxe.scorer("pcb", **PARAMS).fit([])
