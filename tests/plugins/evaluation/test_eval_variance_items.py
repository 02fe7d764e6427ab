"""eval-variance: questions through the models that answered them, the 2PL fit and p-IRT."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pickaxe
from pickaxe import Artifact, Item, Scores
from pickaxe.errors import ArtifactMismatch, InvalidItems
from pickaxe.report import explained
from pickaxe_plugins.evaluation.eval_variance import _item_response


def scored(*rows: dict[str, Any], **params: Any) -> Scores:
    items = [Item(f"item {at}", fields=row) for at, row in enumerate(rows)]
    return pickaxe.scorer("eval-variance", **params).score(items)


def flags(scores: Scores) -> list[tuple[int, str]]:
    return [(flag.index, flag.reason) for flag in scores.flags]


def answers(rng: np.random.Generator, *shape: int, share: float = 0.4) -> np.ndarray:
    return (rng.random(shape) < share).astype(np.float64)


def test_items_that_tell_nothing_apart_are_flagged_and_dropped_first() -> None:
    responses = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0, 0, 1, 0, 1.0]])
    found = scored(*({"responses": line} for line in responses), mode="items", drop_quantile=0.5)
    assert flags(found) == [(0, "no-variance")]
    assert math.isnan(found["corrected_discrimination"][0])
    assert found["keep"].tolist() == [0, 1, 1, 0]
    answer, (figure,) = explained(found.summary)
    assert "2 least discriminating ones are dropped" in answer[0]
    assert sum(len(series.x) for series in figure.series) == 3


def test_groups_are_analysed_apart() -> None:
    rng = np.random.default_rng(0)
    lines = answers(rng, 12, 9)
    apart = scored(*({"responses": line, "group": str(at % 2)} for at, line in enumerate(lines)), mode="items")
    alone = scored(*({"responses": line} for line in lines[::2]), mode="items")
    np.testing.assert_allclose(apart["corrected_discrimination"][::2], alone["corrected_discrimination"])


def test_all_items_seen_is_plain_accuracy_and_flat_items_do_not_move_ability() -> None:
    rng = np.random.default_rng(0)
    a, b, responses = np.exp(rng.normal(0, 0.5, 20)), rng.normal(size=20), answers(rng, 4, 20)
    found = _item_response.estimate(responses, np.arange(20), a, b)
    np.testing.assert_allclose(found.p_irt, responses.mean(axis=1))
    np.testing.assert_allclose(found.error, 0)
    flat = np.append(a, np.zeros(5)), np.append(b, rng.normal(size=5))
    theta = _item_response.ability(np.hstack([responses, answers(rng, 4, 5)]), *flat)
    np.testing.assert_allclose(theta, found.theta, atol=1e-9)


@pytest.fixture(scope="module")
def world() -> tuple[np.ndarray, ...]:
    """a, b of 120 items, theta of 150 models and their answers."""
    rng = np.random.default_rng(0)
    a, b, theta = np.exp(rng.normal(0, 0.5, 120)), rng.normal(0, 1, 120), rng.normal(0, 1, 150)
    return a, b, theta, (rng.random((150, 120)) < _item_response.chance(theta, a, b)).astype(np.float64)


@pytest.fixture(scope="module")
def fitted(world: tuple[np.ndarray, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = [Item(str(row), fields={"responses": line}) for row, line in enumerate(world[3])]
    path = tmp_path_factory.mktemp("irt") / "art"
    pickaxe.scorer("eval-variance").fit(models[:120], validation=models[120:], out=path)
    return path


def test_fit_finds_the_items(world: tuple[np.ndarray, ...], fitted: Path) -> None:
    a, b, theta, _ = world
    found = Artifact.open(fitted)
    assert np.corrcoef(np.log(found.read_array("a.npy")), np.log(a))[0, 1] > 0.8
    assert np.corrcoef(found.read_array("b.npy"), b)[0, 1] > 0.95
    assert np.corrcoef(found.read_array("theta.npy"), theta[:120])[0, 1] > 0.95
    assert found.notes["converged"]
    assert found.notes["models"] == 120
    assert found.notes["held_out_error"] < 0.05
    assert found.notes["held_out_log_likelihood"] > math.log(0.57)


def test_the_posterior_never_falls(world: tuple[np.ndarray, ...]) -> None:
    posteriors = [each.posterior for each in _item_response.fit_2pl(world[3][:40, :30], 30, 1e-3)]
    assert (np.diff(posteriors) > -1e-9).all()


def test_p_irt_of_new_models_lies_within_its_errors(world: tuple[np.ndarray, ...], fitted: Path) -> None:
    _, _, _, responses = world
    seen = np.arange(0, 120, 4)
    items = [Item(str(row), fields={"responses": line[seen], "seen": seen}) for row, line in enumerate(responses[120:])]
    found = pickaxe.scorer("eval-variance", mode="irt", artifact=fitted).score(items)
    error = found["p_irt"] - responses[120:].mean(axis=1)
    assert (np.abs(error) < 1.96 * found["p_irt_error"]).mean() > 0.85
    assert np.abs(error).mean() < np.abs(found["seen_mean"] - responses[120:].mean(axis=1)).mean()
    answer, (figure,) = explained(found.summary)
    best = int(found["p_irt"].argmax())
    assert answer[0].startswith(f"{best} has the highest estimated score")
    assert figure.series[0].x == pytest.approx(found["p_irt"])


def test_benchmarks_are_estimated_from_fewer_items(world: tuple[np.ndarray, ...], fitted: Path) -> None:
    runs = world[3][:20].reshape(4, 5, 120)
    item = Item("one", fields={"item_trajectories": runs, "responses": world[3]})
    found = pickaxe.scorer("eval-variance", artifact=fitted, irt_items=40).score([item])
    rows = {row["estimated from"]: row for row in found.summary["Fewer items"]}
    assert {name: row["items"] for name, row in rows.items()} == {"all items": 120, "best items": 90, "p-IRT": 40}
    assert rows["all items"]["seed std"] == found["seed_std"][0]
    assert rows["best items"]["rank agreement"] > 0.8
    assert rows["p-IRT"]["rank agreement"] > 0.6
    assert rows["p-IRT"]["mean"] == pytest.approx(found["seed_mean"][0], abs=0.05)
    assert not math.isnan(rows["best items"]["monotonicity"])


def test_an_artifact_of_other_items_is_flagged(fitted: Path) -> None:
    item = Item("one", fields={"item_trajectories": answers(np.random.default_rng(0), 2, 3, 50)})
    found = pickaxe.scorer("eval-variance", artifact=fitted).score([item])
    assert flags(found) == [(0, "other-items")]
    assert "Fewer items" not in found.summary


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"responses": np.ones(2), "seen": np.array([0, 0.0])}, "names an item twice"),
        ({"responses": np.ones(2), "seen": np.array([0, 120.0])}, "whole numbers from 0 to 119"),
        ({"responses": np.ones(3), "seen": np.array([0, 1.0])}, "holds 3 answers, to 2 items"),
    ],
)
def test_answers_must_fit_the_items(fitted: Path, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidItems) as error:
        pickaxe.scorer("eval-variance", mode="irt", artifact=fitted).score([Item("m", fields=fields)])
    assert said in str(error.value)


def test_p_irt_needs_a_fit() -> None:
    with pytest.raises(ArtifactMismatch, match="fit"):
        scored({"responses": np.ones(3)}, mode="irt")


def test_fit_needs_answers_of_several_models_to_the_same_items(tmp_path: Path) -> None:
    handle = pickaxe.scorer("eval-variance")
    one, other = (Item(str(n), fields={"responses": np.ones(n)}) for n in (3, 4))
    with pytest.raises(InvalidItems, match="one model"):
        handle.fit([one], out=tmp_path / "one")
    with pytest.raises(InvalidItems, match="holds 4 answers, wanted 3"):
        handle.fit([one, other], out=tmp_path / "two")
