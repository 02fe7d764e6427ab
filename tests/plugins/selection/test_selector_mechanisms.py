"""Mechanisms as functions on scores: ties, bounds, frequencies, caps; MinHash and diversity."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pickaxe_plugins.selection.selector import _diversity, _minhash
from pickaxe_plugins.selection.selector import _mechanisms as by

scores = st.lists(st.floats(-5, 5).map(lambda value: round(value, 1)), min_size=1, max_size=30).map(np.array)


@given(scores, st.integers(0, 40))
def test_top_k_keeps_the_best_and_the_earlier_of_equals(values: np.ndarray, k: int) -> None:
    rows = sorted(range(len(values)), key=lambda row: (-values[row], row))[:k]
    assert np.flatnonzero(by.top_k(values, k)).tolist() == sorted(rows)


@given(scores, st.floats(0.01, 1))
def test_top_fraction_is_the_smallest_prefix_that_reaches(values: np.ndarray, fraction: float) -> None:
    sizes = np.arange(1, len(values) + 1) * 7 % 11 + 1.0
    mask = by.top_fraction(values, fraction, sizes)
    order = by.descending(values)
    prefix = order[: mask.sum()]
    assert set(prefix) == set(np.flatnonzero(mask))
    wanted = fraction * sizes.sum()
    assert sizes[prefix].sum() >= wanted * (1 - 1e-9)
    assert sizes[prefix[:-1]].sum() < wanted


def test_a_tenth_of_ten_is_one_and_of_eleven_two() -> None:
    assert by.top_fraction(np.arange(10.0), 0.1).sum() == 1
    assert by.top_fraction(np.arange(11.0), 0.1).sum() == 2
    assert by.top_fraction(np.arange(10.0), 0.7).sum() == 7  # 0.7 * 10 is a little more than 7 in binary
    assert by.per_group(np.arange(10.0), np.zeros(10), 0.7).sum() == 7
    assert not len(by.top_fraction(np.zeros(0), 0.5))


def test_items_exactly_at_a_bound_stay() -> None:
    values = np.array([0.1, 0.2, 0.3, 0.4])
    assert by.threshold(values, 0.2, 0.3).tolist() == [False, True, True, False]
    assert by.at_quantile(values, 1.0).tolist() == [False, False, False, True]
    assert by.at_quantile(values, 0.0).all()
    assert not len(by.at_quantile(np.zeros(0), 0.5))
    assert by.at_quantile(np.array([-np.inf, 1, 2, np.inf]), 0.5).tolist() == [False, False, True, True]
    rng = np.random.default_rng(0).normal(size=37)
    for q in (0.0, 0.13, 0.5, 0.97, 1.0):
        assert (by.at_quantile(rng, q) == (rng >= np.quantile(rng, q))).all()


def test_gumbel_with_no_temperature_is_top_k() -> None:
    values = np.random.default_rng(1).normal(size=50)
    noise = by.gumbel(by.draws(3, "stage", [str(row) for row in range(50)]))
    for k in (0, 1, 7, 50, 99):
        assert (by.gumbel_top_k(values, k, noise, 0.0) == by.top_k(values, k)).all()
        assert (by.gumbel_top_k(values, k, noise, 1e-9) == by.top_k(values, k)).all()


def test_gumbel_never_draws_what_is_impossible() -> None:
    assert by.gumbel_top_k(np.array([-np.inf, 0.0]), 2, np.array([9.0, 0.0])).tolist() == [False, True]


def test_gumbel_draws_as_often_as_sequential_sampling() -> None:
    weights, k, runs = np.array([1.0, 2, 3, 4, 5, 6]), 2, 6000
    expected = np.zeros(6)
    for order in itertools.permutations(range(6), k):
        chance, left = 1.0, weights.sum()
        for row in order:
            chance, left = chance * weights[row] / left, left - weights[row]
        expected[list(order)] += chance
    counts = np.zeros(6)
    for run in range(runs):
        noise = by.gumbel(by.draws(run, "chi", list("abcdef")))
        counts += by.gumbel_top_k(np.log(weights), k, noise)
    chi = (((counts - runs * expected) ** 2) / (runs * expected * (1 - expected))).sum()
    assert chi < 22.5  # the 0.1 % point of chi-square with 6 degrees; inclusions of two are a little correlated


@pytest.mark.parametrize("score", [0.0, 0.3, 0.9, 1.0])
def test_pareto_keeps_at_its_rate(score: float) -> None:
    n = 20_000
    kept = by.pareto(np.full(n, score), by.draws(5, "pareto", [str(row) for row in range(n)]))
    chance = (2 - score) ** -9
    assert abs(kept.mean() - chance) <= 4 * math.sqrt(chance * (1 - chance) / n)


def test_draws_belong_to_seed_purpose_and_id_alone() -> None:
    ids = [f"d{row}" for row in range(1000)]
    one = by.draws(0, "a", ids)
    assert (one[::-1] == by.draws(0, "a", ids[::-1])).all()
    assert (one != by.draws(1, "a", ids)).all()
    assert (one != by.draws(0, "b", ids)).all()
    assert one.min() > 0
    assert one.max() < 1
    assert abs(one.mean() - 0.5) < 0.05


def test_resampling_counts_add_up_and_follow_the_weights() -> None:
    logs = np.log(np.array([1.0, 3.0, 6.0]))
    counts = by.resample(logs, 10_000, np.random.default_rng(0))
    assert counts.sum() == 10_000
    assert counts / 10_000 == pytest.approx([0.1, 0.3, 0.6], abs=0.02)
    assert by.resample(np.array([-np.inf, 1e300]), 5, np.random.default_rng(0)).tolist() == [0, 5]
    assert by.resample(np.full(2, -np.inf), 5, np.random.default_rng(0)).sum() == 0
    assert not len(by.resample(np.zeros(0), 5, np.random.default_rng(0)))


def test_epochs_even_out_with_temperature_and_respect_caps() -> None:
    groups = np.array(["en"] * 80 + ["da"] * 20)
    values = np.arange(100.0)

    def uses(**options: Any) -> list[int]:
        counts = by.epochs(values, groups, 100, **options)
        return [int(counts[groups == name].sum()) for name in ("en", "da")]

    assert uses() == [80, 20]
    assert uses(temperature=1e9) == [50, 50]
    assert uses(weights={"en": 1, "da": 1}, cap=2.0) == [60, 40]
    assert uses(weights={"da": 1.0}) == [0, 100]
    assert uses(weights={}) == [0, 0]
    assert uses(cap=0.5) == [40, 10]
    counts = by.epochs(values, groups, 110)  # 88 and 22: one whole epoch and the best once more
    assert np.flatnonzero(counts[:80] == 2).tolist() == list(range(72, 80))


@settings(max_examples=50)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.integers(0, 300), st.floats(0.3, 5), st.floats(0.1, 4))
def test_shares_reach_the_total_unless_all_are_full(sizes: list[int], total: int, t: float, cap: float) -> None:
    held = np.array(sizes, float)
    uses = by.shares(held, total, held, t, cap)
    assert (uses <= cap * held + 1e-6).all()
    assert uses.sum() == pytest.approx(min(total, cap * held.sum()), abs=1e-6)


def test_z_scores_and_ranks() -> None:
    values = np.array([1.0, 3.0, np.nan, 3.0])
    assert by.z_scores(values)[[0, 1, 3]] == pytest.approx([-math.sqrt(2), math.sqrt(0.5), math.sqrt(0.5)])
    assert np.isnan(by.z_scores(values)[2])
    assert by.z_scores(np.full(3, 2.0)).tolist() == [0, 0, 0]
    assert by.rank_shares(values)[[0, 1, 3]] == pytest.approx([1 / 6, 4 / 6, 4 / 6])
    assert by.rank_shares(np.array([2.0]), np.array([1.0, 3.0])).tolist() == [0.5]
    assert np.isnan(by.rank_shares(np.array([1.0]), np.zeros(0))).all()


# ---------------------------------------------------------------- MinHash


def _pair(common: int, own: int, seed: int) -> tuple[str, str]:
    """Two texts of words that share `common` in a row and have `own` of their own at the end."""
    words = [f"w{seed}x{row}" for row in range(common)]
    return (
        " ".join([*words, *(f"a{seed}x{row}" for row in range(own))]),
        " ".join([*words, *(f"b{seed}x{row}" for row in range(own))]),
    )


def test_estimates_are_near_the_exact_similarity() -> None:
    hasher, near = _minhash.MinHash(), 0
    for seed in range(200):
        left, right = _pair(60, 5 + seed % 60, seed)
        estimated = _minhash.estimate(hasher.signature(left), hasher.signature(right))
        near += abs(estimated - _minhash.jaccard(left, right)) <= 0.1
    assert near >= 190


@pytest.mark.parametrize("own", [4, 8, 12])
def test_pairs_meet_as_often_as_the_s_curve_says(own: int) -> None:
    hasher, n = _minhash.MinHash(), 400
    met, chance = 0, 0.0
    for seed in range(n):
        left, right = _pair(60, own, seed)
        keys = hasher.band_keys(np.stack([hasher.signature(left), hasher.signature(right)]))
        met += bool((keys[0] == keys[1]).any())
        chance = _minhash.candidate_probability(_minhash.jaccard(left, right), 14, 8)
    assert abs(met - n * chance) <= 4 * math.sqrt(n * chance * (1 - chance)) + 1e-9


def test_signatures_of_long_texts_are_block_by_block_the_same() -> None:
    text = " ".join(f"w{row}" for row in range(3000))
    hasher = _minhash.MinHash(2, 2)
    parts = [" ".join(f"w{row}" for row in range(start, min(start + 104, 3000))) for start in range(0, 2996, 100)]
    assert (hasher.signature(text) == np.min([hasher.signature(part) for part in parts], axis=0)).all()


def test_signatures_do_not_depend_on_the_process() -> None:
    assert _minhash.MinHash(1, 3).signature("one two three four five six").tolist() == [
        3449481347,
        221178854,
        870336391,
    ]


def test_clusters_are_transitive_and_can_be_verified() -> None:
    keys = np.array([[1, 10], [1, 20], [2, 20], [3, 30]], np.uint64)
    assert _minhash.clusters(keys).tolist() == [0, 0, 0, 3]
    signatures = np.array([[1, 1], [1, 2], [7, 8], [9, 9]], np.uint32)
    assert _minhash.clusters(keys, signatures, 0.5).tolist() == [0, 0, 2, 3]
    assert _minhash.clusters(np.zeros((0, 2), np.uint64)).tolist() == []


def test_short_texts_are_one_shingle() -> None:
    assert _minhash.jaccard("Two words", "two  WORDS") == 1
    assert _minhash.jaccard("two words", "other words") == 0
    assert _minhash.jaccard("", "  ") == 1
    assert len(_minhash.shingles("")) == 0


def test_the_best_of_a_group_stays() -> None:
    groups = np.array([0, 0, 2, 2, 2])
    assert _minhash.first_of(groups).tolist() == [True, False, True, False, False]
    assert _minhash.first_of(groups, np.array([1.0, 2, 5, 5, 4])).tolist() == [False, True, True, False, False]


@pytest.mark.parametrize(
    ("normalise", "same"), [("none", [False, False]), ("space", [True, False]), ("words", [True, True])]
)
def test_what_counts_as_equal_content(normalise: str, same: list[bool]) -> None:
    first = _minhash.content_hash("One two.", normalise)
    assert [_minhash.content_hash(text, normalise) == first for text in (" one  TWO. ", "one, two")] == same


# ---------------------------------------------------------------- diversity


def _brute(vectors: np.ndarray, values: np.ndarray, limit: float, k: int) -> list[int]:
    kept: list[int] = []
    for row in by.descending(values).tolist():
        if len(kept) < k and all(vectors[row] @ vectors[other] < limit for other in kept):
            kept.append(row)
    return sorted(kept)


def test_greedy_below_a_similarity() -> None:
    rng = np.random.default_rng(2)
    vectors = _diversity.unit(rng.normal(size=(1500, 3)))
    values = rng.normal(size=1500)
    for k in (5, 2000):
        mask = _diversity.below_similarity(vectors, values, k, 0.9)
        assert np.flatnonzero(mask).tolist() == _brute(vectors, values, 0.9, k)


def test_farthest_first_starts_with_the_best_and_spreads() -> None:
    angles = np.array([0.0, 0.1, 1.5, 3.1, 3.0])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    mask = _diversity.farthest_first(vectors, np.array([1.0, 2, 0, 0, 0]), 3)
    assert np.flatnonzero(mask).tolist() == [1, 2, 3]
    assert _diversity.farthest_first(vectors, np.zeros(5), 99).all()
    assert not _diversity.farthest_first(vectors, np.zeros(5), 0).any()


def test_semantic_duplicates() -> None:
    vectors = np.array([[1, 0], [1, 0.001], [0, 1], [0.7, 0.7]], np.float32)
    values = np.array([0.0, 1, 0, 0])
    assert _diversity.semantic_duplicates(vectors, values, 0.01, None, 0).tolist() == [False, True, True, True]
    spread = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    doubled = np.concatenate([spread, spread])
    mask = _diversity.semantic_duplicates(doubled, np.zeros(600), 1e-4, 6, 1)
    assert mask[:300].all()
    assert not mask[300:].any()
