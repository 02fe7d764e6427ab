"""Golden cases of spectr: selection among k drafts, traces of tokens and of rounds, tokens per target call."""

from __future__ import annotations

from functools import cache
from math import comb
from typing import Any

import numpy as np
import pytest
from golden import golden, understood

import pickaxe
from pickaxe import Item
from pickaxe_plugins.decoding._speculation.rounds import walk
from pickaxe_plugins.decoding._speculation.transport import Distribution, KSequential
from pickaxe_plugins.decoding._speculation.tree import Tree
from pickaxe_plugins.decoding.spectr import Sequential

CASE = understood(
    golden("41-spectr"),
    "how", "protocol", "tolerance", "token_level", "token_traces", "sequence_traces", "block_efficiency",
)  # fmt: skip
TOLERANCE = understood(CASE["tolerance"], "probabilities", "tokens")
WITHIN = TOLERANCE["probabilities"]


def parts(case: dict[str, Any], *inputs: str) -> tuple[dict[str, Any], dict[str, Any]]:
    understood(case, "inputs", "expected")
    return understood(case["inputs"], *inputs), case["expected"]


class Uniforms:
    """Hands out given numbers in order, one at a time."""

    def __init__(self, numbers: list[float]) -> None:
        self._numbers = iter(numbers)
        self.used = 0

    def random(self) -> float:
        self.used += 1
        return next(self._numbers)


@pytest.mark.parametrize("case", CASE["token_level"])
def test_selection_of_one_token(case: dict[str, Any]) -> None:
    inputs, expected = parts(case, "target", "draft", "k")
    understood(
        expected,
        "rho", "beta", "accept", "residual", "accept_at_rho_k", "upper_bound", "optimal", "single_draft", "optimal_lp",
    )  # fmt: skip
    target, draft, k = np.array(inputs["target"]), np.array(inputs["draft"]), inputs["k"]
    scores = pickaxe.scorer("spectr-acceptance").score([Item("one", fields={"target": target, "draft": draft, "k": k})])
    columns = {"accept": "acceptance", "rho": "rho", "upper_bound": "upper_bound", "single_draft": "single_draft"}
    for name, column in columns.items():
        assert scores[column][0] == pytest.approx(expected[name], abs=WITHIN), column
    for name in {"optimal", "optimal_lp"} & expected.keys():
        if expected[name] is not None:
            assert scores["optimal"][0] == pytest.approx(expected[name], abs=WITHIN)
    selection = KSequential(Distribution(target / target.sum()), Distribution(draft / draft.sum()), k)
    assert selection.beta == pytest.approx(expected["beta"], abs=WITHIN)
    np.testing.assert_allclose(selection.residual.probs, expected["residual"], atol=WITHIN, rtol=0)
    at_k = 1 - (1 - np.minimum(draft, target / k).sum()) ** k
    assert at_k == pytest.approx(expected["accept_at_rho_k"], abs=WITHIN)
    assert at_k <= scores["acceptance"][0] + WITHIN


@pytest.mark.parametrize("case", CASE["token_traces"])
def test_which_token_comes(case: dict[str, Any]) -> None:
    assert TOLERANCE["tokens"] == "exact"
    inputs, expected = parts(case, "case", "drafts", "accept_uniforms", "residual_uniform")
    understood(expected, "token", "accepted_index")
    position = CASE["token_level"][inputs["case"]]["inputs"]
    drafts = inputs["drafts"]
    selection = KSequential(
        Distribution(np.array(position["target"])), Distribution(np.array(position["draft"])), position["k"]
    )
    random = Uniforms([*inputs["accept_uniforms"], inputs["residual_uniform"]])
    token, accepted = selection.select(drafts, random)  # type: ignore[arg-type]
    assert token == expected["token"]
    index = expected["accepted_index"]
    assert accepted == (index is not None and index >= 0)
    if accepted:
        assert (drafts[random.used - 1], random.used - 1) == (token, index)


@pytest.mark.parametrize("case", CASE["sequence_traces"])
def test_what_a_round_says(case: dict[str, Any]) -> None:
    inputs, expected = parts(case, "draft_matrix", "target_matrix", "start", "drafts", "uniforms")
    understood(expected, "emitted", "uniforms_used", "k_at_each_position")
    draft, target = np.array(inputs["draft_matrix"]), np.array(inputs["target_matrix"])
    tree = grown(inputs["start"], inputs["drafts"], draft)
    random = Uniforms(inputs["uniforms"])
    trials = list(walk(tree, lambda node: Distribution(target[tree.tokens[node]]), Sequential(), random))  # type: ignore[arg-type]
    assert [trial.token for trial in trials] == expected["emitted"]
    assert random.used == expected["uniforms_used"]
    assert [trial.drafts for trial in trials if trial.drafts] == expected["k_at_each_position"]


def grown(start: int, drafts: list[list[int]], matrix: np.ndarray) -> Tree:
    """The tree of these drafts, each drawn from the matrix row of the token before."""
    tree = Tree([start], len(drafts))
    level = {0: drafts}
    while level := {node: rows for node, rows in level.items() if rows[0]}:
        below: dict[int, list[list[int]]] = {}
        for node, rows in level.items():
            tree.add(node, Distribution(matrix[tree.tokens[node]]), [row[0] for row in rows])
            for row in rows:
                below.setdefault(tree.children[node][row[0]], []).append(row[1:])
        level = below
    return tree


@pytest.mark.parametrize("case", CASE["block_efficiency"])
def test_tokens_per_target_call(case: dict[str, Any]) -> None:
    inputs, expected = parts(case, "sequence_case", "K", "L")
    understood(expected, "block_efficiency", "block_efficiency_K1")
    models = CASE["sequence_traces"][inputs["sequence_case"]]["inputs"]
    draft, target = np.array(models["draft_matrix"]), np.array(models["target_matrix"])
    for count, name in ((inputs["K"], "block_efficiency"), (1, "block_efficiency_K1")):
        found = expected_tokens(draft, target, models["start"], count, inputs["L"])
        assert found == pytest.approx(expected[name], abs=WITHIN)


def expected_tokens(draft: np.ndarray, target: np.ndarray, start: int, count: int, length: int) -> float:
    """Of one round, by recursion over what was accepted and how many drafts are left."""

    @cache
    def accepted(before: int, alive: int) -> dict[tuple[int, int], float]:
        """Probability that this token is accepted and that so many drafts have it."""
        selection = KSequential(Distribution(target[before]), Distribution(draft[before]), alive)
        drawn = draft[before]
        taken = np.minimum(drawn, target[before] / selection.rho)
        found: dict[tuple[int, int], float] = {}
        for token, (d, a) in enumerate(zip(drawn, taken, strict=True)):
            for earlier in range(alive):  # rejected: the same token, or others
                same = binomial(earlier, d - a, 1 - taken.sum() - (d - a))
                rest = binomial(alive - 1 - earlier, d, 1 - d)
                for copies, chance in enumerate(np.convolve(same, rest), start=1):
                    found[token, copies] = found.get((token, copies), 0.0) + a * chance
        return found

    @cache
    def further(before: int, alive: int, position: int) -> float:
        if position == length:
            return 1.0
        return 1.0 + sum(
            chance * further(token, copies, position + 1) for (token, copies), chance in accepted(before, alive).items()
        )

    return further(start, count, 0)


def binomial(n: int, p: float, q: float) -> np.ndarray:
    """comb(n, i) p^i q^(n - i) for i from 0 to n."""
    return np.array([comb(n, i) * p**i * q ** (n - i) for i in range(n + 1)])
