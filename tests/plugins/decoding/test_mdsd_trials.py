"""Trials of several drafts: what comes out is the target's own draw, for every law and rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import pytest
from mdsd_cases import pairs, sequences
from scipy.stats import chisquare

from pickaxe_plugins.decoding._speculation.multidraft import (
    Law,
    most_probable,
)
from pickaxe_plugins.decoding._speculation.multiverify import PAIRS, Rule, Trial, acceptance, draw, trial
from pickaxe_plugins.decoding._speculation.transport import Distribution

SAMPLES = 200_000


Kind = Literal["dense", "sparse", "short"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def distribution(values: np.ndarray, kind: Kind) -> Distribution:
    """Over the whole vocabulary, over the tokens that there are, or over those up to the last one that there is."""
    ids = np.flatnonzero(values)
    if kind == "sparse":
        return Distribution(values[ids], ids)
    return Distribution(values[: ids[-1] + 1] if kind == "short" else values)


def over(found: Distribution, size: int) -> np.ndarray:
    return found.over(Distribution(np.zeros(size)))


def outcome(tried: Trial, size: int) -> tuple[np.ndarray, float]:
    """Probability (V,) of every token to come out, and that it is a draft."""
    found, left = np.zeros(size), 1.0
    for token, chance in tried.chances():
        found[token] += left * chance
        left *= 1 - chance
    residual = left * over(tried.residual(), size)
    return found + residual, float(found.sum() + residual[list(set(tried.drafts))].sum())


def accepted(law: Law, rule: Rule, target: np.ndarray, draft: np.ndarray, n: int) -> float:
    """Acceptance in closed form."""
    return acceptance(law, rule, target, draft, n, 0, np.random.default_rng(0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("size", "n"), [(3, 2), (3, 1), (4, 3), (5, 4), (3, 5)])
@pytest.mark.parametrize(("law", "rule"), PAIRS)
def test_output_is_the_target_exactly(law: Law, rule: Rule, size: int, n: int, kind: Kind) -> None:
    same = next(pairs(size))[0]
    for target, draft in [*pairs(size), (same, same)]:
        found, taken = np.zeros(size), 0.0
        for drafts, chance in sequences(law, draft, n).items():
            tried = trial(law, rule, distribution(target, kind), distribution(draft, kind), drafts)
            tokens, share = outcome(tried, size)
            found, taken = found + chance * tokens, taken + chance * share
        np.testing.assert_allclose(found, target, atol=1e-9)
        assert taken == pytest.approx(accepted(law, rule, target, draft, n), abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("law", "rule"), PAIRS)
def test_output_of_many_samples(law: Law, rule: Rule, kind: Kind) -> None:
    """The chances and residuals of every sequence of drafts, put to as many uniform numbers as it is drawn often."""
    size, n = 6, 3
    random = np.random.default_rng([len(law), len(rule), len(kind)])
    for target, draft in pairs(size, 4):
        laws = sequences(law, draft, n)
        counts = random.multinomial(SAMPLES, list(laws.values()))
        tokens, taken = np.zeros(size), 0
        for drafts, count in zip(laws, counts, strict=True):
            tried = trial(law, rule, distribution(target, kind), distribution(draft, kind), drafts)
            found, share = sampled(tried, size, int(count), random)
            tokens, taken = tokens + found, taken + share
        here = target > 0
        assert tokens[~here].sum() == 0
        assert pvalue(tokens[here], target[here]) > 1e-4
        exact = accepted(law, rule, target, draft, n)
        assert taken / SAMPLES == pytest.approx(exact, abs=3 * np.sqrt(exact * (1 - exact) / SAMPLES) + 1e-12)


def sampled(tried: Trial, size: int, count: int, random: np.random.Generator) -> tuple[np.ndarray, int]:
    """What `select` does, `count` times at once: how often each token came out, and how often a draft."""
    found, left = np.zeros(size), count
    for token, chance in tried.chances():
        kept = int((random.random(left) < chance).sum())
        found[token] += kept
        left -= kept
    taken = found.sum()
    edges = np.cumsum(over(tried.residual(), size))
    places = np.minimum(np.searchsorted(edges, random.random(left), side="right"), size - 1)
    residual = np.bincount(places, minlength=size)
    return found + residual, int(taken + residual[list(set(tried.drafts))].sum())


def pvalue(counts: np.ndarray, expected: np.ndarray) -> float:
    """Chi-square; bins with an expectation below 5 are one."""
    expected = expected / expected.sum() * counts.sum()
    rare = expected < 5
    counts = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    if expected[-1] < 5:
        counts, expected = np.append(counts[:-2], counts[-2:].sum()), np.append(expected[:-2], expected[-2:].sum())
    return float(chisquare(counts, expected).pvalue) if len(counts) > 1 else 1.0


class Scripted:
    """Uniform numbers that were written down, and how many were used."""

    def __init__(self, uniforms: Sequence[float]) -> None:
        self.uniforms, self.used = uniforms, 0

    def random(self) -> float:
        self.used += 1
        return self.uniforms[self.used - 1]


@pytest.mark.parametrize(("law", "rule"), PAIRS)
def test_selection_follows_the_chances(law: Law, rule: Rule) -> None:
    random = np.random.default_rng(5)
    for target, draft in pairs(5):
        for drafts in list(sequences(law, draft, 3))[:20]:
            uniforms = random.random(5)
            tried = trial(law, rule, Distribution(target), Distribution(draft), drafts)
            wanted, used = None, 0
            for (token, chance), uniform in zip(tried.chances(), uniforms, strict=False):
                used += 1
                if uniform < chance:
                    wanted = token
                    break
            else:
                wanted = tried.residual().token(uniforms[used])
                used += 1
            script = Scripted(uniforms.tolist())
            again = trial(law, rule, Distribution(target), Distribution(draft), drafts)
            assert again.select(script) == (wanted, wanted in drafts)  # type: ignore[arg-type]
            assert script.used == used


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("law", ["greedy", "without", "with"])
def test_drafts_follow_their_law(law: Law, kind: Kind) -> None:
    random = np.random.default_rng(7)
    for _, draft in pairs(4, 4):
        laws = sequences(law, draft, 3)
        places = {drafts: place for place, drafts in enumerate(laws)}
        given = distribution(draft, kind)
        counts = np.bincount([places[tuple(draw(law, given, 3, random))] for _ in range(4000)], minlength=len(laws))
        assert pvalue(counts, np.array(list(laws.values()))) > 1e-4


def test_distinct_drafts_where_one_outweighs_all_others() -> None:
    draft = np.array([1e-300, 1.0, 3e-300, 1e-20])
    drawn = {tuple(draw("without", Distribution(draft), 4, np.random.default_rng(seed))) for seed in range(40)}
    assert drawn == {(1, 3, 2, 0), (1, 3, 0, 2)}


def test_a_residual_token_that_was_drafted_is_accepted() -> None:
    target, draft = Distribution(np.array([0.9, 0.05, 0.05])), Distribution(np.array([0.5, 0.3, 0.2]))
    drafts = [0, 1]  # the top token, and one that the target likes less than the draft does
    found = trial("greedy", "greedy_optimal", target, draft, drafts).select(Scripted([0.99, 0.5]))  # type: ignore[arg-type]
    assert found == (0, True)


def test_greedy_drafts_begin_with_the_most_probable() -> None:
    probs = np.array([0.1, 0.4, 0.3, 0.2])
    drafts = draw("greedy", Distribution(probs), 3, np.random.default_rng(0))
    assert drafts[:2] == most_probable(probs, 2).tolist() == [1, 2]
    assert drafts[2] in (0, 3)
    assert sorted(draw("greedy", Distribution(probs), 9, np.random.default_rng(0))) == [0, 1, 2, 3]
