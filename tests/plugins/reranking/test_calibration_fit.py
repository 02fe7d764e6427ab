"""calibration-sets: the losses that training minimises, a tiny decoder calibrated, and which sets teach most."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pickaxe
from pickaxe import Artifact, Item
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe_plugins.reranking.calibration_sets import (
    Params,
    Pool,
    contrastive,
    rank_scores,
    ranking,
    relevant_set,
    unlikelihood,
)
from pickaxe_plugins.reranking.calibration_sets._losses import IGNORED
from pickaxe_plugins.reranking.calibration_sets._strategies import Search

TINY = {
    "net": {"layers": 1, "width": 32, "heads": 1, "kv_heads": 1, "vocab": 260, "context": 64},
    "max_source": 16,
    "max_target": 16,
    "batch": 4,
    "rate": 3e-3,
}


def rows(rng: np.random.Generator, sets: int = 2, k: int = 4, places: int = 5) -> tuple[dict[str, Any], np.ndarray]:
    """What the losses of a step read, and the labels as the yardstick wants them."""
    logits = rng.normal(size=(sets, k, places, 7))
    targets = rng.integers(0, 7, (sets, k, places))
    mask = (np.arange(places) < rng.integers(2, places + 1, (sets, k, 1))).astype(np.float32)
    logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    read = {"logprobs": logprobs, "targets": targets, "mask": mask, "states": rng.normal(size=(sets, k, places, 6))}
    return read, np.where(mask > 0, targets, IGNORED)


def test_the_losses_of_training_are_the_yardsticks() -> None:
    from pickaxe_plugins.reranking.calibration_sets import _training as training

    rng = np.random.default_rng(0)
    read, labels = rows(rng)
    given, head = {"shares": np.array([0.5, 0.5])}, rng.normal(size=(3, 6))
    objective = training.Objective.of(Params(lam=0.1, scale=1.0, alpha=1.0))
    found = training._ranking(read, head, given, objective)
    expected = ranking(rank_scores(read["logprobs"], labels, 1.0, 1.0), 0.1)
    assert float(found) == pytest.approx(expected, abs=1e-5)
    projected = (read["states"] @ head.T * read["mask"][..., None]).sum(2)
    expected = np.mean([contrastive(states, 2) for states in projected])
    assert float(training._contrastive(read, head, given, objective)) == pytest.approx(expected, abs=1e-5)
    first = {name: each[:, :2] for name, each in read.items()}
    towards = float(training._cross_entropy(first, given, 0.1))
    expected = (towards + unlikelihood(read["logprobs"][:, 2:], labels[:, 2:], 0.1)) / 2
    assert float(training._unlikelihood(read, head, given, objective)) == pytest.approx(expected, abs=1e-5)


def test_sets_that_fill_up_a_batch_do_not_count() -> None:
    from pickaxe_plugins.reranking.calibration_sets import _training as training

    rng = np.random.default_rng(1)
    read, _ = rows(rng)
    head, objective = rng.normal(size=(3, 6)), training.Objective.of(Params())
    one = {name: each[:1] for name, each in read.items()}
    for loss in (training._ranking, training._contrastive):
        both, alone = (
            loss(read, head, {"shares": np.array([1.0, 0])}, objective),
            loss(one, head, {"shares": np.array([1.0])}, objective),
        )
        assert float(both) == pytest.approx(float(alone), abs=1e-6)


def documents(target: str = "relevance", count: int = 6) -> list[Item]:
    """Candidates that are better the more of the source's letters they hold."""
    rng = np.random.default_rng(0)
    found = []
    for document in range(count):
        letters = rng.choice(list("abcdefgh"), 4)
        for place in range(4):
            kept = [*letters[: 4 - place], *["z"] * place]
            fields = {
                "group": f"d{document}",
                "source": "".join(letters),
                "metrics": {"kept": float(4 - place)},
                "reference": "".join(letters),
                "sign": "positive" if place < 2 else "negative",
            }
            found.append(Item(f"{document}-{place}", "".join(kept), fields))
    return found


@pytest.mark.parametrize(
    ("target", "loss"),
    [
        ("relevance", "ranking"),
        ("relevance", "positive_distillation"),
        ("faithfulness", "contrastive"),
        ("faithfulness", "unlikelihood"),
    ],
)
def test_fit_lowers_the_loss_and_gives_likelihoods(target: str, loss: str, tmp_path: Path) -> None:
    strategy = "max_gap" if target == "relevance" else "max_margin"
    params: dict[str, Any] = {**TINY, "target": target, "loss": loss, "strategy": strategy, "epochs": 8}
    fitted = pickaxe.scorer("calibration-sets", **params, scale=1.0, lam=0.1, alpha=1.0).fit(
        documents(), out=tmp_path / "art"
    )
    notes = Artifact.open(tmp_path / "art").notes
    assert notes["after"]["loss"] < notes["before"]["loss"]
    assert notes["after"]["calibration"] < notes["before"]["calibration"]
    assert (notes["sets"], notes["measured_on"]) == (6, "examples")
    scores = fitted.score(documents())
    assert np.isfinite(scores["likelihood"]).all()
    assert "the model's" in scores.summary["answer"][1]
    best, worst = scores["likelihood"].reshape(6, 4)[:, [0, 3]].T
    if loss != "contrastive":
        assert best.mean() > worst.mean()


