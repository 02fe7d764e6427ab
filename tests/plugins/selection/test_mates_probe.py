"""mates: probes leave no trace, follow AdamW, and make a fit on a small model; interrupted ones go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mates_base import RATE, base, references, texts

import pickaxe
from pickaxe import Host, Item
from pickaxe.errors import ArtifactMismatch, InvalidItems, InvalidParams
from pickaxe_plugins.selection.mates._base import Base, counted, moments
from pickaxe_plugins.selection.mates._probe import Prober, State, Step
from pickaxe_plugins.train import optimisers, trained
from pickaxe_plugins.train.trained import Trained

TOKENS = 32
"""Of every probe, so that one shape is compiled."""
ANSWERS = [counted(np.array(ids, np.int32), first, 1.0) for ids, first in (([1, 2, 3, 0], 2), ([0, 3, 1], 2))]
STEP = Step(0.01)
PROBES = [counted(np.array(ids, np.int32), 1, 1.0) for ids in ([0, 3, 2], [3, 3, 3, 3, 1], [2, 0])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base(tmp_path_factory.mktemp("base"), 80)


def table(weights: Any, ids: Any, places: Any) -> Any:
    """The logits of what follows a token are a row of T."""
    import jax.numpy as jnp

    return weights["T"][jnp.take_along_axis(ids, places, 1)]


def small(step: Step = STEP, **options: Any) -> Prober:
    rng = np.random.default_rng(0)
    first, second = 0.01 * rng.normal(size=(4, 4)), 1e-3 * rng.random((4, 4))
    state = State({"T": rng.normal(size=(4, 4))}, {"T": first}, {"T": second}, 50)
    return Prober(table, state, step, ANSWERS, **{"precision": "float64", **options})


def handle(folder: Path, **changes: Any) -> Any:
    given = {"model": str(folder), "schedule": {"rate": RATE}, "probe_max_tokens": TOKENS, "block": 16}
    return pickaxe.scorer("mates", **given | changes)


# ---------------------------------------------------------------- one step


def test_probing_leaves_no_trace() -> None:
    import jax

    probing = small()
    before = jax.tree_util.tree_map(np.array, probing.state)
    first = probing.after(PROBES)[0]
    again = probing.after(PROBES[::-1])[0][::-1]
    assert first.tobytes() == np.ascontiguousarray(again).tobytes()
    for old, new in zip(*map(jax.tree_util.tree_leaves, (before, probing.state)), strict=True):
        assert old.tobytes() == np.asarray(new).tobytes()


def test_without_a_learning_rate_nothing_moves() -> None:
    probing = small(Step(0.0, decay=5.0))
    assert (probing.after(PROBES)[0] == probing.before()).all()


def test_probes_side_by_side_are_those_one_by_one() -> None:
    one, many = small(), small(together=2)
    np.testing.assert_allclose(many.after(PROBES), one.after(PROBES), rtol=0, atol=1e-14)
    np.testing.assert_allclose(small(precision="float32").after(PROBES), one.after(PROBES), atol=1e-5)


def test_moments_weight_decay_and_clipping_matter() -> None:
    usual = small().after(PROBES)[0]
    for other in (Step(0.01, decay=0.0), Step(0.01, clip=1e-3), Step(0.01, betas=(0.5, 0.95))):
        assert (small(other).after(PROBES)[0] != usual).all()


def test_the_reference_loss_is_the_mean_over_tokens_or_over_batches() -> None:
    def loss(text: Any) -> Any:
        logits = np.array(small().state[0]["T"])
        logprobs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        places = np.flatnonzero(text.weights)
        return -logprobs[text.ids[places - 1], text.ids[places]]

    every = [loss(text) for text in ANSWERS]
    assert small().before() == pytest.approx(np.concatenate(every).mean(), abs=1e-12)
    assert small(reference_batch=1).before() == pytest.approx(np.mean([each.mean() for each in every]), abs=1e-12)


# ---------------------------------------------------------------- the model and its training


def test_moments_are_found_whatever_they_are_chained_with(folder: Path, tmp_path: Path) -> None:
    found = Base.open(Host(), str(folder), False)
    assert (found.step, found.state.count) == (80, 80)
    assert any(array.any() for array in found.state.first.values())
    fresh = Base.open(Host(), str(folder), True)
    assert not any(array.any() for array in fresh.state.first.values())
    bare = optimisers.adamw(optimisers.Cosine(0.1, 10))
    weights = {"a.b": np.ones((2, 2), np.float32)}
    trained.write(tmp_path / trained.FILE, Trained(weights, bare.init(weights), 0))
    read = moments(tmp_path / trained.FILE, weights)
    assert read is not None
    assert (read.count, set(read.first)) == (0, {"a.b"})
    with pytest.raises(ArtifactMismatch, match="another network"):
        moments(tmp_path / trained.FILE, {"c": np.ones((2, 2), np.float32)})
    trained.write(tmp_path / trained.FILE, Trained(weights))
    assert moments(tmp_path / trained.FILE, weights) is None


def test_references_are_targets_behind_their_contexts(folder: Path) -> None:
    model = Base.open(Host(), str(folder), False)
    long = Item("l", fields={"context": "the " * 200, "target": " rice", "weight": 2.0})
    plain = Item("p", "the rice")
    unweighted = Item("u", "the", {"weight": 0})
    with pytest.raises(InvalidItems, match="no token to predict"):
        model.reference([Item("e", fields={"context": "the", "target": ""})])
    with pytest.raises(InvalidItems, match="no reference"):
        model.reference([Item("u", "the rice", {"weight": 0})])
    with pytest.raises(InvalidItems, match="weight"):
        model.reference([Item("w", "the rice", {"weight": float("nan")})])
    with pytest.raises(InvalidItems, match="no token to predict"):
        model.reference([unweighted, Item("e", "")])
    found = model.reference([long, plain])
    target = len(model.tokenizer.encode(" rice"))
    assert len(found[0].ids) == model.architecture.context
    assert found[0].weights.tolist()[-target:] == [2.0] * target
    assert found[0].weights.sum() == 2 * target
    assert found[1].weights.tolist() == [0.0] + [1.0] * (len(found[1].ids) - 1)


# ---------------------------------------------------------------- a whole fit


def test_a_fit_on_two_topics_finds_the_one_of_the_references(folder: Path) -> None:
    pool = texts(160, 2)
    probes = [*texts(160, 1), Item("nothing", "")]
    fitted = handle(folder).fit(probes, validation=references(16))
    notes = fitted.artifact.notes
    assert (notes["probes"], notes["dropped"], notes["checkpoint"]["step"]) == (161, 1, 80)
    assert notes["quality"]["spearman"] > 0.3
    oracle = fitted.artifact.read_json("oracle.json")
    assert oracle["id"] == [item.id for item in probes]
    assert oracle["influence"][-1] is None
    cook = np.array(oracle["influence"][:-1:2], float)
    news = np.array(oracle["influence"][1:-1:2], float)
    assert cook.mean() > news.mean() + 0.5 * np.concatenate([cook, news]).std()
    assert oracle["loss_after"][0] == pytest.approx(notes["checkpoint"]["loss"] - cook[0])
    scores = fitted.score(pool)
    chosen = [item.id for item, each in zip(pool, scores["select"], strict=True) if each]
    assert len(chosen) == 32
    assert sum(name.startswith("cook") for name in chosen) / len(chosen) > 1.5 * 0.5


def test_an_interrupted_fit_probes_only_what_is_left(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probes, asked = texts(40, 3), references(16)
    whole = handle(folder).fit(probes, validation=asked, out=tmp_path / "whole")
    run = handle(folder).fitting(probes, validation=asked, out=tmp_path / "parts")
    assert next(step for step in run if step.step).step == 16
    run.close()
    seen: list[int] = []
    true = Prober.after
    monkeypatch.setattr(Prober, "after", lambda self, texts: (seen.append(len(texts)), true(self, texts))[1])
    resumed = handle(folder).fit(probes, validation=asked, out=tmp_path / "parts")
    assert seen == [16, 8]
    for name in ("oracle.json", "head.npy", "about.json"):
        assert (resumed.artifact.path / name).read_bytes() == (whole.artifact.path / name).read_bytes()
    assert not (resumed.artifact.path / "losses.bin").exists()


def test_probes_without_a_number_are_dropped_and_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true = Prober.after

    def broken(self: Prober, texts: Any) -> tuple[np.ndarray, np.ndarray]:
        losses, norms = true(self, texts)
        losses[0] = np.inf
        return losses, norms

    monkeypatch.setattr(Prober, "after", broken)
    fitted = handle(folder).fit(texts(20, 1), validation=references(16))
    assert fitted.artifact.notes["dropped"] == 2
    assert fitted.artifact.read_json("oracle.json")["influence"][16] is None
    monkeypatch.setattr(Prober, "after", lambda self, texts: (np.full(len(texts), self.before()), None))
    with pytest.raises(InvalidItems, match="learning rate"):
        handle(folder).fit(texts(20, 1), validation=references(16))


@pytest.mark.parametrize(
    ("changes", "probes", "asked", "error", "wrong"),
    [
        ({}, texts(12, 1), [], InvalidItems, "no reference"),
        ({}, [], references(16), InvalidItems, "at least 10"),
        ({}, texts(9, 1), references(16), InvalidItems, "at least 10"),
        ({}, [Item(str(row), "") for row in range(12)], references(16), InvalidItems, "finite loss"),
        ({}, [*texts(12, 1), Item("x")], references(16), InvalidItems, "no text"),
        ({"model": "draft"}, texts(12, 1), references(16), InvalidParams, "optimiser state"),
    ],
)
def test_what_cannot_be_probed_is_told(
    folder: Path, changes: dict[str, Any], probes: Any, asked: Any, error: type[Exception], wrong: str
) -> None:
    with pytest.raises(error, match=wrong):
        handle(folder, **changes).fit(probes, validation=asked)
