"""Rounds on bigram models: what they say is the target's own, in the numbers that theory gives."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import product

import numpy as np
import pytest
from scipy.stats import chisquare

from pickaxe_plugins.decoding._speculation.rounds import walk
from pickaxe_plugins.decoding._speculation.transport import Distribution, KSequential
from pickaxe_plugins.decoding._speculation.tree import Tree
from pickaxe_plugins.decoding.spectr import Sequential

VOCAB = 3
TARGET = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.3, 0.4, 0.3]])
DRAFT = np.array([[0.3, 0.3, 0.4], [0.5, 0.25, 0.25], [0.2, 0.2, 0.6]])


class Remembering(Sequential):
    """The same verifier, which does not work out the selection of the same laws again."""

    def __init__(self) -> None:
        super().__init__()
        self._selection = cache(KSequential)

    def verify(
        self, target: Distribution, law: Distribution, drafted: Sequence[int], random: np.random.Generator
    ) -> tuple[int, bool]:
        return self._selection(target, law, len(drafted)).select(drafted, random)


class Hashable(Distribution):
    """Equal only to itself, so that it can be a key."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__


class Toy:
    """Rounds of a bigram target with a bigram draft."""

    def __init__(self, target: np.ndarray, draft: np.ndarray, verifier: Sequential) -> None:
        self.target = [Hashable(row) for row in target]
        self.draft = [Hashable(row) for row in draft]
        self.verifier = verifier

    def round(self, start: int, count: int, length: int, random: np.random.Generator) -> list[int]:
        tree = Tree([start], count)
        level = [0]
        for _ in range(length):
            below = []
            for node in level:
                law = self.draft[tree.tokens[node]]
                below += tree.add(node, law, self.verifier.propose(tree, node, law, random))
            level = below
        return [trial.token for trial in walk(tree, lambda node: self.target[tree.tokens[node]], self.verifier, random)]


def test_two_tokens_of_a_round_have_the_targets_joint_law():
    toy, random, rounds = Toy(TARGET, DRAFT, Remembering()), np.random.default_rng(0), 100_000
    counts = np.zeros((VOCAB, VOCAB))
    for _ in range(rounds):
        said = toy.round(0, 2, 2, random)
        second = said[1] if len(said) > 1 else toy.round(said[0], 2, 2, random)[0]
        counts[said[0], second] += 1
    wanted = TARGET[0][:, None] * TARGET * rounds
    assert chisquare(counts.ravel(), wanted.ravel()).pvalue > 1e-4


@pytest.mark.parametrize(("count", "length"), [(1, 3), (2, 2), (4, 3)])
def test_tokens_per_call_are_as_many_as_expected(count, length):
    toy, random, rounds = Toy(TARGET, DRAFT, Remembering()), np.random.default_rng(1), 10_000
    said = np.array([len(toy.round(1, count, length, random)) for _ in range(rounds)])
    error = said.std() / np.sqrt(rounds)
    assert abs(said.mean() - expected_tokens(1, count, length)) < 3 * error


def expected_tokens(start: int, count: int, length: int) -> float:
    """By enumeration of how many of the drafts have each token."""

    @cache
    def further(before: int, alive: int, left: int) -> float:
        if not left:
            return 1.0
        selection = KSequential(Distribution(TARGET[before]), Distribution(DRAFT[before]), alive)
        total = 1.0
        for drafted in product(range(VOCAB), repeat=alive):
            chance = float(np.prod(DRAFT[before][list(drafted)]))
            for token in drafted:
                taken = min(1.0, TARGET[before][token] / (selection.rho * DRAFT[before][token]))
                total += chance * taken * further(token, drafted.count(token), left - 1)
                chance *= 1 - taken
        return total

    return further(start, count, length)


def test_one_draft_equals_plain_speculative_sampling():
    """The same uniform numbers through the textbook's loop (arXiv 2211.17192) give the same tokens."""
    toy = Toy(TARGET, DRAFT, Sequential())
    for seed in range(300):
        said = toy.round(2, 1, 4, np.random.default_rng(seed))
        random, drafts, before = np.random.default_rng(seed), [], 2
        for _ in range(4):
            before = int(np.searchsorted(np.cumsum(DRAFT[before]), random.random(), side="right"))
            drafts.append(before)
        expected, before = [], 2
        for draft in drafts:
            if random.random() > min(1, TARGET[before][draft] / DRAFT[before][draft]):
                rest = np.maximum(TARGET[before] - DRAFT[before], 0)
                expected.append(int(np.searchsorted(np.cumsum(rest / rest.sum()), random.random(), side="right")))
                break
            expected.append(draft)
            before = draft
        else:
            expected.append(int(np.searchsorted(np.cumsum(TARGET[before]), random.random(), side="right")))
        assert said == expected


def test_a_draft_like_the_target_is_accepted_to_the_end():
    toy = Toy(TARGET, TARGET.copy(), Sequential())
    assert all(len(toy.round(0, 1, 5, np.random.default_rng(seed))) == 6 for seed in range(50))


def test_drafts_rejected_before_the_accepted_one_stay_alive():
    tree = Tree([0], 3)
    tree.add(0, Distribution(DRAFT[0]), [2, 2, 1])
    assert tree.copies == [3, 2, 1]
    assert tree.children[0] == {2: 1, 1: 2}