def test_fit_measures_on_validation_and_keeps_the_normalisers(tmp_path: Path) -> None:
    scorer = pickaxe.scorer("calibration-sets", **TINY, epochs=1)
    fitted = scorer.fit(documents(), validation=documents(count=2), out=tmp_path / "art")
    artifact = Artifact.open(tmp_path / "art")
    assert artifact.notes["measured_on"] == "validation"
    kept = artifact.read_json("normalisers.json")["kept"]
    assert kept == pytest.approx([2.5, np.sqrt(1.25)])
    alone = fitted.score(documents()[:2])
    assert alone["aggregate"] == pytest.approx((np.array([4, 3]) - kept[0]) / kept[1])
    again = pickaxe.scorer("calibration-sets", **TINY, epochs=1).fit(
        documents(), out=tmp_path / "next", init_from=tmp_path / "art"
    )
    assert np.isfinite(again.score(documents())["likelihood"]).all()


def test_a_model_gives_the_likelihoods_that_hard_negatives_need() -> None:
    given = documents(count=1)
    with pytest.raises(InvalidItems, match="a model"):
        pickaxe.scorer("calibration-sets", target="faithfulness", strategy="hard").score(given)
    scores = pickaxe.scorer(
        "calibration-sets", target="faithfulness", strategy="hard", n_pos=1, n_neg=1, model="draft"
    ).score(given)
    likelihood = scores["likelihood"]
    assert (likelihood < 0).all()
    assert scores["selected"].tolist() == [
        float(place in (likelihood[:2].argmin(), 2 + likelihood[2:].argmax())) for place in range(4)
    ]


def test_fit_goes_on_from_a_model() -> None:
    params: dict[str, Any] = {"base": "draft", "epochs": 1, "max_source": 8, "max_target": 8, "k": 2}
    fitted = pickaxe.scorer("calibration-sets", **params).fit(documents(count=2))
    assert (fitted.score(documents(count=2))["likelihood"] > -12).all()


def test_fit_refuses_what_it_cannot_learn_from() -> None:
    with pytest.raises(InvalidItems, match="examples"):
        pickaxe.scorer("calibration-sets", **TINY).fit([])
    without = [Item(each.id, each.text, {"group": "g", "metrics": {"m": 1.0}}) for each in documents()]
    with pytest.raises(InvalidItems, match="source"):
        pickaxe.scorer("calibration-sets", **TINY).fit(without)
    single = pickaxe.scorer("calibration-sets", **TINY, target="faithfulness", strategy="max_margin", n_pos=1)
    with pytest.raises(InvalidParams, match="n_pos"):
        single.fit(documents())


# ---------------------------------------------------------------- which sets teach most, in a linear model


def ranked_held_out(strategy: str, seed: int) -> float:
    """Rank correlation of model and true quality on new data after 300 steps on sets of noisy metrics."""
    rng = np.random.default_rng(seed)
    true = rng.normal(size=20)
    true /= np.linalg.norm(true)
    model = 0.3 * true + rng.normal(0, 0.3, 20)
    for _ in range(300):
        x = rng.normal(size=(10, 20))
        metric = x @ true + rng.normal(0, 0.7, 10)
        order = np.argsort(-metric)
        rows = order[relevant_set(Pool(metric[order]), strategy, 4, Search(100, lambda: rng))]
        scores, slope = x[rows] @ model, np.zeros(20)
        for gap in range(1, 4):
            wrong = scores[gap:] - scores[:-gap] + 0.1 * gap > 0
            slope += (wrong[:, None] * (x[rows[gap:]] - x[rows[:-gap]])).mean(0)
        model -= 0.05 * slope
    held = rng.normal(size=(500, 20))
    ranks = [np.argsort(np.argsort(held @ each)) for each in (model, true)]
    return float(np.corrcoef(*ranks)[0, 1])


def test_wide_margins_teach_more_than_narrow_ones() -> None:
    found = {
        name: np.mean([ranked_held_out(name, seed) for seed in range(5)])
        for name in ("max_gap", "extreme", "random", "average", "min_gap")
    }
    assert found["max_gap"] - found["min_gap"] >= 0.2
    assert found["extreme"] > found["average"]
