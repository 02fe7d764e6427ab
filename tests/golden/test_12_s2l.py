"""S2L against quotas of the authors' loop, and trajectories of an own derivation."""

import math

import numpy as np
import pytest
from golden import golden, understood

import pickaxe
from pickaxe import Call, Item
from pickaxe.kmeans import assign
from pickaxe_plugins.selection.s2l import answer_loss, cluster_quotas, quotas, thinned
from pickaxe_plugins.selection.s2l._balance import order

FILE = understood(golden("12-s2l"), "how", "inputs", "expected", "tolerance")
INPUTS = understood(
    FILE["inputs"],
    *("cluster_of_item", "budgets", "source_counts", "source_budget", "losses", "centroids"),
    *("token_logprobs", "answer_mask", "keep_checkpoints"),
)
EXPECTED = understood(
    FILE["expected"],
    *("quota", "source_quota", "family", "nearest_centroid_nan_as_0", "answer_loss", "kept_checkpoint_indices"),
)
TOLERANCE = understood(FILE["tolerance"], "abs", "quota", "note")
CLUSTERS = np.array(INPUTS["cluster_of_item"])
LOSSES = np.array(INPUTS["losses"], float)


@pytest.mark.parametrize("budget", INPUTS["budgets"])
def test_quotas_by_rule_and_by_priority(budget: int) -> None:
    case = understood(
        EXPECTED["quota"][str(budget)],
        *("taken_from_clusters_larger_than_2", "taken_from_small_clusters_total", "total"),
    )
    wanted = {int(cluster): count for cluster, count in case["taken_from_clusters_larger_than_2"].items()}
    sizes = np.bincount(CLUSTERS)
    large, small = cluster_quotas(sizes.tolist(), budget)
    assert {at: count for at, count in enumerate(large) if count} == wanted
    assert small == case["taken_from_small_clusters_total"]
    ranks = order(np.zeros(len(CLUSTERS), np.int64), CLUSTERS, 3, seed=1)
    taken = np.bincount(CLUSTERS[ranks < budget], minlength=len(sizes))
    assert {int(at): int(taken[at]) for at in np.flatnonzero(sizes > 2)} == wanted
    assert taken[sizes <= 2].sum() == case["taken_from_small_clusters_total"]
    assert taken.sum() == case["total"]


def test_quotas_of_sources() -> None:
    counts, budget = INPUTS["source_counts"], INPUTS["source_budget"]
    assert quotas(counts, budget) == EXPECTED["source_quota"]
    sources = np.repeat(np.arange(len(counts)), counts)
    ranks = order(sources, np.zeros(len(sources), np.int64), 3, seed=0)
    assert np.bincount(sources[ranks < budget]).tolist() == EXPECTED["source_quota"]


def test_nearest_centroids() -> None:
    labels, _ = assign(np.nan_to_num(LOSSES), np.array(INPUTS["centroids"]), Call())
    assert labels.tolist() == EXPECTED["nearest_centroid_nan_as_0"]


@pytest.mark.parametrize("seed", range(3))
def test_families_are_found(seed: int) -> None:
    from sklearn.metrics import adjusted_rand_score

    items = [Item(f"{row:03}", fields={"losses": losses}) for row, losses in enumerate(LOSSES)]
    handle = pickaxe.scorer("s2l", clusters=3).fit(items, seed=seed)
    whole = np.isfinite(LOSSES).all(axis=1)
    assert (~whole).sum() == 1
    found = handle.score(items)["cluster"]
    assert adjusted_rand_score(np.array(EXPECTED["family"])[whole], found[whole]) > 0.95


def test_answer_losses() -> None:
    for logprobs, mask, expected in zip(
        INPUTS["token_logprobs"], INPUTS["answer_mask"], EXPECTED["answer_loss"], strict=True
    ):
        found = answer_loss(logprobs, mask)
        if expected is None:
            assert math.isnan(found)
        else:
            assert found == pytest.approx(expected, abs=TOLERANCE["abs"])


def test_kept_checkpoints() -> None:
    case = understood(INPUTS["keep_checkpoints"], "total", "want")
    assert thinned(case["total"], case["want"]) == EXPECTED["kept_checkpoint_indices"]
