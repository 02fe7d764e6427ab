"""pet-select: complexity, ranking and routing as they should behave, and a router that saves tokens."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pickaxe
from pickaxe import Artifact, Item
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe_plugins.reranking.pet_select import Bounds, complexity, rank, route, triplet_loss
from pickaxe_plugins.reranking.pet_select._learning import auc
from pickaxe_plugins.reranking.pet_select._training import triplets

BASE = "def f(x, y):\n    if x > y:\n        return x\n    return y\n"
QUICK = {"triplet_epochs": 2, "epochs": 20, "grid": (0.5,)}
PHRASES = (
    "sort the list", "drop duplicates", "reverse it", "sum the numbers", "keep the even ones", "square each number",
    "take the first ten", "count the words", "merge it with another list", "find the largest", "shuffle it",
    "split it in halves",
)  # fmt: skip


def values(code: str) -> dict[str, float]:
    return dict(zip(("loc", "cyclomatic", "halstead", "mi", "cognitive"), complexity(code), strict=True))


# ---------------------------------------------------------------- complexity


def test_names_lines_and_comments_do_not_matter() -> None:
    renamed, plain = values(BASE.replace("x", "width").replace("y", "height")), values(BASE)
    assert [renamed[name] for name in ("loc", "cyclomatic", "cognitive")] == [
        plain[name] for name in ("loc", "cyclomatic", "cognitive")
    ]
    assert values(BASE.replace("    return y", "\n    # smaller\n\n    return y"))["loc"] == plain["loc"]


def test_another_if_is_more_complex() -> None:
    more = values(BASE.replace("    return y", "    if x:\n        return 0\n    return y"))
    assert more["cyclomatic"] == values(BASE)["cyclomatic"] + 1
    assert more["cognitive"] > values(BASE)["cognitive"]


@pytest.mark.parametrize(
    ("code", "cyclomatic", "cognitive"),
    [
        ("x = 1 if y else 2", 2, 2),
        ("    return [a for a in b if a]", 3, 0),
        ("assert x and y", 2, 1),
        ("for a in b:\n    pass\nelse:\n    pass", 3, 3),
        ("try:\n    pass\nexcept ValueError:\n    pass\nelse:\n    pass", 3, 2),
        ("match x:\n    case 1:\n        pass\n    case _:\n        pass", 2, 0),
        ("class A:\n    def f(self):\n        if self: pass\n    def g(self):\n        pass", 1.5, 2),
        ("def f():\n    def g():\n        if 1: pass\n    return g", 1, 3),
        ("async def f():\n    async for a in b:\n        pass", 2, 0),
        ("f = lambda x: x and 1", 2, 1),
        ("if a:\n    pass\nelif b:\n    pass\nelse:\n    pass", 3, 4),
        ("'''one\n\ntwo'''; x = {1: 2}", 1, 0),
        ("", 0, 0),
    ],
)
def test_constructs(code: str, cyclomatic: float, cognitive: float) -> None:
    found = values(code)
    assert found["cyclomatic"] == cyclomatic
    assert found["cognitive"] == cognitive
    assert 0 <= found["mi"] <= 100


@pytest.mark.parametrize("code", ["def f(:\n  pass", "x = (", "\0"])
def test_what_is_not_python_is_refused(code: str) -> None:
    with pytest.raises(InvalidItems, match="cannot be parsed"):
        complexity(code)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*[st.floats(0, 100)] * 5), min_size=1, max_size=6))
def test_combined_complexity_is_a_share(rows: list[tuple[float, ...]]) -> None:
    found = np.array(rows)
    bounds = Bounds.of(found[:3])
    combined = bounds.combined(found)
    assert ((combined >= 0) & (combined <= 1 + 1e-9)).all()
    assert (bounds.normalised(np.repeat(found[:1], 2, axis=0))[0] == bounds.normalised(found)[0]).all()


# ---------------------------------------------------------------- ranking and routing

RUNS = st.lists(st.tuples(st.booleans(), st.integers(2, 9999)), min_size=1, max_size=6)


@settings(max_examples=100, deadline=None)
@given(RUNS)
def test_passed_ones_rank_first_and_cheap_ones_before_dear_ones(runs: list[tuple[bool, int]]) -> None:
    passed = {str(place): each[0] for place, each in enumerate(runs)}
    tokens = {str(place): each[1] for place, each in enumerate(runs)}
    ranked = [name for name, _ in rank(passed, tokens)]
    assert ranked == sorted(passed, key=lambda name: (not passed[name], tokens[name]))
    assert all((score >= 0) == passed[name] for name, score in rank(passed, tokens))


@pytest.mark.parametrize("tokens", [{"a": 0}, {"a": -1}, {"a": float("nan")}, {"b": 1}])
def test_rank_refuses(tokens: dict[str, float]) -> None:
    with pytest.raises(InvalidItems):
        rank({"a": True}, tokens)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 8), st.integers(1, 5), st.integers(0, 999))
def test_more_tries_solve_more(n: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, passed, tokens = rng.normal(size=(n, count)), rng.random((n, count)) < 0.4, rng.uniform(1, 99, (n, count))
    reached = [route(scores, passed, tokens, k).accuracy for k in range(1, count + 1)]
    assert reached == sorted(reached)
    assert reached[-1] == passed.any(1).mean()
    costs = [route(scores, passed, tokens, count, cost).tokens for cost in ("cheapest", "until", "sum")]
    assert costs == sorted(costs)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 999), st.floats(0, 9))
def test_triplets_without_loss_are_far_enough(seed: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    anchor, positive, negative = rng.normal(size=(3, 4, 5))
    negative = negative + shift
    gaps = np.linalg.norm(anchor - negative, axis=1) - np.linalg.norm(anchor - positive, axis=1)
    loss = triplet_loss(anchor, positive, negative)
    assert (loss < 1e-5) == bool((gaps > 5 - 1e-5).all())
    turn, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    assert triplet_loss(anchor @ turn, positive @ turn, negative @ turn) == pytest.approx(loss, abs=1e-5)


def test_triplets_have_their_sides_and_no_pair_twice() -> None:
    hard = np.array([False, True, False, True, True, False])
    made = triplets(hard, 3, symmetric=False, seed=0)
    assert not hard[made[:, 0]].any()
    assert not hard[made[:, 1]].any()
    assert hard[made[:, 2]].all()
    assert len(made) == 3 * 2  # each easy anchor has two other easy ones
    assert len(triplets(hard, 3, symmetric=True, seed=0)) == 12
    for anchor in np.unique(made[:, 0]):
        assert len({tuple(row[1:]) for row in made[made[:, 0] == anchor].tolist()}) == 2
    with pytest.raises(InvalidItems, match="1 hard"):
        triplets(np.array([False, False, True]), 3, False, 0)


def test_auc() -> None:
    assert auc(np.array([1, 2, 3, 3]), np.array([False, False, True, True])) == 1
    assert auc(np.array([1, 1]), np.array([False, True])) == 0.5
    assert auc(np.array([1, 1]), np.array([True, True])) is None


# ---------------------------------------------------------------- the router


def tasks(count: int, seed: int) -> list[Item]:
    """Queries of 1 to 8 operations; the cheap technique fails the long ones."""
    rng = np.random.default_rng(seed)
    found = []
    for row in range(count):
        d = int(rng.integers(1, 9))
        query = f"Write a function that will {', then '.join(rng.choice(PHRASES, d, replace=False))}."
        chances = {"cheap": np.clip(1.05 - 0.12 * d, 0.02, 0.98), "costly": 0.80 - 0.03 * d}
        fields = {
            "passed": {name: bool(rng.random() < chance) for name, chance in chances.items()},
            "tokens": {"cheap": 600.0, "costly": 3000.0},
            "complexity": d / 8,
        }
        found.append(Item(f"{seed}-{row}", query, fields))
    return found


def test_the_router_beats_each_technique_and_saves_tokens(tmp_path: Path) -> None:
    fitted = pickaxe.scorer("pet-select", triplet_epochs=5, grid=(0.5,)).fit(
        tasks(400, 0), validation=tasks(200, 1), out=tmp_path / "art"
    )
    found = Artifact.open(tmp_path / "art").notes["measured"]
    single = max(found["single"].values(), key=lambda each: each["accuracy"])
    assert found["router"]["accuracy"] >= single["accuracy"]
    assert found["router"]["tokens"] <= 0.85 * 3000
    assert found["triplet_accuracy"] - found["triplet_accuracy_untuned"] >= 0.1
    scores = fitted.score(["Write a function that will reverse it."])
    assert scores["technique"].tolist() == ["cheap"]
    assert scores["nearest"][0].startswith("0-")


def test_the_price_moves_the_choice(tmp_path: Path) -> None:
    pickaxe.scorer("pet-select", **QUICK).fit(tasks(60, 0), out=tmp_path / "art")
    queries = [item.text or "" for item in tasks(20, 1)]
    free = pickaxe.scorer("pet-select", artifact=tmp_path / "art").score(queries)
    dear = pickaxe.scorer("pet-select", artifact=tmp_path / "art", price=10).score(queries)
    chances = np.stack([free["p_cheap"], free["p_costly"]], axis=1)
    np.testing.assert_array_equal(free["best"], chances.argmax(1))
    np.testing.assert_allclose(free["utility"], chances.max(1))
    assert set(dear["technique"]) == {"cheap"}
    np.testing.assert_allclose(dear["utility"], chances[:, 0] - 6)
    assert (dear["expected_tokens"] == 600).all()


def test_fits_of_one_seed_are_equal_and_softmax_learns_too(tmp_path: Path) -> None:
    for name in ("one", "two"):
        pickaxe.scorer("pet-select", **QUICK, loss="softmax", symmetric=True).fit(tasks(30, 0), out=tmp_path / name)
    one, two = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("one", "two"))
    assert one["files"] == two["files"]


def test_code_that_does_not_parse_is_skipped(tmp_path: Path) -> None:
    given = coded(10)
    given[3].fields["code"] = "def f(:\n"
    pickaxe.scorer("pet-select", **QUICK).fit(given, validation=coded(4), out=tmp_path / "art")
    notes = Artifact.open(tmp_path / "art").notes
    assert list(notes["skipped"]) == ["c3"]
    assert "line 1" in notes["skipped"]["c3"]
    assert notes["tasks"] == 9


def coded(count: int) -> list[Item]:
    record = {"passed": {"a": True, "b": False}, "tokens": {"a": 10.0, "b": 20.0}}
    codes = (BASE, "return 1")
    return [Item(f"c{row}", f"query {row}", {"code": codes[row % 2], **record}) for row in range(count)]


def wrong(**fields: Any) -> list[Item]:
    given = coded(6)
    given[2] = Item("c2", "query", {**given[2].fields, **fields})
    return given


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([], "no task"),
        (wrong(passed={"a": True, "c": False}), r"examples\[2\]\.fields\.passed"),
        (wrong(tokens={"a": 0.0, "b": 1.0}), r"examples\[2\]\.fields\.tokens of a|tokens: of a"),
        (wrong(tokens={"a": float("nan"), "b": 1.0}), "above 0"),
        (wrong(passed={"a": "yes", "b": False}), "true or false"),
        (wrong(passed={}), "at least one technique"),
        ([Item(f"{row}", "q", {**coded(1)[0].fields}) for row in range(6)], "too alike"),
        ([*coded(4), *tasks(2, 0)], "passed"),
    ],
)
def test_examples_that_cannot_be_used(examples: list[Item], message: str) -> None:
    with pytest.raises(InvalidItems, match=message):
        pickaxe.scorer("pet-select", **QUICK).fit(examples)


def test_bad_parameters() -> None:
    for params, message in (
        ({"weights": (1, 1, 0, 0, 0)}, "add up"),
        ({"grid": (1.5,)}, "quantiles"),
        ({"price": -1}, "price"),
    ):
        with pytest.raises(InvalidParams, match=message):
            pickaxe.scorer("pet-select", **params)
    with pytest.raises(InvalidItems, match="easy"):
        pickaxe.scorer("pet-select", **QUICK, threshold=1.0).fit(tasks(6, 0))
