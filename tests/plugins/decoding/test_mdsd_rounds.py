"""The verifiers of `mdsd` in whole rounds of toy models: trees, adaptive choice, temperature 0."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest
from scipy.stats import chisquare

from pickaxe_plugins.decoding._speculation.multidraft import Law
from pickaxe_plugins.decoding._speculation.multiverify import PAIRS, Rule
from pickaxe_plugins.decoding._speculation.rounds import Verifier, walk
from pickaxe_plugins.decoding._speculation.transport import Distribution
from pickaxe_plugins.decoding._speculation.tree import Tree
from pickaxe_plugins.decoding.mdsd import CANDIDATES, MultiDraft, TopDrafts, worth_counting

ROUNDS = 2500
TARGET = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.3, 0.6, 0.1]])
"""Row: distribution of what follows this token."""
DRAFT = np.array([[0.2, 0.2, 0.6], [0.5, 0.3, 0.2], [0.05, 0.05, 0.9]])


def said(
    verifier: Verifier, n: int, depth: int, width: int | None, random: np.random.Generator
) -> Iterator[tuple[int, ...]]:
    """Endless rounds after token 0: what each one says."""
    while True:
        tree, level = Tree([0], n), [0]
        for _ in range(depth):
            grown: list[int] = []
            for node in level:
                law = Distribution(DRAFT[tree.tokens[node]])
                grown += tree.add(node, law, verifier.propose(tree, node, law, random))
            level = tree.likeliest(grown, width)
        found = walk(tree, lambda node, tree=tree: Distribution(TARGET[tree.tokens[node]]), verifier, random)  # type: ignore[misc]
        yield tuple(each.token for each in found)


def check_first_two(verifier: Verifier, n: int, width: int | None, seed: int) -> float:
    """Chi-square of the first two tokens against the target's law; returns tokens per round."""
    random = np.random.default_rng(seed)
    counts, total = np.zeros((3, 3)), 0
    for tokens in islice(said(verifier, n, 2, width, random), ROUNDS):
        second = tokens[1] if len(tokens) > 1 else Distribution(TARGET[tokens[0]]).token(random.random())
        counts[tokens[0], second] += 1
        total += len(tokens)
    expected = TARGET[0][:, None] * TARGET * ROUNDS
    assert chisquare(counts.ravel(), expected.ravel()).pvalue > 1e-4
    return total / ROUNDS


@pytest.mark.parametrize("width", [1, None])
@pytest.mark.parametrize(("law", "rule"), PAIRS)
def test_two_tokens_of_a_round_follow_the_target(law: Law, rule: Rule, width: int | None) -> None:
    verifier = MultiDraft([(law, rule)])
    check_first_two(verifier, 2, width, 1)
    assert verifier.record() == {"rounds": {f"{law}/{rule}": ROUNDS}}


@pytest.mark.parametrize("law", CANDIDATES)
def test_choosing_between_rounds_leaves_the_target(law: Law) -> None:
    verifier = MultiDraft(CANDIDATES[law])
    check_first_two(verifier, 2, None, 2)
    assert sum(verifier.taken.values()) == ROUNDS


def test_more_drafts_and_wider_trees_say_more_a_round() -> None:
    lengths = [check_first_two(MultiDraft([("without", "rrs")]), n, width, 3) for n, width in ((1, 1), (2, 1), (2, 2))]
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[2] - 0.1


def test_auto_takes_what_would_have_accepted_more() -> None:
    random = np.random.default_rng(0)
    flat = Distribution(random.dirichlet(np.full(400, 2.0)))
    peaked = Distribution(np.array([0.9, 0.06, 0.02, 0.02]))
    near = Distribution(np.array([0.8, 0.1, 0.08, 0.02]))
    for target, draft, wanted in (
        (flat, Distribution(random.dirichlet(np.full(400, 2.0))), ("without", "rrs")),
        (peaked, near, ("greedy", "greedy_optimal")),
    ):
        verifier = MultiDraft(CANDIDATES["greedy"])
        for _ in range(5):
            tree = Tree([0], 2)
            drafted = verifier.propose(tree, 0, draft, random)
            verifier.verify(target, draft, drafted, random)
        verifier.propose(Tree([0], 2), 0, draft, random)
        assert verifier.taken.most_common(1)[0][0] == wanted
        assert sum(verifier.taken.values()) == 6


def test_what_is_counted_is_over_the_tokens_of_both() -> None:
    sparse = Distribution(np.array([0.5, 0.5]), np.array([1, 4]))
    other = Distribution(np.array([0.25, 0.75 - 1e-9, 1e-9]), np.array([0, 1, 5]))
    dense = Distribution(np.array([0.0, 0.1, 0.9]))
    longer = Distribution(np.array([0.0, 0.1, 0.0, 0.0, 0.9]))
    found = [
        [each.round(6).tolist() for each in worth_counting(*pair)]
        for pair in ((sparse, other), (sparse, dense), (dense, sparse), (dense, longer))
    ]
    assert found == [
        [[0.0, 0.5, 0.5], [0.25, 0.75, 0.0]],
        [[0.5, 0.0, 0.5], [0.1, 0.9, 0.0]],
        [[0.1, 0.9, 0.0], [0.5, 0.0, 0.5]],
        [[0.1, 0.9, 0.0], [0.1, 0.0, 0.9]],
    ]


def test_temperature_0_proposes_the_most_probable_and_takes_the_targets_best() -> None:
    verifier, random = TopDrafts(), np.random.default_rng(0)
    law = Distribution(np.array([0.1, 0.4, 0.0, 0.3, 0.2]))
    assert list(verifier.propose(Tree([0], 3), 0, law, random)) == [1, 3, 4]
    assert sorted(verifier.propose(Tree([0], 9), 0, law, random)) == [0, 1, 3, 4]
    assert verifier.verify(Distribution.one(3), law, [1, 3], random) == (3, True)
    assert verifier.verify(Distribution.one(0), law, [1, 3], random) == (0, False)
    assert verifier.record() == {}
