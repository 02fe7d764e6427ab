"""Selection among k drafts: exact laws, bounds, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from pickaxe.errors import InvalidItems
from pickaxe_plugins.decoding._speculation.transport import (
    Distribution,
    KSequential,
    checked,
    optimal,
    ratio_order,
    single_draft,
    upper_bound,
)


def random_pair(seed: int, size: int, spread: float = 1.5, zeros: bool = False) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    pair = np.exp(spread * random.standard_normal((2, size)))
    if zeros:
        pair *= random.random((2, size)) < 0.6
        pair[:, 0] += 0.1
    target, draft = pair / pair.sum(axis=1, keepdims=True)
    return target, draft


def selection(target: np.ndarray, draft: np.ndarray, k: int) -> KSequential:
    return KSequential(Distribution(target), Distribution(draft), k)


pairs = st.builds(random_pair, st.integers(0, 10_000), st.integers(2, 12), st.floats(0.1, 4.0), st.booleans())


@given(pairs, st.integers(1, 16))
def test_what_comes_out_is_the_target(pair, k):
    target, draft = pair
    found = selection(target, draft, k)
    covered = np.minimum(draft, target / found.rho) * (found.acceptance / found.beta if found.beta else 0)
    out = covered + (1 - found.acceptance) * found.residual.probs
    np.testing.assert_allclose(out, target, atol=1e-9)


@given(pairs, st.integers(1, 16))
def test_acceptance_lies_between_its_bounds(pair, k):
    target, draft = pair
    found, best = selection(target, draft, k), optimal(target, draft, k)
    assert 1 <= found.rho <= k
    assert single_draft(target, draft) - 1e-9 <= found.acceptance <= best + 1e-9
    assert found.acceptance >= (1 - (1 - 1 / k) ** k) * best - 1e-9
    assert best <= upper_bound(target, draft, k) + 1e-9


@given(pairs)
def test_more_drafts_never_hurt(pair):
    accepted = [selection(*pair, k).acceptance for k in (1, 2, 3, 5, 8, 13)]
    assert (np.diff(accepted) >= -1e-9).all()
    target, draft = pair
    assert optimal(target, draft, 5000) <= target[draft > 0].sum() + 1e-9


@given(pairs)
def test_one_draft_is_speculative_sampling(pair):
    target, draft = pair
    found = selection(target, draft, 1)
    assert found.rho == 1
    assert found.acceptance == pytest.approx(1 - np.abs(target - draft).sum() / 2, abs=1e-12)


@pytest.mark.parametrize(("r", "m", "k"), [(2, 1, 2), (3, 4, 5), (5, 2, 8)])
def test_uniform_laws_have_a_closed_form(r, m, k):
    draft = np.full(r * m, 1 / (r * m))
    target = np.zeros(r * m)
    target[:m] = 1 / m
    found = selection(target, draft, k)
    reached = 1 - (1 - 1 / r) ** k
    assert found.beta == pytest.approx(1 / r)
    assert found.rho == pytest.approx(r * reached)
    assert found.acceptance == pytest.approx(reached)
    assert optimal(target, draft, k) == pytest.approx(reached)


@pytest.mark.parametrize(("seed", "size", "k", "zeros"), [(0, 5, 2, False), (1, 40, 8, False), (2, 12, 4, True)])
def test_sampled_tokens_are_the_targets(seed, size, k, zeros):
    target, draft = random_pair(seed, size, 1.2, zeros)
    found, random, n = selection(target, draft, k), np.random.default_rng(seed), 200_000
    drafted = np.searchsorted(np.cumsum(draft), random.random((n, k)), side="right").clip(max=size - 1)
    chance = np.minimum(1, np.divide(target, found.rho * draft, out=np.zeros(size), where=draft > 0))
    accepted = random.random((n, k)) <= chance[drafted]
    first = accepted.argmax(axis=1)
    rest = np.array(found.residual.tokens(random.random(n)))
    tokens = np.where(accepted.any(axis=1), drafted[np.arange(n), first], rest)
    counts, wanted = np.bincount(tokens, minlength=size), target * n
    assert counts[wanted == 0].sum() == 0
    often = wanted >= 5
    observed = [*counts[often], counts[~often].sum()]
    expected = [*wanted[often], wanted[~often].sum()]
    keep = np.array(expected) > 0
    assert chisquare(np.array(observed)[keep], np.array(expected)[keep]).pvalue > 1e-4


def test_one_token_at_a_time_agrees_with_its_law():
    target, draft = random_pair(3, 6)
    found, random, n = selection(target, draft, 3), np.random.default_rng(0), 20_000
    drafted = np.array(Distribution(draft).tokens(random.random(3 * n))).reshape(n, 3)
    said = [found.select(row.tolist(), random) for row in drafted]
    assert np.mean([accepted for _, accepted in said]) == pytest.approx(found.acceptance, abs=0.015)
    assert chisquare(np.bincount([token for token, _ in said], minlength=6), target * n).pvalue > 1e-4


def test_disjoint_supports_accept_nothing():
    target, draft = np.array([0.5, 0.5, 0, 0]), np.array([0, 0, 0.3, 0.7])
    found = selection(target, draft, 4)
    assert (found.rho, found.acceptance) == (1.0, 0.0)
    np.testing.assert_array_equal(found.residual.probs, target)
    token, accepted = found.select([2, 3, 3, 3], np.random.default_rng(0))
    assert token in (0, 1)
    assert not accepted


def test_equal_laws_accept_everything():
    target, _ = random_pair(5, 9)
    found = selection(target, target.copy(), 4)
    assert found.acceptance == pytest.approx(1)
    assert found.select([3], np.random.default_rng(0)) == (3, True)
    np.testing.assert_allclose(found.residual.probs.sum(), 1)


def test_a_draft_of_no_probability_is_an_error():
    with pytest.raises(ValueError, match="token 0 was drafted although"):
        selection(np.array([0.5, 0.5]), np.array([0.0, 1.0]), 2).accepts(0, 0.3)


@given(st.integers(0, 500), st.integers(1, 6))
def test_sparse_and_dense_distributions_agree(seed, k):
    target, draft = random_pair(seed, 10, 1.0, zeros=True)

    def sparse(values: np.ndarray) -> Distribution:
        ids = np.flatnonzero(values)
        return Distribution(values[ids], ids)

    dense = selection(target, draft, k)
    short = np.trim_zeros(draft, "b")
    for other in (
        KSequential(sparse(target), sparse(draft), k),
        KSequential(sparse(target), Distribution(draft), k),
        KSequential(Distribution(target), sparse(draft), k),
        KSequential(Distribution(target), Distribution(short), k),
        KSequential(sparse(target), Distribution(short), k),
    ):
        assert other.rho == pytest.approx(dense.rho)
        assert other.acceptance == pytest.approx(dense.acceptance)
        for token in range(10):
            assert other.residual.of(token) == pytest.approx(dense.residual.of(token), abs=1e-9)
            assert other.draft.of(token) == pytest.approx(draft[token])


def test_tokens_come_by_inverting_the_distribution():
    law = Distribution(np.array([0.25, 0.25, 0.5]), np.array([3, 7, 9]))
    assert law.tokens(np.array([0.0, 0.24, 0.25, 0.5, 0.999])) == [3, 3, 7, 9, 9]
    assert [law.token(u) for u in (0.0, 0.25, 0.999)] == [3, 7, 9]
    below = Distribution(np.array([0.5, 0.5 - 1e-12, 0.0]))
    assert below.token(1 - 1e-16) == 1
    assert below.tokens(np.array([1 - 1e-16])) == [1]
    assert Distribution.one(4).of(4) == 1


def test_ratio_order_puts_undrafted_tokens_last():
    order = ratio_order(np.array([0.2, 0.0, 0.5, 0.3, 0.0]), np.array([0.0, 0.2, 0.5, 0.3, 0.0]))
    assert order.tolist() == [1, 2, 3, 0, 4]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0.5, 0.4], "sums to 0.9"),
        ([1.5, -0.5], "negative"),
        ([np.nan, 1.0], "NaN"),
        ([[0.5, 0.5]], r"shape \(1, 2\)"),
        ([], r"shape \(0,\)"),
    ],
)
def test_what_is_no_distribution_is_refused(values, said):
    with pytest.raises(InvalidItems, match=f"here.*{said}"):
        checked(np.array(values), "here")


def test_nearly_normed_is_renormed():
    assert checked([0.5, 0.5004], "here").sum() == pytest.approx(1, abs=1e-12)
