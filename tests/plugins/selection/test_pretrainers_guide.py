"""pretrainers-guide: filters and their order, classifiers, blocklist, budgets, years, sources, errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pickaxe
from pickaxe import Item
from pickaxe.errors import ArtifactMismatch, InvalidItems, InvalidParams, Unmet
from pickaxe.report import explained
from pickaxe_plugins.selection import _text_units
from pickaxe_plugins.selection.domain_specificity._word_ngrams import NgramModel, joined
from pickaxe_plugins.selection.pretrainers_guide import _text
from pickaxe_plugins.selection.pretrainers_guide._classifier import chances, learn
from pickaxe_plugins.selection.pretrainers_guide._studies import degradation
from pickaxe_plugins.selection.pretrainers_guide._text import Blocklist, features, hashed

GOOD = ["The treaty was signed in 1848 after long talks.", "Whales are mammals that breathe air.",
        "The river flows from the mountains to the sea."]  # fmt: skip
BAD = ["click here buy cheap now free free free", "best price casino bonus click now", "free money click here"]
RISKS = st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), min_size=1, max_size=20)


def labelled() -> list[Item]:
    good = [Item(f"g{row}", text, {"quality": "positive", "toxic": False}) for row, text in enumerate(GOOD)]
    return good + [Item(f"b{row}", text, {"quality": "negative", "toxic": row == 0}) for row, text in enumerate(BAD)]


def risky(quality: float, toxicity: float = 0.0, tokens: int = 10, **fields: Any) -> Item:
    return Item("x", fields={"quality_risk": quality, "toxicity": toxicity, "tokens": tokens, **fields})


def opened(**params: Any) -> Any:
    return pickaxe.scorer("pretrainers-guide", **params)


@pytest.fixture(scope="module")
def fitted() -> Any:
    return opened(hash_bits=14).fit(labelled())


# ---------------------------------------------------------------- filters


@given(RISKS, st.floats(0, 1), st.floats(0, 1))
def test_a_higher_threshold_never_drops_and_both_directions_share_only_ties(
    risks: list[float], one: float, other: float
) -> None:
    items = [risky(risk) for risk in risks]
    low, high = (opened(quality_threshold=each).score(items)["keep"] for each in sorted((one, other)))
    assert np.all(high >= low)
    inverse = opened(quality_threshold=one, quality_direction="inverse").score(items)["keep"]
    normal = opened(quality_threshold=one).score(items)["keep"]
    np.testing.assert_array_equal(normal + inverse, 1 + (np.array(risks) == one))


@given(RISKS, st.integers(0, 9))
def test_keep_is_all_filters_and_margin_the_smallest(risks: list[float], shift: int) -> None:
    items = [risky(risk, toxicity) for risk, toxicity in zip(risks, np.roll(risks, shift), strict=True)]
    scores = opened(quality_threshold=0.5, toxicity_threshold=0.25).score(items)
    np.testing.assert_array_equal(scores["keep"], scores["keep_quality"] * scores["keep_toxicity"])
    np.testing.assert_array_equal(scores["keep"] == 1, scores["margin"] >= 0)
    alone = [
        opened(quality_threshold=q, toxicity_threshold=t).score(items)["keep"] for q, t in ((0.5, None), (None, 0.25))
    ]
    np.testing.assert_array_equal(scores["keep"], alone[0] * alone[1])


@given(RISKS, st.integers(0, 250), st.sampled_from(["normal", "inverse"]))
def test_a_budget_is_met_as_widely_as_ties_allow(risks: list[float], budget: int, direction: str) -> None:
    items = [risky(risk, tokens=7 + row) for row, risk in enumerate(risks)]
    kept = opened(budget_tokens=budget, quality_direction=direction).score(items)["keep"] == 1
    tokens = np.array([item.fields["tokens"] for item in items])
    assert tokens[kept].sum() <= budget
    dropped = np.array(risks)[~kept]
    if len(dropped):  # the next level would not fit
        level = dropped.min() if direction == "normal" else dropped.max()
        assert tokens[kept].sum() + tokens[np.array(risks) == level].sum() > budget


def test_the_report_holds_shares_overlap_domains_and_samples() -> None:
    items = [risky(0.95, 0.9, group="web"), risky(0.95, 0.0, group="web"), risky(0.1, 0.9, 30, group="books")]
    scores = opened(toxicity_threshold=0.5).score([*items, risky(0.1, group="books")])
    answer, figures = explained(scores.summary)
    assert answer[0] == "25% of 4 documents and 16.7% of 60 tokens are kept."
    assert "web: 0%" in answer[1]
    assert list(figures[0].series[0].x) == [each["share of tokens"] for each in scores.summary["filters"]]
    assert scores.summary["overlap"] == [
        {"filters": "quality <= 0.9 and toxicity <= 0.5", "both drop": 1, "of those that either drops": 1 / 3}
    ]
    assert scores.groups is not None
    assert scores.groups.columns["share_documents"].tolist() == [0.0, 0.5]
    assert len(scores.summary["samples dropped"]) == 3


# ---------------------------------------------------------------- blocklist and features


def test_entries_are_whole_words_across_line_breaks() -> None:
    listed = Blocklist(["ass", "bad words", "bad", "c++"])
    assert listed.hits("a classic assessment") == []
    assert listed.hits("BAD\n\n words!") == ["bad words", "bad"]
    assert listed.hits("ass_ass") == []
    assert listed.hits("C++ code") == ["c++"]
    assert listed.hits("\ud800 bad") == ["bad"]
    many = Blocklist([f"word{row}" for row in range(3000)])
    assert many.hits("word1 word2999x and Word77") == ["word1", "word77"]


def test_a_file_adds_entries(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("darn\nheck\n")
    scorer = opened(quality_threshold=None, blocklist=["blast"], blocklist_file=str(tmp_path / "list.txt"))
    assert scorer.score(["Heck and darn", "blast", "fine"])["ngram_hits"].tolist() == [2, 1, 0]


@given(st.text(" \t\n\x1c\x85\u00a0\u2003aAΣ.", max_size=20))
def test_folding_puts_one_blank_between_words(text: str) -> None:
    assert _text._folded(text) == " ".join(text.lower().split())


def test_features_of_a_long_text_read_in_pieces_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "Σίσυφος rolled ΟΔΟΣ 1999 stones. Write to a.b@example.org or 555 123 4567! Naïve words, words; 12001 2004."
    whole = features(text)
    for size in (1, 7, 30):
        monkeypatch.setattr(_text_units, "PIECE", size)
        assert features(text) == whole


def test_features_find_addresses_and_years() -> None:
    found = features("Write to a.b@example.org or 555-123-4567; in 1999, not 2004x1 or 12001.")
    assert found["pii_hits"] == 2
    assert found["year"] == 2004
    assert np.isnan(features("")["readability"])


# ---------------------------------------------------------------- classifiers


def test_low_quality_scores_high(fitted: Any) -> None:
    scores = fitted.score(["The talks on the treaty were long.", "click here now: cheap casino bonus, free", ""])
    assert scores["quality_risk"][0] < 0.5 < scores["quality_risk"][1]
    bias = fitted.artifact.notes["biases"]["quality"]
    assert scores["quality_risk"][2] == pytest.approx(1 / (1 + np.exp(-bias)))


def test_another_order_of_the_documents_gives_the_same_weights(fitted: Any) -> None:
    other = opened(hash_bits=14).fit(labelled()[::-1])
    for name in ("quality", "toxicity"):
        ours, theirs = (each.artifact.read_array(f"{name}.npy") for each in (fitted, other))
        np.testing.assert_array_equal(ours, theirs)


def test_hashing_does_not_see_the_neighbours_or_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["one two", "", "two one two", "ÉTÉ été", "x"]
    together = list(hashed(texts, 20))
    buckets = {row: sorted(together[0][1][together[0][0] == row].tolist()) for row in range(5)}
    monkeypatch.setattr(_text, "_BATCH", 1)
    alone: dict[int, list[int]] = {row: [] for row in range(5)}
    for rows, found in hashed(texts, 20):
        for row in range(5):
            alone[row] += found[rows == row].tolist()
    assert {row: sorted(found) for row, found in alone.items()} == buckets
    assert [len(buckets[row]) for row in range(5)] == [3, 0, 5, 3, 1]
    assert len(set(buckets[3])) == 2  # one word twice, and the pair


def test_the_minimum_is_one(fitted: Any) -> None:
    weights, bias = learn(GOOD + BAD, np.array([False] * 3 + [True] * 3), 14, 1e-3)
    risks = chances(GOOD + BAD, [weights], [bias], 14)[0]
    assert (risks[:3] < 0.5).all()
    assert (risks[3:] > 0.5).all()
    assert (risks - np.array([0, 0, 0, 1, 1, 1])).sum() == pytest.approx(0, abs=1e-4)  # the slope of the bias


def test_another_scorer_may_judge() -> None:
    ref = {"name": "pretrainers-guide", "params": {"quality_threshold": None}}
    assert opened(quality_scorer=ref).score(GOOD)["quality_risk"].tolist() == [1.0] * 3
    with pytest.raises(InvalidParams, match="outside 0 to 1"):
        opened(quality_scorer={"name": "min-k-prob", "params": {"model": "draft"}}).score(GOOD)


# ---------------------------------------------------------------- years and sources

YEARS = np.array([2013.0, 2016, 2019, 2022])


def temporal(scores: np.ndarray, evaluated: np.ndarray = YEARS, trained: np.ndarray = YEARS) -> Any:
    fields: Any = {"pretraining_years": trained, "evaluation_years": evaluated, "scores": scores}
    return opened(mode="temporal").score([Item("task", fields=fields)])


@given(st.floats(0.1, 5), st.integers(0, 99))
def test_offsets_change_nothing_and_factors_scale(factor: float, seed: int) -> None:
    draw = np.random.default_rng(seed)
    scores = draw.uniform(40, 60, (4, 4))
    plain = temporal(scores)["slope_pooled"][0]
    assert temporal(scores + draw.uniform(-9, 9, 4))["slope_pooled"][0] == pytest.approx(plain, abs=1e-9)
    assert temporal(scores * factor)["slope_pooled"][0] == pytest.approx(plain * factor, abs=1e-9)


def test_a_loss_of_k_a_year_has_slope_k() -> None:
    scores = 70 - 0.8 * np.abs(YEARS[:, None] - YEARS)
    found = degradation(YEARS, YEARS, scores)
    np.testing.assert_allclose(found.degradations, 0.8 * found.gaps)
    np.testing.assert_allclose(found.slopes, 0.8)
    result = temporal(scores)
    assert result["neg_degradation_per_year"][0] == pytest.approx(-0.8)
    answer, figures = explained(result.summary)
    assert answer[0].startswith("task loses most: 0.8 points")
    np.testing.assert_allclose(figures[0].series[0].y, found.degradations)


def test_the_earlier_year_is_the_reference_on_a_tie_and_one_year_gives_none() -> None:
    assert degradation(np.array([2020.0, 2010]), np.array([2015.0]), np.ones((2, 1))).reference.tolist() == [2010]
    alone = temporal(np.ones((1, 4)), trained=np.array([2013.0]))
    assert np.isnan(alone["slope_mean"][0])
    assert [flag.reason for flag in alone.flags] == ["no-slope"]


def test_sources_are_ranked_by_harm() -> None:
    full = np.array([50.0, 40.0])
    items = [Item(name, fields={"full": full, "without": full * share}) for name, share in
             (("a", 0.9), ("b", 1.1), ("c", 0.5))]  # fmt: skip
    scores = opened(mode="ablation").score([*items, Item("d", fields={"full": np.zeros(1), "without": np.ones(1)})])
    np.testing.assert_allclose(scores["harm_percent"], [10, -10, 50, np.nan])
    assert scores["rank"].tolist() == [2, 3, 1, 0]
    assert explained(scores.summary)[0][0].startswith("Leaving out c harms most: 50%")


def drifting(year: int, seed: int, toxic: bool = False, texts: int = 60) -> list[np.ndarray]:
    """Texts of 30 words of 50 whose distribution moves linearly over ten years; word 50 is toxic."""
    draw = np.random.default_rng((year, seed))
    early, late = np.linspace(5, 1, 50), np.linspace(1, 5, 50)
    chances_ = early * (1 - year / 10) + late * year / 10
    found = []
    for row in range(texts):
        words = draw.choice(50, 30, p=chances_ / chances_.sum())
        if toxic and row % 10 == 0:
            words[draw.choice(30, 6, replace=False)] = 50
        found.append(words)
    return found


def test_models_of_drifting_years_degrade() -> None:
    years = np.arange(0.0, 11, 2)
    models = [NgramModel.counted(drifting(int(year), 0), 51, 1, 0.6) for year in years]
    held = [joined(drifting(int(year), 1)) for year in years]
    scores = np.array([[model.log_probs(*texts).mean() for texts in held] for model in models])
    found = degradation(years, years, scores)
    assert found.slope_pooled > 0
    assert found.pearson_score_gap < -0.8


def test_toxic_documents_left_out_make_less_toxic_and_less_fit_for_it() -> None:
    texts = drifting(5, 0, toxic=True)
    items = [Item(str(row), fields={"toxicity": 1.0 if (words == 50).any() else 0.0, "quality_risk": 0.0})
             for row, words in enumerate(texts)]  # fmt: skip
    kept = opened(toxicity_threshold=0.5).score(items)["keep"] == 1
    whole = NgramModel.counted(texts, 51, 1, 0.6)
    filtered = NgramModel.counted([words for words, keep in zip(texts, kept, strict=True) if keep], 51, 1, 0.6)
    word = np.array([50]), np.array([0])
    assert np.exp(filtered.log_probs(*word)) < 0.3 * np.exp(whole.log_probs(*word))  # of generated words
    toxic = joined([words for words in drifting(5, 1, toxic=True) if (words == 50).any()])
    assert filtered.log_probs(*toxic).mean() < whole.log_probs(*toxic).mean()


# ---------------------------------------------------------------- bad input


def test_what_is_missing_is_said(fitted: Any) -> None:
    with pytest.raises(Unmet, match="quality_threshold=null"):
        opened().score(GOOD)
    with pytest.raises(Unmet, match="toxicity filter has nothing"):
        opened(quality_threshold=None, toxicity_threshold=0.5).score(GOOD)
    with pytest.raises(ArtifactMismatch, match="hash_bits 14"):
        opened(hash_bits=15, artifact=str(fitted.artifact.path)).score(GOOD)
    with pytest.raises(InvalidParams, match="whose threshold it can move"):
        opened(quality_threshold=None, budget_tokens=5).score(GOOD)
    for params in ({"quality_threshold": 1.5}, {"toxicity_threshold": -0.1}, {"hash_bits": 25}):
        with pytest.raises(InvalidParams):
            opened(**params)
    with pytest.raises(InvalidParams, match="empty or blank"):
        opened(quality_threshold=None, blocklist=[" "]).score(GOOD)


@pytest.mark.parametrize("value", [float("nan"), -0.1, 1.1, "high", True])
def test_risks_must_lie_in_0_to_1(value: Any) -> None:
    with pytest.raises(InvalidItems):
        opened().score([Item("x", fields={"quality_risk": value, "tokens": 1})])


@pytest.mark.parametrize(
    ("examples", "said"),
    [
        ([], "carry no label"),
        ([Item("x", "text")], "carry no label"),
        ([Item("x", "text", {"quality": "positive"})], "one class of quality"),
        ([Item("x", "text", {"toxic": True})], "one class of toxicity"),
        ([Item("x", "text", {"quality": "good"})], "wanted positive or negative"),
        ([Item("x", None, {"toxic": True})], "is missing"),
    ],
)
def test_fits_refuse_what_cannot_be_learned(examples: list[Item], said: str) -> None:
    with pytest.raises(InvalidItems, match=said):
        opened().fit(examples)


def test_studies_check_shapes_and_years() -> None:
    with pytest.raises(InvalidItems, match="the years ask for"):
        temporal(np.ones((3, 4)))
    with pytest.raises(InvalidItems, match="not finite"):
        temporal(np.full((4, 4), np.nan))
    with pytest.raises(InvalidItems, match="a year twice"):
        temporal(np.ones((2, 4)), trained=np.array([2013.0, 2013]))
    with pytest.raises(InvalidItems, match="is missing"):
        opened(mode="ablation").score([Item("x")])
    with pytest.raises(InvalidItems, match="full 2"):
        opened(mode="ablation").score([Item("x", fields={"full": np.ones(2), "without": np.ones(3)})])


def test_empty_huge_and_repeated_documents(fitted: Any) -> None:
    assert len(fitted.score([])) == 0
    scores = fitted.score([Item("same", "word " * 300_000), Item("same", ""), Item("same", "\ud800")])
    assert np.isfinite(scores["quality_risk"]).all()
    for mode in ("temporal", "ablation"):
        assert len(opened(mode=mode).score([])) == 0
