"""PCB against the official coreset and an own derivation of the rest."""

from typing import Any

import numpy as np
import pytest
from golden import golden, understood

import pickaxe
from pickaxe import Call, Item
from pickaxe_plugins.selection.pcb import _classes, _pick, balanced, class_matrix

FILE = understood(golden("52-pcb"), "how", "tolerance", "inputs", "expected")
TOLERANCE = understood(FILE["tolerance"], "indices", "numbers")
INPUTS = understood(
    FILE["inputs"],
    *("image_features", "class_text_features", "logit_scale", "labelled_features", "labelled_classes", "n_query"),
    *("subset_size", "coreset_size", "candidates", "descriptions_per_class", "description_features"),
)
EXPECTED = understood(
    FILE["expected"],
    *("probabilities", "predicted", "entropy", "entropy_top16", "badge_embedding_first3", "badge_first_center"),
    *("coreset_order_8", "class_counts_before", "balanced_picks_per_predicted_class", "random_fallback_picks"),
    *("class_counts_after_forced_picks", "AS_logits_first5", "AE_logits_first5", "imbalance_before", "balance_cases"),
)
IMAGES, LABELLED = np.array(INPUTS["image_features"]), np.array(INPUTS["labelled_features"])
CLASSES = [f"class {at}" for at in range(len(INPUTS["class_text_features"]))]
NEAR: dict[str, Any] = {"atol": TOLERANCE["numbers"], "rtol": 0}


def items() -> list[Item]:
    pool = [Item(f"{row:03}", fields={"embedding": image}) for row, image in enumerate(IMAGES)]
    known = zip(LABELLED, INPUTS["labelled_classes"], strict=True)
    return pool + [
        Item(f"labelled {row}", fields={"embedding": image, "label": CLASSES[label]})
        for row, (image, label) in enumerate(known)
    ]


def scored(base: str, size: int, **params: Any) -> pickaxe.Scores:
    vectors = [[each] for each in INPUTS["class_text_features"]]
    given = {"classes": CLASSES, "class_vectors": vectors, "logit_scale": INPUTS["logit_scale"]}
    given |= {"base": base, "gamma": size / (len(IMAGES) + len(LABELLED)), "n_query": INPUTS["n_query"]}
    return pickaxe.scorer("pcb", **given, **params).score(items())


def pool_probabilities() -> np.ndarray:
    return _classes.probabilities(IMAGES, np.array(INPUTS["class_text_features"]), INPUTS["logit_scale"], Call())


def test_probabilities_and_entropy() -> None:
    np.testing.assert_allclose(pool_probabilities(), EXPECTED["probabilities"], **NEAR)
    scores = scored("entropy", INPUTS["subset_size"])
    n = len(IMAGES)
    assert scores["pseudo_label"][:n].tolist() == EXPECTED["predicted"]
    np.testing.assert_allclose(scores["entropy"][:n], EXPECTED["entropy"], **NEAR)
    informative = np.flatnonzero(scores["informative"]).tolist()
    assert informative == EXPECTED["entropy_top16"] == INPUTS["candidates"]
    assert len(informative) == INPUTS["subset_size"]


def test_coreset() -> None:
    count = INPUTS["coreset_size"]
    assert _pick.k_center(IMAGES, LABELLED, count, Call()).tolist() == EXPECTED["coreset_order_8"]
    assert np.flatnonzero(scored("coreset", count)["informative"]).tolist() == sorted(EXPECTED["coreset_order_8"])


def test_badge() -> None:
    p = pool_probabilities()
    explicit = (_pick.badge_factors(p)[:, :, None] * IMAGES[:, None]).reshape(len(p), -1)
    count = len(EXPECTED["badge_embedding_first3"])
    np.testing.assert_allclose(explicit[:count], EXPECTED["badge_embedding_first3"], **NEAR)
    chosen = _pick.badge(p, IMAGES, 5, np.random.default_rng(0), Call())
    assert chosen[0] == EXPECTED["badge_first_center"]


@pytest.mark.parametrize("seed", range(4))
def test_balance(seed: int) -> None:
    before = np.array(EXPECTED["class_counts_before"])
    assert np.bincount(INPUTS["labelled_classes"], minlength=len(CLASSES)).tolist() == before.tolist()
    assert before.std() == pytest.approx(EXPECTED["imbalance_before"], abs=TOLERANCE["numbers"])
    pseudo = np.array(EXPECTED["predicted"])[INPUTS["candidates"]]
    picks = balanced(pseudo, before, INPUTS["n_query"], np.random.default_rng(seed), "reference")
    counts = np.bincount(pseudo[picks.rows], minlength=len(CLASSES))
    assert counts.tolist() == EXPECTED["balanced_picks_per_predicted_class"]
    assert int((~picks.forced).sum()) == EXPECTED["random_fallback_picks"]
    after = before + np.bincount(pseudo[picks.rows[picks.forced]], minlength=len(CLASSES))
    assert after.tolist() == EXPECTED["class_counts_after_forced_picks"]
    scores = scored("entropy", INPUTS["subset_size"])
    picked = np.bincount(scores["pseudo_label"][scores["selected"] == 1], minlength=len(CLASSES))
    assert picked.tolist() == EXPECTED["balanced_picks_per_predicted_class"]
    assert scores.summary["Imbalance"]["now"] == pytest.approx(EXPECTED["imbalance_before"], abs=TOLERANCE["numbers"])


@pytest.mark.parametrize("case", EXPECTED["balance_cases"])
def test_balance_without_candidates_of_a_class(case: dict[str, Any]) -> None:
    understood(case, "inputs", "expected")
    given = understood(case["inputs"], "n_classes", "labelled_classes", "pseudo_label_of_candidates", "n_query")
    expected = understood(case["expected"], "class_counts_before", "reference", "next_class")
    reference = understood(expected["reference"], "forced_picks_per_class", "random_picks")
    following = understood(expected["next_class"], "picks_per_class")
    k, pseudo = given["n_classes"], np.array(given["pseudo_label_of_candidates"])
    before = np.bincount(given["labelled_classes"], minlength=k)
    assert before.tolist() == expected["class_counts_before"]
    for seed in range(4):
        picks = balanced(pseudo, before, given["n_query"], np.random.default_rng(seed), "reference")
        forced = np.bincount(pseudo[picks.rows[picks.forced]], minlength=k)
        assert forced.tolist() == reference["forced_picks_per_class"]
        assert int((~picks.forced).sum()) == reference["random_picks"]
        other = balanced(pseudo, before, given["n_query"], np.random.default_rng(seed), "next_class")
        assert np.bincount(pseudo[other.rows], minlength=k).tolist() == following["picks_per_class"]
        for each in (picks, other):
            assert len(set(each.rows.tolist())) == given["n_query"]


@pytest.mark.parametrize("mode", ["AS", "AE"])
def test_descriptions(mode: Any) -> None:
    ends = np.cumsum(INPUTS["descriptions_per_class"])[:-1]
    vectors = np.split(np.array(INPUTS["description_features"]), ends)
    expected = np.array(EXPECTED[f"{mode}_logits_first5"])
    logits = INPUTS["logit_scale"] * IMAGES[: len(expected)] @ class_matrix(vectors, mode).T
    np.testing.assert_allclose(logits, expected, **NEAR)
