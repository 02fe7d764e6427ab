"""Quad: the bandit's trace, EK-FAC and its influences, documents from chunks."""

from typing import Any

import numpy as np
import pytest
from golden import golden, understood

from pickaxe_plugins.selection.quad._bandit import Bandit, Neighbours
from pickaxe_plugins.selection.quad._influence import cosines, document_scores
from pickaxe_plugins.train import gradients, kronecker

FILE = understood(golden("10-quad"), "how", "inputs", "expected", "tolerance")
INPUTS = understood(
    FILE["inputs"],
    "cluster_distance",
    "cluster_sizes",
    "alpha",
    "neighbour_threshold",
    "clusters_per_round",
    "real_batch",
    "influence_threshold",
    "rewards_by_round",
    "ekfac",
    "chunks",
)
EXPECTED = understood(FILE["expected"], "rounds", "accepted_batches", "taken_batches", "ekfac", "doc_score_from_chunks")
TOLERANCE = understood(FILE["tolerance"], "mean_reward_abs", "ucb_abs", "clusters", "ekfac_rel", "note")


def test_the_bandits_trace() -> None:
    assert TOLERANCE["clusters"] == "exact"
    bandit = Bandit(
        np.array(INPUTS["cluster_sizes"]),
        Neighbours.from_distances(np.array(INPUTS["cluster_distance"]), INPUTS["neighbour_threshold"]),
        alpha=INPUTS["alpha"],
        tau=INPUTS["influence_threshold"],
        arms=INPUTS["clusters_per_round"],
        batch=INPUTS["real_batch"],
    )
    for given, expected in zip(INPUTS["rewards_by_round"], EXPECTED["rounds"], strict=True):
        understood(given, "clusters", "mean_influence")
        understood(expected, "clusters", "mean_reward_after", "times_counted_after", "ucb_after", "sum_counts_after")
        chosen = bandit.choose()
        assert chosen.tolist() == expected["clusters"] == given["clusters"]
        bandit.learn(chosen, np.array(given["mean_influence"]))
        np.testing.assert_allclose(
            bandit.means, expected["mean_reward_after"], rtol=0, atol=TOLERANCE["mean_reward_abs"]
        )
        assert bandit.counts.tolist() == expected["times_counted_after"]
        assert bandit.total == expected["sum_counts_after"]
        # A cluster is retired when the next round is drawn up, and stays so in the trace.
        ucb = np.array(expected["ucb_after"], float)
        assert not bandit.eligible[np.isnan(ucb)].any()
        known = ~np.isnan(ucb)
        np.testing.assert_allclose(bandit.scores[known], ucb[known], rtol=0, atol=TOLERANCE["ucb_abs"])
    assert bandit.accepted.tolist() == EXPECTED["accepted_batches"]
    assert bandit.taken.tolist() == EXPECTED["taken_batches"]


class TestCurvature:
    GIVEN = understood(INPUTS["ekfac"], "layer_inputs", "layer_output_grads", "reference_grads", "damping")
    WANTED = understood(
        EXPECTED["ekfac"], "ihvp_ekfac", "ihvp_kfac_factors_only", "influence_of_each_example", "influence_unnormalised"
    )
    PASSED = {"w": gradients.Signal(np.array(GIVEN["layer_inputs"]), np.array(GIVEN["layer_output_grads"]))}
    REFERENCE = np.array(GIVEN["reference_grads"])

    def bases(self, kind: str) -> dict[str, kronecker.Basis]:
        covariances = kronecker.Covariances()
        covariances.add(self.PASSED)
        if kind == "kfac":
            return covariances.bases()
        diagonals = kronecker.Diagonals(covariances.bases())
        diagonals.add(self.PASSED)
        return diagonals.bases()

    def close(self, found: Any, expected: Any) -> None:
        expected = np.array(expected)
        np.testing.assert_allclose(found, expected, rtol=TOLERANCE["ekfac_rel"], atol=1e-9 * np.abs(expected).max())

    @pytest.mark.parametrize(("kind", "key"), [("ekfac", "ihvp_ekfac"), ("kfac", "ihvp_kfac_factors_only")])
    def test_inverse_products(self, kind: str, key: str) -> None:
        self.close(self.bases(kind)["w"].inverse(self.REFERENCE, self.GIVEN["damping"]), self.WANTED[key])

    def test_influences(self) -> None:
        bases, damping = self.bases("ekfac"), self.GIVEN["damping"]
        towards = kronecker.directions({"w": self.REFERENCE}, bases, damping)["w"].mean(0)
        self.close(cosines(self.PASSED, {"w": towards}), self.WANTED["influence_of_each_example"])
        solved = bases["w"].inverse(self.REFERENCE, damping).mean(0)
        self.close(gradients.inner(self.PASSED, {"w": solved}), self.WANTED["influence_unnormalised"])


def test_documents_are_the_means_of_their_chunks() -> None:
    given = understood(INPUTS["chunks"], "doc_of_chunk", "chunk_score", "n_docs")
    found = document_scores(np.array(given["doc_of_chunk"]) - 1, np.array(given["chunk_score"]), given["n_docs"])
    np.testing.assert_allclose(found, EXPECTED["doc_score_from_chunks"], rtol=0, atol=1e-12)
