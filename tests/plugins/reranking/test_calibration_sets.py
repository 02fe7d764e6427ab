"""calibration-sets: which candidates each strategy takes, what the sets are like, and the losses' properties."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pickaxe
from pickaxe import Item, Scores
from pickaxe.errors import InvalidItems, InvalidParams
from pickaxe.report import explained
from pickaxe_plugins.reranking.calibration_sets import (
    Pool,
    SelfBleu,
    contrastive,
    fragments,
    rank_scores,
    ranking,
    relevant_set,
    rouge,
)
from pickaxe_plugins.reranking.calibration_sets._strategies import FAITHFULNESS, RELEVANCE, Search, spearman

VALUES = st.floats(-5, 5).map(lambda value: round(value, 3))
TOKENS = st.lists(st.sampled_from("abcd"), max_size=12)


def search(limit: int = 5000, seed: int = 0) -> Search:
    return Search(limit, lambda: pickaxe.generator(seed, "test"))


def pool(values: list[float], seed: int = 0) -> Pool:
    """Candidates with these aggregates, words at random and a beam order at random."""
    rng, n = np.random.default_rng(seed), len(values)
    texts = [" ".join(rng.choice(list("abcdefgh"), rng.integers(1, 9))) for _ in range(n)]
    numbers = rng.permutation(n).astype(float), rng.normal(size=n), rng.uniform(0, 9, n)
    return Pool(np.sort(values)[::-1], texts, *numbers, np.ones(n, bool))


def items(n: int = 6, group: str = "g", seed: int = 0, **more: Any) -> list[Item]:
    rng = np.random.default_rng(seed)
    return [
        Item(
            f"{group}{row}",
            " ".join(rng.choice(list("abcdefgh"), 6)),
            {
                "group": group,
                "metrics": {"quality": float(rng.normal())},
                "sample_idx": row,
                "likelihood": float(rng.normal()),
                "density": float(rng.uniform(0, 9)),
                "sign": "positive" if row < n / 2 else "negative",
                **more,
            },
        )
        for row in range(n)
    ]


def scored(given: list[Item], **params: Any) -> Scores:
    return pickaxe.scorer("calibration-sets", **params).score(given)


def of(scores: Scores, name: str) -> float:
    assert scores.groups is not None
    return float(scores.groups.columns[name][0])


# ---------------------------------------------------------------- strategies


@settings(max_examples=50, deadline=None)
@given(st.lists(VALUES, min_size=2, max_size=9), st.integers(2, 6), st.sampled_from(sorted(RELEVANCE)))
def test_every_relevance_set_has_its_size_and_order(values: list[float], k: int, strategy: str) -> None:
    found = relevant_set(pool(values), strategy, k, search())
    assert len(found) == k
    assert found == sorted(found)
    in_pairs = strategy in ("max_margin", "extreme", "min_margin", "average", "wide_beam")
    assert len(set(found)) == min(k - k % 2 if in_pairs else k, len(values))


@settings(max_examples=50, deadline=None)
@given(st.lists(VALUES, min_size=4, max_size=9), st.integers(2, 4), st.integers(0, 9))
def test_gap_sets_are_the_widest_and_the_narrowest(values: list[float], k: int, seed: int) -> None:
    candidates = pool(values)

    def margin(strategy: str) -> float:
        places = relevant_set(candidates, strategy, k, search(seed=seed))
        return float(candidates.aggregate[places[0]] - candidates.aggregate[places[-1]]) / (k - 1)

    every = [
        (candidates.aggregate[c[0]] - candidates.aggregate[c[-1]]) / (k - 1)
        for c in combinations(range(len(values)), k)
    ]
    assert margin("max_gap") == pytest.approx((max(values) - min(values)) / (k - 1)) == pytest.approx(max(every))
    assert margin("min_gap") == pytest.approx(min(every))
    assert margin("max_gap") == pytest.approx(margin("extreme"))
    assert margin("max_gap") + 1e-12 >= margin("random") >= margin("min_gap") - 1e-12


@settings(max_examples=30, deadline=None)
@given(st.lists(VALUES, min_size=4, max_size=8), st.integers(0, 99))
def test_surprise_and_diversity_are_extreme_over_all_subsets(values: list[float], seed: int) -> None:
    candidates = pool(values, seed)

    def surprise(strategy: str) -> float:
        rows = relevant_set(candidates, strategy, 3, search(seed=seed))
        return -float(spearman(candidates.aggregate[rows][None], -candidates.sample_idx[rows][None])[0])

    def diversity(strategy: str) -> float:
        rows = relevant_set(candidates, strategy, 3, search(seed=seed))
        return float(candidates.bleu.diversity(np.array([rows]))[0])

    assert surprise("min_surprise") <= surprise("random") <= surprise("max_surprise")
    assert diversity("min_diversity") <= diversity("random") <= diversity("max_diversity")


def test_spearman_agrees_with_scipy_and_with_equal_orders() -> None:
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    left, right = rng.integers(0, 5, (20, 6)), rng.integers(0, 5, (20, 6))
    expected = [spearmanr(a, b).statistic for a, b in zip(left, right, strict=True)]
    np.testing.assert_allclose(spearman(left, right), expected, atol=1e-12)
    assert spearman(np.array([[3.0, 2.0, 1.0]]), -np.array([[0, 1, 2]]))[0] == pytest.approx(1)
    assert spearman(np.ones((1, 3)), right[:1, :3])[0] == 0


def test_above_the_limit_random_subsets_are_searched() -> None:
    candidates = pool(list(range(30)))
    found = relevant_set(candidates, "max_surprise", 10, search(limit=50))
    assert found == relevant_set(candidates, "max_surprise", 10, search(limit=50))
    assert len(set(found)) == 10


def test_a_strategy_of_ones_own() -> None:
    assert relevant_set(pool([3, 2, 1, 0]), lambda pool, k, search: [len(pool) - 1, 1], 2, search()) == [1, 3]
    with pytest.raises(InvalidParams, match="nonsense"):
        relevant_set(pool([3, 2, 1]), "nonsense", 2, search())


@pytest.mark.parametrize("strategy", FAITHFULNESS)
@pytest.mark.parametrize("status", ["positive", "ensure", "remove"])
@pytest.mark.parametrize("counts", [(1, 1), (2, 2), (3, 1)])
def test_faithfulness_sets_have_their_sizes(strategy: str, status: str, counts: tuple[int, int]) -> None:
    given = items(10)
    given[2].fields["is_reference"] = True
    scores = scored(
        given, target="faithfulness", strategy=strategy, reference_status=status, n_pos=counts[0], n_neg=counts[1]
    )
    assert (scores["copies"][:5].sum(), scores["copies"][5:].sum()) == counts
    if status != "positive":
        assert scores["selected"][2] == (status == "ensure")


def test_hard_takes_unlikely_positives_and_likely_negatives() -> None:
    given = items(10)
    hard, easy = (scored(given, target="faithfulness", strategy=name) for name in ("hard", "easy"))
    assert of(hard, "surprise") > of(easy, "surprise")
    gap = scored(given, target="faithfulness", strategy="max_extractive_gap")
    assert of(gap, "extractiveness_gap") >= of(hard, "extractiveness_gap")
    wide, narrow = (scored(given, target="faithfulness", strategy=name) for name in ("max_margin", "min_margin"))
    assert of(wide, "margin") > of(narrow, "margin")


# ---------------------------------------------------------------- the scorer


@pytest.mark.parametrize("strategy", RELEVANCE)
def test_neither_order_nor_repetition_of_groups_changes_the_sets(strategy: str) -> None:
    given = items(7, "a") + items(7, "b", 1)
    scores = scored(given, strategy=strategy)
    order = np.random.default_rng(0).permutation(len(given))
    mixed = scored([given[row] for row in order], strategy=strategy)
    for name in scores.columns:
        np.testing.assert_array_equal(mixed[name], scores[name][order])
    twice = given + [Item(f"c{row}", each.text, {**each.fields, "group": "c"}) for row, each in enumerate(given[:7])]
    if strategy != "random":  # draws are keyed by the group's name
        again = scored(twice, strategy=strategy)
        np.testing.assert_array_equal(again["selected"][:14], scores["selected"])
        np.testing.assert_array_equal(again["selected"][14:], scores["selected"][:7])


def test_equal_candidates_are_taken_by_their_ids() -> None:
    same = [Item(name, "a b", {"group": "g", "metrics": {"m": 1.0}, "sample_idx": 0}) for name in "dbca"]
    assert scored(same, strategy="max_metric", k=2)["selected"].tolist() == [0, 1, 0, 1]


def test_columns_groups_and_report_agree() -> None:
    scores = scored(items(8, "a") + items(3, "b"), strategy="max_gap")
    assert scores.groups is not None
    assert scores.groups.keys == ("a", "b")
    chosen = np.flatnonzero(scores["selected"][:8])
    assert sorted(scores["rank_in_set"][chosen]) == [1, 2, 3, 4]
    best_first = sorted(chosen, key=lambda row: scores["rank_in_set"][row])
    assert (np.diff(scores["aggregate"][best_first]) <= 0).all()
    assert of(scores, "quality") == pytest.approx(scores["aggregate"][chosen].mean())
    assert scores["copies"][8:].sum() == 4
    assert [flag.reason for flag in scores.flags] == ["padded"]
    answer, figures = explained(scores.summary)
    assert "max_gap took 4 candidates for each of 2 documents" in answer[0]
    assert "1 sets" in answer[2]
    assert len(figures) == 1


def test_normalisers_are_those_given_or_of_the_pool() -> None:
    given = items(6)
    raw = np.array([each.fields["metrics"]["quality"] for each in given])
    np.testing.assert_allclose(scored(given)["aggregate"], (raw - raw.mean()) / raw.std())
    np.testing.assert_allclose(scored(given, normalisers={"quality": (1, 2)})["aggregate"], (raw - 1) / 2)
    flat = scored(given, normalisers={"quality": (1, 0)})
    assert not flat["aggregate"].any()
    assert "Without spread, and so without a say: quality." in flat.summary["answer"]
    with pytest.raises(InvalidParams, match="lack quality"):
        scored(given, normalisers={"other": (0, 1)})


def test_metrics_are_computed_from_reference_and_source() -> None:
    texts = ("the cat sat", "the cat ran", "a dog ran off")
    fields = {"group": "g", "reference": "the cat sat", "source": "x the cat sat y"}
    given = [Item(str(row), text, fields) for row, text in enumerate(texts)]
    scores = scored(given, k=2, strategy="extreme")
    assert scores["selected"].tolist() == [1, 0, 1]
    assert set(scores.summary["Normalisers"]) == {"rouge1", "rouge2"}
    dense = scored(given, k=2, strategy="max_metric", metrics=("density",))
    assert dense["selected"].tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("strategy", "field"),
    [("top_beam", "sample_idx"), ("max_surprise", "sample_idx")],
)
def test_a_strategy_names_what_it_misses(strategy: str, field: str) -> None:
    given = items(5)
    del given[3].fields[field]
    with pytest.raises(InvalidItems, match=rf"items\[3\]\.fields\.{field}.*{strategy}"):
        scored(given, strategy=strategy)


@pytest.mark.parametrize(("strategy", "field"), [("hard", "likelihood"), ("max_extractive_gap", "density")])
def test_faithfulness_names_what_it_misses(strategy: str, field: str) -> None:
    given = items(6)
    del given[1].fields[field]
    with pytest.raises(InvalidItems, match=rf"items\[1\]\.fields\.{field}"):
        scored(given, target="faithfulness", strategy=strategy)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"strategy": "nonsense"}, "unknown for relevance"),
        ({"strategy": "hard"}, "unknown for relevance"),
        ({"target": "faithfulness", "strategy": "max_gap"}, "unknown for faithfulness"),
        ({"loss": "contrastive"}, "positives and negatives"),
        ({"target": "faithfulness", "loss": "ranking"}, "needs an order"),
        ({"metrics": ("a", "a")}, "twice"),
        ({"normalisers": {"a": (0, -1)}}, "negative"),
        ({"k": 1}, "k"),
    ],
)
def test_bad_parameters(params: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParams, match=message):
        pickaxe.scorer("calibration-sets", **params)


@pytest.mark.parametrize("value", [float("nan"), "high", True, None])
def test_bad_metrics(value: Any) -> None:
    given = items(4)
    given[2].fields["metrics"] = {"quality": value}
    with pytest.raises(InvalidItems, match=r"items\[2\]\.fields\.metrics\.quality"):
        scored(given)


def test_bad_items() -> None:
    with pytest.raises(InvalidItems, match="reference to compute"):
        scored([Item("a", "text", {"group": "g"})])
    with pytest.raises(InvalidItems, match="must be finite"):
        scored(items(4, likelihood=float("inf")))
    with pytest.raises(InvalidItems, match="must be positive or negative"):
        scored(items(4, sign="mixed"), target="faithfulness")
    with pytest.raises(InvalidItems, match="0 negatives"):
        scored(items(4, sign="positive"), target="faithfulness")
    with pytest.raises(InvalidItems, match="2 references"):
        scored(items(4, is_reference=True), target="faithfulness")
    alone = scored(items(1))
    assert alone["copies"].tolist() == [4]
    assert of(alone, "margin") == 0


# ---------------------------------------------------------------- texts


@settings(max_examples=100, deadline=None)
@given(TOKENS, TOKENS)
def test_fragments_cover_what_is_copied(summary: list[str], source: list[str]) -> None:
    found = fragments(summary, source)
    for start, at, length in found.found:
        assert summary[start : start + length] == source[at : at + length]
    if found.found:
        assert found.density >= found.coverage**2 * len(summary) / len(found.found) - 1e-12
    assert sum(length for *_, length in found.found) == sum(token in source for token in summary)


def test_a_copied_sentence_is_covered_and_as_dense_as_long() -> None:
    sentence = ["a", "small", "cat", "sat", "on", "the", "mat"]
    found = fragments(sentence, ["so", *sentence, "then"])
    assert (found.coverage, found.density, found.compression) == (1, 7, 9 / 7)
    assert fragments([], sentence).density == 0


def test_rouge() -> None:
    assert rouge(["a", "b", "c"], ["a", "b", "d"], 1) == pytest.approx(200 / 3)
    assert rouge(["a", "b", "c"], ["a", "b", "d"], 2) == pytest.approx(50)
    assert rouge([], ["a"], 1) == rouge(["a"], ["a"], 2) == 0


def test_self_bleu_of_copies_is_one_and_of_strangers_none() -> None:
    texts = ["a b c d e", "a b c d e", "v w x y z", "", "a"]
    bleu = SelfBleu(texts)
    pairs = np.array([[0, 1], [0, 2], [3, 4], [0, 4]])
    np.testing.assert_allclose(bleu.diversity(pairs)[:3], [0, 1, 1])
    assert 0 < bleu.diversity(pairs)[3] < 1


# ---------------------------------------------------------------- losses


@settings(max_examples=50, deadline=None)
@given(st.lists(VALUES, min_size=2, max_size=6), st.sampled_from([0.0, 0.001, 0.1]), VALUES)
def test_the_ranking_loss_is_0_where_all_gaps_are_kept(values: list[float], lam: float, constant: float) -> None:
    scores = np.array([values])
    kept = all(values[a] - values[b] >= lam * (b - a) - 1e-12 for a, b in combinations(range(len(values)), 2))
    assert (ranking(scores, lam) < 1e-9) == kept
    assert ranking(scores + constant, lam) == pytest.approx(ranking(scores, lam), abs=1e-9)


def test_the_contrastive_loss_of_copies_against_strangers() -> None:
    states = np.array([[1.0, 0, 0], [2.0, 0, 0], [0, 1.0, 0], [0, 0, 3.0]])
    assert contrastive(states, 2) == pytest.approx(-np.log(np.e / (np.e + 2)))
    assert contrastive(states * 7, 2) == pytest.approx(contrastive(states, 2))
    assert contrastive(states, 1) == 0


def test_scores_of_an_empty_candidate_are_0() -> None:
    assert rank_scores(np.zeros((1, 2, 3)), np.full((1, 2), -100), 1.0, 2.0) == pytest.approx([0])
